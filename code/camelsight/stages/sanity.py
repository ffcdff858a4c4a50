"""Are the attributions of the uncut case to be believed? Random weights, shuffled labels, other seeds, shifted maps."""

import dataclasses
from functools import partial

import numpy as np
import torch

from camelsight.analysis import attributions, dataset, networks
from camelsight.ground import seeding, theta
from camelsight.inference import metrics, training
from camelsight.interpretation import attribution, sanity
from camelsight.pipeline import checkpoints, cli, paths, store

CASE = "original"
CONSTANT = 1.0  # added to scaled maps


def main(params, suite):
    spec, device = params.sanity, cli.device()
    net, part, record = attributions.load(params, suite, CASE, spec.maps)
    others = _others(params, suite)
    drawn = sanity.randomised(net, seeding.torch_generator(params.seed, suite, CASE, "randomisation"))
    count = 3 + len(sanity.layers(net)) + len(others) + len(attributions.baselines(params))
    with cli.progress(count, f"sanity {suite}", "network") as bar:
        attribute = partial(_attribute, params, suite, part, record, bar)
        values, _ = attribute(net)
        cascade, made = {}, {}
        for layer, random in drawn:
            made["randomisation"], _ = attribute(random)
            cascade[layer] = _compare(params, values, made["randomisation"])
        moved, _ = attribute(sanity.shifted(net, CONSTANT), constant=CONSTANT)
        by_symmetry, turned = attribute(net, symmetric=True)
        study = {name: attribute(net, given=_with_baseline(params, name))[0] for name in attributions.baselines(params)}
        measured, agreements, unfinished = {}, {}, []
        for what, epochs in others.items():
            other, measured[what], checkpoint = _train(params, suite, what, epochs)
            made[what], _ = attribute(attribution.fold(other).to(device))
            agreements[what] = _compare(params, values, made[what])
            unfinished.append(checkpoint)
    found = {
        "suite": suite,
        "index": part.index,
        "checks": _checks(params, values, moved, turned, cascade, agreements),
        "cascade": {layer: one["rank"] for layer, one in cascade.items()},
        "networks": measured,
        "baselines": _baselines(params, suite, part, study),
        "averaged": _averaged(params, values, by_symmetry, made),
        "settings": store.plain(spec),
    }
    store.write_json(paths.sanity(suite), found)
    for checkpoint in unfinished:
        checkpoints.finish(checkpoint.path)


def _others(params, suite):
    """What other networks are trained, and for how many epochs; for the first suite alone."""
    if suite != params.suites[0]:
        return {}
    spec = params.sanity
    shuffled = {"labels shuffled": spec.shuffled_epochs} if spec.shuffled_epochs else {}
    return shuffled | {f"seed {number}": spec.seed_epochs for number in range(1, spec.seeds + 1)}


def _attribute(params, suite, part, record, bar, network, *, constant=0.0, symmetric=False, given=None):
    """``{method: (M, P, n, n)}``, and the records of the maps; ``given`` are other params."""
    results = [
        attributions.of_map(
            given or params, suite, CASE, network, record, scaled, index, params.sanity,
            constant=constant, symmetric=symmetric, refinement=1,
        )
        for scaled, index in zip(part.maps + constant, part.index, strict=True)
    ]  # fmt: skip
    bar.update()
    stacks = {name: torch.stack([one[name] for one, _ in results]).cpu().numpy() for name in results[0][0]}
    return {name: attributions.together(stack) for name, stack in stacks.items()}, [one for _, one in results]


def _checks(params, values, moved, turned, cascade, agreements):
    """check → parameter → method → value, of the checks that this stage makes."""
    names = params.attribute.parameters
    checks = {
        "randomisation": list(cascade.values())[-1]["rank"],
        "added_constant": attributions.each(
            names, lambda m, column: _change(values[m][:, column], moved[m][:, column])
        ),
        "equivariance": attributions.each(
            names, lambda m, column: np.mean([float(one["equivariance"][m][column]) for one in turned])
        ),
    }
    seeds = {what: one for what, one in agreements.items() if what != "labels shuffled"}
    if "labels shuffled" in agreements:
        checks["label_shuffled"] = agreements["labels shuffled"]["rank"]
    for check, key in (("seeds", "rank"), ("seeds_top", "top")):
        if seeds:
            checks[check] = {
                name: {m: np.mean([one[key][name][m] for one in seeds.values()]) for m in attribution.METHODS}
                for name in names
            }
    return checks


def _with_baseline(params, name):
    """``params`` with this baseline for Integrated Gradients and for GradientShap."""
    spec = dataclasses.replace(params.attribute, baseline=name, shap_baseline=name)
    return dataclasses.replace(params, attribute=spec)


def _baselines(params, suite, part, study):
    """baseline → parameter → method → ratio and share, map by map: what ``sanity.sides`` says of each baseline."""
    overdensity = attributions.overdensity(params, suite, part)
    area = (overdensity < 1).mean((1, 2))

    def measured(values):
        ratio, share = sanity.sides(values, overdensity)
        return {"ratio": ratio, "share": share, "area": area}

    names = params.attribute.parameters
    return {
        baseline: attributions.each(names, lambda m, column, of=values: measured(of[m][:, column]))
        for baseline, values in study.items()
    }


def _averaged(params, values, by_symmetry, made):
    """What is averaged → check → parameter → method: do checks that one network fails pass for an average?

    ``made`` has the attributions of the other networks: weights drawn anew, labels shuffled, and other seeds, whose
    mean with ``values`` is that of several networks. All of them are on the same maps.
    """
    seeds = [one for what, one in made.items() if what.startswith("seed ")]
    kinds = {"nothing": values, "symmetries": by_symmetry}
    if seeds:
        kinds["networks"] = {m: np.mean([values[m], *(one[m] for one in seeds)], axis=0) for m in attribution.METHODS}
    others = {"randomisation": "randomisation", "label_shuffled": "labels shuffled"}
    found = {}
    for kind, mean in kinds.items():
        agreement = attributions.agreement(mean, params.attribute.parameters)
        found[kind] = {
            check: _compare(params, mean, made[what])["rank"] for check, what in others.items() if what in made
        } | {
            check: {name: {m: by[m][check] for m in attribution.METHODS} for name, by in agreement.items()}
            for check in ("methods", "methods_top")
        }
    return found


def _compare(params, values, others):
    """Mean rank correlation and top overlap with ``others``, each by parameter and method."""
    measures = {"rank": sanity.rank_correlation, "top": sanity.top_overlap}
    names = params.attribute.parameters
    return {
        key: attributions.each(
            names, lambda m, column, of=measure: of(values[m][:, column], others[m][:, column]).mean()
        )
        for key, measure in measures.items()
    }


def _change(before, after):
    return np.sqrt(np.square(after - before).mean() / np.square(before).mean())


def _train(params, suite, what, epochs):
    """A network trained from another seed, or on labels shuffled among simulations; what it is; its checkpoint."""
    device = cli.device()
    hyperparameters = networks.chosen(suite, CASE)
    parts = dataset.load(params, suite, CASE, ("train", "valid", "test"))
    targets = {name: part.targets for name, part in parts.items()}
    if what == "labels shuffled":
        for name in ("train", "valid"):
            by_simulation = targets[name].reshape(-1, dataset.PER_SIMULATION, len(theta.NAMES))
            generator = seeding.numpy_generator(params.seed, suite, CASE, "shuffled labels", name)
            targets[name] = by_simulation[generator.permutation(len(by_simulation))].flatten(0, 1)
    key = networks.resume_key(params, suite, CASE, device, "sanity", what, epochs, hyperparameters)
    with checkpoints.Checkpoint(paths.CHECKPOINTS / f"sanity-{key}.pt", device, params.checkpoint) as checkpoint:
        net, _ = networks.fit(
            params,
            suite,
            CASE,
            hyperparameters,
            *((dataset.place(parts[name].maps, device), targets[name].to(device)) for name in ("train", "valid")),
            weights=("sanity", what),
            seed=("sanity", what),
            epochs=epochs,
            state=checkpoint.state,
            on_epoch=checkpoint.keep,
        )
        checkpoint.flush()
    mean, _ = training.predict(net, parts["test"].maps)
    r2 = metrics.r2(parts["test"].targets.numpy(), mean.cpu().numpy())
    return net, {"epochs": epochs, "r2": dict(zip(theta.NAMES, r2, strict=True))}, checkpoint


if __name__ == "__main__":
    cli.run_stage(main)
