"""Where a result comes from: profile, commit, data, versions, hardware."""

import os
import platform
from importlib import metadata

PACKAGES = ("torch", "numpy", "camb", "captum", "optuna", "Pylians")
SOURCES = {
    True: "maps simulated by this package, not CAMELS",
    False: "maps of the CAMELS Multifield Dataset",
}


def versions(packages=PACKAGES):
    """Installed versions by package name, Python's own first."""
    return {"Python": platform.python_version()} | {package: metadata.version(package) for package in packages}


def hardware(accelerator=""):
    """One line on the machine; ``accelerator`` is the name of the GPU, empty without one."""
    cores = os.cpu_count()
    machine = f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()}, {platform.system()})"
    return f"{accelerator}, {machine}" if accelerator else machine


def describe(*, profile, commit, dirty, mock, seed, versions, hardware):
    """Macro name → text for the first page and the appendix of the paper.

    ``commit`` is a hash or "unknown"; ``dirty`` says that the working tree differs from it; ``mock`` that the maps were
    simulated by this package.
    """
    return {
        "Profile": profile,
        "IsMock": str(int(mock)),
        "DataSource": SOURCES[bool(mock)],
        "Commit": commit[:12] + (" with uncommitted changes" if dirty else ""),
        "Seed": str(seed),
        "Hardware": hardware,
    } | {f"Version{name.capitalize()}": version for name, version in versions.items()}
