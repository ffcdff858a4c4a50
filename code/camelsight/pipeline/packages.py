"""The installed packages: their versions, and whether they are those of requirements.lock."""

import platform
from importlib import metadata
from pathlib import Path

SHOWN = ("torch", "numpy", "camb", "captum", "optuna", "Pylians")


def versions(packages=SHOWN):
    """Installed versions by package name, Python's own first."""
    return {"Python": platform.python_version()} | {package: metadata.version(package) for package in packages}


def wrong(lock=Path("requirements.lock")):
    """Yield, in words, what differs from the lock file in this environment."""
    try:
        from packaging.markers import Marker
    except ImportError:
        yield "the Python packages are not installed"
        return
    lines = lock.read_text(encoding="utf-8").splitlines()
    for pin in ["torch", *(line.rstrip(" \\") for line in lines if line[:1].isalnum())]:
        requirement, _, marker = pin.partition(" ; ")
        name, _, version = requirement.partition("==")
        if marker and not Marker(marker).evaluate():
            continue
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed"
            continue
        if version and found != version:
            yield f"{name} is {found}, expected {version}"
