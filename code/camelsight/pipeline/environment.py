"""What a result is made with: commit, versions, hardware. It stands beside results, and no stage depends on it."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import torch

from camelsight.pipeline import packages, paths

ROOT = paths.PACKAGE.parent.parent  # of the checkout whose code this is
MAKES_RESULTS = ("code", "paper", "dvc.yaml", "params.yaml", "requirements.lock")
# Programs that a repository's own configuration may name, which Git would start.
HARMLESS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks")
REFUSALS = ("dubious ownership", "unsafe repository")  # the latter is Git 2.35.2's


def read():
    """commit of this code ("unknown" without git), dirty (its tree differs), versions by package, hardware and cpu."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    path = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)", path.read_text(encoding="utf-8") if path.exists() else "", re.MULTILINE)
    return {
        "commit": git("rev-parse", "HEAD") or os.environ.get("CAMELSIGHT_COMMIT", "unknown"),
        "dirty": bool(git("status", "--porcelain", "--", *MAKES_RESULTS)),
        "versions": packages.versions(),
        "hardware": hardware(accelerator),
        "cpu": name[1].strip() if name else "unknown",
    }


def hardware(accelerator=""):
    """One line on the machine; ``accelerator`` is the name of the GPU, empty without one."""
    cores = os.cpu_count()
    machine = f"{cores} CPU core{'s' if cores != 1 else ''} ({platform.machine()}, {platform.system()})"
    return f"{accelerator}, {machine}" if accelerator else machine


def refusal():
    """Why Git refuses to speak of this checkout, in words; empty where it does not, or where this is none."""
    _, said = _ask("rev-parse", "HEAD")
    if any(words in said for words in REFUSALS):
        return f"Git says nothing of {ROOT}, which is another user's (dubious ownership)"
    return ""


def git(*arguments):
    """What Git says of the checkout of this code, wherever this process works; empty where it is none."""
    return _ask(*arguments)[0]


def _ask(*arguments):
    """What Git says of the checkout of this code, and what it complains of, if it says nothing."""
    if shutil.which("git") is None:
        return "", ""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    surroundings |= {"GIT_CEILING_DIRECTORIES": str(ROOT.parent), "LC_ALL": "C"}  # no repository around it
    command = ["git", "-C", str(ROOT), *HARMLESS, *arguments]
    result = subprocess.run(command, env=surroundings, capture_output=True, encoding="utf-8", check=False)
    return (result.stdout.strip(), "") if result.returncode == 0 else ("", result.stderr)
