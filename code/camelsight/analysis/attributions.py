"""What the stages that attribute share: the network of a case, its test maps, their baselines and attributions."""

import dataclasses

import numpy as np

from camelsight.analysis import dataset, networks
from camelsight.ground import seeding, split, theta
from camelsight.interpretation import attribution, sanity
from camelsight.pipeline import cli, paths, store


def load(params, suite, case, count):
    """The case's network, folded, on its device; ``count`` test maps as a ``dataset.Part``; the record of the cut.

    The map that the paper's figure shows comes first, if it is a test map.
    """
    net = attribution.fold(networks.trained(params, suite, case)[0]).to(cli.device())
    part = dataset.load(params, suite, case, ("test",))["test"]
    rows = attribution.spread(part.simulation, count)
    first = np.flatnonzero(part.index == split.SHOWN["attribution"])
    rows = np.concatenate([first, rows[~np.isin(rows, first)]])[: len(rows)]
    part = dataset.Part(**{field.name: getattr(part, field.name)[rows] for field in dataclasses.fields(part)})
    return net, part, store.read_json(paths.cut(suite, case))


def outputs(params):
    """The indices of the network's outputs that are attributed, one for each of ``attribute.parameters``."""
    spec = params.attribute
    return [theta.NAMES.index(name) + len(theta.NAMES) * (spec.output == "sigma") for name in spec.parameters]


def baseline(params, suite, case, record, scaled, index, name, count=1, constant=0.0):
    """``(count, n, n)`` of ``attribution.baselines`` for map ``index``, to all of which ``constant`` was added."""
    mean, std = record[f"statistics_{params.train.normalisation}"]
    return attribution.baselines(
        name,
        scaled,
        count,
        log10_range=record["log10_range"],
        train_mean=record["statistics_train"][0],
        mean=mean - constant * std,
        std=std,
        generator=seeding.numpy_generator(params.seed, suite, case, "baseline", count, index),
    ).to(cli.device())


def of_map(params, suite, case, net, record, scaled, index, spec, *, symmetric=False, constant=0.0, **settings):
    """``attribution.attribute``, or ``symmetric``, for one map ``(n, n)``; ``spec`` has ig_steps and shap_samples."""
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


def agreement(values, names):
    """{parameter: {method: {check: how well the order of its pixels agrees with that of the other methods}}}."""
    measures = {"methods": sanity.rank_correlation, "methods_top": sanity.top_overlap}
    return {
        name: {
            method: {
                check: np.mean(
                    [
                        measure(values[method][:, column], values[other][:, column])
                        for other in attribution.METHODS
                        if other != method
                    ]
                )
                for check, measure in measures.items()
            }
            for method in attribution.METHODS
        }
        for column, name in enumerate(names)
    }
