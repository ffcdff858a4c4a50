"""Predictions of a trained network for the test maps, and how good they are."""

import dataclasses
import io
import sys
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from camelsight.analysis import dataset, networks, prediction, sets
from camelsight.ground import cmd, fields, split, theta
from camelsight.inference import metrics, network
from camelsight.pipeline import cli, paths, release, store, text_tables
from camelsight.pipeline import params as parameters_file

RELEASED_SPLIT = parameters_file.Split(seed=1, fractions=(0.9, 0.05, 0.05))


def main(params, suite, case):
    net, hyperparameters = networks.trained(params, suite, case)
    part = dataset.load(params, suite, case, ("test",))["test"]
    predictions = prediction.predict(net, part, suite, params.evaluate.views)
    store.write_arrays(paths.predictions(suite, case), **predictions)
    text_tables.write_predictions(
        paths.predictions_text(suite, case), *(predictions[key] for key in ("truth", "mean", "sigma"))
    )
    history = store.read_json(paths.history(suite, case))
    store.write_json(paths.curve(suite, case), history["epochs"])
    record = {
        "suite": suite,
        "case": case,
        "n_maps": len(part.index),
        "n_simulations": len(np.unique(part.simulation)),
        "maps": store.read_json(paths.cut(suite, case))["digest"],
        "weights": store.tensor_digest(net.state_dict()),
        "versions": history["versions"],
        "hyperparameters": hyperparameters,
        "n_parameters": network.count_parameters(net),
        "layers": net.describe(),
        "metrics": prediction.measure(predictions, prediction.bootstrap(params, suite, case), params),
    }
    store.write_json(paths.metrics(suite, case), record)
    store.write_json(paths.robustness_input(suite, case), {"weights": record["weights"]})


def evaluate_file(predictions, *, json=False):
    """Evaluate a file of predictions in the text format of CMD's benchmark, six parameters or two, from anywhere."""
    truth, mean, sigma = text_tables.read_predictions(predictions)
    simulation, mapping = metrics.group_by_truth(truth)
    measured = prediction.measure({"truth": truth, "mean": mean, "sigma": sigma, "simulation": simulation})
    record = {"file": predictions, "rows": len(truth), "mapping": mapping, "metrics": measured}
    if found := release.simulations_of(truth):
        record["simulations"] = {found[0]: np.unique(found[1]).tolist()}
        test = split.by_simulation(cmd.SIMULATIONS, **dataclasses.asdict(RELEASED_SPLIT))["test"]
        which = "the released test split" if set(found[1]) == set(test) else "simulations"
        record["mapping"] += f": {which} of {found[0]}"
    _report(record, json)


def evaluate_checkpoint(weights, *, suite=None, case=None, profile=None, set_=None, json=False):
    """Evaluate a released checkpoint on the test maps, with the released normalisation, split and eight views.

    Suite, fields and smoothing that the name of a file of CMD's benchmark says are taken, unless --suite and --case say
    others. With --set, the maps are those of another set of CMD in maps.folder: CV, 1P, EX, BE or SB.
    """
    if not Path(weights).is_file():
        raise ValueError(f"expected the file of a released checkpoint (make evaluate WEIGHTS=file.pt), got {weights!r}")
    suite, names, case = _named(Path(weights).name, suite, case)
    params = parameters_file.load(paths.profile(profile) if profile else paths.PARAMS)
    params = dataclasses.replace(params, fields=names or params.fields)
    fields.check(params.fields, [suite])
    fields.check_case(params.fields, case)
    net = networks.load_published(weights)
    _check_network(net, params, weights)
    params = dataclasses.replace(params, train=dataclasses.replace(params.train, normalisation="all"))
    real = params.maps.source == "camels"
    if real:  # on simulated maps, which no released network has seen, any split will do
        params = dataclasses.replace(params, split=RELEASED_SPLIT)
    folder = params.maps.files if real else paths.MAPS
    with cli.progress(params.maps.simulations, f"read {suite} {case}", "sim") as bar:
        record, _ = dataset.survey(params, suite, case, folder=folder, on_simulation=bar.update)
    if set_:
        predictions = sets.predict(params, net.to(cli.device()), suite, case, record, set_, "8")
    else:
        part = dataset.load(params, suite, case, ("test",), record=record, folder=folder)["test"]
        predictions = prediction.predict(net, part, suite, "8")
    report = {
        "file": weights,
        "rows": len(predictions["truth"]),
        "mapping": metrics.group_by_truth(predictions["truth"])[1],
        "suite": suite,
        "case": case,
        "set": set_ or cmd.SET,
        "maps": params.maps.source,
        "hidden": net.hidden,
        "weights": store.tensor_digest(net.state_dict()),
        "metrics": prediction.measure(predictions),
        "published": store.read_published(suite, case)
        if real and not set_ and params.fields == (fields.TOTAL,)
        else {},
    }
    _report(report, json)


def _check_network(net, params, weights):
    """ValueError unless the network of the file ``weights`` takes the maps of ``params`` and says what is evaluated."""
    if 2 * net.n_parameters == len(theta.NAMES):
        raise ValueError(
            f"expected {2 * len(theta.NAMES)} outputs, the means and the standard deviations of {len(theta.NAMES)} "
            f"parameters, got {len(theta.NAMES)} in {weights}: a network of means alone has no standard deviations to "
            "evaluate; write what it predicts into a file of predictions"
        )
    if net.size != params.maps.pixels or net.n_parameters != len(theta.NAMES) or net.channels != len(params.fields):
        raise ValueError(
            f"expected a network for maps of {params.maps.pixels} pixels, {len(params.fields)} channel(s) "
            f"({', '.join(params.fields)}) and {len(theta.NAMES)} parameters, got one for {net.size}, "
            f"{net.channels} and {net.n_parameters} in {weights}; "
            "PROFILE=name takes another profile"
        )


def evaluate_set(set_, *, suite=None, case="original", json=False):
    """Evaluate the run's network of a suite and case on another set of CMD in maps.folder: CV, 1P, EX, BE or SB."""
    params = parameters_file.load(paths.PARAMS)
    suite = suite or params.suites[0]
    net, _ = networks.trained(params, suite, case)
    record = store.read_json(paths.cut(suite, case))
    predictions = sets.predict(params, net, suite, case, record, set_, params.evaluate.views)
    report = {
        "file": str(paths.weights(suite, case)),
        "rows": len(predictions["truth"]),
        "mapping": f"{len(np.unique(predictions['simulation']))} simulations of set {set_}: {cmd.SETS[set_[:2]]}",
        "suite": suite,
        "case": case,
        "set": set_,
        "metrics": prediction.measure(predictions, prediction.bootstrap(params, suite, case), params),
    }
    _report(report, json)


def export_weights(export, *, suite, case="original"):
    """Write the weights of --suite and --case into a folder, as torch.save does and by the name of CMD's benchmark."""
    params = parameters_file.load(paths.PARAMS)
    net, _ = networks.trained(params, suite, case)
    trial = store.read_json(paths.hyperparameters(suite, case)).get("trial") or 0
    path = Path(export, cmd.benchmark_names(suite, params.fields, case, trial)[1])
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    store.write_bytes(path, buffer.getvalue())
    print(f"wrote {path}")


def _named(name, suite, case):
    """Suite, fields and case of a checkpoint: what was asked for, else what its ``name`` says; no fields if nothing."""
    said, names, smoothing = cmd.published(name) or (None, (), None)
    if not suite and said not in theta.SUITES:
        got = f"{said} in the name {name}" if said else f"none in the name {name}"
        raise ValueError(f"expected a suite among {', '.join(theta.SUITES)} (make evaluate SUITE=name), got {got}")
    if said:
        what = f"field{'s' * (len(names) > 1)} {', '.join(names)}"
        print(f"{name}: suite {said}, {what}, smoothing {smoothing or 'none'} by its name", file=sys.stderr)
    return suite or said, names, case or (f"smooth_{smoothing}" if smoothing else "original")


def _report(report, as_json):
    if as_json:
        cli.print_json(report)
        return
    print(f"{report['file']}: {report['mapping']}", file=sys.stderr)
    if "maps" in report:
        print(f"hidden {report['hidden']}, normalised as released by the statistics of all maps", file=sys.stderr)
    if report.get("maps") == "twin":
        print("a twin of the maps: these results are not compared with the paper's", file=sys.stderr)
    print(table(report["metrics"], report.get("published", {}), theta.meaningful(report.get("suite", "IllustrisTNG"))))


def table(metrics, published, meaningful):
    """Every metric with its 95% interval, one column per parameter, and below it the published value, if any.

    ``meaningful`` ``(6,)`` bool: the other parameters get a dash.
    """
    names, body = list(metrics["r2"]), []
    shown = [name for name, show in zip(theta.NAMES, meaningful, strict=True) if show]
    for metric, measured in metrics.items():
        cells = (
            "{:.3f} [{:.3f}, {:.3f}]".format(*measured[name])
            if name in shown and not np.isnan(measured[name][0])  # R² of a set with one true value is none
            else "–"
            for name in names
        )
        body.append([metric, *cells])
        if metric in published:
            known = published[metric]
            body.append(["(published)", *(f"{known[name]:.3f}" if name in known else "–" for name in names)])
    return tabulate(body, ("metric", *names), disable_numparse=True)


if __name__ == "__main__":
    cli.run_stage(main, evaluate_file, evaluate_checkpoint, evaluate_set, export_weights)
