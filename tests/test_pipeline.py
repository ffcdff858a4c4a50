"""The pipeline's shape: DVC knows every file that a stage runs, and the rooms keep to their rules."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "code" / "camelsight"
OUTSIDE = {"__init__", "verify"}  # verify judges the pipeline by dvc.lock, which DVC writes when a stage has ended
STAGES = sorted(path.stem for path in (PACKAGE / "stages").glob("*.py") if path.stem not in OUTSIDE)
CORE = ("universe", "maps", "inference", "interpretation", "report")
ROOF = (
    "attributions",
    "compiled",
    "doctor",
    "dvc_repro",
    "environment",
    "evidence",
    "rerun",
    "networks",
    "pack",
    "params",
    "paths",
    "plan",
    "store",
    "studies",
    "stages",
    "cli",
    "dataset",
    "release",
    "launch",
    "leftovers",
    "status",
    "simulation",
    "__main__",
)
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def module_file(name):
    """The file of the first-party module ``name``, or None if it is no module."""
    path = ROOT / "code" / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return candidate
    return None


def imported(path):
    """First-party modules that the source in ``path`` imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("camelsight") and module_file(name)}


def reached(path, seen=None):
    """``path`` and every first-party file that it imports, directly or not; empty ``__init__.py`` files left out."""
    seen = set() if seen is None else seen
    if path not in seen:
        seen.add(path)
        for name in imported(path):
            reached(module_file(name), seen)
        if path.with_suffix(".cpp").exists():
            seen.add(path.with_suffix(".cpp"))
    return {file for file in seen if file.stat().st_size}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_lists_every_first_party_file_that_a_stage_runs(stage):
    files = {str(file.relative_to(ROOT)) for file in reached(PACKAGE / "stages" / f"{stage}.py")}
    listed = {dependency for dependency in DVC[stage]["deps"] if dependency.startswith("code/")}
    assert files == listed, f"mend deps of {stage} in dvc.yaml: add {files - listed}, remove {listed - files}"


def test_every_stage_has_a_module_of_its_name_and_runs_it():
    assert sorted(DVC) == STAGES
    for stage, definition in DVC.items():
        assert definition["cmd"].startswith(f".venv/bin/python -m camelsight.stages.{stage}")


@pytest.mark.parametrize("room", CORE)
def test_core_rooms_touch_neither_the_roof_nor_files(room):
    for path in (PACKAGE / room).glob("*.py"):
        tree = ast.parse(path.read_text())
        roof = {name for name in imported(path) if name.split(".")[-1] in ROOF or ".stages." in name}
        assert not roof, f"{path} imports {roof}"
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "open" not in calls or path.name == "download.py", f"{path} opens a file"
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"pathlib", "shutil", "tempfile"}, f"{path} handles files"


def test_data_flows_one_way_through_the_rooms():
    """A room imports from itself and from rooms before it."""
    for position, room in enumerate(CORE):
        later = {f"camelsight.{name}" for name in CORE[position + 1 :]}
        for path in (PACKAGE / room).glob("*.py"):
            assert not {name for name in imported(path) if ".".join(name.split(".")[:2]) in later}, path


def text_without_encoding(tree):
    """Calls that read or write text as the locale has it."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        named = {keyword.arg for keyword in call.keywords}
        name = getattr(call.func, "attr", getattr(call.func, "id", None))
        is_ours = ast.unparse(call.func) in ("store.write_text", "write_text")
        binary = name == "open" and any("b" in ast.unparse(mode) for mode in call.args[1:2])
        opens = name in ("read_text", "write_text") or ast.unparse(call.func) == "open"
        if (opens and not is_ours and not binary and "encoding" not in named) or "text" in named:
            yield f"line {call.lineno}: {ast.unparse(call)}"


def test_text_is_utf_8_in_every_locale():
    """In an ASCII locale verify and plan could not read params.yaml and expected.yaml."""
    for path in PACKAGE.rglob("*.py"):
        found = list(text_without_encoding(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, f"{path}: say encoding='utf-8' in {found}"


def test_nothing_imports_a_stage():
    for path in PACKAGE.rglob("*.py"):
        assert not {name for name in imported(path) if name.startswith("camelsight.stages.")}, path


def test_the_import_walk_sees_what_it_must():
    train = {file.name for file in reached(PACKAGE / "stages" / "train.py")}
    assert {"train.py", "network.py", "loss.py", "cuts.py", "cases.py", "theta.py"} <= train


def test_every_test_that_the_table_of_released_behaviour_names_exists():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## What the released code does")[2]
    rows = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for cell in rows:
        for file, names in re.findall(r"`(\w+): (test_[^|]*?)(?=, `\w+:|$)", cell.strip()):
            source = (ROOT / "tests" / f"test_{file}.py").read_text()
            for name in re.findall(r"(test_\w+)…?", names):
                assert f"def {name}" in source, f"{file}: {name}"
