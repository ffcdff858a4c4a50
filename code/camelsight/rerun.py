"""Stages run once more, in a folder of their own: ``python -m camelsight.rerun STAGE... [--suite S --case C]``.

The verdict and the reference need results beside those of the pipeline, and must not touch these. Stages find their
files relative to where they run, so that another folder with its own params.yaml is all it takes.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from camelsight import cli, paths, store
from camelsight import params as parameters_file


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.rerun")
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--suite")
    parser.add_argument("--case")
    arguments = parser.parse_args()
    place = [value for value in (arguments.suite, arguments.case) if value]
    cli.guard(lambda: here(".", parameters_file.load(), *arguments.stages, place=place), prefix="rerun")


def here(folder, params, *stages, place=()):
    """Run the ``main`` of ``stages`` in ``folder``, in this process."""
    threads = torch.get_num_threads()
    with contextlib.chdir(folder):
        torch.set_num_threads(params.threads)
        try:
            for name in stages:
                importlib.import_module(f"camelsight.stages.{name}").main(params, *place)
        finally:
            torch.set_num_threads(threads)


def prepare(folder, params, links=()):
    """Make ``folder`` a place for stages with ``params``; ``links`` are paths of this one that are to be there, too."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    store.write_text(folder / paths.PARAMS, json.dumps(params, default=store.plain))
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

    What they print goes to runs/logs in their folder; ValueError with the last line of the first that fails.
    """
    queue, running = list(queue), {}
    code = str(Path(__file__).parent.parent)
    with cli.progress(len(queue), what, "case") as bar:
        try:
            while queue or running:
                while queue and len(running) < jobs:
                    folder, stages, suite, case = queue.pop(0)
                    log = Path(folder) / paths.LOGS / f"{suite}-{case}.log"
                    log.parent.mkdir(parents=True, exist_ok=True)
                    command = [sys.executable, "-m", "camelsight.rerun", *stages, "--suite", suite, "--case", case]
                    with open(log, "w") as output:
                        process = subprocess.Popen(
                            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                            env=os.environ | {"PYTHONPATH": code},
                        )  # fmt: skip
                    running[process] = log
                time.sleep(0.05)
                for process in [process for process in running if process.poll() is not None]:
                    log = running.pop(process)
                    if process.returncode:
                        last = ([line for line in log.read_text().splitlines() if line.strip()] or ["no output"])[-1]
                        raise ValueError(f"{log.stem} failed: {last} (see {log})")
                    bar.update()
        finally:
            for process in running:
                process.send_signal(signal.SIGINT)
            for process in running:
                process.wait()


if __name__ == "__main__":
    main()
