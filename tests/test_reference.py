import numpy as np
import pytest

from camelsight.report import reference

SUITES, CASES, NAMES, SEEDS = ("A", "Nbody_A"), [f"kmax_{k}" for k in range(1, 10)], ("omega_m", "sigma_8"), 4


def runs(generator, seeds, prior=8.0, scale=0.2):
    """R² of ``seeds`` runs, row → list; each row's variance is drawn, as Smyth's model has it."""
    found = {}
    for suite in SUITES:
        for number, case in enumerate(CASES):
            for name in NAMES:
                variance = scale**2 * prior / generator.chisquare(prior)
                y = np.log(0.02 * (1 + number)) + np.sqrt(variance) * generator.standard_normal(seeds)
                found[f"r2.{suite}.{case}.{name}"] = list(1 - np.exp(y))
    return found


def split(values):
    """A reference and one further run."""
    return {name: one[:-1] for name, one in values.items()}, {name: one[-1] for name, one in values.items()}


def with_averages(limits, run):
    run = dict(run)
    for name in limits.keys() - run.keys():
        _, suite, _, parameter = reference.split(name)
        run[name] = reference.average(v for k, v in run.items() if reference.split(k)[1::2] == (suite, parameter))
    return run


def test_an_honest_run_fails_as_often_as_stated():
    generator, repeats = np.random.default_rng(1), 400
    failed, outside, rows = 0, 0, 0
    for _ in range(repeats):
        others, run = split(runs(generator, SEEDS + 1))
        limits = reference.limits(others)
        verdicts = [reference.judge(limits[name], r2) for name, r2 in with_averages(limits, run).items()]
        failed += "FAIL" in verdicts
        outside, rows = outside + sum(verdict != "PASS" for verdict in verdicts), rows + len(verdicts)
    assert failed / repeats < 0.03, "1% by design, at most"
    assert outside / rows < 2 * 0.05 / len(limits), "of a row, 5% over all of them"


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


def test_a_small_shift_of_every_network_is_seen_in_their_mean():
    others, run = split(runs(np.random.default_rng(3), SEEDS + 1, prior=1e3))
    limits = reference.limits(others)
    worse = {name: 1 - (1 - r2) * np.exp(0.7) for name, r2 in run.items()}
    verdicts = {name: reference.judge(limits[name], r2) for name, r2 in with_averages(limits, worse).items()}
    assert {verdicts[f"r2.{suite}.all.{name}"] for suite in SUITES for name in NAMES} == {"FAIL"}
    assert sum(verdict == "FAIL" for verdict in verdicts.values()) < len(verdicts) / 2


def test_variances_are_moderated_as_by_hand():
    same, free = reference.moderate(np.full(20, 0.04), 3)
    assert len(set(same)) == 1 and free == 60, "no more scatter than sampling: one variance for all"
    generator = np.random.default_rng(4)
    truth = 0.04 * 5.0 / generator.chisquare(5, 4000)
    shrunk, free = reference.moderate(truth * generator.chisquare(3, 4000) / 3, 3)
    assert free == pytest.approx(8, abs=1), "five of the prior, three of the data"
    assert np.std(np.log(shrunk / truth)) < np.std(np.log(generator.chisquare(3, 4000) / 3))


def test_error_rates_are_checked_on_the_reference_itself():
    rates = reference.error_rates(runs(np.random.default_rng(5), 6))
    assert rates["observed_at_5_percent"] == pytest.approx(0.05, abs=0.03)
    assert rates["rows"] == 40 and rates["false_alarm_row"]["FAIL"] == pytest.approx(0.01 / 40)
    assert reference.error_rates(runs(np.random.default_rng(5), 4))["observed_at_5_percent"] is None


def test_a_reference_needs_seeds_and_a_run_a_number():
    with pytest.raises(ValueError, match="at least 4"):
        reference.limits(runs(np.random.default_rng(6), 3))
    limit = reference.limits(runs(np.random.default_rng(6), 4))["r2.A.kmax_1.omega_m"]
    assert reference.judge(limit, float("nan")) == "FAIL"


def test_an_id_may_hold_a_point_in_its_case():
    assert reference.split("r2.IllustrisTNG.kmax_1.5.omega_m") == ("r2", "IllustrisTNG", "kmax_1.5", "omega_m")
