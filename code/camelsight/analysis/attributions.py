"""What the stages that attribute share: the network of a case, its test maps, their baselines and attributions."""

import numpy as np
import torch

from camelsight.analysis import dataset, networks
from camelsight.ground import cases, fields, seeding, split, theta
from camelsight.ground.choices import BASELINES
from camelsight.interpretation import attribution, sanity
from camelsight.pipeline import cli, paths, store


def load(params, suite, case, count, seeds=()):
    """The case's network, folded, on its device; ``count`` test maps as a ``dataset.Part``; the record of the cut.

    With ``seeds``, it is the mean of the network and of those that were trained again from them. The map that the
    paper's figure shows comes first, if it is a test map.
    """
    trained = [networks.trained(params, suite, case, seed)[0] for seed in (None, *seeds)]
    folded = [attribution.fold(one) for one in trained]
    net = (attribution.Mean(folded) if seeds else folded[0]).to(cli.device())
    part = dataset.load(params, suite, case, ("test",))["test"]
    rows = attribution.spread(part.simulation, count)
    first = np.flatnonzero(part.index == split.SHOWN["attribution"])
    rows = np.concatenate([first, rows[~np.isin(rows, first)]])[: len(rows)]
    return net, part.subset(rows), store.read_json(paths.cut(suite, case))


def outputs(params):
    """The indices of the network's outputs that are attributed, one for each of ``attribute.parameters``."""
    spec = params.attribute
    return [theta.NAMES.index(name) + len(theta.NAMES) * (spec.output == "sigma") for name in spec.parameters]


def baseline(params, suite, case, record, scaled, index, name, count=1, constant=0.0):
    """``(count, C, n, n)`` of ``attribution.baselines`` for map ``index``, to all of which ``constant`` was added.

    Noise is drawn for each field by itself; pixels are shuffled alike in all of them.
    """
    made = []
    scales, trained = (dataset.scales(params, record, kind) for kind in (None, "train"))
    for channel, log10_range in enumerate(dataset.log10_ranges(params, record)):
        scale, field = scales[channel], params.fields[channel]
        baselines = attribution.baselines(
            name,
            scaled[channel],
            count,
            log10_range=log10_range,
            train_mean=trained[channel].mean,
            scale=scale._replace(mean=scale.mean - constant * scale.std),
            generator=seeding.numpy_generator(
                params.seed, suite, case, "baseline", count, index, *(dataset.words(field) if name == "noise" else ())
            ),
        )
        made.append(baselines)
    return torch.stack(made, dim=1).to(cli.device())


def of_map(params, suite, case, net, record, scaled, index, spec, *, symmetric=False, constant=0.0, **settings):
    """``attribution.attribute``, or ``symmetric``, for a map ``(C, n, n)``; ``spec`` has ig_steps and shap_samples."""
    device, names = cli.device(), (params.attribute.baseline, params.attribute.shap_baseline)
    start, references = (
        baseline(params, suite, case, record, scaled, index, name, count, constant)
        for name, count in zip(names, (1, spec.shap_samples), strict=True)
    )
    return (attribution.symmetric if symmetric else attribution.attribute)(
        net,
        scaled.to(device),
        outputs(params),
        start=start[0],
        references=references,
        ig_steps=spec.ig_steps,
        shap_samples=spec.shap_samples,
        seed=seeding.entropy(params.seed, suite, case, "gradient_shap", index),
        batch=attribution.batch_size(net, params.maps.pixels, cli.free_bytes(device)),
        **settings,
    )


def baselines(params):
    """The names of the baselines that the fields of a profile allow: noise is log-uniform, and pixels may be 0."""
    positive = all(fields.FIELDS[name].is_positive for name in params.fields)
    return [name for name in BASELINES if positive or name != "noise"]


def together(values):
    """``(..., n, n)``: attributions ``(..., C, n, n)`` of one field as they are, of several as summed magnitudes."""
    return values[..., 0, :, :] if values.shape[-3] == 1 else np.abs(values).sum(-3)


def shares(values):
    """The share of each channel in the magnitude, ``(M, C)``, of attributions ``(M, C, n, n)``."""
    total = np.abs(values).sum((2, 3), dtype=np.float64)
    return total / np.maximum(total.sum(1, keepdims=True), np.finfo(float).tiny)


def overdensity(params, suite, part):
    """``(M, n, n)``: the matter that the maps of ``part`` show before any cut, over its mean.

    Total matter over the cosmic mean; without it, the field next to it over the mean of the simulation's maps.
    """
    given, field = dataset.open_suite(params, suite), fields.environment(params.fields)
    channel = params.fields.index(field)
    if field == fields.TOTAL:
        mean = cases.MEAN_SURFACE_DENSITY * part.parameters[:, 0]
    else:
        simulations, position = np.unique(part.simulation, return_inverse=True)
        means = [np.abs(given.simulation(one)[:, channel]).mean(dtype=np.float64) for one in simulations]
        mean = np.array(means)[position]
    return given.densities(part.index)[:, channel] / mean[:, None, None]


def each(names, measure):
    """{parameter: {method: ``measure(method, column)``}}, of parameters that are the columns of attributions."""
    return {
        name: {method: measure(method, column) for method in attribution.METHODS} for column, name in enumerate(names)
    }


def agreement(values, names):
    """{parameter: {method: {check: how well the order of its pixels agrees with that of the other methods}}}."""
    measures = {"methods": sanity.rank_correlation, "methods_top": sanity.top_overlap}

    def with_others(method, column):
        ours, others = values[method][:, column], [one for one in attribution.METHODS if one != method]
        return {
            check: np.mean([measure(ours, values[other][:, column]) for other in others])
            for check, measure in measures.items()
        }

    return each(names, with_others)
