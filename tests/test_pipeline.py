"""The pipeline's shape: a stage depends on what can change its result, and the rooms keep to their rules."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from camelsight.pipeline import source

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "code" / "camelsight"
ROOMS = ("ground", "universe", "maps", "inference", "rivals", "interpretation", "report")  # in the order of the data
FLOORS = (*ROOMS, "pipeline", "analysis", "stages", "referee", "commands")  # each stands on those before it
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


def floor(path):
    """The folder of the package in which a file or a module lies; the entry itself is a command."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "commands"


def test_a_stage_depends_on_the_data_that_it_reads_and_on_its_own_code():
    for name, stage in DVC.items():
        code = [path for path in stage["deps"] if path.startswith(("code", "results/code"))]
        assert code == ([f"results/code/{name}.txt"] if name != "code" else ["code/camelsight"])


def test_what_can_change_a_result_is_the_ground_and_the_rooms_that_a_stage_uses():
    train, evaluate, paper = ({str(path) for path in source.files(name)} for name in ("train", "evaluate", "paper"))
    assert {"stages/train.py", "inference/network.py", "inference/loss.py", "inference/fused.cpp"} <= train
    assert {"maps/cuts.py", "maps/scaling.py", "ground/cases.py", "ground/theta.py", "analysis/dataset.py"} <= train
    assert not {"inference/metrics.py", "inference/tuning.py", "analysis/prediction.py"} & train
    assert {"inference/metrics.py", "analysis/prediction.py"} <= evaluate and "stages/train.py" not in evaluate
    assert not {path.split("/")[0] for path in train | evaluate} & {"report", "interpretation", *source.PLUMBING}
    assert {path.split("/")[0] for path in paper} == {"ground", "stages"}


SOURCE = (
    '''"""A module."""  # said
import math  # why


def f(x):
    """A function, é."""
    "another"  # é
    return f"{x!r:>{3}} # no comment"  # é


class A:
    '''
    + "'''Two\n    lines.'''"
    + """
    value = "# no comment"
"""
)


@pytest.mark.parametrize(
    "change",
    [
        ("A module.", "Another one,\nof two lines."),
        ("# why", "# how"),
        ("  # why", ""),
        ("A function, é.", "Ä"),
        ("\n\n\ndef", "\n# new\n\ndef"),
        ("lines.", "lines, no: three\n    of them."),
        ("A module.", ""),
    ],
)
def test_comments_docstrings_and_blank_lines_change_no_essence(change):
    assert source.essence(SOURCE.replace(*change)) == source.essence(SOURCE) != source.essence("")


@pytest.mark.parametrize(
    "change", [("x!r", "x!s"), ("# no comment", "# one"), ("another", "others"), ("math", "cmath")]
)
def test_everything_else_does(change):
    assert source.essence(SOURCE.replace(*change)) != source.essence(SOURCE)


def test_every_stage_has_a_module_of_its_name_and_runs_it():
    assert sorted(DVC) == sorted([*source.stages(), "code"])
    for stage, definition in DVC.items():
        assert definition["cmd"].partition(" --")[0] == f"code/stage {stage}"


FILES = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "load", "save", "savez", "loadtxt", "savetxt"}
MODULES = {"pathlib", "shutil", "tempfile", "glob", "subprocess", "safetensors.torch"}
LOADERS = {"np", "numpy", "torch", "json", "yaml", "pickle", "safetensors"}


def touches_files(tree):
    """What in a module handles files, in words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILES:
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else None
            if owner in LOADERS or "text" in node.func.attr or "bytes" in node.func.attr:
                yield f"{owner}.{node.func.attr}"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_touch_no_files(room):
    for path in (PACKAGE / room).glob("*.py"):
        found = set(touches_files(ast.parse(path.read_text())))
        assert not found, f"{path}: {found}"


def test_the_rule_on_files_sees_what_it_must():
    seen = ("import shutil", "from pathlib import Path", "np.load('a')", "open('a')", "p.read_text()", "torch.save(a)")
    for line in seen:
        assert set(touches_files(ast.parse(line))), line
    assert not set(touches_files(ast.parse("fused.load(path); self.load()")))


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_stands_on_those_below(name):
    """Data flows one way through the rooms, and nothing below imports what is above."""
    below = FLOORS[: FLOORS.index(name) + 1]
    for path in PACKAGE.rglob("*.py"):
        if floor(path) == name:
            above = {one for one in map(module_file, imported(path)) if floor(one) not in below}
            assert not {one for one in above if one != PACKAGE / "__init__.py"}, f"{path} imports {above}"


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


def test_no_stage_imports_another():
    for path in (PACKAGE / "stages").glob("*.py"):
        assert not {name for name in imported(path) if name.startswith("camelsight.stages.")}, path


def test_every_test_that_the_table_of_released_behaviour_names_exists():
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## What the released code does")[2]
    rows = [line.split("|")[-2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for cell in rows:
        for file, names in re.findall(r"`(\w+): (test_[^|]*?)(?=, `\w+:|$)", cell.strip()):
            source = (ROOT / "tests" / f"test_{file}.py").read_text()
            for name in re.findall(r"(test_\w+)…?", names):
                assert f"def {name}" in source, f"{file}: {name}"
