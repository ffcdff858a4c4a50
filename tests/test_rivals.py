import numpy as np
import pytest

from camelsight import theta
from camelsight.report import plotting_rivals, rivals


def metrics(r2=0.5, error=0.2):
    triples = {"r2": (r2, r2 - 0.1, r2 + 0.05), "relative_error": (error, error, error)}
    return {metric: dict.fromkeys(theta.NAMES, triple) for metric, triple in triples.items()}


LIKELIHOOD = {
    "metrics": metrics(0.25),
    "n_maps": 2,
    "bins": 4,
    "hartlap": 0.98765,
    "chi2_per_bin": 1.0625,
    "chains": {"tau": [20.0, 30.0], "steps": [500, 450], "converged": [True, False], "mean_error": [0.02, 0.031]},
}
RECORDS = {"likelihood": LIKELIHOOD, "network": {"metrics": metrics(0.4)}}
ERRORS = np.outer([-0.3, -0.1, 0.0, 0.12, 0.3], np.ones(4))


def test_there_is_a_row_for_every_method_that_was_run_and_parameter_in_a_fixed_order():
    rows = rivals.rows(metrics(0.9), RECORDS, "IllustrisTNG")
    assert [row["method"] for row in rows[::6]] == ["CNN", "P(k) network", "P(k) MCMC"]
    assert [row["parameter"] for row in rows[:6]] == list(theta.NAMES)
    assert rows[6] == {
        "method": "P(k) network", "parameter": "omega_m", "r2": 0.4, "low": pytest.approx(0.3),
        "high": pytest.approx(0.45), "relative_error": 0.2,
    }  # fmt: skip
    assert rivals.rows(metrics(), {}, "IllustrisTNG") == []


def test_parameters_without_effect_have_no_numbers():
    rows = rivals.rows(metrics(), RECORDS, "Nbody_IllustrisTNG")
    for row in rows:
        assert (row["r2"] == "") == (row["relative_error"] == "") == (row["parameter"] not in theta.COSMOLOGICAL)
    body = [line for line in rivals.latex(metrics(), RECORDS, "Nbody_IllustrisTNG").splitlines() if "MCMC" in line]
    assert body[0].count("--") == 4 and "0.25^{+0.05}_{-0.10}" in body[0] and " 20 " in body[0]


def test_numbers_by_hand_and_a_dash_for_what_was_not_run():
    numbers = rivals.numbers(metrics(0.9), RECORDS, ERRORS, np.log([1.1, 1.2, 1.2, 1.3]))
    assert numbers["HasRivals"] == numbers["HasLikelihood"] == 1
    assert numbers["RivalMapsOmegaM"] == "0.90" and numbers["RivalHistogramOmegaM"] == "n/a"
    assert numbers["RivalLikelihoodErrorSigmaEight"] == "20" and numbers["LikelihoodHartlap"] == "0.988"
    assert numbers["LikelihoodTau"] == "30" and numbers["LikelihoodLengths"] == "15"
    assert numbers["LikelihoodConverged"] == 1 and numbers["LikelihoodMaps"] == 2
    assert (
        numbers["LikelihoodBand"] == "11"
        and numbers["LikelihoodScatter"] == "20"
        and numbers["LikelihoodMeanError"] == "3"
    )
    without = rivals.numbers(metrics(), {})
    assert without.keys() == numbers.keys() and without["HasRivals"] == 0
    assert {value for value in without.values()} == {0, "n/a"}


def predictions(count=20, seed=0):
    rng = np.random.default_rng(seed)
    truth = theta.from_prior(rng.random((count, 6)), "IllustrisTNG")
    return {"truth": truth, "mean": truth * 1.01, "sigma": 0.1 * truth}


def test_the_figure_of_rivals_has_every_method_and_every_meaningful_parameter():
    methods = {name: predictions() | {"metrics": metrics()} for name in ("maps", "network", "likelihood")}
    for suite, shown in (("IllustrisTNG", 6), ("Nbody_IllustrisTNG", 2)):
        figure = plotting_rivals.rivals(methods, suite)
        left, *panels = figure.get_axes()
        assert len(left.get_xticks()) == shown and len(panels) == 2 * 3
        assert [axes.get_title() for axes in panels[:3]] == ["CNN", "$P(k)$ network", "$P(k)$ MCMC"]


def test_the_figure_of_the_likelihood_shows_band_contours_and_the_network():
    x, y = np.linspace(0.1, 0.5, 40), np.linspace(0.6, 1.0, 40)
    density = np.exp(-(((x - 0.3) / 0.05) ** 2)[None] - (((y - 0.8) / 0.08) ** 2)[:, None])
    contours = [{"x": x, "y": y, "density": density, "levels": np.array([0.6, 0.1])}] * 3
    points = [{key: values[n] for key, values in predictions().items()} for n in range(3)]
    figure = plotting_rivals.likelihood(
        np.geomspace(0.3, 8, 4), ERRORS, np.full(4, 0.1), contours, points, "IllustrisTNG"
    )
    band, *panels = figure.get_axes()
    assert len(panels) == 3 and band.get_xscale() == "log"
    with pytest.raises(ValueError, match="zip"):
        plotting_rivals.likelihood(
            np.geomspace(0.3, 8, 4), ERRORS, np.full(4, 0.1), contours, points[:2], "IllustrisTNG"
        )
