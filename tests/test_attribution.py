import numpy as np
import pytest
import torch
from torch import nn

from camelsight.inference import network
from camelsight.interpretation import attribution

SIZE = 16


class Linear(nn.Module):
    """Output t is the sum over pixels of weight[t] * x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("bchw,thw->bt", x, self.weight)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attribute(net, maps, target=0, references=None, **changes):
    settings = {"ig_steps": 32, "shap_samples": 64, "seed": 1} | changes
    references = torch.zeros(1, *maps.shape[1:]) if references is None else references
    return attribution.attribute(net, maps, target, references=references, **settings)


def test_a_linear_network_is_attributed_exactly():
    """Saliency = w, Integrated Gradients = w (x - x'); the latter are complete with any number of steps."""
    weight, maps, reference = draw(2, 4, 4), draw(3, 4, 4, seed=1), draw(1, 4, 4, seed=2)
    values, gap = attribute(Linear(weight), maps, target=1, references=reference, ig_steps=2)
    torch.testing.assert_close(values["saliency"], weight[1].expand(3, 4, 4))
    torch.testing.assert_close(values["integrated_gradients"], weight[1] * (maps - reference), rtol=1e-5, atol=1e-6)
    assert gap.max() < 1e-5


def test_gradient_shap_of_a_linear_network_has_the_expectation_that_theory_gives():
    """w (x - mean of the references), within the Monte Carlo error of the drawn references and noise."""
    weight, maps, references = draw(1, 4, 4), draw(2, 4, 4, seed=1), draw(5, 4, 4, seed=2)
    values, _ = attribute(Linear(weight), maps, references=references, shap_samples=4000)
    expected = weight[0] * (maps - references.mean(0))
    torch.testing.assert_close(
        values["gradient_shap"], expected, atol=5 * 1.3 * weight.abs().max().item() / 4000**0.5, rtol=0
    )


def test_a_two_layer_relu_network_worked_out_on_paper():
    """f = relu(x1 + x2) from (-1, 0) to (3, 0): the relu is off for the first quarter of the path, so IG = (3, 0)."""

    class Relu(nn.Module):
        def forward(self, x):
            return torch.relu(x.flatten(1).sum(1, keepdim=True))

    values, gap = attribute(
        Relu(), torch.tensor([[[3.0, 0.0]]]), references=torch.tensor([[[-1.0, 0.0]]]), ig_steps=2000
    )
    torch.testing.assert_close(values["integrated_gradients"], torch.tensor([[[3.0, 0.0]]]), atol=5e-3, rtol=0)
    assert gap < 2e-3


def test_completeness_improves_with_steps_on_the_real_network():
    net = network.build(2, 0.1, size=SIZE, generator=torch.Generator().manual_seed(0))
    maps = draw(4, SIZE, SIZE)
    gaps = [attribute(net, maps, ig_steps=steps)[1].median() for steps in (2, 16, 256)]
    assert gaps[2] < gaps[0] and gaps[2] < 0.02


def test_a_constant_output_is_attributed_to_nothing():
    values, _ = attribute(Linear(torch.zeros(1, 4, 4)), draw(2, 4, 4))
    for value in values.values():
        assert (value == 0).all()


def test_the_seed_decides_and_the_global_generators_are_left_alone():
    net = network.build(2, 0.1, size=SIZE, generator=torch.Generator().manual_seed(0))
    maps, references = draw(2, SIZE, SIZE), draw(4, SIZE, SIZE, seed=1)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    expected = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    one, two, other = (attribute(net, maps, references=references, seed=seed)[0]["gradient_shap"] for seed in (1, 1, 2))
    assert np.random.random() == expected[0] and torch.equal(torch.rand(1), expected[1])  # noqa: NPY002
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_attributions_have_the_shape_of_the_maps_and_a_sign():
    net = network.build(2, 0.1, size=SIZE, generator=torch.Generator().manual_seed(0))
    values, gap = attribute(net, draw(3, SIZE, SIZE))
    assert gap.shape == (3,)
    for value in values.values():
        assert value.shape == (3, SIZE, SIZE) and (value > 0).any() and (value < 0).any()


def test_baselines_are_what_their_names_say():
    settings = {"count": 500, "log10_range": (9, 15), "mean": 11, "std": 2, "generator": np.random.default_rng(0)}
    assert (attribution.baselines("mean", (4, 4), **settings) == 0).all()
    noise = attribution.baselines("noise", (4, 4), **settings)
    assert noise.min() >= -1 and noise.max() <= 2 and abs(noise.mean() - 0.5) < 0.05
    with pytest.raises(ValueError, match="got 'black'"):
        attribution.baselines("black", (4, 4), **settings)
