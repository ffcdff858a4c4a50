"""Do the networks carry over? Other suites, smoothed and altered maps, and training as it should not be done.

Everything but the suites is about the uncut maps of the first one. Networks that are trained here start from the
weights and draws of the one in stage train unless these are what is varied, so that pairs differ in one thing.
"""

import dataclasses

import numpy as np
import torch

from camelsight.analysis import dataset, networks, prediction
from camelsight.ground import cases, seeding, split, theta
from camelsight.inference import information, metrics
from camelsight.interpretation import probes
from camelsight.maps import cuts, scaling
from camelsight.pipeline import checkpoints, cli, paths, store

CASE = "original"
CURVE_MAPS = (1, 4, 12)  # of a simulation, in the learning curves
FEW = 8  # one simulation in eight is kept, so that they can be memorised
AUGMENTATIONS = {"eight symmetries": range(8), "rotations only": range(4), "no symmetries": range(1)}
SAME = ("train", "weights"), ("train",)  # the words of the stage train for initial weights and training


def main(params, experiment):
    record, arrays = EXPERIMENTS[experiment](params)
    store.write_json(paths.experiment("transfer", experiment), record)
    store.write_arrays(paths.experiment_arrays("transfer", experiment), **arrays)
    for checkpoint in paths.CHECKPOINTS.glob(f"transfer-{experiment}-*.pt"):
        checkpoints.finish(checkpoint)


def suites(params):
    """Networks of every suite on the test maps of every suite, scaled with the statistics of the training suite."""
    names = (*params.suites, *params.robustness.suites)
    folders = {suite: paths.FURTHER if suite in params.robustness.suites else paths.MAPS for suite in names}
    records = {suite: _survey(params, suite) for suite in names}
    rows, arrays = [], {}
    for train in names:
        if train in params.suites:
            net, _ = networks.trained(params, train, CASE)
        else:
            parts = dataset.load(params, train, CASE, ("train", "valid"), record=records[train], folder=folders[train])
            digest = records[train]["digest"]
            net = _fit(params, "suites", f"{train} {digest}", parts["train"], parts["valid"], suite=train)
        for test in names:
            record = _rescaled(records[test], records[train])
            part = dataset.load(params, test, CASE, ("test",), record=record, folder=folders[test])["test"]
            predictions = prediction.predict(net, part, train, params.evaluate.views)
            rows.append({"train": train, "test": test} | _metrics(params, predictions, test=test))
            _, first = np.unique(predictions["simulation"], return_index=True)
            for name in ("truth", "mean", "sigma"):
                arrays[f"{train}.{test}.{name}"] = predictions[name][first]
    return {"suites": names, "rows": rows}, arrays


def smoothing(params):
    """Networks trained anew on maps smoothed by a Gaussian, and the one of the maps as they are."""
    suite = params.suites[0]
    rows = [{"width": 0.0} | _reference(params)]
    for width in params.robustness.smoothing:
        case = f"smooth_{width:g}"
        record, _ = dataset.survey(params, suite, case)
        parts = dataset.load(params, suite, case, ("train", "valid", "test"), record=record)
        net = _fit(params, "smoothing", case, parts["train"], parts["valid"])
        rows.append({"width": width} | _measured(params, net, parts["test"]))
    return {"suite": suite, "rows": rows}, {}


def probe(params):
    """The network of the uncut maps on test maps from which something was taken."""
    suite = params.suites[0]
    net, _ = networks.trained(params, suite, CASE)
    record, part = _survey(params, suite), _test(params)
    given = dataset.open_suite(params, suite)
    densities = given.densities(part.index)[:, 0]

    def draw(what):
        return seeding.numpy_generator(params.seed, suite, CASE, "probe", what)

    def probed(name, values):
        row = {"probe": name, "below_zero": float(np.mean(values <= 0))}
        return row | _measured(params, net, _scaled(part, values[:, None], dataset.scales(params, record)))

    altered = {
        "pixels shuffled": probes.shuffled(densities, draw("shuffled")),
        "mean only": probes.mean_only(densities),
        "phases random": probes.phases_randomised(densities, draw("phases")),
        "log phases random": probes.log_phases_randomised(densities, draw("log phases")),
        "log Gaussianised": probes.gaussianised(densities),
    }
    rows = [{"probe": "none"} | _reference(params)]
    rows += [probed(name, values) for name, values in altered.items()]
    rows.append({"probe": "total mass alone"} | _regression(params, given, densities, part))
    for case in params.robustness.cuts:
        values = cuts.apply(
            densities,
            cases.parse(case).cuts,
            log10_range=dataset.log10_ranges(params, record)[0],
            generator=seeding.numpy_generator(params.seed, suite, case, "fill"),
            indices=part.index,
        )
        rows.append(probed(case, values))
    keep = 0  # a map for the figure
    panels = {f"map.{name}": values[keep] for name, values in ({"none": densities} | altered).items()}
    return {"suite": suite, "rows": rows}, panels


def leakage(params):
    """Networks trained on maps that were split at random: on their own test maps, and on unseen simulations.

    Of all simulations for training and validation, and of an eighth of them, which are sooner known by heart.
    """
    suite, test = params.suites[0], _test(params)
    parts = dataset.load(params, suite, CASE, ("train", "valid"))
    sizes = {name: len(part.index) for name, part in parts.items()}
    everything = _joined(parts.pop("train"), parts.pop("valid"))  # of which no second copy stays
    n = len(everything.index) // dataset.PER_SIMULATION
    reference = _predictions(params, networks.trained(params, suite, CASE)[0], test)
    rows = [{"setting": "split by simulation", "kind": "clean"} | _metrics(params, reference)]
    for kind in ("all", "few"):
        count, pool, held, epochs = n, everything, sizes["valid"], None
        if kind == "few":
            count = max(2, n // FEW)
            pool = everything.subset(np.arange(count * dataset.PER_SIMULATION))
            held = max(2, len(pool.index) // 5)
            epochs = _curve_epochs(params, sizes["train"], len(pool.index) - 2 * held)
        generator = seeding.numpy_generator(params.seed, suite, CASE, "leakage", kind)
        chosen = split.at_random(len(pool.index), held, generator)
        leaky = {name: pool.subset(index) for name, index in chosen.items()}
        net = _fit(params, "leakage", f"{count} simulations", leaky["train"], leaky["valid"], epochs=epochs)
        for name, part, other in (("apparent", leaky["test"], None), ("true", test, reference)):
            setting = f"{count} simulations split at random, {name}"
            rows.append({"setting": setting, "kind": f"{kind} {name}"} | _measured(params, net, part, reference=other))
    return {"suite": suite, "rows": rows}, {}


def simulations(params):
    """Learning curves: more simulations and fewer maps of each, and more maps of all simulations; equal steps.

    As many simulations as make the number of maps along the first curve the same; R² differs from the network with one
    map of each.
    """
    suite = params.suites[0]
    parts, test = dataset.load(params, suite, CASE, ("train", "valid")), _test(params)
    available = len(dataset.splits(params)["train"])
    counts = [maps for maps in CURVE_MAPS if maps <= available]
    n = available - available % counts[-1]
    sizes = [(n // maps, maps) for maps in counts] + [(n, maps) for maps in counts[1:]]
    generator = seeding.numpy_generator(params.seed, suite, CASE, "learning curve")
    order = generator.permuted(np.tile(np.arange(dataset.PER_SIMULATION), (n, 1)), axis=1)
    rows, reference = [], None
    for count, maps in sizes:
        chosen = (np.arange(count)[:, None] * dataset.PER_SIMULATION + order[:count, :maps]).reshape(-1)
        subset = parts["train"].subset(chosen)
        epochs = _curve_epochs(params, len(parts["train"].index), len(chosen))
        what = f"{count} simulations, {maps} maps of each"
        net = _fit(params, "simulations", what, subset, parts["valid"], epochs=epochs)
        predictions = _predictions(params, net, test)
        measured = _metrics(params, predictions, reference=reference)
        rows.append({"setting": what, "simulations": count, "maps": maps} | measured)
        reference = predictions if reference is None else reference
    return {"suite": suite, "rows": rows}, {}


def normalisation(params):
    """Networks on test maps scaled by the statistics of the training maps, and by their own."""
    rows, first = [], params.suites[0]
    record, (net, _) = _survey(params, first), networks.trained(params, first, CASE)
    usual = {"train": "training maps", "all": "all maps"}[params.train.normalisation]
    reference = _predictions(params, net, _test(params))
    for suite in params.suites:
        part = dataset.load(params, suite, CASE, ("test",))["test"]
        densities = dataset.open_suite(params, suite).densities(part.index)
        words = {"training maps": "train", "all maps": "all"}
        kinds = {kind: dataset.scales(params, record, word) for kind, word in words.items()}
        kinds["test maps"] = _own(densities, kinds["all maps"])
        for kind, scales in kinds.items():
            scaled = _scaled(part, densities, scales)
            other = reference if suite == first and kind != usual else None
            measured = _measured(params, net, scaled, test=suite, reference=other)
            rows.append({"setting": kind, "test": suite, "statistics": [scale[:2] for scale in scales]} | measured)
    return {"suite": first, "rows": rows}, {}


def augmentation(params):
    """Networks trained on turned and mirrored maps, on turned ones (the first release), and on maps as they are."""
    suite, test = params.suites[0], _test(params)
    parts = dataset.load(params, suite, CASE, ("train", "valid"))
    reference = _predictions(params, networks.trained(params, suite, CASE)[0], test)
    rows = []
    for name, symmetries in AUGMENTATIONS.items():
        if len(symmetries) == scaling.SYMMETRIES:
            rows.append({"setting": name} | _metrics(params, reference))
        else:
            net = _fit(params, "augmentation", name, parts["train"], parts["valid"], symmetries=symmetries)
            rows.append({"setting": name} | _measured(params, net, test, reference=reference))
    return {"suite": suite, "rows": rows}, {}


def seeds(params):
    """Networks that differ in initial weights and in the draws of training alone."""
    suite, test = params.suites[0], _test(params)
    parts = dataset.load(params, suite, CASE, ("train", "valid"))
    rows = [{"setting": "seed 0"} | _reference(params)]
    for number in range(1, params.robustness.seeds + 1):
        words = ("robustness", "seed", number)
        what = f"seed {number}"
        net = _fit(params, "seeds", what, parts["train"], parts["valid"], words=(words, words))
        rows.append({"setting": what} | _measured(params, net, test))
    return {"suite": suite, "rows": rows}, {}


def fields(params):
    """Networks of single fields, then of sets that grow by the field that helps most, and of all; on every suite.

    Sets are compared by the information on the validation maps; the test maps judge them.
    """
    first, channels = params.suites[0], params.fields
    parts, record = dataset.load(params, first, CASE, ("train", "valid")), _survey(params, first)
    tests = {
        suite: dataset.load(params, suite, CASE, ("test",), record=_rescaled(_survey(params, suite), record))["test"]
        for suite in params.suites
    }
    nets = {}

    def only(part, names):
        return dataclasses.replace(part, maps=part.maps[:, [channels.index(name) for name in names]])

    def network(names):
        if names not in nets:
            some = dataclasses.replace(params, fields=names)
            pair = (only(parts[one], names) for one in ("train", "valid"))
            nets[names] = networks.trained(params, first, CASE)[0] if names == channels else _fit(
                some, "fields", "+".join(names), *pair
            )  # fmt: skip
        return nets[names]

    def informed(names, part):
        predictions = prediction.predict(network(names), only(part, names), first, params.evaluate.views)
        columns = [theta.NAMES.index(name) for name in theta.COSMOLOGICAL]
        r2 = metrics.r2(*(predictions[key][:, columns] for key in ("truth", "mean")))
        return float(information.information(r2).sum()), predictions

    path = information.forward(channels, lambda names: informed(names, parts["valid"])[0])
    rows, values = [], {}
    for names in nets:
        values[names], own = informed(names, tests[first])
        tested = {suite: own if suite == first else informed(names, tests[suite])[1] for suite in params.suites}
        measured = [{"test": suite} | _metrics(params, one, test=suite) for suite, one in tested.items()]
        loss = prediction.loss_of(own, first)
        rows.append({"fields": names, "information": values[names], "loss": loss, "tests": measured})
    grown = zip([(), *path], path, strict=False)
    smallest = {f"{100 * share:g}": information.smallest(path, values, share) for share in information.SHARES}
    order = [next(name for name in after if name not in before) for before, after in grown]
    return {"suite": first, "suites": params.suites, "sets": rows, "order": order, "smallest": smallest}, {}


EXPERIMENTS = {
    "fields": fields,
    "suites": suites,
    "smoothing": smoothing,
    "probes": probe,
    "leakage": leakage,
    "simulations": simulations,
    "normalisation": normalisation,
    "augmentation": augmentation,
    "seeds": seeds,
}


def _survey(params, suite):
    further = suite in params.robustness.suites
    return store.read_json(paths.robustness_input(suite, CASE) if further else paths.cut(suite, CASE))


def _rescaled(record, other):
    """The ``record`` of a suite, by which its maps are scaled as those of the suite of the ``other`` one."""
    kept = ("unit", "statistics_train", "statistics_all")
    by_field = {name: one | {key: other["fields"][name][key] for key in kept} for name, one in record["fields"].items()}
    return record | {"fields": by_field}


def _own(maps, scales):
    """``scales`` with the statistics of these ``maps`` ``(N, C, n, n)``."""
    found = [scaling.statistics(scaling.sums(scale.log(maps[:, n]))) for n, scale in enumerate(scales)]
    return [scale._replace(mean=mean, std=std) for scale, (mean, std) in zip(scales, found, strict=True)]


def _test(params):
    return dataset.load(params, params.suites[0], CASE, ("test",))["test"]


def _scaled(part, maps, scales):
    """``part`` with these raw ``maps`` ``(N, C, n, n)`` in place of its own."""
    return dataclasses.replace(part, maps=torch.from_numpy(dataset.scaled(maps, scales)))


def _curve_epochs(params, everything, chosen):
    """As many epochs of ``chosen`` maps as take the steps of ``curve_epochs`` of ``everything``, the training maps."""
    return max(1, round(params.robustness.curve_epochs * everything / chosen))


def _joined(*parts):
    def join(values):
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else np.concatenate(values)

    return dataset.Part(
        **{field.name: join([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(parts[0])}
    )


def _measured(params, net, part, *, test=None, reference=None):
    return _metrics(params, _predictions(params, net, part), test=test, reference=reference)


def _predictions(params, net, part):
    return prediction.predict(net, part, params.suites[0], params.evaluate.views)


def _metrics(params, predictions, *, test=None, reference=None):
    """What a row holds: metrics and, if ``reference`` predicts the same maps, R² minus its R² as the difference."""
    suite = test or params.suites[0]
    out = {"metrics": prediction.measure(predictions, prediction.bootstrap(params, suite, CASE), params)}
    if reference is not None:
        difference = metrics.r2_difference(
            *(predictions["truth"], predictions["mean"], reference["mean"], predictions["simulation"]),
            generator=prediction.bootstrap(params, suite, CASE),
            resamples=params.evaluate.resamples,
        )
        out["difference"] = {name: values for name, *values in zip(theta.NAMES, *difference, strict=True)}
    return out


def _reference(params):
    """The network of stage train on the test maps: what stage evaluate has."""
    return _measured(params, networks.trained(params, params.suites[0], CASE)[0], _test(params))


def _regression(params, given, densities, part):
    simulations = dataset.splits(params)["train"]
    means = np.concatenate([_means(given.simulation(simulation)[:, 0]) for simulation in simulations])
    truth = np.repeat(given.truth(simulations), dataset.PER_SIMULATION, axis=0)
    mean, scatter = probes.regression(means, truth, _means(densities))
    sigma = np.broadcast_to(scatter, mean.shape)
    predictions = {"truth": part.parameters, "mean": mean, "sigma": sigma, "simulation": part.simulation}
    return _metrics(params, predictions)


def _means(maps):
    return maps.mean((1, 2), dtype=np.float64)


def _fit(params, experiment, what, train, valid, *, suite=None, words=SAME, epochs=None, symmetries=range(8)):
    """A network trained with the hyperparameters of the first suite's uncut maps, by default as stage train does it.

    Goes on from its checkpoint if it was cut off; ``what`` must name all in which it differs from others.
    """
    first, device = params.suites[0], cli.device()
    patience = 0 if epochs else params.train.patience  # learning curves take equal steps
    epochs = epochs or params.train.epochs
    hyperparameters = networks.chosen(first, CASE)
    more = ("transfer", experiment, what, epochs, hyperparameters, store.digest(params.robustness))
    key = networks.resume_key(params, first, CASE, device, *more)
    weights, seed = words
    net, _ = networks.resumed(
        params,
        suite or first,
        CASE,
        hyperparameters,
        *((dataset.place(part.maps, device), part.targets.to(device)) for part in (train, valid)),
        checkpoint=paths.CHECKPOINTS / f"transfer-{experiment}-{key}.pt",
        what=f"{experiment}: {what}",
        weights=weights,
        seed=seed,
        epochs=epochs,
        patience=patience,
        symmetries=symmetries,
    )
    return net


if __name__ == "__main__":
    cli.run_stage(main)
