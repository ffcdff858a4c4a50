"""The scripts around the image, without an engine: what a container lays out, and what is recorded of a build."""

import configparser
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import smoke

ROOT = Path(__file__).parent.parent


@pytest.fixture
def image(tmp_path):
    """What of the project the image holds, as far as its entry is concerned."""
    folder = tmp_path / "image"
    for name in ("code/container.sh", "params.yaml", "dvc.lock", "paper/ms.tex", "profiles/mini.yaml", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    program(folder / ".venv/bin/python", f'exec {sys.executable} "$@"')
    (folder / "figures").mkdir()
    (tmp_path / "out").mkdir()
    return folder, tmp_path / "out"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder of programs that a container finds first; with its id, whoever runs the tests is no root."""
    folder = tmp_path / "programs"
    folder.mkdir()
    program(folder / "id", "echo 1000")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def container(image, *arguments, code=0):
    """Run the entry of the image in the folder that is mounted; what it says."""
    command = ["bash", image[0] / "code/container.sh", *arguments]
    run = subprocess.run(command, cwd=image[1], capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stderr
    return run.stdout + run.stderr


def test_help_names_the_commands_and_touches_nothing(image):
    for arguments in ((), ("help",), ("--help",)):
        said = container(image, *arguments)
        assert all(f"\n  {word} " in said for word in ("paper", "verify", "test", "doctor", "plan", "shell"))
    assert not list(image[1].iterdir())


def test_a_folder_that_was_used_before_keeps_its_params_and_record(image):
    source, out = image
    container(image, "lay")
    assert (out / "params.yaml").read_bytes() == (source / "params.yaml").read_bytes()
    assert (out / "code").resolve() == source / "code" and (out / ".venv").is_symlink()
    for name in ("paper", "profiles", "figures", ".dvc"):
        assert (out / name).is_dir() and not (out / name).is_symlink()
    (out / "params.yaml").write_text("mine")
    (out / "dvc.lock").write_text("")  # DVC was killed
    (out / "paper/ms.tex").write_text("of an older image")
    (out / ".dvc/tmp/rwlock").write_text('{"write": {}}')
    container(image, "lay")
    assert (out / "params.yaml").read_text() == "mine" and (out / "dvc.lock").stat().st_size
    assert (out / "paper/ms.tex").read_bytes() == (source / "paper/ms.tex").read_bytes()
    assert not (out / ".dvc/tmp/rwlock").exists()


def test_settings_of_dvc_that_are_the_owners_are_kept(image):
    """A second section of the same name was appended to them, which DVC refuses to read."""
    container(image, "lay")
    settings = image[1] / ".dvc/config.local"
    settings.write_text("[core]\n    remote = mine\n['remote \"mine\"']\n    url = /data/cache\n", encoding="utf-8")
    container(image, "lay")
    read = configparser.ConfigParser()
    read.read(settings, encoding="utf-8")
    assert dict(read["core"]) == {"remote": "mine", "no_scm": "true"} and len(read.sections()) == 2


def test_one_container_at_a_time_works_in_a_folder_and_none_in_a_checkout(image, programs):
    container(image, "lay")
    with open(image[1] / ".dvc/container.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another container is at work" in container(image, "lay", code=1)
    said = container(image, "shell", "-c", "ls -d code paper")
    assert said == "code\npaper\n" and not (image[1] / "code").exists()
    (image[1] / ".git").mkdir()
    said = container(image, "paper", code=1)
    assert said.startswith("container: expected an empty folder") and said.count("\n") == 1


def test_a_folder_with_anything_of_its_owner_is_left_as_it_is(image):
    """Makefile, README.md and paper/ms.tex were overwritten, and a link put into their code/."""
    out = image[1]
    theirs = {"Makefile": "all:", "paper/ms.tex": "my paper", "code/mine.py": "1"}
    for name, text in theirs.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text)
    for command in ("paper", "shell", "doctor", "lay"):
        said = container(image, command, code=1)
        assert said.startswith("container: expected an empty folder or one of an earlier run") and said.count("\n") == 1
    assert {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()} == theirs
    shutil.rmtree(out)
    (out / "data/CMD").mkdir(parents=True)
    (out / "params.yaml").write_text("mine")
    container(image, "lay")
    assert (out / "params.yaml").read_text() == "mine"
    (out / "code").unlink()
    (out / "code").mkdir()
    assert "expected no code in" in container(image, "lay", code=1) and not any((out / "code").iterdir())


def test_what_is_left_makes_sense_without_the_image(image, programs):
    program(programs / "make", '[ "$1" = doctor ] || { readlink code; mkdir -p results; exit 2; }')
    source, out = image
    assert container(image, "paper", code=2) == f"{source / 'code'}\n"
    assert not [path for path in out.rglob("*") if path.is_symlink()]
    assert {".dvc", "dvc.lock", "figures", "paper", "params.yaml", "profiles", "results"} == {
        path.name for path in out.iterdir()
    }
    container(image, "paper", code=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run_and_the_folder_is_tidied_after_it(image, programs, number):
    wait = "touch begun; while true; do sleep .1; done"
    program(programs / "make", f"[ $1 != doctor ] || exit 0; trap 'sleep .5; touch heard; exit 130' TERM INT; {wait}")
    command = ["bash", image[0] / "code/container.sh", "paper"]
    hears = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a test in the background does not
    run = subprocess.Popen(command, cwd=image[1], preexec_fn=hears)
    while not (image[1] / "begun").exists():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(number)
    assert run.wait(60) == 130
    assert (image[1] / "heard").exists() and not (image[1] / "code").exists()


def test_the_exit_code_of_verify_is_that_of_the_verdict(image, programs):
    container(image, "lay")
    for path in (programs / "make", image[0] / ".venv/bin/python"):
        program(path, 'echo "ran ${0##*/} $*"; [ "${0##*/}" = make ]')
    said = container(image, "verify", "TIER=1", "PACK=", "CASE=kmax_1", "JSON=1", code=1)
    assert "ran python -P -m camelsight.referee.verify --tier 1 --case kmax_1 --json" in said
    assert "got TEIR=1" in container(image, "verify", "TEIR=1", code=1)


def test_the_image_has_a_pinned_base_and_stages_and_its_packages_in_one_list():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=nvidia/cuda:\d+\.\d+\.\d+-\w+-ubuntu\d+\.\d+$", text, re.MULTILINE)
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 4
    compiled = text.index("setup.sh build")
    assert "COPY code code" not in text[:compiled] and "COPY . ." not in text[:compiled], "Pylians compiles again"
    assert text.index("FROM run\n") < text.index("setup.sh gpu"), "the compiler is in the final image"
    assert "apt-get install" not in text and "pip install" not in text
    assert {".git", ".venv", "data", "runs", "results"} <= set((ROOT / ".dockerignore").read_text().split())


def image_sh(project, seen, **options):
    environment = os.environ | {"SEEN": str(seen), "TAG": "mine", "BASE": "debian:12"} | options
    return subprocess.run(["bash", "code/image.sh"], cwd=project, env=environment, capture_output=True, text=True)


ENGINES = {
    "docker": 'case $1 in info) exit 0;; build) cp -r "${@: -1}"/. "$SEEN";; '
    "image) echo sha256:12;; images) echo 7GB;; esac",
    "podman": "case $1 in info) exit 0;; images) [[ $* = *Digest* ]] && echo sha256:34 || echo 8GB;; esac",
    "buildah": "case $1 in images) [[ $* = *Digest* ]] && echo sha256:56 || echo 9GB;; esac",
}


@pytest.mark.skipif(shutil.which("git") is None, reason="an image is made from a checkout")
@pytest.mark.parametrize(
    ("working", "digest"), [("docker", "sha256:12"), ("podman", "sha256:34"), ("buildah", "sha256:56")]
)
def test_what_was_built_is_recorded_whichever_engine_works(tmp_path, monkeypatch, working, digest):
    project, programs, seen = tmp_path / "project", tmp_path / "programs", tmp_path / "seen"
    for folder in (project / "code", seen):
        folder.mkdir(parents=True)
    for name in ("Dockerfile", "pyproject.toml", "requirements.lock", "code/image.sh", ".dockerignore"):
        shutil.copy(ROOT / name, project / name)
    smoke.git(project, "init")
    smoke.commit(project, "a")
    (project / "secret").touch()  # not tracked
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/torch.whl").touch()
    for name, script in ENGINES.items():
        program(programs / name, script if name == working else "exit 1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    run = image_sh(project, seen, WHEELS=str(tmp_path / "wheels"))
    assert run.returncode == 0, run.stderr
    assert digest in run.stdout and "mine" in run.stdout
    record = json.loads((project / "environment.lock.json").read_text())
    assert list(record) == ["image", "digest", "size", "engine", "base", "torch", "revision", "requirements.lock"]
    assert (record["digest"], record["engine"], record["base"]) == (digest, working, "debian:12")
    assert (
        record["requirements.lock"] == "sha256:" + hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
    )
    assert record["revision"] == smoke.git(project, "rev-parse", "HEAD").strip()
    if working == "docker":
        assert (seen / "Dockerfile").exists() and not (seen / "secret").exists()
        assert (seen / ".wheels/torch.whl").exists()
        shutil.rmtree(seen)
        shutil.rmtree(project / ".git")
        smoke.git(tmp_path, "init")  # somebody else's repository, into which an archive was unpacked
        smoke.git(tmp_path, "commit", "--allow-empty", "--message", "theirs")
        (project / "data").mkdir()
        (project / "data/maps.npy").touch()
        run = image_sh(project, seen)
        assert "no checkout of git" in run.stderr and run.returncode == 0
        assert (seen / "code/image.sh").exists() and not (seen / "data").exists()
        assert json.loads((project / "environment.lock.json").read_text())["revision"] == "unknown"
