"""What a run says for itself: its numbers by the ids of expected.yaml, and the facts of the code."""

import csv
import hashlib
from itertools import product

import numpy as np
import torch

from camelsight.analysis import dataset, differences, prediction
from camelsight.ground import cases, cmd, split, theta
from camelsight.ground.fields import TOTAL
from camelsight.inference import network, training, tuning
from camelsight.maps import cuts
from camelsight.pipeline import params as parameters_file
from camelsight.pipeline import paths, store
from camelsight.report import published, robustness, tables
from camelsight.universe import camels, linear, validation

METHOD = "integrated_gradients"  # whose attributions the statements of the paper are tested with
PROBES = {"pixels shuffled": "shuffled", "mean only": "mean"}  # of the record → of the ids of expected.yaml
CRITICAL_DENSITY = 2.77536627e11  # (Msun/h)/(Mpc/h)^3
# Relative, of statistics of pixels. Another machine rounds differently: 1e-7 more sigma_8, in the mini profile, moves a
# pixel by 7e-4 (rms), the standard deviation of all of them by 1e-5, and their mean by less than 1e-8.
PIXELS = {"mean": 1e-5, "std": 1e-3, "log10_mean": 1e-5, "log10_std": 1e-4}
TWIN_PARTICLES = 64  # a side, from which a map of the twin is set beside the real one


def combinations(params):
    """(suite, case) of every network of the profile that has been evaluated."""
    return [(s, c) for s, c in product(params.suites, params.cases) if paths.metrics(s, c).exists()]


def measured(params):
    """id → value, or (value, low, high): what this run gave, under the ids of paper/expected.yaml."""
    found, predictions = {}, {}
    for suite, case in combinations(params):
        names = theta.meant(suite)
        record = store.read_json(paths.metrics(suite, case))
        for metric, by_parameter in record["metrics"].items():
            found |= {f"{metric}.{suite}.{case}.{name}": tuple(by_parameter[name]) for name in names}
        found |= {f"r2_table.{suite}.{case}.{name}": found[f"r2.{suite}.{case}.{name}"] for name in names}
        as_companion = f"relative_error_transfer.{suite}.{suite}"  # trained and tested on the same suite
        as_companion = as_companion if case == "original" else f"relative_error_smoothed.{suite}.{case}"
        found |= {f"{as_companion}.{name}": found[f"relative_error.{suite}.{case}.{name}"] for name in names}
        if paths.history(suite, case).exists():
            epochs = store.read_json(paths.history(suite, case))["epochs"]
            found[f"valid_loss.{suite}.{case}.all"] = min(epoch["valid"] for epoch in epochs)
        if paths.predictions(suite, case).exists():
            predictions[suite, case] = store.read_arrays(paths.predictions(suite, case))
            found[f"test_loss.{suite}.{case}.all"] = prediction.loss_of(predictions[suite, case], suite)
    for suite in params.suites:
        for name in theta.COSMOLOGICAL:
            if f"r2.{suite}.original.{name}" in found:
                found[f"inferred.{suite}.original.{name}"] = found[f"r2.{suite}.original.{name}"]
        r2 = {(case, name): found[key][0] for case in params.cases for name in theta.COSMOLOGICAL
              if (key := f"r2.{suite}.{case}.{name}") in found}  # fmt: skip
        found |= published.poster_values(r2, suite)
    found |= _costs(params, predictions)
    return found | _interpretation() | _attributed(params) | _pixels(params) | _twin(params) | _robustness(params)


def _twin(params):
    """How well the twin of a map agrees with the map that the paper shows, by scale; from 64^3 particles on."""
    if params.maps.source != "twin" or params.maps.particles < TWIN_PARTICLES or not paths.UNIVERSE.exists():
        return {}
    found = {}
    for suite, one in store.read_json(paths.UNIVERSE)["twin"].items():
        for name in ("correlation", "power"):
            means = zip(validation.SCALES, validation.by_scale(one["k"], one[name]), strict=True)
            found |= {f"twin_{name}.{suite}.original.k_{low:g}_{high:g}": mean for (low, high), mean in means}
    return found


def _costs(params, predictions):
    """What each cut costs in R², with intervals over the same resamples, and how much suites differ in it."""
    found = {}
    for (suite, case), cut in predictions.items():
        uncut = predictions.get((suite, "original"))
        if case == "original" or uncut is None:
            continue
        lost = differences.of_cut(params, suite, case, uncut, cut)
        for name in theta.COSMOLOGICAL:
            found |= {f"{key}.{suite}.{case}.{name}": lost[name] for key in ("drop", "cost")}
    for suite, name in product(params.suites, theta.COSMOLOGICAL):
        pairs = [(f"cost.{suite}.{case}.{name}", f"cost.Nbody_{suite}.{case}.{name}") for case in params.cases]
        both = [abs(found[a][0] - found[b][0]) for a, b in pairs if a in found and b in found]
        if both:
            found[f"consistency.Nbody_{suite}.all.{name}"] = float(np.mean(both))
    return found


def _interpretation():
    record = store.read_json(paths.INTERPRETATION) if paths.INTERPRETATION.exists() else {}
    return {
        f"{key}.{suite}.original.{name}": tuple(by_method[METHOD][key])
        for suite, by_parameter in record.items()
        if suite != "schema"
        for name, by_method in by_parameter.items()
        for key in ("per_pixel_ratio", "void_share")
    }


def _attributed(params):
    """Of the map that the paper's figure of attributions shows: their scale, and where they are lowest."""
    suite, case = params.suites[0], "original"
    known = paths.attributions(suite, case).exists() and paths.cut(suite, case).exists()
    if params.fields != (TOTAL,) or not known:
        return {}
    arrays, names = store.read_arrays(paths.attributions(suite, case)), list(params.attribute.parameters)
    if arrays["index"][0] != split.SHOWN["attribution"]:
        return {}
    mean = dataset.scales(params, store.read_json(paths.cut(suite, case)), "train")[0].mean
    return published.attribution_values(arrays, names, mean, suite)


def _pixels(params):
    found = {}
    if paths.UNIVERSE.exists():
        for suite, by_field in store.read_json(paths.UNIVERSE)["statistics"].items():
            values = by_field.get(TOTAL, {})
            old = params.maps.source == "camels" and (cmd.release(values, suite) or "").startswith("before")
            found |= {f"{'pixels_2023' if old else 'pixels'}.{suite}.original.{key}": v for key, v in values.items()}
    for suite in params.suites:
        if params.maps.source == "camels" and paths.parameters(suite).exists():
            found[f"sha256.{suite}.parameters.begins"] = store.file_digest(paths.parameters(suite))[:16]
    return found


def _robustness(params):
    """From the records of the experiments on robustness, those that a run has."""
    found, first = {}, params.suites[0]
    for one in _experiment("transfer", "suites"):
        pair = one["train"], one["test"]
        for name, metric in (("r2_transfer", "r2"), ("relative_error_transfer", "relative_error")):
            found |= _triples(name, pair, one["metrics"][metric], robustness.comparable(*pair))
    smoothed = [one for one in _experiment("transfer", "smoothing") if one["width"]]
    rows = [("relative_error_smoothed", f"smooth_{one['width']:g}", one["metrics"]) for one in smoothed]
    probes = _experiment("transfer", "probes")
    rows += [("r2_probe", PROBES.get(one["probe"], one["probe"]), one["metrics"]) for one in probes]
    if (baseline := paths.experiment("baseline", "network")).exists():
        rows.append(("relative_error_baseline", "power_spectrum", store.read_json(baseline)["metrics"]))
    for metric, place, measures in rows:
        values = measures[metric.rpartition("_")[0]]
        found |= _triples(metric, (first, place), values, theta.meaningful(first))
    return found


def _experiment(stage, name):
    path = paths.experiment(stage, name)
    return store.read_json(path)["rows"] if path.exists() else []


def _triples(metric, place, values, meant):
    names = [name for name, good in zip(theta.NAMES, meant, strict=True) if good]
    return {".".join((metric, *place, name)): tuple(values[name]) for name in names}


def table():
    """The rows of the table of R², as text."""
    path = paths.TABLES / "r2.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [one for one in csv.DictReader(file) if one.get("r2")]


def code_facts():
    """id → value of what needs no run: the network, the split, the dataset's definitions, the released settings."""
    released = parameters_file.load(paths.profile("camels"))
    parts = split.by_simulation(cmd.SIMULATIONS, seed=1, fractions=(0.9, 0.05, 0.05))
    words = lambda values: " ".join(f"{value:g}" for value in values)  # noqa: E731
    with torch.device("meta"):  # without memory
        nets = {hidden: network.build(hidden, 0.0, size=cmd.PIXELS) for hidden in range(6, 13)}
    facts = {f"n_weights.o3.hidden_{hidden}.all": network.count_parameters(net) for hidden, net in nets.items()}
    facts |= {f"split.CAMELS.{name}.first": words(parts[name][:5]) for name in ("train", "valid")}
    facts |= {
        "split.CAMELS.test.all": words(parts["test"]),
        "split.CAMELS.sizes.all": words(len(parts[name]) for name in ("train", "valid", "test")),
        "parameters.CMD.columns.all": " ".join(theta.NAMES),
        "set.CMD.LH.simulations": cmd.SIMULATIONS,
        "set.CMD.LH.maps_per_simulation": cmd.MAPS_PER_SIMULATION,
        "set.CMD.LH.pixels": cmd.PIXELS,
        "set.CMD.LH.box": cmd.BOX,
        "set.CMD.LH.bytes": cmd.maps_bytes(cmd.SIMULATIONS, cmd.PIXELS),
        "cosmology.CAMELS.fixed.h": linear.HUBBLE,
        "cosmology.CAMELS.fixed.omega_b": linear.OMEGA_B,
        "cosmology.CAMELS.fixed.n_s": linear.N_S,
        "training.released.optimiser.betas": words(training.BETAS),
        "training.released.schedule.steps": words([training.CYCLE_STEPS] * 2),
        "training.released.schedule.base_lr": training.BASE_LR,
        "training.released.all.batch": released.train.batch,
        "training.released.all.epochs": released.train.epochs,
        "tuning.released.sampler.startup": tuning.STARTUP_TRIALS,
        "scale.CMD.fundamental.k": 2 * np.pi / cmd.BOX,
        "scale.CMD.nyquist.k": cmd.nyquist(cmd.PIXELS),
        "scale.CMD.corner.k": cmd.corner(cmd.PIXELS),
        "scale.CMD.kmax_40.share_of_modes": 1 - cuts.share_of_modes(cmd.PIXELS, 40),
        "density.CAMELS.mean.per_omega_m": CRITICAL_DENSITY * cmd.BOX / cmd.SLABS,
        "density.CAMELS.max_1e11_clamp.overdensity": cases.parse("max_1e11_clamp").only.overdensity(),
        "density.CAMELS.max_1e12_clamp.overdensity": cases.parse("max_1e12_clamp").only.overdensity(),
    }
    for suite in ("IllustrisTNG", "SIMBA", "Astrid"):
        table = camels.text(camels.parameters(suite))
        facts[f"parameters.{suite}.LH.sha256"] = hashlib.sha256(table.encode("ascii")).hexdigest()
        limits = zip(theta.NAMES, *theta.ranges(suite), strict=True)
        facts |= {f"parameters.{suite}.range.{name}": words(ends) for name, *ends in limits}
    for name in tuning.HYPERPARAMETERS:
        facts[f"tuning.released.range.{name}"] = words(getattr(released.tune, name))
        for case, start in released.tune.start.items():
            facts[f"hyperparameters.IllustrisTNG.{case}.{name}"] = getattr(start, name)
    return facts


def quoted(params):
    """id of an R² → the macro of the paper that quotes it."""
    found = tables.quoted(params.suites, params.cases)
    return {f"r2.{suite}.{case}.{name}": macro for macro, (suite, case, name) in found.items() if suite and case}
