import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from camelsight.commands import paper
from camelsight.pipeline import params, paths, store
from camelsight.report import tables
from camelsight.stages import paper as paper_stage

ROOT = Path(__file__).parent.parent
NUMBERS = {
    name + symbol + suffix: value
    for name, triple in {
        "Orig": ("0.947", "0.920", "0.960"), "Tight": ("0.436", "0.2", "0.5"), "BothCost": ("0.370", "0.3", "0.4"),
        "UnderdenseShare": ("44", "40", "48"),
    }.items()
    for symbol in ("OmegaM", "SigmaEight")
    for suffix, value in zip(("", "Low", "High"), triple, strict=True)
} | {"HasBoth": "1", "BothCase": "kmax_5__max_2e11_clamp", "KTightest": "1", "UnderdenseArea": "70"}  # fmt: skip


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write_text(paths.NUMBERS, tables.macros(NUMBERS))
    return params.load(ROOT / "profiles" / "mini.yaml")


def test_a_run_ends_with_three_numbers_and_where_the_results_are(finished, capsys):
    paper.report(finished, [], 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("IllustrisTNG: 0.947 [0.920, 0.960] and 0.947 [0.920, 0.960]")
    assert lines[1].strip() == "what kmax_5__max_2e11_clamp costs of it: 0.370 [0.3, 0.4] and 0.370 [0.3, 0.4]"
    assert "70% of the area: 44% [40, 48]" in lines[2]
    assert [line.split()[0] for line in lines[3:7]] == ["page", "PDF", "tables", "figures"]
    assert "simulated again" in lines[-1]
    paper.report(params.load(ROOT / "profiles" / "smoke.yaml"), [], 0)
    assert capsys.readouterr().out.endswith("Tested on 2 of 8 simulations: these numbers mean nothing.\n")


def test_a_profile_without_a_combination_says_what_the_tightest_k_max_leaves():
    alone = list(paper.headline(NUMBERS | {"HasBoth": "0"}, "SIMBA"))
    assert alone[1] == "R² with nothing but k < 1 h/Mpc: 0.436 [0.2, 0.5] and 0.436 [0.2, 0.5]"
    assert len(list(paper.headline(NUMBERS | {"HasBoth": "0", "KTightest": "n/a"}, "SIMBA"))) == 2


@pytest.mark.parametrize(
    ("free", "error", "message"), [(1 << 20, OSError, "No space left"), (1 << 30, ValueError, "no error line")]
)
def test_tex_without_room_is_a_full_disk_and_no_riddle(free, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paper").mkdir()
    failed = subprocess.CompletedProcess([], 12, stdout="Latexmk: Errors, so I did not complete", stderr="")
    monkeypatch.setattr(paper_stage.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(
        paper_stage.shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(1 << 30, 0, free)
    )
    with pytest.raises(error, match=message):
        paper_stage.main(None)


def test_a_k_max_above_every_mode_of_the_maps_is_said_to_cut_nothing(capsys):
    """Maps of 256² pixels hold modes up to 45.5 h/Mpc, and the paper has a cut at 50."""
    for name, said in (
        ("twin", "Nothing is cut by kmax_50: maps of 256² pixels have no k above 45.5 h/Mpc\n"),
        ("mini", ""),
    ):
        paper.announce(params.load(ROOT / f"profiles/{name}.yaml"), ["maps"], 1)
        assert [line for line in capsys.readouterr().out.splitlines(keepends=True) if "cut" in line] == [said][
            : bool(said)
        ]
