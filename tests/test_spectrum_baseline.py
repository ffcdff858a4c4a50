import pytest
import torch

from camelsight.inference import training
from camelsight.rivals import spectrum_network
from conftest import global_generators_left_alone

SETTINGS = {"layers": 2, "hidden": 32, "dropout": 0.1, "max_lr": 5e-3, "weight_decay": 1e-4, "epochs": 30, "batch": 64}


def toy(count=1500, seed=0, shuffled=False):
    """Ten noisy features; the first is the parameter, and the noise of the second is the third's size."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(count, 2, generator=generator)
    features = torch.randn(count, 10, generator=generator)
    features[:, 0] = theta[:, 0] + 0.1 * features[:, 0]
    features[:, 1] = theta[:, 1].square() + 0.1 * features[:, 1]
    if shuffled:
        theta = theta[torch.randperm(count, generator=generator)]
    return features, theta


def fit(seed=1, train=None, valid=None, **changes):
    return spectrum_network.fit_moments(train or toy(), valid or toy(300, seed=1), seed=seed, **SETTINGS | changes)


def r2(network, features, theta):
    mean, _ = training.predict(network, features)
    return 1 - (mean - theta).square().sum(0) / (theta - theta.mean(0)).square().sum(0)


def test_it_learns_what_can_be_learnt_and_how_well():
    network, _ = fit()
    features, theta = toy(2000, seed=2)
    assert (r2(network, features, theta) > 0.8).all()
    mean, sigma = training.predict(network, features)
    assert ((mean - theta).square() / sigma.square()).mean(0).sub(1).abs().max() < 0.3


def test_shuffled_targets_teach_nothing():
    network, _ = fit(train=toy(shuffled=True), valid=toy(300, seed=1, shuffled=True))
    assert (r2(network, *toy(2000, seed=2)).abs() < 0.1).all()


def test_the_best_epoch_is_kept():
    network, history = fit(max_lr=5e-2)
    losses = [valid for _, valid in history]
    assert min(losses) < losses[-1]
    assert training.evaluate(network, *toy(300, seed=1)) == pytest.approx(min(losses), rel=1e-6)


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone():
    with global_generators_left_alone():
        (one, history), (two, again), (other, _) = (fit(seed=seed, epochs=2) for seed in (1, 1, 2))
    assert history == again and all(map(torch.equal, one.parameters(), two.parameters()))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_layers_and_widths_are_what_they_are_called():
    network = spectrum_network.MomentNetwork(10, 6, layers=3, hidden=7, dropout=0.0)
    shapes = [tuple(module.weight.shape) for module in network.layers if isinstance(module, torch.nn.Linear)]
    assert shapes == [(7, 10), (7, 7), (7, 7), (12, 7)]
    assert (network(torch.randn(50, 10))[:, 6:] >= 0).all()


def test_a_loss_that_is_no_number_is_said():
    with pytest.raises(training.DivergenceError, match="smaller max_lr than 1e"):
        fit(max_lr=1e20, epochs=2)
