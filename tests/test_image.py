"""The scripts around the image, without an engine: what a container lays out, and what is recorded of a build."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def image(tmp_path):
    """What of the project the image holds, as far as its entry is concerned."""
    folder = tmp_path / "image"
    for name in ("code/container.sh", "params.yaml", "dvc.lock", "paper/ms.tex", "profiles/mini.yaml", ".dvc/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    (folder / "figures").mkdir()
    (tmp_path / "out").mkdir()
    return folder, tmp_path / "out"


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


def test_one_container_at_a_time_works_in_a_folder_and_none_in_a_checkout(image):
    container(image, "lay")
    with open(image[1] / ".dvc/container.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another container is at work" in container(image, "lay", code=1)
    (image[1] / ".git").mkdir()
    said = container(image, "paper", code=1)
    assert said.startswith("container: expected an empty folder") and said.count("\n") == 1


def test_the_exit_code_of_verify_is_that_of_the_verdict(image, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    for program in (programs / "make", image[0] / ".venv/bin/python"):
        program.parent.mkdir()
        program.write_text('#!/bin/bash\necho "ran ${0##*/} $*"\n[ "${0##*/}" = make ]\n')
        program.chmod(0o755)
    (programs / "id").write_text("#!/bin/bash\necho 1000\n")  # whoever runs the tests
    (programs / "id").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    said = container(image, "verify", "TIER=1", "PACK=", "CASE=kmax_1", "JSON=1", code=1)
    assert "ran python -P -m camelsight.referee.verify --tier 1 --case kmax_1 --json" in said
    assert "got TEIR=1" in container(image, "verify", "TEIR=1", code=1)


def test_the_image_has_a_pinned_base_and_stages_and_its_packages_in_one_list():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=nvidia/cuda:\d+\.\d+\.\d+-\w+-ubuntu\d+\.\d+$", text, re.MULTILINE)
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) == 3
    assert "apt-get install" not in text and "pip install" not in text
    assert {".git", ".venv", "data", "runs", "results"} <= set((ROOT / ".dockerignore").read_text().split())


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
def test_what_was_built_is_recorded_whichever_engine_works(tmp_path, working, digest):
    project, programs, seen = tmp_path / "project", tmp_path / "programs", tmp_path / "seen"
    for folder in (project / "code", programs, seen):
        folder.mkdir(parents=True)
    for name in ("Dockerfile", "pyproject.toml", "requirements.lock", "code/image.sh"):
        shutil.copy(ROOT / name, project / name)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    (project / "secret").touch()  # not tracked
    for name, script in ENGINES.items():
        (programs / name).write_text(f"#!/bin/bash\n{script if name == working else 'exit 1'}\n")
        (programs / name).chmod(0o755)
    run = subprocess.run(
        ["bash", "code/image.sh"],
        cwd=project,
        env=os.environ
        | {"PATH": f"{programs}:{os.environ['PATH']}", "SEEN": str(seen), "TAG": "mine", "BASE": "debian:12"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert digest in run.stdout and "mine" in run.stdout
    record = json.loads((project / "environment.lock.json").read_text())
    assert list(record) == ["image", "digest", "size", "engine", "base", "torch", "revision", "requirements.lock"]
    assert (record["digest"], record["engine"], record["base"]) == (digest, working, "debian:12")
    assert (
        record["requirements.lock"] == "sha256:" + hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()
    )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert record["revision"] == head.strip()
    if working == "docker":
        assert (seen / "Dockerfile").exists() and not (seen / "secret").exists()
