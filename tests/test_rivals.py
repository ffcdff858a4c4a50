import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from camelsight.ground import theta
from camelsight.pipeline import map_files
from camelsight.pipeline import params as parameters_file
from camelsight.report import paired, plotting_rivals, rivals
from camelsight.stages import baseline

ROOT = Path(__file__).parent.parent


def metrics(r2=0.5, error=0.2):
    triples = {"r2": (r2, r2 - 0.1, r2 + 0.05), "relative_error": (error, error, error)}
    return {metric: dict.fromkeys(theta.NAMES, triple) for metric, triple in triples.items()}


LIKELIHOOD = {
    "metrics": metrics(0.25),
    "n_maps": 2,
    "n_simulations": 2,
    "shown": 2,
    "growth": {"omega_m": [1.04, 11.5], "sigma_8": [1.25, 2.5]},
    "bins": 4,
    "hartlap": 0.98765,
    "chi2_per_bin": 1.0625,
    "chains": {"tau": [20.0, 30.0], "steps": [500, 450], "converged": [True, False], "mean_error": [0.02, 0.031]},
}
RECORDS = {"likelihood": LIKELIHOOD, "network": {"metrics": metrics(0.4)}}
GAIN = {name: (0.2, 0.1 if name == "omega_m" else -0.1, 0.3) for name in theta.NAMES}
SCALES = {
    "original": {"maps": (metrics(0.9), None), "network": (metrics(0.7), GAIN)},
    "kmax_3": {"maps": (metrics(0.8), None), "network": (metrics(0.6), GAIN), "likelihood": (metrics(0.1), GAIN)},
}
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
    numbers = rivals.numbers(metrics(0.9), RECORDS, ERRORS, np.log([1.1, 1.5, 1.5, 1.9]))
    assert numbers["HasRivals"] == numbers["HasLikelihood"] == 1
    assert numbers["RivalMapsOmegaM"] == "0.90" and numbers["RivalHistogramOmegaM"] == "n/a"
    assert numbers["RivalLikelihoodErrorSigmaEight"] == "20" and numbers["LikelihoodHartlap"] == "0.988"
    assert numbers["LikelihoodTau"] == "30" and numbers["LikelihoodLengths"] == "15"
    assert numbers["LikelihoodConverged"] == 1 and numbers["LikelihoodMaps"] == 2
    assert numbers["LikelihoodBand"] == "11" and numbers["LikelihoodScatter"] == "1.5"
    assert numbers["LikelihoodMeanError"] == "3.1"
    assert numbers["LikelihoodGrowthOmegaM"] == "1.0" and numbers["LikelihoodPowerGrowthSigmaEight"] == "2.5"
    assert numbers["LikelihoodMapsEach"] == 1 and numbers["LikelihoodShown"] == 2
    assert (numbers["HasRivalNetwork"], numbers["HasRivalMean"], numbers["HasSpectrumNetworks"]) == (1, 0, 1)
    without = rivals.numbers(metrics(), {})
    assert without.keys() == numbers.keys() and without["HasRivals"] == 0
    assert {value for value in without.values()} == {0, "n/a"}


BRANCH = re.compile(r"\\ifnum\\(\w+)=1((?:(?!\\ifnum|\\fi\b).)*)\\fi\b", re.DOTALL)


def test_whatever_was_run_the_text_quotes_nothing_that_was_not():
    source, names = (ROOT / "paper" / "rivals.tex").read_text(), parameters_file.EXPERIMENTS["baseline"]
    assert set(names) == set(baseline.RUN) == (rivals.LABELS.keys() | {"scales"}) - {"maps"}
    for count in range(len(names) + 1):
        for ran in itertools.combinations(names, count):
            records = {name: LIKELIHOOD if name == "likelihood" else {"metrics": metrics()} for name in ran}
            records.pop("scales", None)
            bands = {"errors": ERRORS, "scatter": np.ones(4)} if "likelihood" in ran else {}
            numbers = rivals.numbers(metrics(), records, **bands) | {"HasTransferProbes": 0}
            numbers |= rivals.scale_numbers(rivals.scale_rows(SCALES, "IllustrisTNG") if "scales" in ran else [])
            text = source
            while BRANCH.search(text):
                text = BRANCH.sub(lambda match: match[2] if numbers[match[1]] else "", text)  # noqa: B023
            quoted = [macro for macro in re.findall(r"\\(\w+)", text) if macro in numbers]
            assert bool(quoted) == bool(ran) and all(numbers[macro] != "n/a" for macro in quoted), ran


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """Params of smoke; the maps of its first simulation, which all others have as well, but the second: twice those."""
    monkeypatch.chdir(tmp_path)
    params = parameters_file.load(ROOT / "profiles" / "smoke.yaml")
    pixels, count = params.maps.pixels, params.maps.simulations
    maps = np.random.default_rng(0).lognormal(27, 1, (15, pixels, pixels)).astype(np.float32)
    many = np.concatenate([maps, 2 * maps] + [maps] * (count - 2))
    monkeypatch.setattr(map_files, "open_maps", lambda *_: many)
    monkeypatch.setattr(map_files, "read_parameters", lambda *_: np.ones((count, 6)))
    return params


def test_summaries_have_what_was_asked_for_beside_the_spectrum(smoke):
    """Maps twice as dense have four times the power and twice the mean."""
    count = smoke.maps.simulations
    k, log_power, mass = baseline.summaries(smoke, smoke.suites[0], baseline._log_mean)
    assert log_power.shape == (count, 15, len(k)) and mass.shape == (count, 15, 1)
    np.testing.assert_allclose(log_power[1] - log_power[0], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(mass[1] - mass[0], np.log(2), rtol=1e-6)
    assert len(baseline.summaries(smoke, smoke.suites[0])) == 2


def test_under_a_k_max_only_the_shells_that_begin_below_it_are_left(smoke):
    """k_max 1 is 3.98 fundamental modes: shells 1 and 2 are whole, the third has lost what is beyond."""
    k, whole = baseline.summaries(smoke, smoke.suites[0])
    k_cut, cut, shares = baseline.summaries(smoke, smoke.suites[0], baseline._shares, case="kmax_1")
    np.testing.assert_array_equal(k_cut, k[:3])
    np.testing.assert_allclose(cut[..., :2], whole[..., :2], rtol=1e-5)
    assert (cut[..., 2] <= whole[..., 2] + 1e-5).all() and np.isfinite(cut).all()
    np.testing.assert_allclose(shares.sum(-1), 1)


def test_the_gain_is_a_difference_over_the_maps_that_both_predict():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(40, 6))
    ours = {"index": np.arange(40), "simulation": np.arange(40) // 4, "truth": truth, "mean": truth}
    order = rng.permutation(40)[:20]
    theirs = {"index": order, "mean": np.full((20, 6), truth[order].mean(0))}
    found = paired.difference(ours, theirs, generator=np.random.default_rng(0), resamples=50)
    for name in theta.NAMES:
        assert found[name][0] == pytest.approx(1)  # R² of 1 against that of the mean, 0
    with pytest.raises(ValueError, match="same maps"):
        paired.difference(ours, theirs | {"index": order + 100}, generator=np.random.default_rng(0), resamples=5)


def test_words_name_every_k_max_at_which_the_field_beats_the_spectrum():
    rows = rivals.scale_rows(SCALES, "IllustrisTNG")
    assert len(rows) == 5 * 6 and set(rows[0]) == set(rivals.SCALE_COLUMNS) and rows[0]["gain"] == ""
    numbers = rivals.scale_numbers(rows)
    assert numbers["FieldBeatsNetworkOmegaM"] == "3, uncut" and numbers["FieldBeatsLikelihoodOmegaM"] == "3"
    assert numbers["FieldBeatsNetworkSigmaEight"] == "none"
    assert set(rivals.scale_numbers([]).values()) == {0, "n/a"}


def test_the_figure_of_scales_has_a_line_for_every_method_and_the_uncut_maps_to_the_right():
    figure = plotting_rivals.scales(rivals.scale_rows(SCALES, "IllustrisTNG"))
    left, right = figure.axes
    assert [text.get_text() for text in right.get_xticklabels()] == ["3", "uncut"]
    assert right.get_xticks()[1] == plotting_rivals.UNCUT * 3
    assert [container.get_label() for container in left.containers] == ["CNN", "$P(k)$ network", "$P(k)$ MCMC"]
    np.testing.assert_allclose(left.containers[0][0].get_ydata(), [0.8, 0.9])


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
        assert [axes.get_title() for axes in panels[:3]] == ["CNN", "$P(k)$\nnetwork", "$P(k)$\nMCMC"]


def test_the_figure_of_the_likelihood_shows_band_contours_and_the_network():
    x, y = np.linspace(0.1, 0.5, 40), np.linspace(0.6, 1.0, 40)
    density = np.exp(-(((x - 0.3) / 0.05) ** 2)[None] - (((y - 0.8) / 0.08) ** 2)[:, None])
    contours = [{"x": x, "y": y, "density": density, "levels": np.array([0.6, 0.1])}] * 3
    points = [{key: values[n] for key, values in predictions().items()} for n in range(3)]
    scatter = np.full(4, np.log(1.1))
    figure = plotting_rivals.likelihood(np.geomspace(0.3, 8, 4), ERRORS, scatter, contours, points, "IllustrisTNG")
    band, *panels = figure.get_axes()
    assert len(panels) == 3 and band.get_xscale() == "log"
    dotted = [
        line.get_ydata() for line in band.get_lines() if line.get_linestyle() == ":" and len(line.get_ydata()) == 4
    ]
    np.testing.assert_allclose([values[0] for values in dotted], [100 / 1.1 - 100, 10])
    with pytest.raises(ValueError, match="zip"):
        plotting_rivals.likelihood(np.geomspace(0.3, 8, 4), ERRORS, scatter, contours, points[:2], "IllustrisTNG")


def test_under_each_cut_the_posterior_is_sampled_once(monkeypatch):
    """It was once for each of the five arrays that are kept of it."""
    settings, sampled = parameters_file.load(ROOT / "profiles/smoke.yaml"), []
    made, found = dict.fromkeys(baseline.PREDICTED, 0), {"tuning": {"hyperparameters": {}}}
    monkeypatch.setattr(baseline, "summaries", lambda *_, **__: (np.ones(3), np.ones((8, 15, 3)), np.ones((8, 15, 5))))
    monkeypatch.setattr(baseline, "_moments", lambda *_: (found, made))
    monkeypatch.setattr(baseline, "_fitted", lambda *_: made)
    monkeypatch.setattr(baseline, "_likelihood", lambda one, *_: sampled.append(one.rivals.maps) or ({}, made))
    monkeypatch.setattr(baseline, "_record", lambda *_: {"metrics": {}})
    record, arrays = baseline.scales(settings, "IllustrisTNG")
    assert sampled == [1, 1] and [row["case"] for row in record["rows"]] == ["original", "kmax_1"]
    assert len(arrays) == 2 * 3 * len(baseline.PREDICTED)
