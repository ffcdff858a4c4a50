"""The library of ``inference/fused.cpp``: `python -m camelsight.pipeline.compiled` builds it, `load` puts it to use."""

import functools
import platform
import subprocess
import sys
from pathlib import Path

import torch

from camelsight.pipeline import paths, store

# By torch's name of what the processor can do: an image that is built here may run elsewhere.
FLAGS = {
    "AVX512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
    "AVX2": ["-march=x86-64-v3"],
    "DEFAULT": ["-Wno-psabi"],
}
COMMAND = ["g++", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-fopenmp"]
SERVES = {paths.FUSED_SOURCE: "training", paths.PARTICLES_SOURCE: "simulating"}


def build():
    """Build every library anew, and remove those of other sources or flags."""
    capabilities = FLAGS if platform.machine() == "x86_64" else [torch.backends.cpu.get_cpu_capability()]
    for source in SERVES:
        libraries = {library(source, capability): FLAGS.get(capability, []) for capability in capabilities}
        for path, flags in libraries.items():
            with store.replacing(path) as part:
                subprocess.run([*COMMAND, *flags, source, "-o", part], check=True)
        for path in set(source.parent.glob(f"{source.stem}-*.so")) - libraries.keys():
            path.unlink()


def library(source, capability=None):
    """The file for ``capability``, by default this processor's. Its name says how it was built: it is never stale."""
    capability = capability or torch.backends.cpu.get_cpu_capability()
    made_of = store.digest(store.file_digest(source), COMMAND, FLAGS.get(capability, []))
    return paths.compiled(source, capability, made_of[:12])


@functools.cache
def load(module):
    """Load the library of ``module``, whose source is beside it, into this process.

    Returns whether it does; says why not in a line of the log.
    """
    source = Path(module.__file__).with_suffix(".cpp")
    path = library(source)
    if not path.exists():  # as in a copy of the checkout in which `dvc exp run` works, with the .venv of that
        path = Path(sys.prefix).resolve().parent / "code/camelsight" / path.parent.name / path.name
    longer = f"so {SERVES[source]} takes longer"
    if not path.exists():
        print(f"{path.name} is not built, {longer}; make setup builds it", file=sys.stderr)
        return False
    try:
        module.load(path)
    except OSError as error:  # it was built on another machine, or is damaged
        why = f"{path.name} does not load here ({store.one_line(error)}), {longer}"
        print(f"{why}; make setup on this machine builds it anew", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"compiled: {store.one_line(error)}")
