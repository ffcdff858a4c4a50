from itertools import pairwise

import numpy as np
import pytest
import torch
from captum import attr
from torch import nn

from camelsight.ground import choices
from camelsight.inference import network
from camelsight.interpretation import attribution
from camelsight.maps import scaling
from conftest import global_generators_left_alone

SIZE = 16
SCALE = {"log10_range": (9, 15), "train_mean": 11.5, "scale": scaling.Scale(11, 2)}
CHANNELS = pytest.mark.parametrize("channels", [1, 2])


class Linear(nn.Module):
    """Output t is the sum over pixels and channels of weight[t] * x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("bchw,tchw->bt", x, self.weight)


class Relu(nn.Module):
    def forward(self, x):
        return torch.relu(x.flatten(1).sum(1, keepdim=True))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def real_network(seed=0, channels=1):
    """A network whose BatchNorms have seen data."""
    net = network.build(2, 0.1, size=SIZE, channels=channels, generator=torch.Generator().manual_seed(seed))
    net(draw(32, channels, SIZE, SIZE, seed=seed))
    return net.eval()


def attribute(net, scaled, outputs=(0,), start=None, references=None, function=attribution.attribute, **changes):
    settings = {"ig_steps": 32, "shap_samples": 8, "seed": 1} | changes
    start = torch.zeros_like(scaled) if start is None else start
    references = start[None] if references is None else references
    return function(net, scaled, outputs, start=start, references=references, **settings)


def assert_close(got, expected, rtol=1e-3):
    """To a relative error, or to a ten-thousandth of the largest value."""
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-4 * expected.abs().max().item())


@CHANNELS
def test_a_linear_network_is_attributed_exactly(channels):
    """Saliency = w, Integrated Gradients = w (x - x'); the latter are complete with any number of steps."""
    shape = channels, 4, 4
    weight, scaled, start = draw(2, *shape), draw(*shape, seed=1), draw(*shape, seed=2)
    values, record = attribute(Linear(weight), scaled, outputs=(1, 0), start=start, ig_steps=4)
    torch.testing.assert_close(values["saliency"], weight[[1, 0]])
    torch.testing.assert_close(values["integrated_gradients"], weight[[1, 0]] * (scaled - start), rtol=1e-5, atol=1e-6)
    assert record["gap"]["integrated_gradients"].max() < 1e-5 and record["steps"] == 4


@CHANNELS
def test_gradient_shap_of_a_linear_network_has_the_expectation_that_theory_gives(channels):
    """w (x - mean of the references), within the Monte Carlo error of the drawn references."""
    shape = channels, 4, 4
    weight, scaled, references = draw(1, *shape), draw(*shape, seed=1), draw(5, *shape, seed=2)
    values, record = attribute(Linear(weight), scaled, references=references, shap_samples=4000)
    expected = weight * (scaled - references.mean(0))
    error = 5 * 1.3 * weight.abs().max().item() / 4000**0.5
    torch.testing.assert_close(values["gradient_shap"], expected, atol=error, rtol=0)
    difference = (weight[0] * (scaled - references.mean(0))).sum()
    gap = (values["gradient_shap"].sum() - difference).abs() / difference.abs()
    torch.testing.assert_close(record["gap"]["gradient_shap"], gap[None], rtol=1e-3, atol=1e-5)


@CHANNELS
def test_the_mean_of_networks_is_attributed_as_the_mean_of_their_attributions(channels):
    scaled = draw(channels, SIZE, SIZE, seed=9)
    nets = [attribution.fold(real_network(seed, channels)) for seed in range(3)]
    mean = attribution.Mean(nets)
    torch.testing.assert_close(mean(scaled[None]), sum(net(scaled[None]) for net in nets) / 3)
    several, one = (attribution.batch_size(net, SIZE, 2**22) for net in (mean, nets[0]))
    assert 1 < several < one < attribution.MAX_BATCH
    settings = {"outputs": (0, 1), "ig_steps": 128}
    values, record = attribute(mean, scaled, **settings)
    each = [attribute(net, scaled, **settings)[0] for net in nets]
    for method in attribution.METHODS:
        expected = sum(one[method] for one in each) / 3
        torch.testing.assert_close(values[method], expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    assert record["gap"]["integrated_gradients"].max() < attribution.TOLERANCE


def test_a_two_layer_relu_network_worked_out_on_paper():
    """f = relu(x1 + x2) from (-1, 0) to (3, 0): the relu is off for the first quarter of the path, so IG = (3, 0)."""
    values, record = attribute(Relu(), torch.tensor([[[3.0, 0.0]]]), start=torch.tensor([[[-1.0, 0.0]]]), ig_steps=8)
    torch.testing.assert_close(
        values["integrated_gradients"], torch.tensor([[[[3.0, 0.0]]]]), atol=3 * attribution.TOLERANCE, rtol=0
    )
    assert record["gap"]["integrated_gradients"] < attribution.TOLERANCE


def test_panels_are_halved_at_the_kink_until_the_sum_rule_holds():
    """The kink lies at 0.3 of the path: with few steps the rule is broken, and refinement mends it at little cost."""
    scaled, start = torch.tensor([[[7.0, 0.0]]]), torch.tensor([[[-3.0, 0.0]]])
    _, coarse = attribute(Relu(), scaled, start=start, ig_steps=8, refinement=1)
    _, fine = attribute(Relu(), scaled, start=start, ig_steps=8)
    assert coarse["gap"]["integrated_gradients"] > attribution.TOLERANCE > fine["gap"]["integrated_gradients"]
    assert coarse["steps"] == 8 < fine["steps"] <= 128


@CHANNELS
def test_the_real_network_is_complete(channels):
    net, shape = attribution.fold(real_network(channels=channels)), (channels, SIZE, SIZE)
    for seed in range(4):
        _, record = attribute(net, draw(*shape, seed=seed), outputs=(0, 1), start=draw(*shape, seed=9))
        assert record["gap"]["integrated_gradients"].max() < attribution.TOLERANCE


def test_a_map_that_stays_incomplete_says_so():
    net = attribution.fold(real_network())
    scaled, start = 30 * draw(1, SIZE, SIZE), -30 * draw(1, SIZE, SIZE, seed=9)
    _, record = attribute(net, scaled, start=start, ig_steps=4, refinement=1)
    assert record["gap"]["integrated_gradients"] > attribution.TOLERANCE


def test_small_differences_count_as_the_floor():
    """f(x) = f(x'), so no attribution is complete relative to it; the gap is in units of the floor."""
    weight = torch.tensor([[[[1.0, -1.0]]]])
    _, record = attribute(Linear(weight), torch.tensor([[[2.0, 2.0]]]))
    assert record["gap"]["integrated_gradients"] < 1e-4


def test_a_constant_output_is_attributed_to_nothing():
    values, record = attribute(Linear(torch.zeros(2, 1, 4, 4)), draw(1, 4, 4), outputs=(0, 1))
    assert all((value == 0).all() for value in values.values()) and record["gap"]["integrated_gradients"].max() == 0


@CHANNELS
def test_it_is_what_captum_gives_one_output_at_a_time(channels):
    shape = channels, SIZE, SIZE
    net, scaled, references = real_network(channels=channels), draw(*shape), draw(5, *shape, seed=1)
    values, _ = attribute(
        attribution.fold(net), scaled, outputs=(0, 7), start=references[0], references=references, refinement=1, seed=3
    )
    x = scaled[None].clone().requires_grad_()
    for column, output in enumerate((0, 7)):
        plain = {"saliency": attr.Saliency(net).attribute(x, target=output, abs=False)}
        edges = [references[:1] + a * (x - references[:1]) for a in np.linspace(0, 1, 9)]
        plain["integrated_gradients"] = sum(
            attr.IntegratedGradients(net).attribute(end.detach(), start.detach(), target=output, n_steps=4)
            for start, end in pairwise(edges)
        )
        with attribution._seeded_globals(3):
            plain["gradient_shap"] = attr.GradientShap(net).attribute(
                x, references, target=output, n_samples=8, stdevs=attribution.SHAP_NOISE
            )
        for method, expected in plain.items():
            assert_close(values[method][column], expected[0].detach(), rtol=1e-4)


@pytest.mark.parametrize("architecture", ["o3", "strided"])
def test_folding_batchnorm_changes_no_output_and_no_attribution(architecture):
    """Implementation invariance: two networks that are the same function have the same attributions."""
    net = network.build(2, 0.1, size=SIZE, architecture=architecture, generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        net(draw(32, 1, SIZE, SIZE, seed=seed) * 2 + 1)
    net.eval()
    folded, x = attribution.fold(net), draw(5, 1, SIZE, SIZE)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    one, two = (attribute(either, x[0], outputs=(0, 1), refinement=1)[0] for either in (net, folded))
    for method in attribution.METHODS:
        assert_close(two[method], one[method])
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules()), "the network itself is left as it was"


def test_the_batch_changes_nothing_and_follows_from_the_memory():
    net, scaled = attribution.fold(real_network()), draw(1, SIZE, SIZE)
    one, two = (attribute(net, scaled, outputs=(0, 1), batch=batch)[0] for batch in (3, 64))
    for method in attribution.METHODS:
        assert_close(two[method], one[method])
    assert attribution.batch_size(net, SIZE, 0) == 1
    assert attribution.batch_size(net, SIZE, 2**40) == attribution.MAX_BATCH
    some = 40 * 2**20
    small, large = (attribution.batch_size(network.build(hidden, 0.1, size=64).eval(), 64, some) for hidden in (4, 2))
    assert 1 < small < large < attribution.MAX_BATCH
    two_fields = network.build(4, 0.1, size=64, channels=2).eval()
    assert 1 < attribution.batch_size(two_fields, 64, some) <= small


class Isotropic(nn.Module):
    """Does not mind how a map is held: a sum over pixels of something nonlinear of each and its four neighbours."""

    def forward(self, x):
        around = sum(x.roll(by, axis) for by in (1, -1) for axis in (2, 3)).flip(1)  # in the other channel
        return torch.relu(x * around).sum((1, 2, 3))[:, None]


@CHANNELS
def test_the_symmetries_of_a_network_are_those_of_its_attributions(channels):
    scaled = draw(channels, 8, 8)
    alone, _ = attribute(Isotropic(), scaled, shap_samples=1)
    table = scaling.symmetry_table(8)
    for row in table:
        turned, _ = attribute(Isotropic(), scaled.flatten(1)[:, row].view_as(scaled))
        for method in ("saliency", "integrated_gradients"):
            torch.testing.assert_close(turned[method][0].flatten(1), alone[method][0].flatten(1)[:, row])
    mean, record = attribute(Isotropic(), scaled, function=attribution.symmetric)
    for method in ("saliency", "integrated_gradients"):
        torch.testing.assert_close(mean[method], alone[method])
        assert record["equivariance"][method].max() < 1e-5


@CHANNELS
def test_the_average_over_symmetries_turns_with_the_map_and_says_how_far_the_network_is_from_it(channels):
    net, scaled = attribution.fold(real_network(channels=channels)), draw(channels, SIZE, SIZE)
    mean, record = attribute(net, scaled, function=attribution.symmetric, refinement=1)
    turned, _ = attribute(net, scaled.rot90(dims=(1, 2)), function=attribution.symmetric, refinement=1)
    for method in ("saliency", "integrated_gradients"):
        assert_close(turned[method][0], mean[method][0].rot90(dims=(1, 2)))
        assert record["equivariance"][method] > 0.1


def test_the_seed_decides_and_the_global_generators_are_left_alone():
    net, scaled, references = attribution.fold(real_network()), draw(1, SIZE, SIZE), draw(4, 1, SIZE, SIZE, seed=1)
    with global_generators_left_alone():
        one, two, other = (
            attribute(net, scaled, references=references, seed=seed)[0]["gradient_shap"] for seed in (1, 1, 2)
        )
    assert torch.equal(one, two) and not torch.equal(one, other)


def baselines(name, scaled=None, count=3, seed=0):
    scaled = draw(8, 8) if scaled is None else scaled
    return attribution.baselines(name, scaled, count, **SCALE, generator=np.random.default_rng(seed))


def test_baselines_are_what_their_names_say():
    scaled = draw(8, 8)
    assert (baselines("mean") == 0.25).all() and (baselines("blank") == 0).all()
    shuffled = baselines("shuffled", scaled)
    assert all(torch.equal(one.flatten().sort()[0], scaled.flatten().sort()[0]) for one in shuffled)
    assert not torch.equal(shuffled[0], shuffled[1]) and not torch.equal(shuffled[0], scaled)
    density = 10 ** (scaled.double() * 2 + 11)
    uniform = 10 ** (baselines("uniform", scaled).double() * 2 + 11)
    torch.testing.assert_close(uniform, density.mean().expand(3, 8, 8), rtol=1e-4, atol=0)
    noise = baselines("noise", count=500)
    assert noise.min() >= -1 and noise.max() <= 2 and abs(noise.mean() - 0.5) < 0.05
    for name in choices.BASELINES:
        assert baselines(name).shape == (3, 8, 8) and torch.equal(baselines(name), baselines(name))
    with pytest.raises(ValueError, match="got 'black'"):
        baselines("black")


def test_the_uniform_baseline_of_a_map_with_negative_pixels_is_its_mean_density():
    """After a k_max cut a density can be negative, and its signed log10 with it."""
    density = torch.tensor([[-1e10, 5e11], [1e12, 2e12]])
    scaled = (scaling.signed_log10(density) - 11) / 2
    uniform = 10 ** (baselines("uniform", scaled)[0].double() * 2 + 11)
    torch.testing.assert_close(uniform, density.double().mean().expand(2, 2), rtol=1e-4, atol=0)


def test_maps_are_spread_over_the_simulations():
    simulation = np.repeat([4, 2, 7], 15)
    assert simulation[attribution.spread(simulation, 6)].tolist().count(2) == 2
    assert len(attribution.spread(simulation, 1000)) == 45
