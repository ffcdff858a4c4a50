"""Every figure of the paper, as PDF and PNG, from results alone."""

import csv

import numpy as np

from camelsight import cases, cli, paths, store, theta
from camelsight.interpretation import attribution
from camelsight.report import plotting
from camelsight.universe import cmd

DPI = 200


def main(params):
    first = params.suites[0]
    universe = theta.hydro_suite(first)
    rows = _r2_rows()
    nyquist = np.pi * params.maps.pixels / cmd.BOX
    original = {suite: store.read_arrays(paths.cut_samples(suite, "original")) for suite in params.suites}
    attributions = store.read_arrays(paths.attributions(first))
    predictions = store.read_arrays(paths.predictions(first, "original"))
    _, one_each = np.unique(predictions["simulation"], return_index=True)
    metrics = store.read_json(paths.metrics(first, "original"))

    figures = {
        "network": plotting.architecture(metrics["layers"]),
        "gallery": plotting.gallery(
            {suite: original[suite]["maps"] for suite in params.suites if theta.hydro_suite(suite) == universe},
            original[first]["parameters"],
        ),
        "cuts": plotting.cuts(
            [(cases.parse(case), store.read_arrays(paths.cut_samples(first, case))["maps"][0]) for case in params.cases]
        ),
        "truth_prediction": plotting.truth_prediction(
            *(predictions[name][one_each] for name in ("truth", "mean", "sigma")),
            suite=first,
            r2=metrics["metrics"]["r2"],
        ),
        "r2_kmax": plotting.r2_against_kmax(rows, nyquist, np.sqrt(2) * nyquist),
        "r2_density": plotting.r2_against_density(rows),
        "attribution_maps": plotting.attribution_maps(
            attributions["density"][0], {method: attributions[method][0] for method in attribution.METHODS}
        ),
        "attribution_density": plotting.attribution_against_density(_profiles(params)),
        **_universe(),
    }
    for name, figure in figures.items():
        for ending in ("pdf", "png"):
            _save(figure, paths.figure(name, ending))


def _universe():
    record = store.read_json(paths.UNIVERSE)
    if "gravity" not in record:
        return {name: plotting.not_simulated() for name in ("power_spectrum", "baryons")}
    gravity, suites = record["gravity"], record["baryons"]
    return {"power_spectrum": plotting.power_spectrum(gravity), "baryons": plotting.baryons(gravity["k"], suites)}


def _r2_rows():
    with open(paths.TABLES / "r2.csv", newline="") as file:
        return [row | {key: float(row[key]) for key in ("r2", "low", "high")} for row in csv.DictReader(file)]


def _profiles(params):
    """suite -> parameter -> method -> density profile, as arrays."""
    profiles = {}
    for suite in params.suites:
        statistics = store.read_json(paths.attribution_statistics(suite))["statistics"]
        profiles[suite] = {
            name: {
                method: {key: np.array(value, dtype=float) for key, value in profile.items()}
                for method, profile in statistics[name].items()
            }
            for name in theta.COSMOLOGICAL
        }
    return profiles


def _save(figure, path):
    with store.replacing(path) as part:
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        figure.savefig(part, dpi=DPI, metadata=metadata)


if __name__ == "__main__":
    cli.run_stage(main)
