"""The network of a case: trained with hyperparameters, or as the stage train left it; its predictions, measured."""

import numpy as np
import torch

from camelsight import cli, compiled, dataset, paths, seeding, store, theta
from camelsight.inference import fused, metrics, network, training
from camelsight.maps import scaling


def fit(params, suite, case, hyperparameters, train, valid, *, weights, seed, epochs, **progress):
    """A new network and its history; ``train`` and ``valid`` are (maps, targets), targets on the device that trains.

    ``weights`` and ``seed`` are the words that name the draws of the initial weights and of the training; ``progress``
    is the patience, symmetries, state and on_epoch of ``training.fit``.
    """
    device = train[1].device
    engine(device)
    cli.keep_memory()
    net = network.build(
        hyperparameters["hidden"],
        hyperparameters["dropout"],
        size=params.maps.pixels,
        generator=seeding.torch_generator(params.seed, suite, case, *weights, params.train.seed),
    ).to(device)
    history = training.fit(
        net,
        train,
        valid,
        epochs=epochs,
        batch=params.train.batch,
        max_lr=hyperparameters["max_lr"],
        weight_decay=hyperparameters["weight_decay"],
        seed=seeding.entropy(params.seed, suite, case, *seed, params.train.seed),
        schedule=params.train.schedule,
        precision=precision(params, device),
        deterministic=params.train.deterministic,
        **progress,
    )
    return net, history


def resumed(params, suite, case, hyperparameters, train, valid, *, checkpoint, what, epochs, **more):
    """``fit`` with a progress bar ``what``, which goes on from the file ``checkpoint`` if it was cut off."""
    kept = store.Checkpoint(checkpoint, train[1].device, params.checkpoint)
    done = len(kept.state["history"]) if kept.state else 0
    with kept, cli.progress(epochs, what, "epoch", done) as bar:

        def on_epoch(state):
            kept.keep(state)
            losses = [record["valid"] for record in state["history"]]
            bar.set_postfix_str(f"valid {losses[-1]:.2f}", refresh=False)
            bar.update(best=min(losses))

        more |= {"epochs": epochs, "state": kept.state, "on_epoch": on_epoch}
        return fit(params, suite, case, hyperparameters, train, valid, **more)


def resume_key(params, suite, case, device, *more):
    """``dataset.resume_key`` of networks: the engine and the precision that train them change results, too."""
    return dataset.resume_key(params, suite, case, device, engine(device), precision(params, device), *more)


def precision(params, device):
    return training.resolve_precision(params.train.precision, device)


def engine(device):
    """What trains on ``device``, for the keys of unfinished work: its results differ in the last bits."""
    return "compiled" if device.type == "cpu" and compiled.load(fused) else "torch"


def trained(params, suite, case):
    """The network of a case with its weights, and its hyperparameters."""
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    return store.read_weights(paths.weights(suite, case), net), hyperparameters


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
