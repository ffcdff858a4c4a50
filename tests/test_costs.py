import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from camelsight.ground import theta
from camelsight.pipeline import params as parameters_file
from camelsight.pipeline import paths, references, rerun, store
from camelsight.referee import anew, files
from camelsight.report import costs, plotting, tables

ROOT = Path(__file__).parent.parent
TNG = "IllustrisTNG"
T_7 = 2.364624  # Student's t at 97.5% with seven degrees of freedom


def test_without_seeds_the_cost_is_the_loss_of_this_run():
    assert costs.cost((0.1, 0.05, 0.2)) == ((0.1, 0.05, 0.2), True)
    assert costs.cost((0.1, -0.05, 0.2)) == ((0.1, -0.05, 0.2), False)
    assert costs.cost((-0.1, -0.2, -0.05))[1]


def test_an_interval_without_a_width_resolves_nothing():
    """Of two test simulations all resamples are alike, but for those without an R²."""
    assert costs.cost((0.1, 0.1, 0.1)) == ((0.1, 0.1, 0.1), False)
    found = numbers(kmax_1=(0.1, 0.1, 0.1), max_1e12_clamp=(0.1, 0.1, 0.1))
    assert (found["HasKCostOmegaM"], found["DensityCostlyOmegaM"], found["DensityCutsOmegaM"]) == (0, 0, 1)


def test_the_interval_joins_simulations_and_seeds_in_quadrature():
    """Eight seeds that lose .1 on average, ±.04 by turns: the standard deviation is .04 √(8/7)."""
    uncut = np.full(8, 0.9)
    cut = uncut - 0.1 - 0.04 * np.array([1, -1] * 4)
    (value, low, high), resolved = costs.cost((0.2, 0.17, 0.26), uncut, cut)
    error = T_7 * 0.04 * np.sqrt(8 / 7) / np.sqrt(8)
    assert value == pytest.approx(0.1) and resolved
    assert low == pytest.approx(0.1 - np.hypot(0.03, error)) and high == pytest.approx(0.1 + np.hypot(0.06, error))


def test_seeds_are_paired():
    """Seeds that are good or bad in both cases say more of the loss than their spread."""
    uncut = np.linspace(0.5, 0.9, 8)
    (_, low, high), resolved = costs.cost((0.05, 0.04, 0.06), uncut, uncut - 0.05)
    assert (low, high) == (pytest.approx(0.04), pytest.approx(0.06)) and resolved
    assert not costs.cost((0.05, 0.04, 0.06), uncut, uncut[::-1] - 0.05)[1]


def rows(**by_case):
    losses = {(TNG, case): dict.fromkeys(theta.COSMOLOGICAL, triple) for case, triple in by_case.items()}
    return costs.rows(losses, {})


NOTHING, SOME, MUCH = (0.0, -0.1, 0.1), (0.1, 0.05, 0.2), (0.5, 0.4, 0.6)


def numbers(**by_case):
    return costs.numbers(rows(**by_case), TNG, list(by_case))


def test_no_loss_is_seen_down_to_the_last_k_max_before_the_first_that_costs():
    found = numbers(kmax_1=NOTHING, kmax_5=SOME, kmax_20=NOTHING, kmax_10=NOTHING)
    assert found["KFreeOmegaM"] == "10" and found["KCostlyOmegaM"] == "5" and found["KCostOmegaM"] == "0.100"
    assert (found["KCostSigmaEightLow"], found["KCostSigmaEightHigh"]) == ("0.050", "0.200")
    all_free = numbers(kmax_1=NOTHING, kmax_5=NOTHING)
    assert (all_free["HasKFreeOmegaM"], all_free["KFreeOmegaM"], all_free["HasKCostOmegaM"]) == (1, "1", 0)
    none_free = numbers(kmax_5=SOME)
    assert (none_free["HasKFreeOmegaM"], none_free["KCostlyOmegaM"]) == (0, "5")


def test_the_dearest_density_cut_is_named_and_a_combination_is_none():
    found = numbers(max_1e11_clamp=SOME, min_1e12_random=NOTHING, max_5e10_clamp=MUCH, kmax_5__max_1e12_clamp=MUCH)
    assert (found["DensityCutsOmegaM"], found["DensityCostlyOmegaM"]) == (3, 2)
    assert found["DensityWorstSigmaEight"] == "max_5e10_clamp" and found["DensityCostSigmaEight"] == "0.500"
    assert (
        found["HasBoth"] == 1 and found["BothCase"] == "kmax_5__max_1e12_clamp" and found["BothCostOmegaM"] == "0.500"
    )
    assert found["BothResolvedSigmaEight"] == "resolved"
    none = numbers(max_1e11_clamp=NOTHING)
    assert none["HasBoth"] == 0 and costs.together(["original", "kmax_5", "max_1e11_clamp", "kmax_5__kmax_1"]) == []
    assert none.keys() == found.keys() and none["HasDensityCostOmegaM"] == 0 and none["HasCostSeeds"] == 0


def test_the_table_has_the_loss_of_this_run_where_the_cost_is_a_mean_over_seeds():
    alone = costs.latex(rows(kmax_5=SOME, max_1e11_clamp=NOTHING))
    assert "this run" not in alone and alone.count(r"\textbf{yes}") == 2 and "+0.100" in alone
    losses = {(TNG, "kmax_5"): dict.fromkeys(theta.COSMOLOGICAL, SOME)}
    seeds = {
        f"r2.{TNG}.{case}.omega_m": values for case, values in {"original": [0.9, 0.8], "kmax_5": [0.6, 0.5]}.items()
    }
    found = costs.rows(losses, seeds)
    assert [row["seeds"] for row in found] == [2, 0] and found[0]["cost"] == pytest.approx(0.3)
    assert found[0]["loss"] == 0.1 and "this run" in costs.latex(found)
    assert set(found[0]) == set(costs.COLUMNS)


def test_a_reference_holds_for_its_own_settings_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    loaded = parameters_file.load(paths.PROFILES / "smoke.yaml")
    assert references.load(loaded) is None
    good = {"settings": references.settings(loaded), "simulator": references.simulator(loaded), "r2": {}}
    paths.reference("smoke").write_text(json.dumps(good))
    assert references.load(loaded) == good
    for key, value in (("settings", good["settings"] | {"train": "0"}), ("simulator", None)):
        paths.reference("smoke").write_text(json.dumps(good | {key: value}))
        assert references.load(loaded) is None


def test_a_reference_holds_for_another_simulator_that_makes_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy("profiles/smoke.yaml", paths.PARAMS)
    loaded = parameters_file.load()
    maps = paths.all_maps(loaded.suites, loaded.fields)
    for path in (paths.UNIVERSE, *maps):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    monkeypatch.setattr(files, "lost_maps", lambda *_: [])
    monkeypatch.setattr(rerun, "prepare", lambda *_: pytest.exit("new networks are trained"))
    record = {
        "seeds": list(range(8)), "maps": {str(path): store.file_digest(path) for path in maps}, "simulator": "another",
        "settings": references.settings(loaded), "suites": loaded.suites, "cases": loaded.cases, "r2": {"a": 1},
    }  # fmt: skip
    store.write_json(paths.reference("smoke"), record)
    anew.make_reference(8)
    made = store.read_json(paths.reference("smoke"))
    assert made["r2"] == {"a": 1} and references.load(loaded) == made and "the same bits" in capsys.readouterr().err
    for changed in (made, record | {"seeds": [0]}, record | {"maps": dict.fromkeys(record["maps"], "other")}):
        store.write_json(paths.reference("smoke"), changed)
        with pytest.raises(pytest.exit.Exception):
            anew.make_reference(8)


def test_tables_and_figures_show_the_spread_over_seeds_where_it_is_known():
    assert tables.spread([1.0, 3.0]) == pytest.approx(np.sqrt(2)) and tables.spread(()) == tables.spread([1.0]) == ""
    row = {"suite": TNG, "case": "kmax_5", "parameter": "omega_m", "r2": 0.9, "low": 0.8, "high": 0.95}
    known, unknown = row | {"seeds": 0.025}, row | {"case": "kmax_1", "seeds": ""}
    text = tables.r2_latex([known, unknown])
    assert r"$0.90^{+0.05}_{-0.10}\pm0.03$" in text and r"$0.90^{+0.05}_{-0.10}$" in text
    assert "0.90 [0.80, 0.95] ± 0.03 " in tables.r2_markdown([known, unknown])
    axes = plotting.r2_against_kmax([known, unknown], 10, 14).axes[0]
    pale = [bar for bar in axes.collections if bar.get_alpha() == 0.35]
    ends = sorted(abs(segment[1, 1] - segment[0, 1]) for bar in pale for segment in bar.get_segments())
    np.testing.assert_allclose(ends, [0, 4 * 0.025])
