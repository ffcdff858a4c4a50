import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

import smoke
from camelsight.pipeline import machine

torch.set_num_threads(1)
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of make test, under which a make of a test would say where it works
    os.environ.pop(name, None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # dozens of processes import a copy of the package


def pytest_xdist_auto_num_workers():
    """A process on each core, and four at most: some tests start two of their own."""
    return max(1, min(4, int(machine.cores())))


@contextlib.contextmanager
def refused(message):
    """The block ends in an error that matches ``message``, and that is one line for a person."""
    __tracebackhide__ = True
    with pytest.raises(ValueError, match=message) as caught:
        yield caught
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@contextlib.contextmanager
def global_generators_left_alone():
    """The block neither draws from the global generators of NumPy and torch nor seeds them."""
    __tracebackhide__ = True
    np.random.random(), torch.rand(1)  # noqa: NPY002 - who seeds them as before is found out too
    before = _global_states()
    yield
    assert _global_states() == before


def _global_states():
    kind, keys, *place = np.random.get_state()  # noqa: NPY002
    return kind, keys.tolist(), place, torch.get_rng_state().tolist()


def ran(*command, folder, **variables):
    """A command that has ended, in ``folder``, with these variables; its Python takes the code that is here."""
    surroundings = os.environ | {"PYTHONPATH": str(smoke.ROOT / "code")} | variables
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False, "timeout": 600}
    return subprocess.run(command, cwd=folder, env=surroundings, **options)


def until(condition, seconds=60):
    """Wait for ``condition``, which is asked again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run, which nobody changes, and what it printed. One process makes it, others wait."""
    base = tmp_path_factory.getbasetemp()
    record = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished.json"
    with filelock.FileLock(record.with_suffix(".lock")):
        if not record.exists():
            folder = tmp_path_factory.mktemp("smoke")
            record.write_text(json.dumps([str(folder), smoke.run_to_its_end(folder)]))
    folder, output = json.loads(record.read_text())
    return Path(folder), output


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """A copy of a checkout in which the smoke profile was interrupted, and ran to its end; and what that printed."""
    folder = tmp_path_factory.mktemp("project") / "smoke"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder, finished[1]
