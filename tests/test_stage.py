"""``code/stage``, by which DVC starts every stage, on a folder with a Python that says how it was called."""

import os
import subprocess
from pathlib import Path

import pytest

STAGE = (Path(__file__).parent.parent / "code" / "stage").read_text(encoding="utf-8")


def make(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a .venv, and a copy of it below .dvc/tmp/exps without one, as ``dvc exp run --temp`` makes."""
    copy = tmp_path / ".dvc/tmp/exps/tmpabc"
    make(tmp_path / ".venv/bin/python", '#!/bin/sh\necho "$0|$PYTHONPATH|$*"\n')
    for place in (tmp_path, copy):
        make(place / "code/stage", STAGE)
    return tmp_path, copy


def call(folder, *arguments, **variables):
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        ["code/stage", *arguments], cwd=folder, env=surroundings, capture_output=True, text=True, check=False
    )


def test_a_stage_runs_the_code_that_is_here_with_the_environment_here_or_above(checkout):
    for folder in checkout:
        said = call(folder, "train", "--suite", "A B", "--case", "original").stdout
        python, module = f"{checkout[0]}/.venv/bin/python", "-P -m camelsight.stages.train"
        assert said == f"{python}|{folder}/code|{module} --suite A B --case original\n"
    assert call(checkout[1], "maps", PYTHONPATH="/more").stdout.split("|")[1] == f"{checkout[1]}/code:/more"


def test_without_an_environment_it_says_so_in_one_line(checkout):
    (checkout[0] / ".venv/bin/python").unlink()
    failed = call(checkout[1], "train")
    expected = f"train: expected .venv in {checkout[1]} or above it, got none: run make setup\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", expected)


def test_the_exit_code_of_a_stage_is_handed_on(checkout):
    (checkout[0] / ".venv/bin/python").write_text("#!/bin/sh\nexit 130\n", encoding="utf-8")
    assert call(checkout[1], "train").returncode == 130
