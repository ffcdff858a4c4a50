"""A suite that only transfer@suites asks for: its maps, and the network of the uncut case."""

import dataclasses

from camelsight import cli, dataset, networks, paths, release, simulation, store
from camelsight.inference import training

CASE = "original"


def main(params, suite):
    none = dataclasses.replace(params.robustness, suites=())
    alone = dataclasses.replace(params, suites=(suite,), robustness=none)
    folder, device = paths.further_maps(suite), cli.device()
    if params.maps.source == "mock":
        simulation.simulate(alone, folder, workers=1)  # beside the chains of the other suites
    else:
        release.adopt(alone, folder)
    with cli.progress(params.maps.simulations, f"read {suite}", "sim") as bar:
        record, _ = dataset.survey(params, suite, CASE, folder=folder, on_simulation=bar.update)
    store.write_json(paths.further(suite), record)

    hyperparameters = store.plain(params.tune.start_of(CASE))
    parts = dataset.load(params, suite, CASE, ("train", "valid"), record=record, folder=folder)
    with cli.progress(params.train.epochs, f"train {suite}", "epoch") as bar:
        net, _ = networks.fit(
            params,
            suite,
            CASE,
            hyperparameters,
            *((part.maps.to(device), part.targets.to(device)) for part in parts.values()),
            weights=("train", "weights"),
            seed=("train",),
            epochs=params.train.epochs,
            precision=training.resolve_precision(params.train.precision, device),
            on_epoch=lambda _: bar.update(),
        )
    store.write_weights(paths.weights(suite, CASE), net)
    digest = store.tensor_digest(net.state_dict())
    store.write_json(paths.network(suite, CASE), {"weights": digest, "hyperparameters": hyperparameters})


if __name__ == "__main__":
    cli.run_stage(main)
