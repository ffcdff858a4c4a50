"""Predictions of a trained network for the test maps, and how good they are."""

import numpy as np
import torch

from camelsight import cli, dataset, paths, seeding, store, theta
from camelsight.inference import metrics, network, training
from camelsight.maps import scaling


def main(params, suite, case):
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    store.read_weights(paths.weights(suite, case), net).to(cli.device())
    part = dataset.load(params, suite, case, ("test",))["test"]

    mean, sigma = _views(net, part.maps.to(cli.device()), params)
    truth, simulation, index = part.parameters, part.simulation, part.index
    if params.evaluate.views == "8":
        truth, simulation, index = (np.repeat(array, 8, axis=0) for array in (truth, simulation, index))
    mean, sigma = theta.denormalise(mean, suite), theta.denormalise_sigma(sigma, suite)
    generator = seeding.numpy_generator(params.seed, suite, case, "bootstrap")
    summary = metrics.summary(truth, mean, sigma, simulation, generator=generator, resamples=params.evaluate.resamples)
    store.write_arrays(
        paths.predictions(suite, case), index=index, simulation=simulation, truth=truth, mean=mean, sigma=sigma
    )
    record = {
        "suite": suite,
        "case": case,
        "n_maps": len(part.index),
        "n_simulations": len(np.unique(simulation)),
        "weights": store.tensor_digest(net.state_dict()),
        "hyperparameters": hyperparameters,
        "n_parameters": network.count_parameters(net),
        "layers": network.describe(net),
        "metrics": {
            metric: {name: values for name, *values in zip(theta.NAMES, *triple, strict=True)}
            for metric, triple in summary.items()
        },
    }
    store.write_json(paths.metrics(suite, case), record)


def _views(net, maps, params):
    """Normalised means and sigmas, float64: of each map, of its eight symmetries as rows, or their average."""
    if params.evaluate.views == "1":
        return (x.double().cpu().numpy() for x in training.predict(net, maps))
    table = scaling.symmetry_table(maps.shape[-1], maps.device)
    views = [
        training.predict(net, scaling.transform(maps, torch.full((len(maps),), g, device=maps.device), table))
        for g in range(8)
    ]
    mean, sigma = (torch.stack(parts, dim=1).double().cpu().numpy() for parts in zip(*views, strict=True))  # (N, 8, P)
    if params.evaluate.views == "mean8":
        return mean.mean(1), sigma.mean(1)
    return mean.reshape(-1, mean.shape[-1]), sigma.reshape(-1, sigma.shape[-1])


if __name__ == "__main__":
    cli.run_stage(main)
