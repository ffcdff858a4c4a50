import math

import numpy as np
import pytest
import torch

from camelsight.rivals import emulator
from conftest import global_generators_left_alone

SETTINGS = {"epochs": 120, "batch": 50, "max_lr": 3e-3, "weight_decay": 0.0, "seed": 1}


def smooth(count=200, seed=0):
    """Parameters in the unit square, and a smooth function of them in eight bins."""
    unit = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed))
    k = torch.linspace(0, 1, 8)
    return unit, 10 + unit[:, :1] * k - (unit[:, 1:] * 2).square() * (1 - k) + torch.sin(3 * unit[:, :1] * k)


def test_activation_by_hand():
    """The identity where gamma is 1, a ramp of slope gamma below 0 and 1 above for a large beta, and one in between."""
    activation = emulator.Activation(3)
    with torch.no_grad():
        activation.beta.copy_(torch.tensor([2.0, 5.0, 100.0]))
        activation.gamma.copy_(torch.tensor([0.5, 1.0, 0.25]))
    expected = [0.5 + 0.5 / (1 + math.exp(-2)), 1.0, 1.0]
    torch.testing.assert_close(activation(torch.ones(1, 3)), torch.tensor([expected]))
    expected = [-(0.5 + 0.5 / (1 + math.exp(2))), -1.0, -0.25]
    torch.testing.assert_close(activation(-torch.ones(1, 3)), torch.tensor([expected]))


def test_exact_on_a_function_that_it_can_represent():
    """With gamma 1 every layer is linear: weights put in by hand give any linear function."""
    mean, std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    net = emulator.Emulator(3, mean, std, layers=2, width=4)
    slope = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 4.0]])
    with torch.no_grad():
        for module in net.layers:
            for parameter in module.parameters():
                parameter.zero_()
            if isinstance(module, emulator.Activation):
                module.gamma.fill_(1)
        net.layers[0].weight[:3] = torch.eye(3)
        net.layers[2].weight.copy_(torch.eye(4))
        net.layers[4].weight[:, :3] = slope
        unit = torch.rand(20, 3)
        torch.testing.assert_close(net(unit), mean + std * ((2 * unit - 1) @ slope.T))


def test_it_learns_a_smooth_function_to_a_percent_of_its_range():
    net, history = emulator.fit(smooth(), smooth(50, seed=1), width=64, **SETTINGS)
    unit, truth = smooth(200, seed=2)
    with torch.no_grad():
        assert (net(unit) - truth).square().mean().sqrt() < 0.01 * (truth.max() - truth.min())
    assert len(history) == SETTINGS["epochs"]


def test_the_same_seed_gives_the_same_emulator():
    nets = [emulator.fit(smooth(), smooth(50, seed=1), width=8, **SETTINGS | {"epochs": 2, "seed": seed})[0]
            for seed in (1, 1, 2)]  # fmt: skip
    weights = [torch.cat([value.flatten() for value in net.state_dict().values()]) for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_errors_are_percentiles_of_the_ratio():
    measured = np.log(np.linspace(0.9, 1.1, 101))[:, None]
    np.testing.assert_allclose(emulator.errors(np.zeros((101, 1)), measured)[[0, 2, 4], 0], [-0.095, 0, 0.095])


def test_covariance_is_that_of_maps_about_the_mean_of_their_parameters():
    """What the maps of a simulation share is part of it; what the parameters do is not."""
    rng = np.random.default_rng(0)
    true, shared = np.array([[1.0, 0.6], [0.6, 2.0]]), 0.5
    mean = 100 * rng.standard_normal((4000, 2))
    boxes = mean + np.sqrt(shared) * rng.standard_normal((4000, 2))
    maps = boxes[:, None] + rng.multivariate_normal([0, 0], true, (4000, 15))
    expected = true + shared * np.eye(2)
    np.testing.assert_allclose(emulator.covariance(maps, mean), expected, atol=0.05)
    about_own_mean = emulator.covariance(maps, maps.mean(1))
    np.testing.assert_allclose(about_own_mean, true * 14 / 15, atol=0.05)


def test_growth_of_a_scatter_that_goes_with_the_mean_is_none_in_the_logarithm():
    """P is 10 times larger in the upper half; a scatter that doubles there doubles in both."""
    rng, unit = np.random.default_rng(0), np.linspace(0, 1, 300)
    mean, noise = np.log(np.where(unit < 0.5, 1, 10))[:, None] * np.ones(4), 0.02 * rng.standard_normal((300, 15, 4))
    np.testing.assert_allclose(emulator.growth(mean[:, None] + noise, mean, unit), [1, 10], rtol=0.1)
    noise[150:] *= 2
    shuffled = rng.permutation(300)
    moved = (array[shuffled] for array in (mean[:, None] + noise, mean, unit))
    np.testing.assert_allclose(emulator.growth(*moved), [2, 20], rtol=0.1)


def test_hartlap_by_hand_and_in_the_mean_of_many_inverses():
    assert emulator.hartlap(12, 3) == pytest.approx(7 / 11)
    draws = np.random.default_rng(0).standard_normal((4000, 12, 3))
    inverses = [np.linalg.inv(np.cov(draw.T)) for draw in draws]
    np.testing.assert_allclose(emulator.hartlap(12, 3) * np.mean(inverses, axis=0), np.eye(3), atol=0.06)
    with pytest.raises(ValueError, match="more samples than bins"):
        emulator.hartlap(5, 3)


def test_log_likelihood_by_hand():
    value = emulator.log_likelihoods(
        torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    )
    torch.testing.assert_close(value, torch.tensor([-0.5 * (2 + 2 * 0.5 * 2 + 4), -0.0]))


MEAN, COVARIANCE = np.array([0.45, 0.55, 0.5]), np.array([[4.0, 2.0, 0.0], [2.0, 3.0, -1.0], [0.0, -1.0, 2.0]]) * 1e-3


def gaussian(unit):
    residual = unit - MEAN
    return -0.5 * np.einsum("wi,ij,wj->w", residual, np.linalg.inv(COVARIANCE), residual)


def run(seed=1, log_probability=gaussian, walkers=64, steps=1000, lengths=100):
    prior = np.random.default_rng(0).random((4000, 3))
    settings = {"walkers": walkers, "steps": steps, "lengths": lengths, "seed": seed}
    return emulator.sample(log_probability, prior, log_probability(prior), **settings)


def test_a_gaussian_likelihood_gives_its_mean_and_covariance():
    samples, record = run()
    assert record["converged"] and record["steps"] >= 100 * record["tau"]
    sigma, error = np.sqrt(np.diag(COVARIANCE)), record["mean_error"]
    np.testing.assert_array_less(np.abs(samples.mean(0) - MEAN) / sigma, 4 * error)
    scaled = (np.cov(samples.T) - COVARIANCE) / np.outer(sigma, sigma)
    assert np.abs(scaled).max() < 4 * np.sqrt(2) * error


def test_without_a_likelihood_the_posterior_is_the_flat_prior():
    samples, record = run(log_probability=lambda unit: np.zeros(len(unit)))
    shares = np.histogram(samples, np.linspace(0, 1, 6))[0] / samples.size
    np.testing.assert_allclose(shares, 0.2, atol=4 * record["mean_error"] * 0.4)
    np.testing.assert_allclose(samples.mean(0), 0.5, atol=4 * record["mean_error"] / np.sqrt(12))
    np.testing.assert_allclose(samples.std(0), 1 / np.sqrt(12), atol=4 * record["mean_error"] / np.sqrt(12))


def test_the_same_seed_gives_the_same_chain_and_leaves_numpy_alone():
    with global_generators_left_alone():
        one, two, other = (run(seed, steps=40)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_chain_that_is_too_short_says_so():
    assert not run(steps=40)[1]["converged"]


def test_the_posterior_of_an_emulated_spectrum_is_that_of_importance_sampling():
    """Where the prior is sampled densely, its points weighted by their likelihood need no chain."""
    net, _ = emulator.fit(smooth(), smooth(50, seed=1), width=16, **SETTINGS | {"epochs": 40})
    prior = np.random.default_rng(0).random((20_000, 2))
    with torch.no_grad():
        emulated = net(torch.as_tensor(prior, dtype=torch.float32)).double()
    data, precision = smooth(1, seed=7)[1][0].double(), torch.eye(8, dtype=torch.float64) / 0.2**2
    settings = {"walkers": 64, "steps": 400, "lengths": 50, "seed": 1}
    samples, record = emulator.posterior(net, prior, emulated, data, precision, **settings)
    weights = np.exp(emulator.log_likelihoods(emulated, data, precision).numpy())
    weights /= weights.sum()
    error = np.hypot(record["mean_error"], np.sqrt(np.square(weights).sum()))
    np.testing.assert_array_less(np.abs(samples.mean(0) - weights @ prior) / samples.std(0), 4 * error)


def test_contours_of_a_flat_density_and_of_a_gaussian_hold_what_they_say():
    rng = np.random.default_rng(0)
    low, high = np.array([0.1, 0.6]), np.array([0.5, 1.0])
    for samples in (low + (high - low) * rng.random((20_000, 2)), rng.normal([0.3, 0.8], 0.04, (20_000, 2))):
        found = emulator.density(samples, low, high)
        nearest = [np.abs(samples[:, [axis]] - found[name]).argmin(1) for axis, name in enumerate("xy")]
        height = found["density"][nearest[1], nearest[0]]
        held = [np.mean(height > level) for level in found["levels"]]
        np.testing.assert_allclose(held, emulator.CONTOURS, atol=0.02)
