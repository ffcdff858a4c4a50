"""Stages run once more in another folder: ``python -m camelsight.pipeline.rerun SUITE CASE STAGE...``.

The verdict and the reference need results beside those of the pipeline, and must not touch these. Stages find their
files relative to where they run, so that another folder with its own params.yaml is all it takes.
"""

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from camelsight.pipeline import cli, launch, paths, store
from camelsight.pipeline import params as parameters_file


def main():
    suite, case, *stages = sys.argv[1:]
    cli.guard(lambda: here(".", parameters_file.load(), *stages, place=(suite, case)), prefix="rerun")


def here(folder, params, *stages, place=()):
    """Run the ``main`` of ``stages`` in ``folder``, in this process."""
    # Before the threads are set: only libraries that are loaded can be told.
    mains = [importlib.import_module(f"camelsight.stages.{name}").main for name in stages]
    threads = torch.get_num_threads()
    cli.set_threads(params.threads)
    try:
        with contextlib.chdir(folder):
            for main in mains:
                main(params, *place)
    finally:
        cli.set_threads(threads)


@contextlib.contextmanager
def empty():
    """A new folder for stages, removed at the end: nothing that somebody left can be taken for their work.

    The logs of stages that failed move to where ValueError then says that they are.
    """
    paths.AGAIN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.AGAIN, prefix="new-") as name:
        folder = Path(name)
        try:
            yield folder
        except ValueError as error:
            logs, kept = folder / paths.LOGS, paths.LOGS / folder.name
            if not logs.exists():
                raise
            paths.LOGS.mkdir(parents=True, exist_ok=True)
            shutil.move(logs, kept)
            raise ValueError(str(error).replace(str(logs), str(kept))) from error


def prepare(folder, params, links=()):
    """Make ``folder`` a place for stages with ``params``; ``links`` are paths of this one that are to be there, too."""
    folder = Path(folder)
    store.write_json(folder / paths.PARAMS, params)
    link(folder, (paths.TUNING_RECORD, *links))


def link(folder, names):
    """Symbolic links in ``folder`` to what is here under the same ``names``, where it has nothing of its own."""
    for path in names:
        target = Path(folder) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (target.exists() or target.is_symlink()):
            target.symlink_to(Path(path).resolve())


def everywhere(queue, jobs, what):
    """Run chains of stages in ``jobs`` processes: ``queue`` is a list of (folder, stages, suite, case).

    What they print goes to runs/logs in their folder; ValueError with the reason of the first that fails.
    """
    again = "camelsight.pipeline.rerun"
    commands = [
        in_folder(folder, f"{suite}-{case}", again, suite, case, *stages) for folder, stages, suite, case in queue
    ]
    launch.processes(commands, jobs, what)


def in_folder(folder, name, *command):
    """A process for ``launch.processes``: a module of this package with its arguments, at work in ``folder``."""
    env = os.environ | {"PYTHONPATH": str(paths.PACKAGE.parent)}
    python = [sys.executable, "-P", "-m"]  # -P: no module is taken from the folder
    return name, [*python, *command], Path(folder) / paths.log(name), {"cwd": folder, "env": env}


if __name__ == "__main__":
    main()
