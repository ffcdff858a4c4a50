"""Are the attributions of the uncut case to be believed? Random weights, shuffled labels, other seeds, shifted maps."""

import numpy as np
import torch

from camelsight import cli, dataset, paths, seeding, store, theta
from camelsight.inference import metrics, network, training
from camelsight.interpretation import attribution, sanity

CASE = "original"
CONSTANT = 1.0  # added to scaled maps


def main(params, suite):
    spec, device = params.sanity, cli.device()
    hyperparameters = store.read_json(paths.tuning(suite, CASE))["hyperparameters"]
    trained = _build(params, hyperparameters)
    net = attribution.fold(store.read_weights(paths.weights(suite, CASE), trained)).to(device)
    parts = dataset.load(params, suite, CASE, ("train", "valid", "test"))
    record = store.read_json(paths.cut(suite, CASE))
    chosen = attribution.spread(parts["test"].simulation, spec.maps)
    maps, indices = parts["test"].maps[chosen], parts["test"].index[chosen]
    first = suite == params.suites[0]
    seeds, shuffled = (spec.seeds, bool(spec.shuffled_epochs)) if first else (0, False)
    drawn = sanity.randomised(net.cpu(), seeding.torch_generator(params.seed, suite, CASE, "randomisation"))

    with cli.progress(3 + seeds + shuffled + len(sanity.layers(net)), f"sanity {suite}", "network") as bar:

        def attributions(network, **changes):
            values, records = _attributions(params, suite, network.to(device), maps, indices, record, **changes)
            bar.update()
            return values, records

        values, _ = attributions(net)
        cascade = {layer: _compare(params, values, attributions(random)[0]) for layer, random in drawn}
        checks = {"randomisation": list(cascade.values())[-1]["rank"]}
        moved, _ = attributions(sanity.shifted(net, CONSTANT), constant=CONSTANT)
        checks["added_constant"] = _each(params, lambda method, column: _change(values, moved, method, column))
        _, records = attributions(net, symmetric=True)
        checks["equivariance"] = _each(
            params, lambda method, column: np.mean([float(one["equivariance"][method][column]) for one in records])
        )
        networks, finished = [], []
        if shuffled:
            other, r2, checkpoint = _train(params, suite, hyperparameters, parts, "shuffled", spec.shuffled_epochs)
            checks["label_shuffled"] = _compare(params, values, attributions(attribution.fold(other))[0])["rank"]
            networks.append({"what": "labels shuffled", "epochs": spec.shuffled_epochs, "r2": r2})
            finished.append(checkpoint)
        agreements = []
        for number in range(seeds):
            other, r2, checkpoint = _train(params, suite, hyperparameters, parts, f"seed {number}", spec.seed_epochs)
            agreements.append(_compare(params, values, attributions(attribution.fold(other))[0]))
            networks.append({"what": f"another seed, {number + 1}", "epochs": spec.seed_epochs, "r2": r2})
            finished.append(checkpoint)
        if agreements:
            for check, key in (("seeds", "rank"), ("seeds_top", "top")):
                checks[check] = {
                    name: {m: np.mean([one[key][name][m] for one in agreements]) for m in attribution.METHODS}
                    for name in params.attribute.parameters
                }
    store.write_json(
        paths.sanity(suite),
        {
            "suite": suite,
            "index": indices,
            "checks": checks,
            "cascade": {layer: one["rank"] for layer, one in cascade.items()},
            "networks": networks,
            "settings": store.plain(spec),
        },
    )
    for checkpoint in finished:
        checkpoint.unlink()


def _build(params, hyperparameters, generator=None):
    size = params.maps.pixels
    return network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=size, generator=generator)


def _attributions(params, suite, net, maps, indices, record, *, constant=0.0, symmetric=False):
    """``{method: (M, P, n, n)}`` of ``maps`` + ``constant`` with baselines of maps so scaled, and the records."""
    spec, device = params.attribute, cli.device()
    mean, std = record[f"statistics_{params.train.normalisation}"]
    scale = {
        "log10_range": record["log10_range"],
        "train_mean": record["statistics_train"][0],
        "mean": mean - constant * std,
        "std": std,
    }
    attribute = attribution.symmetric if symmetric else attribution.attribute
    batch = attribution.batch_size(net, params.maps.pixels, cli.free_bytes(device))
    results = []
    for scaled, index in zip(maps + constant, indices, strict=True):
        start, references = (
            attribution.baselines(
                name,
                scaled,
                count,
                **scale,
                generator=seeding.numpy_generator(params.seed, suite, CASE, "baseline", count, index),
            ).to(device)
            for name, count in ((spec.baseline, 1), (spec.shap_baseline, params.sanity.shap_samples))
        )
        results.append(
            attribute(
                net,
                scaled.to(device),
                [theta.NAMES.index(name) + len(theta.NAMES) * (spec.output == "sigma") for name in spec.parameters],
                start=start[0],
                references=references,
                ig_steps=params.sanity.ig_steps,
                shap_samples=params.sanity.shap_samples,
                seed=seeding.entropy(params.seed, suite, CASE, "gradient_shap", index),
                batch=batch,
                refinement=1,
            )
        )
    values = {method: torch.stack([one[method] for one, _ in results]).cpu().numpy() for method in attribution.METHODS}
    return values, [one for _, one in results]


def _each(params, measure):
    """{parameter: {method: ``measure(method, column)``}}."""
    return {
        name: {method: measure(method, column) for method in attribution.METHODS}
        for column, name in enumerate(params.attribute.parameters)
    }


def _compare(params, values, others):
    measures = {"rank": sanity.rank_correlation, "top": sanity.top_overlap}
    return {
        key: _each(params, lambda m, column, of=measure: of(values[m][:, column], others[m][:, column]).mean())
        for key, measure in measures.items()
    }


def _change(values, moved, method, column):
    before = values[method][:, column]
    return np.sqrt(np.square(moved[method][:, column] - before).mean() / np.square(before).mean())


def _train(params, suite, hyperparameters, parts, what, epochs):
    """A network trained from another seed, or on labels shuffled among simulations; its R², and its checkpoint."""
    device = cli.device()
    precision = training.resolve_precision(params.train.precision, device)
    targets = {name: part.targets for name, part in parts.items()}
    if what == "shuffled":
        for name in ("train", "valid"):
            order = seeding.numpy_generator(params.seed, suite, CASE, "shuffled labels", name).permutation(
                len(targets[name]) // dataset.PER_SIMULATION
            )
            targets[name] = targets[name].reshape(-1, dataset.PER_SIMULATION, len(theta.NAMES))[order].flatten(0, 1)
    net = _build(params, hyperparameters, seeding.torch_generator(params.seed, suite, CASE, "sanity", what)).to(device)
    key = dataset.resume_key(params, suite, CASE, device, "sanity", what, epochs, precision, hyperparameters)
    checkpoint = paths.CHECKPOINTS / f"sanity-{key}.pt"
    training.fit(
        net,
        *((parts[name].maps.to(device), targets[name].to(device)) for name in ("train", "valid")),
        epochs=epochs,
        batch=params.train.batch,
        max_lr=hyperparameters["max_lr"],
        weight_decay=hyperparameters["weight_decay"],
        seed=seeding.entropy(params.seed, suite, CASE, "sanity", what),
        schedule=params.train.schedule,
        precision=precision,
        state=store.read_checkpoint(checkpoint, device),
        on_epoch=lambda state: store.write_checkpoint(checkpoint, state),
    )
    mean, _ = training.predict(net, parts["test"].maps.to(device))
    r2 = metrics.r2(parts["test"].targets.numpy(), mean.cpu().numpy())
    return net, dict(zip(theta.NAMES, r2, strict=True)), checkpoint


if __name__ == "__main__":
    cli.run_stage(main)
