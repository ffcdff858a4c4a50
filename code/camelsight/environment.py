"""What a result is made with: commit, versions, hardware. The stage train records it, tables and verdict show it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch

from camelsight.report import provenance

MAKES_RESULTS = ("code", "paper", "dvc.yaml", "params.yaml", "requirements.lock")


def read():
    """commit ("unknown" without git), dirty (the tree differs from it), versions by package, hardware and cpu."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "commit": _git("rev-parse", "HEAD") or os.environ.get("CAMELSIGHT_COMMIT", "unknown"),
        "dirty": bool(_git("status", "--porcelain", "--", *MAKES_RESULTS)),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(accelerator),
        "cpu": _cpu(),
    }


def _cpu():
    path = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)", path.read_text(encoding="utf-8") if path.exists() else "", re.MULTILINE)
    return name[1].strip() if name else "unknown"


def _git(*arguments):
    if shutil.which("git") is None:
        return ""
    result = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
