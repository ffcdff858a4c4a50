"""The network of a case: trained with hyperparameters, or as the stage train left it."""

from camelsight import paths, seeding, store
from camelsight.inference import network, training


def fit(params, suite, case, hyperparameters, train, valid, *, weights, seed, epochs, precision, **progress):
    """A new network and its history; ``train`` and ``valid`` are (maps, targets) on the device that is to train.

    ``weights`` and ``seed`` are the words that name the draws of the initial weights and of the training; ``progress``
    is the state and on_epoch of ``training.fit``.
    """
    net = network.build(
        hyperparameters["hidden"],
        hyperparameters["dropout"],
        size=params.maps.pixels,
        generator=seeding.torch_generator(params.seed, suite, case, *weights, params.train.seed),
    ).to(train[0].device)
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
        precision=precision,
        **progress,
    )
    return net, history


def trained(params, suite, case):
    """The network of a case with its weights, and its hyperparameters."""
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    return store.read_weights(paths.weights(suite, case), net), hyperparameters
