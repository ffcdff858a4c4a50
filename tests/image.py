"""The image with real Docker, as a user runs it: `make test-image`. `make test` does not collect this file.

BASE, TAG and WHEELS are those of `make image`, which is run first; IMAGE names one that is there already.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ANYBODY = 4321  # a user whom no system knows
STOP_SECONDS = 60
WHEELS = os.environ.get("WHEELS")
EXPECTED = "expected an empty folder or one of an earlier run"
KEPT = {".dvc", "data", "dvc.lock", "figures", "paper", "params.yaml", "profiles", "results", "runs"}


@pytest.fixture(scope="session")
def image():
    if name := os.environ.get("IMAGE"):
        return name
    subprocess.run(["make", "image"], cwd=ROOT, check=True)
    return os.environ.get("TAG") or "camelsight"


def docker(*arguments, code=0):
    """What docker says; it must end with ``code``."""
    run = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout + run.stderr


def contained(image, out, *arguments, options=(), code=0):
    """What a container says whose /out is the folder ``out``."""
    return docker("run", "--rm", "-v", f"{out}:/out", *options, image, *arguments, code=code)


def owned(folder, owner=ANYBODY):
    folder.mkdir()
    os.chown(folder, owner, owner)
    return folder


@pytest.fixture(scope="session")
def finished(image, tmp_path_factory):
    """The folder of a run of the smoke profile by any user on a read-only root, which `docker stop` ended midway."""
    out = owned(tmp_path_factory.mktemp("image") / "out")
    options = ("-u", f"{ANYBODY}:{ANYBODY}", "--read-only", "--tmpfs", "/tmp")
    name = f"camelsight-test-{os.getpid()}"
    docker("run", "--detach", "--name", name, *options, "-v", f"{out}:/out", image, "paper", "PROFILE=smoke", "JOBS=2")
    try:
        deadline = time.monotonic() + 600
        while not list(out.glob("runs/*/*/weights.safetensors")):
            assert docker("inspect", "--format", "{{.State.Running}}", name) == "true\n", docker("logs", name)
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(0.2)
        docker("stop", "--time", STOP_SECONDS, name)
        state = docker("inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", name).split()
        said = docker("logs", name)
    finally:
        docker("rm", "--force", name)
    assert "interrupted; the same command goes on from here" in said and "Traceback" not in said, said
    assert state == ["143", "false"], said  # make ends by the signal; 137 were a container that had to be killed
    assert "Terminated" not in said, said
    assert not (out / "paper/ms.pdf").exists() and not [path for path in out.rglob("*") if path.is_symlink()]
    before = {path: path.stat().st_mtime_ns for path in out.glob("data/maps/*/*.npy")}
    said = contained(image, out, "paper", "PROFILE=smoke", "JOBS=2", options=options)
    assert before and before == {path: path.stat().st_mtime_ns for path in out.glob("data/maps/*/*.npy")}, said
    return out, options


def test_without_arguments_it_says_what_it_can_do(image, tmp_path):
    said = docker("run", "--rm", image)
    assert said.startswith("camelsight: a reproducibility package") and "IMAGE COMMAND" in said
    assert contained(image, owned(tmp_path / "out")) == said and not list((tmp_path / "out").iterdir())


def test_doctor_finds_what_a_run_needs(image, tmp_path):
    said = contained(image, owned(tmp_path / "out"), "doctor", "PROFILE=smoke", "JSON=1")
    record, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert record["good"] and record["profile"] == "smoke" and len(record["checks"]) > 5


def test_a_run_that_was_stopped_goes_on_and_belongs_to_its_owner(finished):
    out, _ = finished
    assert (out / "paper/ms.pdf").stat().st_size > 100_000
    assert {path.stat().st_uid for path in out.rglob("*")} == {ANYBODY}


def test_what_it_leaves_makes_sense_without_the_image(finished):
    out, _ = finished
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert {path.name for path in out.iterdir()} - {".cache"} == KEPT
    for pattern in ("results/tables/r2.csv", "figures/*.pdf", "runs/*/*/weights.safetensors", "dvc.lock"):
        assert list(out.glob(pattern)), pattern


def test_verify_ends_with_the_code_of_its_verdict(image, finished, tmp_path):
    out, options = finished
    contained(image, out, "verify", options=options)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(out, spoilt)
    table = spoilt / "results/tables/r2.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("0.", "1.", 1), encoding="utf-8")
    for path in (spoilt, *spoilt.rglob("*")):
        os.chown(path, ANYBODY, ANYBODY)
    said = contained(image, spoilt, "verify", options=options, code=1)
    assert "FAIL" in said and "Traceback" not in said


def test_a_folder_of_somebody_else_is_left_alone(image, tmp_path):
    theirs = owned(tmp_path / "theirs")
    (theirs / "Makefile").write_text("all:\n", encoding="utf-8")
    said = contained(image, theirs, "paper", "PROFILE=smoke", code=1)
    assert said == f"container: {EXPECTED} in /out, got Makefile; mount another one\n"
    assert [path.name for path in theirs.iterdir()] == ["Makefile"]


def test_the_unit_tests_pass_in_it(image, tmp_path):
    command = ".venv/bin/python -m pytest -q -p no:cacheprovider tests --ignore-glob '*/test_smoke*.py'"
    said = contained(image, owned(tmp_path / "out"), "shell", "-c", command)
    assert " passed" in said


@pytest.mark.skipif(not WHEELS, reason="needs WHEELS, a folder that make wheels filled")
@pytest.mark.parametrize("torch", ["torch==2.13.0", "site"])
def test_set_up_without_a_network(image, tmp_path, torch):
    """In the image of a CUDA build, which has Python's venv; with TORCH=site on the torch that is there."""
    python = "/opt/camelsight/.venv/bin/python" if torch == "site" else "python3"
    command = (
        f"cp -r /source /tmp/project && cd /tmp/project && make setup WHEELS=/wheels TORCH={torch} PYTHON={python} && "
        ".venv/bin/python -m pytest -q -p no:cacheprovider tests/test_cases.py tests/test_network.py && make setup"
    )
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in tracked.decode().strip("\0").split("\0"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    mounts = ("-v", f"{tmp_path}:/source:ro", "-v", f"{Path(WHEELS).resolve()}:/wheels:ro")
    said = docker("run", "--rm", "--network", "none", *mounts, "--entrypoint", "bash", image, "-c", command)
    assert "setup: done" in said and " passed" in said
