"""The library of ``inference/fused.cpp``: `python -m camelsight.pipeline.compiled` builds it, `load` puts it to use."""

import functools
import platform
import subprocess
import sys

import torch

from camelsight.inference import fused
from camelsight.pipeline import paths, store

# By torch's name of what the processor can do: an image that is built here may run elsewhere.
FLAGS = {"AVX512": ["-march=x86-64-v4", "-mprefer-vector-width=512"], "AVX2": ["-march=x86-64-v3"]}
COMMAND = ["g++", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-fopenmp"]


def build():
    for capability in FLAGS if platform.machine() == "x86_64" else [torch.backends.cpu.get_cpu_capability()]:
        with store.replacing(library(capability)) as part:
            subprocess.run([*COMMAND, *FLAGS.get(capability, []), paths.FUSED_SOURCE, "-o", part], check=True)


def library(capability=None):
    """The file for ``capability``, by default this processor's. Its name says how it was built: it is never stale."""
    capability = capability or torch.backends.cpu.get_cpu_capability()
    made_of = store.digest(store.file_digest(paths.FUSED_SOURCE), COMMAND, FLAGS.get(capability, []))
    return paths.fused(capability, made_of[:12])


@functools.cache
def load():
    """Load the library into this process. Returns whether it is there; says so in a line of the log if not."""
    path = library()
    if not path.exists():
        print(f"{path.name} is not built, so training takes longer; make setup builds it", file=sys.stderr)
        return False
    fused.load(path)
    return True


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"compiled: {store.one_line(error)}")
