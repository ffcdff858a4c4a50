import numpy as np
import pytest
from scipy import stats

from camelsight.ground import theta
from camelsight.report import calibration, plotting_calibration, robustness


def draws(scale=1.0, count=4000, seed=0):
    """Truths drawn from the predicted Gaussians, or from ones ``scale`` times as wide."""
    rng = np.random.default_rng(seed)
    mean, sigma = rng.normal(size=(count, 6)), rng.uniform(0.5, 2, (count, 6))
    return mean + scale * sigma * rng.normal(size=mean.shape), mean, sigma


def histogram(values, simulation=None):
    simulation = np.arange(len(values)) if simulation is None else simulation
    return calibration.histogram(values, simulation, generator=np.random.default_rng(1), resamples=300)


def test_the_rank_is_the_share_of_the_predicted_gaussian_below_the_truth():
    ranks = calibration.ranks(np.array([0.0, 1.0, -2.0, 3.0]), np.array([0.0, 0.0, 0.0, 3.0]), np.array([1, 1, 2, 0.0]))
    np.testing.assert_allclose(ranks, [0.5, stats.norm.cdf(1), stats.norm.cdf(-1), 0.5])
    assert calibration.ranks(1.0, 0.0, 0.0) == 1 and calibration.ranks(-1.0, 0.0, 0.0) == 0


def test_ranks_are_uniform_for_the_right_width_humped_for_too_wide_ones_and_a_valley_for_too_narrow_ones():
    density, low, high = histogram(calibration.ranks(*draws()))
    assert np.abs(density - 1).max() < 0.25 and (low <= density).all() and (density <= high).all()
    np.testing.assert_allclose(density.mean(0), 1)
    wide, narrow = (histogram(calibration.ranks(*draws(scale)))[0] for scale in (0.5, 2))
    assert (wide[4:6] > 1.3).all() and (wide[[0, -1]] < 0.5).all()
    assert (narrow[4:6] < 0.8).all() and (narrow[[0, -1]] > 1.5).all()


def test_maps_of_one_simulation_are_no_independent_ones():
    """Fifteen copies of each map leave the interval as wide as it was."""
    values = calibration.ranks(*draws(count=60))
    once = histogram(values)
    again = histogram(np.repeat(values, 15, axis=0), np.repeat(np.arange(60), 15))
    for one, other in zip(once, again, strict=True):
        np.testing.assert_allclose(one, other)


def metrics(chi2=1.0, coverage=0.68):
    triples = {"coverage_68": (coverage, coverage - 0.05, coverage + 0.05), "coverage_95": (0.95, 0.94, 0.99)}
    return {
        key: dict.fromkeys(theta.NAMES, triple)
        for key, triple in (triples | {"chi2": (chi2, chi2 - 0.1, chi2 + 0.1)}).items()
    }


TNG, GRAVITY = "IllustrisTNG", "Nbody_IllustrisTNG"
MEASURED = {
    (TNG, TNG, "original"): metrics(),
    (TNG, TNG, "kmax_1"): metrics(1.5, 0.5),
    (GRAVITY, GRAVITY, "original"): metrics(0.5),
    (TNG, GRAVITY, "original"): metrics(700.0, 0.05),
}


def test_numbers_say_how_many_intervals_keep_the_promise():
    numbers = calibration.numbers(MEASURED, TNG)
    assert numbers["CalibrationOf"] == 6 + 6 + 2  # another suite's maps are no promise
    assert (numbers["CalibrationKeptNarrow"], numbers["CalibrationKeptWide"]) == (8, 14)
    assert numbers["CalibrationKeptChi"] == 6
    assert numbers["CalibrationNarrowOmegaM"] == "68" and numbers["CalibrationChiSigmaEightLow"] == "0.90"
    assert numbers["CalibrationWordsOmegaM"] == "as large as they should be"


@pytest.mark.parametrize(
    "chi2, words", [((2, 1.5, 3), "too small"), ((0.5, 0.2, 0.9), "too large"), ((1.2, 0.9, 1.5), "as large as")]
)
def test_chi_square_above_one_means_standard_deviations_that_are_too_small(chi2, words):
    assert calibration.verdict(chi2).startswith(words)


def test_there_is_a_row_for_what_means_the_same_in_both_suites():
    rows = calibration.rows(MEASURED, robustness.comparable)
    assert len(rows) == 6 + 6 + 2 + 2 and set(rows[0]) == set(calibration.COLUMNS)
    assert rows[-1]["parameter"] == "sigma_8" and rows[-1]["chi2_low"] == 699.9
    lines = [line for line in calibration.latex(MEASURED).splitlines() if r"\chi^2" in line]
    assert len(lines) == 2 and lines[1].count("--") == 4 and "0.50^{+0.10}_{-0.10}" in lines[1]


def test_the_figure_has_a_place_for_every_case_and_for_other_suites():
    pit = calibration.pit_rows(TNG, "original", histogram(calibration.ranks(*draws(count=50))))
    assert len(pit) == 6 * calibration.BINS and pit[0]["to"] == "0.1"
    pit = [row | {"from": float(row["from"]), "to": float(row["to"])} for row in pit]
    figure = plotting_calibration.calibration(pit, calibration.rows(MEASURED, robustness.comparable))
    *panels, above, _, below, _ = figure.axes
    assert len(panels) == 6
    labels = [text.get_text() for text in below.get_xticklabels()]
    assert labels == ["original", r"$k_{\rm max} = 1$", "on N-body (IllustrisTNG)"]
    points = [line for line in above.lines if line.get_marker() == "o"]
    assert sorted(line.get_ydata()[0] for line in points) == [0.05, 0.5, 0.68, 0.95, 0.95, 0.95]
