"""The network of a case: trained with hyperparameters, or as the stage train left it."""

from camelsight import compiled, paths, seeding, store
from camelsight.inference import network, training


def fit(params, suite, case, hyperparameters, train, valid, *, weights, seed, epochs, precision, **progress):
    """A new network and its history; ``train`` and ``valid`` are (maps, targets) on the device that is to train.

    ``weights`` and ``seed`` are the words that name the draws of the initial weights and of the training; ``progress``
    is the state and on_epoch of ``training.fit``.
    """
    engine(train[0].device)
    net = network.build(
        hyperparameters["hidden"],
        hyperparameters["dropout"],
        size=params.maps.pixels,
        generator=seeding.torch_generator(params.seed, suite, case, *weights),
    ).to(train[0].device)
    history = training.fit(
        net,
        train,
        valid,
        epochs=epochs,
        batch=params.train.batch,
        max_lr=hyperparameters["max_lr"],
        weight_decay=hyperparameters["weight_decay"],
        seed=seeding.entropy(params.seed, suite, case, *seed),
        schedule=params.train.schedule,
        precision=precision,
        **progress,
    )
    return net, history


def engine(device):
    """What trains on ``device``, for the keys of unfinished work: its results differ in the last bits."""
    return "compiled" if device.type == "cpu" and compiled.load() else "torch"


def trained(params, suite, case):
    """The network of a case with its weights, and its hyperparameters."""
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    return store.read_weights(paths.weights(suite, case), net), hyperparameters
