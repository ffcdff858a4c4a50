"""A checkout of its own, in which tests run the profile smoke as a user does."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from camelsight.commands import everything

ROOT = Path(__file__).parent.parent
COPIED = (
    "code", "paper", "profiles", "figures", "benchmarks/tuning.json", "dvc.yaml", ".dvc/config", ".dvc/.gitignore",
    ".dvcignore", ".gitignore", "requirements.lock",
)  # fmt: skip
SUITES = ("IllustrisTNG", "Nbody_IllustrisTNG")
CHAIN = ("cut", "tune", "train", "evaluate")
GENERATED = shutil.ignore_patterns("build", "ms.pdf", "*.png", "*.pdf", "__pycache__", "*.egg-info")


def camelsight(project, *arguments, **options):
    """Run ``python -m camelsight`` in ``project``, on its own copy of the code."""
    return subprocess.Popen(
        [".venv/bin/python", "-m", "camelsight", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "code")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process, code=0):
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


def stages_run(output):
    """The stages that the announcement counts, such as {"cut": 1, "paper": 1}."""
    announced = re.search(r"To run: (.*)", output)[1].split(", ")
    return {item.split(" × ")[-1]: int(item.split(" × ")[0]) if " × " in item else 1 for item in announced}


def check_out(folder):
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=GENERATED)
        else:
            shutil.copy(source, target)
    (folder / ".venv").symlink_to(sys.prefix)


def git(folder, *arguments):
    author = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    run = subprocess.run(["git", *author, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout


def commit(folder, message):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def module(folder, name, *arguments, code=0):
    """Run a module by hand, on the folder's code; its standard output, or its standard error where it is to fail."""
    command = [".venv/bin/python", "-m", name, *map(str, arguments)]
    surroundings = os.environ | {"PYTHONPATH": str(folder / "code")}
    run = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert run.returncode == code, run.stdout + run.stderr
    return run.stderr if code else run.stdout


def dvc(folder, *arguments):
    return module(folder, "dvc", *arguments)


def stage(folder, name, *arguments, code=0):
    return module(folder, f"camelsight.stages.{name}", *arguments, code=code)


def plan(folder, *arguments):
    """What ``make plan`` says for programs."""
    return json.loads(module(folder, "camelsight.commands.plan", "--json", *arguments))


@contextlib.contextmanager
def changed(change, *files):
    """Inside the block the files hold ``change(text)`` in place of their text."""
    before = [file.read_text() for file in files]
    try:
        for file, text in zip(files, before, strict=True):
            file.write_text(change(text))
        yield
    finally:
        for file, text in zip(files, before, strict=True):
            file.write_text(text)


def simulated(folder):
    """How many simulations of an unfinished set are on disk."""
    flags = list((folder / "data" / "partial").glob("*/done.npy"))
    return int(np.load(flags[0]).sum()) if flags else 0


@contextlib.contextmanager
def served(folder):
    """The address of a server of the files in ``folder``, and a list of what it was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def planned(folder):
    """The kinds of stages that ``make plan`` says would run."""
    return {one["stage"].partition("@")[0] for one in plan(folder)["stages"]}


def run_to_its_end(folder):
    """Run the smoke profile with the experiments on robustness, interrupted once; what the second part printed."""
    check_out(folder)
    (folder / "params.yaml").write_text(everything.switched_on((folder / "profiles/smoke.yaml").read_text()))
    git(folder, "init", "--quiet")
    commit(folder, "Begin")

    first = camelsight(folder, "paper", "--jobs", "2")
    deadline = time.monotonic() + 300
    while not simulated(folder) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)
    output, _ = first.communicate()
    assert first.returncode == 130, output
    assert "interrupted; the same command goes on from here" in output and "Traceback" not in output, output
    assert not (folder / "data" / "maps").exists()
    kept = simulated(folder)
    assert kept > 0

    output = finish(camelsight(folder, "paper", "--jobs", "2"))
    assert f"{kept}/8" in output, "the interrupted simulations were not kept"
    assert git(folder, "status", "--porcelain").split() == ["??", "dvc.lock"]
    commit(folder, "A run")
    return output
