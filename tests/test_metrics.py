import numpy as np
import pytest

from camelsight.inference import metrics


def draw(simulations=200, noise=0.1, seed=0, per_simulation=15):
    """Parameters, predictions with Gaussian errors, and the true standard deviation."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.uniform(1, 2, (simulations, 2)), per_simulation, axis=0)
    mean = truth + noise * rng.standard_normal(truth.shape)
    return truth, mean, np.full_like(truth, noise), np.repeat(np.arange(simulations), per_simulation)


def summary(*arguments, seed=1, **keywords):
    return metrics.summary(*arguments, generator=np.random.default_rng(seed), **keywords)


def test_r2_by_hand():
    truth = np.array([[0.0], [1.0], [2.0]])
    assert metrics.r2(truth, truth) == 1
    assert metrics.r2(truth, np.full_like(truth, 1.0)) == 0
    assert metrics.r2(truth, np.array([[0.0], [1.0], [1.0]])) == pytest.approx(0.5)


def test_every_metric_of_known_errors():
    truth, mean, sigma, simulation = draw()
    values = {name: triple[0] for name, triple in summary(truth, mean, sigma, simulation).items()}
    np.testing.assert_allclose(values["r2"], metrics.r2(truth, mean), rtol=1e-12)
    np.testing.assert_allclose(values["rmse"], np.sqrt(np.mean((truth - mean) ** 2, axis=0)), rtol=1e-12)
    relative = abs(truth - mean) / truth
    np.testing.assert_allclose(values["relative_error"], relative.mean(0), rtol=1e-12)
    np.testing.assert_allclose(values["rms_relative_error"], np.sqrt((relative**2).mean(0)), rtol=1e-12)
    np.testing.assert_allclose(values["mean_sigma"], 0.1, rtol=1e-12)
    np.testing.assert_allclose(values["chi2"], 1, atol=0.1)
    np.testing.assert_allclose(values["coverage_68"], 0.68, atol=0.03)
    np.testing.assert_allclose(values["coverage_95"], 0.95, atol=0.02)


def test_the_interval_holds_the_value_of_all_simulations_at_its_level():
    """Of many test sets, about 95% have an interval that holds the value of the whole population."""
    truth, mean, sigma, simulation = draw(4000, noise=0.15)
    population = metrics.r2(truth, mean)[0]
    held = 0
    for trial in range(100):
        rows = slice(trial * 40 * 15, (trial + 1) * 40 * 15)
        _, low, high = summary(truth[rows], mean[rows], sigma[rows], simulation[rows], resamples=300)["r2"]
        held += low[0] <= population <= high[0]
    assert 85 <= held <= 100


def test_simulations_are_resampled_and_not_maps():
    """15 copies of every map add no information: the interval stays; resampled maps would make it 4 times narrower."""
    truth, mean, sigma, simulation = draw(60, per_simulation=1)
    copied = [np.repeat(array, 15, axis=0) for array in (truth, mean, sigma, simulation)]
    _, low, high = summary(truth, mean, sigma, simulation)["r2"]
    _, copied_low, copied_high = summary(*copied)["r2"]
    np.testing.assert_allclose(copied_high - copied_low, high - low, rtol=1e-9)


def test_a_resample_of_one_simulation_has_no_r2():
    """With two test simulations half of the resamples are of one alone; rounding once gave them an R² of -1e17."""
    _, low, high = summary(*draw(2))["r2"]
    assert (low > -10).all() and (high <= 1).all()


def test_predictions_of_other_parameters_have_no_skill():
    truth, mean, sigma, simulation = draw()
    shuffled = mean[np.random.default_rng(0).permutation(len(mean))]
    assert (summary(truth, shuffled, sigma, simulation)["r2"][0] < 0).all()


def test_the_same_generator_gives_the_same_interval():
    data = draw(20)
    np.testing.assert_array_equal(summary(*data)["r2"], summary(*data)["r2"])
    assert (np.array(summary(*data)["r2"]) != np.array(summary(*data, seed=2)["r2"])).any()


def test_a_vanishing_sigma_covers_nothing():
    truth, mean, _, simulation = draw(10)
    values = summary(truth, mean, np.zeros_like(truth), simulation)
    assert (values["coverage_95"][0] == 0).all() and np.isinf(values["chi2"][0]).all()


def test_without_a_generator_the_interval_is_always_the_same():
    arguments = draw(20)
    one, two, seeded = metrics.summary(*arguments), metrics.summary(*arguments), summary(*arguments)
    assert all(np.array_equal(one[name], two[name]) and np.array_equal(one[name], seeded[name]) for name in one)


def test_arrays_that_do_not_belong_together_are_refused():
    truth, mean, sigma, simulation = draw(3)
    with pytest.raises(ValueError, match="of one shape"):
        metrics.summary(truth, mean[:, :1], sigma, simulation)
    with pytest.raises(ValueError, match="of one shape"):
        metrics.summary(truth, mean, sigma, simulation[:-1])


@pytest.mark.parametrize(("views", "words"), [(1, "15 maps each"), (8, "15 maps × 8 views each")])
def test_rows_are_mapped_to_simulations_by_their_true_values_in_any_order(views, words):
    truth = np.tile(draw(4)[0], (views, 1))  # the released order: all maps in one view after the other
    simulation, mapping = metrics.group_by_truth(truth)
    assert mapping == f"{60 * views} rows, 4 simulations by their true values, {words}"
    assert all(len(np.unique(truth[simulation == s], axis=0)) == 1 for s in range(4))
    assert "2 to 15 rows each" in metrics.group_by_truth(truth[:17])[1]


def test_a_single_simulation_has_no_r2_but_the_other_metrics():
    values = summary(*draw(1))
    assert np.isnan(values["r2"][0]).all() and np.isfinite(values["rmse"]).all()


def test_a_negative_sigma_and_no_rows_at_all_are_refused():
    truth, mean, sigma, simulation = draw(3)
    with pytest.raises(ValueError, match=r"no sigma below 0, got 45 and -0\.1"):
        metrics.summary(truth, mean, -sigma, simulation)
    with pytest.raises(ValueError, match="at least one row"):
        metrics.summary(truth[:0], mean[:0], sigma[:0], simulation[:0])
    with pytest.raises(ValueError, match="of one shape"):
        metrics.r2(truth, mean[:, :1])


def test_bias_and_its_slope_of_a_known_line():
    """A prediction that is off by 0.05 and shrinks to the centre by a fifth."""
    truth, _, sigma, simulation = draw(40)
    mean = 0.8 * (truth - truth.mean(0)) + truth.mean(0) + 0.05
    values = summary(truth, mean, sigma, simulation)
    np.testing.assert_allclose(values["bias"][0], 0.05, rtol=1e-9)
    np.testing.assert_allclose(values["bias_slope"][0], -0.2, rtol=1e-9)
    np.testing.assert_allclose(values["bias_slope"][1:], -0.2, rtol=1e-9)
    expected = np.polyfit(truth[:, 0], truth[:, 0] ** 2 - truth[:, 0], 1)[0]
    np.testing.assert_allclose(summary(truth, truth**2, sigma, simulation)["bias_slope"][0][0], expected, rtol=1e-9)
