"""What doctor looks at: this machine, its packages, its GPUs, and the folder in which a run would work.

Imports no more than Python's standard library before it knows that the rest is there.
"""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from camelsight.pipeline import machine, packages

WRITTEN = (".", ".dvc", "data", "figures", "paper", "profiles", "results", "runs")
RECORD = Path("dvc.lock")
CONTAINER = Path(".dvc/container.lock")  # code/container.sh leaves it
LOADED = ("torch", "numpy", "scipy.linalg", "yaml", "camb", "MAS_library")  # packages with libraries of their own
LIBRARIES = ("LD_LIBRARY_PATH", "LD_PRELOAD")  # from which the system takes libraries before ours
CONFLICT = "conflict markers of a merge"
BROUGHT = "CAMELSIGHT_PYTHONPATH"  # PYTHONPATH as make found it


@dataclass(frozen=True)
class Facts:
    """What was found; sizes in bytes, versions as tuples, None for what is not there."""

    python: tuple
    missing: dict  # purpose: system packages that are missing, as code/setup.sh names them
    packages: tuple  # Python packages that are not as pinned, in words
    broken: tuple = ()  # of these that are there, but do not load, in words
    torch: str = None
    build_cuda: tuple = None  # None: torch is a CPU build
    build_capability: tuple = None  # the oldest GPU it was built for
    driver_cuda: tuple = None  # the newest CUDA that the driver knows
    gpus: tuple = ()  # (name, bytes, capability), as torch sees them
    memory: float = None
    shared_memory: float = None
    disk: float = None
    unwritable: tuple = ()
    locks: tuple = ()  # (process id, command) of who is at work in this folder
    record: str = ""  # what is wrong with dvc.lock, which DVC does not write in one go
    git: str = ""  # why Git refuses this checkout
    foreign: tuple = ()  # variables that bring other software, which this process has
    left_out: tuple = ()  # and those that make has kept from it
    container: bool = False


def facts():
    """The ``Facts`` of this machine, as seen from the project's root."""
    broken = tuple(_broken())
    torch = None if any(line.startswith("torch ") for line in broken) else _import("torch")
    found = {
        "python": sys.version_info[:3],
        "missing": _missing_packages(),
        "packages": tuple(packages.wrong()),
        "broken": broken,
        "driver_cuda": _driver_cuda(),
        "memory": machine.free_memory(),
        "disk": shutil.disk_usage(".").free,
        "shared_memory": shutil.disk_usage("/dev/shm").free if os.access("/dev/shm", os.W_OK) else 0,
        "unwritable": tuple(_unwritable([*WRITTEN, tempfile.gettempdir()])),
        "locks": () if broken else tuple(_at_work()),
        "record": _wrong_with(RECORD),
        "container": CONTAINER.exists(),
        "foreign": tuple(_foreign(os.environ)),
        "left_out": ("PYTHONPATH",) if os.environ.get(BROUGHT) else (),
    }
    if torch:
        found |= _torch_facts(torch)
    if torch and not broken and not found["packages"]:
        from camelsight.pipeline import environment

        found["git"] = environment.refusal()
    return Facts(**found)


def _import(name):
    try:
        return importlib.import_module(name)
    except Exception:  # foreign libraries raise what they like
        return None


def _broken(names=LOADED):
    """Yield, in words, which of these packages are installed, but do not load.

    A foreign library can end the process that loads it, so that another process tries where there may be one.
    """
    for name in names:
        if any(map(os.environ.get, LIBRARIES)):
            command = [sys.executable, "-c", f"import {name}"]
            tried = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
            if tried.returncode and "ModuleNotFoundError" not in tried.stderr:
                last = (tried.stderr.strip() or f"ended by signal {-tried.returncode}").splitlines()[-1]
                yield f"{name} does not load: {last}"
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not error.name or not name.startswith(error.name):
                yield f"{name} does not load: {error}"
        except Exception as error:
            yield f"{name} does not load: {type(error).__name__}: {' '.join(str(error).split())}"


def _foreign(environment):
    """Yield the variables that bring other software into this process."""
    ours = os.path.realpath("code")
    if any(os.path.realpath(path) != ours for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path):
        yield "PYTHONPATH"
    yield from (name for name in ("PYTHONHOME", *LIBRARIES) if environment.get(name))


def _torch_facts(torch):
    cuda, visible = torch.version.cuda, torch.cuda.is_available()
    built = [name.partition("_")[2] for name in torch.cuda.get_arch_list() if name.startswith("sm_")] if visible else []
    gpus = map(torch.cuda.get_device_properties, range(torch.cuda.device_count() if visible else 0))
    return {
        "torch": torch.__version__,
        "build_cuda": tuple(map(int, cuda.split("."))) if cuda else None,
        "build_capability": min(((int(name[:-1]), int(name[-1])) for name in built if name.isdigit()), default=None),
        "gpus": tuple((gpu.name, gpu.total_memory, (gpu.major, gpu.minor)) for gpu in gpus),
    }


def _missing_packages():
    result = subprocess.run(["bash", "code/setup.sh", "missing"], capture_output=True, encoding="utf-8", check=False)
    return dict(line.split(": ") for line in result.stdout.splitlines())


def _driver_cuda():
    """The newest CUDA that the NVIDIA driver knows, (major, minor); None without a driver."""
    version = ctypes.c_int(0)
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0 or version.value == 0:
            return None
    except OSError:
        return None
    return version.value // 1000, version.value % 1000 // 10


def _unwritable(folders):
    for folder in filter(os.path.isdir, folders):  # the parent of another one is in the list
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            yield folder


def _at_work():
    """(process id, command) of who is at work in this folder; of nobody, if the packages are not to tell."""
    leftovers = _import("camelsight.pipeline.leftovers")
    return leftovers.at_work().items() if leftovers and _import("psutil") else ()


def _wrong_with(path):
    """What is wrong with a YAML file; empty if nothing, if it is not there, or if the packages are not to tell."""
    if not path.exists():
        return ""
    if (store := _import("camelsight.pipeline.store")) is None:
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    if store.conflict(text):
        return CONFLICT
    try:
        whole = isinstance(store.parse_yaml(text, aliases=False), dict)
    except ValueError:
        whole = False
    return "" if whole else "cut off"
