"""Every figure of the paper, as PDF and PNG, from results alone."""

import csv
import io

import numpy as np

from camelsight.ground import cases, cmd, split, theta
from camelsight.interpretation import attribution
from camelsight.pipeline import cli, paths, store
from camelsight.report import (
    plotting,
    plotting_attribution,
    plotting_calibration,
    plotting_rivals,
    plotting_robustness,
    plotting_tuning,
    plotting_universe,
    rivals,
    robustness,
)

DPI = 200
CUTS_SHOW = "integrated_gradients"
COLUMNS = 4  # of the gallery


def main(params):
    rows, nyquist = _table("r2"), cmd.nyquist(params.maps.pixels)
    _save_all(_maps(params) | _results(params, rows, nyquist) | _interpretation(params, rows, nyquist), paths.figure)
    paths.ROBUSTNESS_FIGURES.mkdir(parents=True, exist_ok=True)
    _save_all(_transfer(params) | _baseline(params), paths.robustness_figure)


def _maps(params):
    """Figures of what the networks see."""
    first = params.suites[0]
    of_universe = [suite for suite in params.suites if theta.hydro_suite(suite) == theta.hydro_suite(first)]
    samples = {suite: store.read_arrays(paths.cut_samples(suite, "original")) for suite in of_universe}
    return {
        "gallery": plotting.gallery(
            {suite: arrays["maps"][:COLUMNS] for suite, arrays in samples.items()},
            samples[first]["parameters"][:COLUMNS],
            fields=params.fields,
        ),
        "cuts": plotting.cuts(_cuts(params, first), fields=params.fields),
        **_universe(),
    }


def _results(params, rows, nyquist):
    """Figures of the networks, how they were found, and what they predict; ``rows`` are those of R²."""
    first = params.suites[0]
    metrics = store.read_json(paths.metrics(first, "original"))
    predictions = store.read_arrays(paths.predictions(first, "original"))
    trials = {
        suite: [store.read_json(paths.trials(suite, case)) for case in params.tune.cases] for suite in params.suites
    }
    return {
        "network": plotting.architecture(metrics["layers"]),
        "truth_prediction": plotting.truth_prediction(
            **_one_each(predictions), suite=first, r2=metrics["metrics"]["r2"]
        ),
        "calibration": plotting_calibration.calibration(
            [row for row in _table("ranks") if row["case"] == "original"], _table("calibration")
        ),
        "r2_kmax": plotting.r2_against_kmax(rows, nyquist, cmd.corner(params.maps.pixels)),
        "r2_density": plotting.r2_against_density(rows),
        "tuning": plotting_tuning.tuning(trials),
        "tuning_epochs": plotting_tuning.tuning_epochs(store.read_json(paths.TUNING_RECORD)["searches"]),
    }


def _interpretation(params, rows, nyquist):
    """Figures of the attributions."""
    first = params.suites[0]
    attributions = {case: store.read_arrays(paths.attributions(first, case)) for case in params.attribute.cases}
    uncut, shown = attributions["original"], [params.attribute.parameters.index(name) for name in theta.COSMOLOGICAL]
    records = {suite: store.read_json(paths.attribution_statistics(suite, "original")) for suite in params.suites}
    statistics = {suite: record["statistics"] for suite, record in records.items()}
    return {
        "attribution_maps": plotting_attribution.attribution_maps(
            uncut["density"][0],
            {method: uncut[method][0, shown] for method in attribution.METHODS},
            fields=params.fields,
        ),
        "attribution_cuts": plotting_attribution.attribution_cuts(
            [
                (cases.parse(case), arrays["density"][row], arrays[CUTS_SHOW][row, shown])
                for case, arrays in attributions.items()
                for row in np.flatnonzero(arrays["index"] == split.SHOWN["densities"])[:1].tolist() or [0]
            ],
            fields=params.fields,
            method=CUTS_SHOW,
        ),
        "attribution_density": plotting_attribution.attribution_against_density(_arrays(statistics)),
        "attribution_scales": plotting_attribution.attribution_scales(_arrays(statistics, "fourier"), rows, nyquist),
        "attribution_profiles": plotting_attribution.attribution_profiles(_arrays(statistics, "around")),
        "sanity": plotting_attribution.sanity(
            store.read_json(paths.sanity(first))["cascade"],
            {name: records[first]["curves"][name] for name in theta.COSMOLOGICAL},
        ),
    }


def _save_all(figures, place):
    """Each figure as PDF and PNG, at the ``place`` of its name and ending."""
    for name, figure in figures.items():
        for ending in ("pdf", "png"):
            _save(figure, place(name, ending))


def _cuts(params, suite):
    """(case, map) of each panel: the maps that the paper shows, uncut, then under cuts of scales or of densities."""
    panels = {"scales": [], "densities": []}
    for case in map(cases.parse, params.cases):
        samples = store.read_arrays(paths.cut_samples(suite, case.id))
        for kind, several in panels.items():
            if not case.cuts or (kind == "scales") == any(cut.kind == "kmax" for cut in case.cuts):
                (row,) = np.flatnonzero(samples["index"] == split.SHOWN[kind])[:1].tolist() or [0]
                several.append((case, samples["maps"][row]))
    return [panel for several in panels.values() if len(several) > 1 for panel in several] or panels["densities"]


def _transfer(params):
    """The figures of the experiments of stage transfer that were run."""
    records = {name: store.read_json(paths.experiment("transfer", name)) for name in params.robustness.transfer}
    arrays = {name: store.read_arrays(paths.experiment_arrays("transfer", name)) for name in records}
    figures = {}
    if "suites" in records:
        suites = records["suites"]["suites"]
        predictions = {
            (train, test): {key: arrays["suites"][f"{train}.{test}.{key}"] for key in ("truth", "mean", "sigma")}
            for train in suites
            for test in suites
        }
        for name in theta.COSMOLOGICAL:
            figures[f"transfer_{name}"] = plotting_robustness.transfer(suites, predictions, name)
        if pairs := robustness.crossed(params.suites[0], suites):
            figures["crossed"] = plotting_robustness.crossed({pair: predictions[pair] for pair in pairs})
    if "smoothing" in records:
        figures["smoothing"] = plotting_robustness.smoothing(records["smoothing"]["rows"])
    if "probes" in records:
        panels = {name.removeprefix("map."): values for name, values in arrays["probes"].items()}
        figures["probes"] = plotting_robustness.probes(panels)
    studies = {study: records[study] for study in robustness.STUDIES if study in records}
    if studies:
        curves = studies.pop("simulations", {"rows": []})["rows"]
        figures["generalisation"] = plotting_robustness.generalisation(robustness.settings(studies), curves)
    return figures


def _baseline(params):
    """The figures of the experiments of stage baseline that were run."""
    suite, asked = params.suites[0], params.robustness.baseline
    ran = [name for name in asked if name in rivals.LABELS]
    figures = {}
    if "scales" in asked:
        figures["scales"] = plotting_rivals.scales(_table("scales"))
    if not ran:
        return figures
    ours = store.read_arrays(paths.predictions(suite, "original"))
    records = {name: store.read_json(paths.experiment("baseline", name)) for name in ran}
    arrays = {name: store.read_arrays(paths.experiment_arrays("baseline", name)) for name in ran} | {"maps": ours}
    found = rivals.methods(store.read_json(paths.metrics(suite, "original"))["metrics"], records)
    methods = {name: _one_each(arrays[name]) | {"metrics": metrics} for name, metrics in found.items()}
    figures["rivals"] = plotting_rivals.rivals(methods, suite)
    if "likelihood" in ran:
        one = arrays["likelihood"]
        keys = ("x", "y", "density", "levels")
        contours = [{key: one[f"contour_{key}"][n] for key in keys} for n in range(len(one["shown"]))]
        rows = [np.flatnonzero(ours["index"] == index)[0] for index in one["index"][one["shown"]]]
        points = [{key: ours[key][row] for key in ("truth", "mean", "sigma")} for row in rows]
        scatter = one["scatter"] / np.sqrt(cmd.MAPS_PER_SIMULATION)
        figures["rival_likelihood"] = plotting_rivals.likelihood(
            one["k"], one["errors"], scatter, contours, points, suite
        )
    return figures


def _one_each(predictions):
    """Truth, mean and sigma of one map of each simulation."""
    _, first = np.unique(predictions["simulation"], return_index=True)
    return {key: predictions[key][first] for key in ("truth", "mean", "sigma")}


def _universe():
    record = store.read_json(paths.UNIVERSE)
    if "gravity" not in record:
        return {name: plotting.message("for simulated maps only") for name in ("twin", "power_spectrum", "baryons")}
    gravity, suites = record["gravity"], record["baryons"]
    return {
        "twin": plotting_universe.twin(np.load(paths.DIGITISED), record["twin"]),
        "power_spectrum": plotting_universe.power_spectrum(gravity),
        "baryons": plotting_universe.baryons(gravity["k"], suites),
    }


def _table(name):
    """The rows of a table of stage tabulate, with numbers for whatever is one."""
    with open(paths.TABLES / f"{name}.csv", newline="", encoding="utf-8") as file:
        return [{key: _number(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def _arrays(statistics, key=None):
    """suite -> parameter -> method -> the statistics, or those under ``key``, with arrays for lists."""
    return {
        suite: {
            name: {method: _as_arrays(one[key] if key else one) for method, one in by_parameter[name].items()}
            for name in theta.COSMOLOGICAL
        }
        for suite, by_parameter in statistics.items()
    }


def _as_arrays(value):
    if isinstance(value, dict):
        return {key: _as_arrays(inner) for key, inner in value.items()}
    return np.array(value, dtype=float)


def _save(figure, path):
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    drawn = io.BytesIO()  # Matplotlib's PDF itself makes another error of a full disk
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=DPI, metadata=metadata)
    store.write_bytes(path, drawn.getvalue())


if __name__ == "__main__":
    cli.run_stage(main)
