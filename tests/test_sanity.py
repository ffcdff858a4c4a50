import numpy as np
import pytest
import torch
from torch import nn

from camelsight.inference import network
from camelsight.interpretation import attribution, sanity

SIZE = 16


def folded(seed=0):
    net = network.build(2, 0.0, size=SIZE, generator=torch.Generator().manual_seed(seed))
    net(torch.randn(32, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    return attribution.fold(net)


def test_rank_correlation_is_spearmans_of_the_magnitudes():
    a = np.array([[[1.0, -2], [3, 4]]])
    assert sanity.rank_correlation(a, -10 * a**3) == pytest.approx([1])
    assert sanity.rank_correlation(a, 1 / a) == pytest.approx([-1])
    assert sanity.rank_correlation(a, np.ones_like(a)) == pytest.approx([0])
    rng = np.random.default_rng(0)
    assert abs(sanity.rank_correlation(*rng.normal(size=(2, 4, 32, 32))).mean()) < 0.05


def test_overlap_of_the_most_important_pixels():
    a = np.zeros((1, 10, 10))
    a[0, 0, :5], b = -1, np.zeros((1, 10, 10))
    b[0, 0, 3:8] = 1
    assert sanity.top_overlap(a, b).tolist() == [0.4] and sanity.top_overlap(a, a).tolist() == [1]
    rng = np.random.default_rng(0)
    assert sanity.top_overlap(*rng.normal(size=(2, 20, 64, 64))).mean() == pytest.approx(sanity.TOP, abs=0.01)


def test_layers_are_drawn_anew_one_by_one_from_the_output():
    net = folded()
    names = sanity.layers(net)
    before = {name: net.get_submodule(name).weight.clone() for name in names}
    assert names[0] == "FC2" and names[-1] == "C01"
    steps = list(sanity.randomised(net, torch.Generator().manual_seed(0)))
    for number, (name, drawn) in enumerate(steps, start=1):
        assert name == names[number - 1]
        changed = [layer for layer in names if not torch.equal(drawn.get_submodule(layer).weight, before[layer])]
        assert changed == names[:number]
    assert all(torch.equal(net.get_submodule(name).weight, before[name]) for name in names)


def test_a_constant_added_and_taken_off_again_changes_nothing_where_the_baseline_moves_along():
    net, scaled = folded(), torch.randn(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    moved = sanity.shifted(net, 1.5)
    with torch.no_grad():
        torch.testing.assert_close(moved(scaled[None] + 1.5), net(scaled[None]), rtol=1e-4, atol=1e-5)

    def ig(net, scaled, start):
        start = torch.full_like(scaled, start)
        settings = {"start": start, "references": start[None], "ig_steps": 64, "shap_samples": 2, "seed": 0}
        return attribution.attribute(net, scaled, [0], **settings, refinement=1)[0]["integrated_gradients"]

    expected = ig(net, scaled, 0.0)
    scale = expected.abs().max()
    assert (ig(moved, scaled + 1.5, 1.5) - expected).abs().max() < 1e-3 * scale
    assert (ig(moved, scaled + 1.5, 0.0) - expected).abs().max() > 0.1 * scale, "a fixed baseline fails the check"


@pytest.mark.parametrize("channels", [1, 2])
def test_pixels_are_replaced_in_the_order_of_their_importance_in_all_channels_at_once(channels):
    scaled, start = torch.zeros(channels, 2, 2), torch.ones(channels, 2, 2)
    scaled[1:], start[1:] = 2, 3
    replaced = sanity.replaced(scaled, start, np.array([[3.0, 1.0], [4.0, 2.0]]), np.array([0, 0.25, 0.5, 1]))
    expected = torch.tensor([[[0, 0], [0, 0]], [[0, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]]])
    assert replaced.shape == (4, channels, 2, 2)
    for channel in range(channels):
        assert (replaced[:, channel] - 2 * channel).tolist() == expected.tolist()


class FirstPixel(nn.Module):
    """Reads one pixel, and nothing else."""

    def forward(self, x):
        return x[:, 0, :1, 0]


def test_deletion_of_the_one_pixel_that_matters_ends_the_score_and_its_insertion_makes_it():
    rng = np.random.default_rng(0)
    maps, starts = torch.as_tensor(rng.normal(size=(40, 1, 8, 8))).float(), torch.zeros(40, 1, 8, 8)
    target = maps[:, 0, 0, 0].numpy()
    true, random = np.zeros((40, 8, 8)), rng.random((40, 8, 8))
    true[:, 0, 0] = 1
    fractions = np.array([0, 1 / 64, 0.5, 1])
    run = {
        check: {
            key: sanity.curve(FirstPixel(), *fields, order, 0, target, fractions)
            for key, order in {"saliency": true, "random": random}.items()
        }
        for check, fields in {"deletion": (maps, starts), "insertion": (starts, maps)}.items()
    }
    assert run["deletion"]["saliency"][0] == 1 and max(run["deletion"]["saliency"][1:]) <= 0
    assert run["insertion"]["saliency"][0] <= 0 and min(run["insertion"]["saliency"][1:]) == 1
    assert run["deletion"]["random"][1] > 0.5
    scores = sanity.scores(run)
    assert scores["deletion"]["saliency"] > 0.2 and scores["insertion"]["saliency"] > 0.2
    assert set(scores["deletion"]) == {"saliency"}


def test_a_random_attribution_scores_nothing():
    rng = np.random.default_rng(1)
    maps, starts = torch.as_tensor(rng.normal(size=(40, 1, 8, 8))).float(), torch.zeros(40, 1, 8, 8)
    target = maps.mean((1, 2, 3)).numpy()

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None]

    curves = {
        key: sanity.curve(Mean(), maps, starts, rng.random((40, 8, 8)), 0, target) for key in ("saliency", "random")
    }
    scores = sanity.scores({"deletion": curves, "insertion": curves})
    assert abs(scores["deletion"]["saliency"]) < 0.03 and abs(scores["insertion"]["saliency"]) < 0.03


def test_a_check_is_passed_on_the_right_side_of_its_limit():
    assert sanity.passes("randomisation", 0.1) and not sanity.passes("randomisation", 0.9)
    assert sanity.passes("seeds", 0.9) and not sanity.passes("seeds", 0.1)
    assert not sanity.passes("seeds", float("nan")) and not sanity.passes("randomisation", float("nan"))
