"""The network of a case: trained with hyperparameters, or as the stage train left it; its predictions, measured."""

import sys

from camelsight.analysis import dataset
from camelsight.ground import seeding
from camelsight.ground.hyperparameters import checked
from camelsight.inference import fused, network, training
from camelsight.pipeline import checkpoints, cli, compiled, paths, store


def fit(params, suite, case, hyperparameters, train, valid, *, weights, seed, epochs, **progress):
    """A new network and its history; ``train`` and ``valid`` are (maps, targets), targets on the device that trains.

    ``weights`` and ``seed`` are the words that name the draws of the initial weights and of the training; ``progress``
    is the patience, symmetries, state and on_epoch of ``training.fit``.
    """
    device = train[1].device
    engine(device)
    cli.keep_memory()
    generator = seeding.torch_generator(params.seed, suite, case, *weights, params.train.seed)
    net = build(params, hyperparameters, generator).to(device)
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
    kept = checkpoints.Checkpoint(checkpoint, train[1].device, params.checkpoint)
    done = len(kept.state["history"]) if kept.state else 0
    with kept, cli.progress(epochs, what, "epoch", done) as bar:

        def on_epoch(state):
            kept.keep(state)
            losses = [record["valid"] for record in state["history"]]
            bar.set_postfix_str(f"valid {losses[-1]:.2f}", refresh=False)
            bar.update(best=min(losses))

        more |= {"epochs": epochs, "state": kept.state, "on_epoch": on_epoch}
        made = fit(params, suite, case, hyperparameters, train, valid, **more)
        kept.flush()
        return made


def of_case(params, suite, case, device, hyperparameters, *, checkpoint, what):
    """The network of a case, trained from ``train.seed`` as stage train does it, and its history; see ``resumed``."""
    train, valid = dataset.load_tensors(params, suite, case, ("train", "valid"), device)
    return resumed(
        params,
        suite,
        case,
        hyperparameters,
        train,
        valid,
        checkpoint=checkpoint,
        what=what,
        weights=("train", "weights"),
        seed=("train",),
        epochs=params.train.epochs,
        patience=params.train.patience,
    )


def resume_key(params, suite, case, device, stage, *more):
    """``dataset.resume_key`` of networks: the engine and the precision that train them change results, too."""
    return dataset.resume_key(params, suite, case, device, stage, engine(device), precision(params, device), *more)


def precision(params, device):
    return training.resolve_precision(params.train.precision, device)


def engine(device):
    """What trains on ``device``, for the keys of unfinished work: its results differ in the last bits."""
    return "compiled" if device.type == "cpu" and compiled.load(fused) else "torch"


def chosen(suite, case):
    """The hyperparameters of a case, as the stage choose or an import left them; ValueError if they can be none."""
    path = paths.hyperparameters(suite, case)
    record = store.read_json(path)
    return checked(record.get("hyperparameters") if isinstance(record, dict) else record, path)


def build(params, hyperparameters, generator=None):
    """A network with these hyperparameters for the maps and fields of a profile."""
    shape = {"size": params.maps.pixels, "channels": len(params.fields)}
    return network.build(hyperparameters["hidden"], hyperparameters["dropout"], **shape, generator=generator)


def trained(params, suite, case, seed=None):
    """The network of a case with its weights, or the one trained again from ``seed``; and its hyperparameters."""
    hyperparameters = chosen(suite, case)
    net = build(params, hyperparameters)
    path = paths.weights(suite, case) if seed is None else paths.repeated_weights(suite, case, seed)
    return store.read_weights(path, net), hyperparameters


def load_published(path):
    """The network of a released checkpoint, in evaluation mode; ValueError if the file is none, see ``from_state``.

    Standard error tells what a wrapper or a training script had put around it.
    """
    state, done = network.unwrapped(store.read_released(path), path)
    net = network.from_state(state, path)
    if done:
        print(f"{path}: {'; '.join(done)}", file=sys.stderr)
    return net
