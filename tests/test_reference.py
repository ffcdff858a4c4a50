import numpy as np
import pytest
from scipy import stats

from camelsight.referee import reference

SUITES, CASES, NAMES, SEEDS = ("A", "Nbody_A"), [f"kmax_{k}" for k in range(1, 10)], ("omega_m", "sigma_8"), 4


def bad(rate):
    """Of a network that trained badly all parameters explain less; y is (parameters, seeds) of one network."""
    return lambda generator, shape: generator.standard_normal(shape) + 6 * (generator.random(shape[-1]) < rate)


NOISE = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "heavy": lambda generator, shape: generator.standard_t(4, shape),
    "bad trainings": bad(0.02),
    "rare bad trainings": bad(0.005),
}


def runs(generator, seeds, prior=8.0, scale=0.2, noise="normal"):
    """R² of ``seeds`` runs, row → list; each row's variance is drawn, as Smyth's model has it."""
    found = {}
    for suite in SUITES:
        for number, case in enumerate(CASES):
            draws = NOISE[noise](generator, (len(NAMES), seeds))
            for name, draw in zip(NAMES, draws, strict=True):
                variance = scale**2 * prior / generator.chisquare(prior)
                y = np.log(0.02 * (1 + number)) + np.sqrt(variance) * draw
                found[f"r2.{suite}.{case}.{name}"] = list(1 - np.exp(y))
    return found


def split(values):
    """A reference and one further run."""
    return {name: one[:-1] for name, one in values.items()}, {name: one[-1] for name, one in values.items()}


def rates(noise, seeds, scale=0.2, repeats=150):
    """Share of honest runs with a FAIL, and how many rows of a run are no PASS, over simulated references."""
    generator, failed, outside = np.random.default_rng(1), 0, []
    for _ in range(repeats):
        others, run = split(runs(generator, seeds + 1, scale=scale, noise=noise))
        limits = reference.limits(others)
        verdicts = [reference.judge(limits[name], r2) for name, r2 in (run | reference.shifts(limits, run)).items()]
        failed += "FAIL" in verdicts
        outside.append(sum(verdict != "PASS" for verdict in verdicts))
    return failed / repeats, np.mean(outside)


@pytest.mark.parametrize("seeds", [SEEDS, 10])
@pytest.mark.parametrize("noise", NOISE)
def test_an_honest_run_fails_as_often_as_stated(noise, seeds):
    failed, outside = rates(noise, seeds)
    unseen = 0.03 if noise == "rare bad trainings" else 0  # a run may have the first; docs/verdict.md says so
    assert failed < 0.027 + unseen, "1% by design; at most 4 of 150, of which 1.5 are expected"
    assert outside < 2 * 0.05 + unseen, "rows of a run: 5% over all of them, by design"


def test_a_negligible_spread_is_no_fail():
    assert rates("normal", 10, scale=0.01) == (0, 0)


def test_the_tails_are_those_of_the_reference(monkeypatch):
    monkeypatch.setattr(reference, "tail_degrees", lambda y: np.inf)
    assert rates("heavy", 10)[0] > 0.1, "a t with the theory's degrees fails honest runs of heavy tails"


def test_what_it_says_it_detects_it_detects_in_both_directions():
    generator, found = np.random.default_rng(2), {"low": [], "high": []}
    name = "r2.A.kmax_4.omega_m"
    for _ in range(300):
        values = runs(generator, SEEDS, prior=1e3)
        limit = reference.limits(values)[name]
        noise = 0.2 * generator.standard_normal()
        for side, r2 in zip(found, limit["detects"], strict=True):
            moved = np.log(0.02 * 4) + np.log(1 - r2) - limit["center"]  # as far from the truth as from the mean
            found[side].append(reference.judge(limit, 1 - np.exp(moved + noise)) == "FAIL")
    assert all(0.7 < np.mean(side) < 0.92 for side in found.values()), "0.8 by design"


def test_a_small_shift_of_every_network_is_seen_in_more_than_half_of_them():
    others, run = split(runs(np.random.default_rng(3), 10 + 1, prior=1e3))
    limits = reference.limits(others)
    worse = {name: 1 - (1 - r2) * np.exp(0.7) for name, r2 in run.items()}
    worse |= reference.shifts(limits, worse)
    verdicts = {name: reference.judge(limits[name], r2) for name, r2 in worse.items()}
    assert {verdicts[f"shift.{suite}.all.{name}"] for suite in SUITES for name in NAMES} == {"FAIL"}
    assert sum(verdict == "FAIL" for verdict in verdicts.values()) < len(verdicts) / 2
    few = run | {name: -9.0 for name in others if "kmax_1." in name or "kmax_2." in name}
    assert all(abs(moved) < 1.5 for moved in reference.shifts(limits, few).values()), "but not of two of nine"


@pytest.mark.parametrize(
    ("moved", "shift"), [((1, 2, 3), 2), ((-1, 2, 3), 2), ((1, 2, 3, 4), 2), ((-4, -3, -2, 5), -2)]
)
def test_a_shift_is_how_far_more_than_half_moved(moved, shift):
    found = {f"r{i}": {"center": 0.5, "error": 0.1} for i, _ in enumerate(moved)}
    r2 = {f"r{i}": 1 - np.exp(0.5 + 0.1 * one) for i, one in enumerate(moved)}
    assert reference.shifts(found | {"shift": {"rows": list(r2)}}, r2) == {"shift": pytest.approx(shift)}
    assert reference.shifts(found | {"shift": {"rows": list(r2)}}, {"r0": 0.5}) == {}


@pytest.mark.parametrize("cases", [2, 4, 9])
def test_limits_of_a_shift_are_those_of_the_binomial(cases, monkeypatch):
    monkeypatch.setattr("test_reference.CASES", CASES[:cases])
    values = runs(np.random.default_rng(7), 10)
    limits = reference.limits(values)
    degrees = min(
        reference._predictions(y := {k: reference.unexplained(v) for k, v in values.items()})[1],
        reference.tail_degrees(y),
    )
    row, more = limits["shift.A.all.omega_m"], cases // 2
    beyond = lambda moved: stats.binom.sf(more, cases, stats.t.sf(row["FAIL"][1] - moved, degrees))  # noqa: E731
    assert len(row["rows"]) == cases and row["FAIL"][0] == -row["FAIL"][1]
    assert beyond(0) == pytest.approx(0.01 / len(limits) / 2)
    assert beyond(row["detects"][1]) == pytest.approx(0.8)


def test_a_reference_with_a_broken_or_a_constant_row():
    values = runs(np.random.default_rng(8), 10)
    before = reference.limits(values)["r2.A.kmax_5.omega_m"]["FAIL"]
    values["r2.A.kmax_1.sigma_8"] = [0.5] * 10
    assert reference.limits(values)["r2.A.kmax_5.omega_m"]["FAIL"] == pytest.approx(before, abs=0.15)
    values["r2.A.kmax_1.sigma_8"][3] = float("nan")
    with pytest.raises(ValueError, match=r"finite R² of every seed, got .* for r2\.A\.kmax_1\.sigma_8"):
        reference.limits(values)


def test_variances_are_moderated_as_by_hand():
    same, free = reference.moderate(np.full(20, 0.04), 3)
    assert len(set(same)) == 1 and free == 60, "no more scatter than sampling: one variance for all"
    generator = np.random.default_rng(4)
    truth = 0.04 * 5.0 / generator.chisquare(5, 4000)
    shrunk, free = reference.moderate(truth * generator.chisquare(3, 4000) / 3, 3)
    assert free == pytest.approx(8, abs=1), "five of the prior, three of the data"
    assert np.std(np.log(shrunk / truth)) < np.std(np.log(generator.chisquare(3, 4000) / 3))


def test_error_rates_are_checked_on_the_reference_itself():
    values = runs(np.random.default_rng(5), 6)
    rates = reference.error_rates(values)
    left = rates["left_out"]
    assert rates["rows"] == 40 and rates["false_alarm_row"]["FAIL"] == pytest.approx(0.01 / 40)
    assert left["rows"] == 6 * 40
    assert left["FAIL"] == left["runs_with_a_FAIL"] == 0
    values["r2.A.kmax_1.omega_m"][2] = -1e6
    left = reference.error_rates(values)["left_out"]
    assert left["runs_with_a_FAIL"] == 1 and left["FAIL"] >= 1
    assert reference.error_rates(runs(np.random.default_rng(5), 4))["left_out"] is None


def test_a_reference_needs_seeds_and_a_run_a_number():
    with pytest.raises(ValueError, match="at least 4"):
        reference.limits(runs(np.random.default_rng(6), 3))
    limit = reference.limits(runs(np.random.default_rng(6), 4))["r2.A.kmax_1.omega_m"]
    assert reference.judge(limit, float("nan")) == "FAIL"


def test_an_id_may_hold_a_point_in_its_case():
    assert reference.split("r2.IllustrisTNG.kmax_1.5.omega_m") == ("r2", "IllustrisTNG", "kmax_1.5", "omega_m")
