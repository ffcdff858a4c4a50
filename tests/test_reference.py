import numpy as np
import pytest

from camelsight.report import reference

SUITES, CASES, NAMES, SEEDS = ("A", "Nbody_A"), [f"kmax_{k}" for k in range(1, 10)], ("omega_m", "sigma_8"), 4


NOISE = {
    "normal": lambda generator, seeds: generator.standard_normal(seeds),
    "heavy": lambda generator, seeds: generator.standard_t(4, seeds),
    "bad trainings": lambda generator, seeds: generator.standard_normal(seeds) + 6 * (generator.random(seeds) < 0.02),
}


def runs(generator, seeds, prior=8.0, scale=0.2, noise="normal"):
    """R² of ``seeds`` runs, row → list; each row's variance is drawn, as Smyth's model has it."""
    found = {}
    for suite in SUITES:
        for number, case in enumerate(CASES):
            for name in NAMES:
                variance = scale**2 * prior / generator.chisquare(prior)
                y = np.log(0.02 * (1 + number)) + np.sqrt(variance) * NOISE[noise](generator, seeds)
                found[f"r2.{suite}.{case}.{name}"] = list(1 - np.exp(y))
    return found


def split(values):
    """A reference and one further run."""
    return {name: one[:-1] for name, one in values.items()}, {name: one[-1] for name, one in values.items()}


def rates(noise, seeds, repeats=150):
    """Shares of honest runs with a FAIL, and of rows that are no PASS times rows, over simulated references."""
    generator, failed, outside = np.random.default_rng(1), 0, []
    for _ in range(repeats):
        others, run = split(runs(generator, seeds + 1, noise=noise))
        limits = reference.limits(others)
        verdicts = [reference.judge(limits[name], r2) for name, r2 in (run | reference.shifts(limits, run)).items()]
        failed += "FAIL" in verdicts
        outside.append(sum(verdict != "PASS" for verdict in verdicts))
    return failed / repeats, np.mean(outside)


@pytest.mark.parametrize("seeds", [SEEDS, 10])
@pytest.mark.parametrize("noise", NOISE)
def test_an_honest_run_fails_as_often_as_stated(noise, seeds):
    failed, outside = rates(noise, seeds)
    assert failed < 0.035, "1% by design; 4.5 of 150 are two standard deviations more"
    assert outside < 2 * 0.05, "rows of a run: 5% over all of them, by design"


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
    found = {f"r{i}": {"center": 0.5, "width": 0.1} for i, _ in enumerate(moved)}
    r2 = {f"r{i}": 1 - np.exp(0.5 + 0.1 * one) for i, one in enumerate(moved)}
    assert reference.shifts(found | {"shift": {"rows": list(r2)}}, r2) == {"shift": pytest.approx(shift)}
    assert reference.shifts(found | {"shift": {"rows": list(r2)}}, {"r0": 0.5}) == {}


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
    assert left["rows"] == 6 * 40 and 0.01 < left["outside_95_percent"] < 0.08
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
