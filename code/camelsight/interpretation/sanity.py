"""Checks of attributions that can fail, after Adebayo et al. (2018), Kindermans et al. (2017), Petsiuk et al. (2018).

Attributions are ``(M, n, n)`` arrays for M maps; what is compared is the order of the pixels by magnitude.
"""

import copy

import numpy as np
import torch
from scipy import stats
from torch import nn

from camelsight.inference import metrics

TOP = 0.05  # the share of pixels that count as the most important ones, hence also the overlap by chance
FRACTIONS = np.array([0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])  # of the pixels replaced
CHECKS = {  # name: (what it is, sense, limit)
    "randomisation": (
        "rank correlation of |attribution| with that of the network whose weights were all drawn anew", "below", 0.25),
    "label_shuffled": (
        "rank correlation of |attribution| with that of a network trained on labels shuffled among simulations",
        "below", 0.25),
    "added_constant": (
        "relative change (rms) when a constant is added to every scaled map and taken off again by the first layer's "
        "bias; the baseline is made from the shifted maps", "below", 0.01),
    "equivariance": (
        "rms deviation of the attributions of the eight symmetries of a map, turned back, from their mean, over the "
        "rms of the mean", "below", 1.0),
    "methods": ("mean rank correlation of |attribution| with that of the other methods", "above", 0.5),
    "methods_top": ("mean overlap of the top 5% of the pixels with that of the other methods", "above", 0.25),
    "seeds": ("rank correlation of |attribution| with that of networks trained from other seeds", "above", 0.5),
    "seeds_top": ("overlap of the top 5% of the pixels with those of networks trained from other seeds", "above", 0.25),
    "deletion": (
        "mean of 1 / (2 - R²) in random order minus that in attributed order, as the most important 0.2% to 50% of the "
        "pixels are replaced by the baseline", "above", 0.0),
    "insertion": (
        "mean of 1 / (2 - R²) in attributed order minus that in random order, as the most important 0.2% to 50% of the "
        "pixels are put into the baseline", "above", 0.0),
}  # fmt: skip


def passes(check, value):
    """Whether ``value`` is on the right side of the check's limit."""
    _, sense, limit = CHECKS[check]
    return bool(value < limit if sense == "below" else value > limit)


def rank_correlation(first, second):
    """Spearman's, of the magnitudes, per map ``(M,)``; 0 where all pixels of a map have the same."""
    ranks = [stats.rankdata(np.abs(values).reshape(len(values), -1), axis=1) for values in (first, second)]
    a, b = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    norm = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return (a * b).sum(1) / np.where(norm == 0, 1, norm)


def top_overlap(first, second, top=TOP):
    """The share of the ``top`` fraction of the pixels by magnitude that two attributions have in common, ``(M,)``."""
    flat = [np.abs(values).reshape(len(values), -1) for values in (first, second)]
    k = max(1, round(top * flat[0].shape[1]))
    chosen = [np.argpartition(-values, k - 1, axis=1)[:, :k] for values in flat]
    return np.array([len(np.intersect1d(a, b)) / k for a, b in zip(*chosen, strict=True)])


def sides(attribution, overdensity):
    """Per map: |attribution| of a pixel above the mean density over that of one below, and the share of those below.

    Two ``(M,)`` from ``(M, n, n)`` arrays; the ratio is NaN where a map has pixels on one side alone.
    """
    magnitude, below = np.abs(attribution), np.asarray(overdensity) < 1
    total, under = magnitude.sum((1, 2)), (magnitude * below).sum((1, 2))
    count = below.sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (total - under) / (below[0].size - count) / (under / count)
        return ratio, under / total


def layers(network):
    """The names of the layers that have weights, from the output to the input."""
    modules = network.named_modules()
    return [name for name, module in modules if isinstance(module, nn.Conv2d | nn.Linear)][::-1]


def randomised(network, generator):
    """(layer, network) with the weights of one more of ``layers`` drawn anew at a time.

    ``network`` is a folded one (``attribution.fold``). Weights are Kaiming-normal, biases zero, as before training.
    """
    network = copy.deepcopy(network)
    for name in layers(network):
        layer = network.get_submodule(name)
        fan_in = layer.weight[0].numel()
        drawn = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
        layer.weight.data.copy_(drawn)
        layer.bias.data.zero_()
        yield name, copy.deepcopy(network)


def shifted(network, constant):
    """The folded network that gives for x + ``constant`` what ``network`` gives for x; its borders must be periodic."""
    network = copy.deepcopy(network)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.bias.data -= constant * first.weight.sum((1, 2, 3))
    return network


def replaced(scaled, start, importance, fractions=FRACTIONS):
    """``(F, C, n, n)``: ``scaled`` ``(C, n, n)`` with these ``fractions`` of the pixels from ``start``.

    They go by ``importance`` ``(n, n)``, in all channels at once.
    """
    order = torch.argsort(torch.as_tensor(importance).reshape(-1), descending=True, stable=True)
    out = scaled.flatten(1).repeat(len(fractions), 1, 1)
    for row, fraction in zip(out, fractions, strict=True):
        chosen = order[: round(float(fraction) * len(order))].to(scaled.device)
        row[:, chosen] = start.flatten(1)[:, chosen]
    return out.reshape(len(fractions), *scaled.shape)


def curve(network, scaled, starts, importance, output, target, fractions=FRACTIONS):
    """R² ``(F,)`` of ``output`` against ``target`` ``(M,)``, as pixels of ``scaled`` give way to ``starts``."""
    rows = []
    with torch.inference_mode():
        for maps in zip(scaled, starts, importance, strict=True):
            rows.append(network(replaced(*maps, fractions))[:, output].cpu().numpy())
    truth = np.asarray(target, dtype=np.float64)[:, None]
    return np.array([metrics.r2(truth, mean[:, None])[0] for mean in np.array(rows).T])


def scores(curves):
    """``{check: {method: value}}`` for deletion and insertion, from ``{check: {method or "random": R² (F,)}}``.

    1 / (2 - R²), the share of the variance of the truth in its sum with that of the errors, stays between 0 and 1
    however far R² falls for maps that the network was not trained on.
    """
    sense = {"deletion": -1, "insertion": 1}
    means = {
        check: {key: np.mean(1 / (2 - np.asarray(values))[1:-1]) for key, values in curves[check].items()}
        for check in sense
    }
    return {
        check: {method: sense[check] * (mean - by["random"]) for method, mean in by.items() if method != "random"}
        for check, by in means.items()
    }
