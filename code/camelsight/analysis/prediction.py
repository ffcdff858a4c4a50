"""Predictions of a network for the maps of a part of the split, and how good they are."""

import numpy as np
import torch

from camelsight.ground import seeding, theta
from camelsight.inference import loss, metrics, training
from camelsight.maps import scaling
from camelsight.pipeline import cli


def predict(net, part, suite, views):
    """index, simulation, truth, mean and sigma of the maps of ``part``, in physical units, as a dict of arrays."""
    net, maps = net.to(cli.device()), part.maps.to(cli.device())
    groups = range(1 if views == "1" else scaling.SYMMETRIES)
    table = scaling.symmetry_table(maps.shape[-1], maps.device)
    seen = [_view(net, maps, group, table) for group in groups]
    mean, sigma = (torch.stack(view, dim=1).double().cpu().numpy() for view in zip(*seen, strict=True))  # (N, views, P)
    rows = {"index": part.index, "simulation": part.simulation, "truth": part.parameters}
    if views == "8":  # a view is a row
        rows = {name: np.repeat(array, scaling.SYMMETRIES, axis=0) for name, array in rows.items()}
        mean, sigma = (array.reshape(-1, array.shape[-1]) for array in (mean, sigma))
    else:
        mean, sigma = mean.mean(1), sigma.mean(1)
    return rows | {"mean": theta.denormalise(mean, suite), "sigma": theta.denormalise_sigma(sigma, suite)}


def _view(net, maps, group, table):
    """Normalised means and sigmas of the maps under one symmetry, which is applied batch by batch."""
    batches = maps.split(training.PREDICT_BATCH)
    turned = (
        scaling.transform(batch, torch.full((len(batch),), group, device=maps.device), table) for batch in batches
    )
    return [torch.cat(part) for part in zip(*(training.predict(net, batch) for batch in turned), strict=True)]


def bootstrap(params, suite, case):
    """The generator of the resamples of a suite's test simulations."""
    return seeding.numpy_generator(params.seed, suite, case, "bootstrap")


def measure(predictions, generator=None, params=None):
    """``{metric: {parameter: [value, low, high]}}`` of what ``predict`` returns."""
    truth, mean, sigma = (predictions[key] for key in ("truth", "mean", "sigma"))
    resamples = params.evaluate.resamples if params else metrics.RESAMPLES
    summary = metrics.summary(truth, mean, sigma, predictions["simulation"], generator=generator, resamples=resamples)
    names = theta.NAMES[: truth.shape[1]]
    return {
        metric: {name: values for name, *values in zip(names, *triple, strict=True)}
        for metric, triple in summary.items()
    }


def loss_of(predictions, suite):
    """The loss of what ``predict`` returns, as the training computes it."""
    low, high = theta.ranges(suite)
    mean, truth = (theta.normalise(predictions[key], suite) for key in ("mean", "truth"))
    tensors = (torch.from_numpy(values) for values in (mean, predictions["sigma"] / (high - low), truth))
    return loss.moment_loss(*tensors).item()
