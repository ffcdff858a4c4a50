"""Attributions of the network of the uncut case, on its test maps, and their statistics against density."""

import numpy as np
import torch

from camelsight import cases, cli, dataset, paths, seeding, store, theta
from camelsight.inference import network
from camelsight.interpretation import attribution, cosmic_web

CASE = "original"
KEPT = 4  # maps whose attributions are stored for the figures
CHUNK = 8  # maps at a time, so that progress shows


def main(params, suite):
    spec, device = params.attribute, cli.device()
    hyperparameters = store.read_json(paths.tuning(suite, CASE))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    store.read_weights(paths.weights(suite, CASE), net).to(device)
    part = dataset.load(params, suite, CASE, ("test",))["test"]
    record = store.read_json(paths.cut(suite, CASE))
    chosen = _spread(part.simulation, spec.maps)

    mean, std = record[f"statistics_{params.train.normalisation}"]
    references = attribution.baselines(
        spec.baseline,
        part.maps.shape[1:],
        count=spec.shap_samples,
        log10_range=record["log10_range"],
        mean=mean,
        std=std,
        generator=seeding.numpy_generator(params.seed, suite, CASE, "baseline"),
    )
    seed = seeding.entropy(params.seed, suite, CASE, "gradient_shap")
    values, gaps = {}, {}
    with cli.progress(len(theta.COSMOLOGICAL) * len(chosen), f"attribute {suite}", "map") as bar:
        for name in theta.COSMOLOGICAL:
            pieces = []
            for start in range(0, len(chosen), CHUNK):
                rows = chosen[start : start + CHUNK]
                pieces.append(
                    attribution.attribute(
                        net,
                        part.maps[rows].to(device),
                        theta.NAMES.index(name),
                        references=references,
                        ig_steps=spec.ig_steps,
                        shap_samples=spec.shap_samples,
                        seed=seeding.entropy(seed, start),
                    )
                )
                bar.update(len(rows))
            values[name] = {
                method: torch.cat([piece[method] for piece, _ in pieces]).cpu().numpy()
                for method in attribution.METHODS
            }
            gaps[name] = torch.cat([gap for _, gap in pieces]).cpu().numpy()

    suite_maps = store.open_maps(suite, params.maps.simulations, params.maps.pixels)
    density = np.stack([suite_maps[index] for index in part.index[chosen]])
    omega_m = part.parameters[chosen, 0]
    overdensity = density / (cases.MEAN_SURFACE_DENSITY * omega_m[:, None, None])
    generator = seeding.numpy_generator(params.seed, suite, CASE, "attribution bootstrap")
    statistics = {
        name: {
            method: cosmic_web.density_profile(
                values[name][method], overdensity, part.simulation[chosen], generator=generator
            )
            for method in attribution.METHODS
        }
        for name in theta.COSMOLOGICAL
    }
    store.write_arrays(
        paths.attributions(suite),
        index=part.index[chosen][:KEPT],
        parameters=part.parameters[chosen][:KEPT],
        density=density[:KEPT],
        **{
            method: np.stack([values[name][method][:KEPT] for name in theta.COSMOLOGICAL], axis=1)  # (K, P, n, n)
            for method in attribution.METHODS
        },
    )
    store.write_json(
        paths.attribution_statistics(suite),
        {
            "suite": suite,
            "case": CASE,
            "index": part.index[chosen],
            "completeness_gap": gaps,
            "statistics": statistics,
            **store.plain(spec),
        },
    )


def _spread(simulation, count):
    """``count`` rows (or all), taken evenly from the simulations: their first maps first, then their second ones."""
    _, position = np.unique(simulation, return_inverse=True)
    order = np.lexsort((position, np.arange(len(simulation)) % dataset.PER_SIMULATION))
    return order[:count]


if __name__ == "__main__":
    cli.run_stage(main)
