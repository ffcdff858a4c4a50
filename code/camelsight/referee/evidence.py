"""What a run left behind: the numbers that the verdict compares, and whether its files still agree with one another."""

import csv
import hashlib
import json
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import yaml

from camelsight.analysis import dataset, prediction
from camelsight.ground import cases, cmd, seeding, split, theta
from camelsight.inference import loss, metrics, network, training, tuning
from camelsight.maps import scaling
from camelsight.pipeline import environment, launch, packages, paths, rerun, source, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import content, verification
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, WARN, row
from camelsight.report import robustness, tables
from camelsight.universe import camels, linear, validation

METHOD = "integrated_gradients"  # whose attributions the statements of the paper are tested with
PROBES = {"pixels shuffled": "shuffled", "mean only": "mean"}  # of the record → of the ids of expected.yaml
ROUNDING = 1e-9  # of 1 - R² and the other measures computed twice from the same predictions
LOOSER = 10  # times the tolerance of 1 - R², a mean square, is that of other measures and of intervals
CRITICAL_DENSITY = 2.77536627e11  # (Msun/h)/(Mpc/h)^3
# Relative, of statistics of pixels. Another machine rounds differently: 1e-7 more sigma_8, in the mini profile, moves a
# pixel by 7e-4 (rms), the standard deviation of all of them by 1e-5, and their mean by less than 1e-8.
PIXELS = {"mean": 1e-5, "std": 1e-3, "log10_mean": 1e-5, "log10_std": 1e-4}
TWIN_PARTICLES = 64  # a side, from which a map of the twin is set beside the real one
PACKAGE = "code/camelsight"
REMADE = launch.LAST  # stages that are cheap enough to be run once more, whatever the tier


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
            found[f"test_loss.{suite}.{case}.all"] = _test_loss(predictions[suite, case], suite)
    for suite in params.suites:
        for name in theta.COSMOLOGICAL:
            if f"r2.{suite}.original.{name}" in found:
                found[f"inferred.{suite}.original.{name}"] = found[f"r2.{suite}.original.{name}"]
    found |= _costs(params, predictions)
    return found | _interpretation() | _pixels(params) | _twin(params) | _robustness(params)


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


def _test_loss(arrays, suite):
    low, high = theta.ranges(suite)
    mean, truth = ((arrays[key] - low) / (high - low) for key in ("mean", "truth"))
    tensors = (torch.from_numpy(values) for values in (mean, arrays["sigma"] / (high - low), truth))
    return loss.moment_loss(*tensors).item()


def _costs(params, predictions):
    """What each cut costs in R², with intervals over the same resamples, and how much suites differ in it."""
    found = {}
    for (suite, case), cut in predictions.items():
        uncut = predictions.get((suite, "original"))
        if case == "original" or uncut is None:
            continue
        difference = metrics.r2_difference(
            uncut["truth"], uncut["mean"], cut["mean"], uncut["simulation"],
            generator=seeding.numpy_generator(params.seed, suite, case, "cost"), resamples=params.evaluate.resamples,
        )  # fmt: skip
        for column, name in enumerate(theta.NAMES[:2]):
            triple = tuple(float(values[column]) for values in difference)
            found |= {f"drop.{suite}.{case}.{name}": triple, f"cost.{suite}.{case}.{name}": triple}
    for suite, name in product(params.suites, theta.COSMOLOGICAL):
        pairs = [(f"cost.{suite}.{case}.{name}", f"cost.Nbody_{suite}.{case}.{name}") for case in params.cases]
        both = [abs(found[a][0] - found[b][0]) for a, b in pairs if a in found and b in found]
        if both:
            found[f"consistency.Nbody_{suite}.all.{name}"] = float(np.mean(both))
    return found


def _interpretation():
    if not paths.INTERPRETATION.exists():
        return {}
    record = store.read_json(paths.INTERPRETATION)
    return {
        f"{key}.{suite}.original.{name}": tuple(by_method[METHOD][key])
        for suite, by_parameter in record.items()
        if suite != "schema"
        for name, by_method in by_parameter.items()
        for key in ("per_pixel_ratio", "void_share")
    }


def _pixels(params):
    found = {}
    if paths.UNIVERSE.exists():
        for suite, values in store.read_json(paths.UNIVERSE)["statistics"].items():
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
    for one in _experiment("transfer", "smoothing"):
        if one["width"]:
            place = first, f"smooth_{one['width']:g}"
            errors = one["metrics"]["relative_error"]
            found |= _triples("relative_error_smoothed", place, errors, theta.meaningful(first))
    for one in _experiment("transfer", "probes"):
        place = first, PROBES.get(one["probe"], one["probe"])
        found |= _triples("r2_probe", place, one["metrics"]["r2"], theta.meaningful(first))
    baseline = paths.experiment("baseline", "network")
    if baseline.exists():
        errors = store.read_json(baseline)["metrics"]["relative_error"]
        found |= _triples("relative_error_baseline", (first, "power_spectrum"), errors, theta.meaningful(first))
    return found


def _experiment(stage, name):
    path = paths.experiment(stage, name)
    return store.read_json(path)["rows"] if path.exists() else []


def _triples(metric, place, values, meant):
    names = [name for name, good in zip(theta.NAMES, meant, strict=True) if good]
    return {".".join((metric, *place, name)): tuple(values[name]) for name in names}


def table():
    """The rows of the table of R², as text."""
    return _rows(paths.TABLES / "r2.csv")


def _rows(path):
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
        weights = {
            hidden: network.count_parameters(network.build(hidden, 0.0, size=cmd.PIXELS)) for hidden in range(6, 13)
        }
    k = 2 * np.pi * np.hypot(*np.meshgrid(np.fft.fftfreq(cmd.PIXELS), np.fft.fftfreq(cmd.PIXELS)))
    k *= cmd.PIXELS / cmd.BOX
    facts = {f"n_weights.o3.hidden_{hidden}.all": count for hidden, count in weights.items()}
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
        "scale.CMD.nyquist.k": np.pi * cmd.PIXELS / cmd.BOX,
        "scale.CMD.corner.k": np.sqrt(2) * np.pi * cmd.PIXELS / cmd.BOX,
        "scale.CMD.kmax_40.share_of_modes": float(np.mean(k < 40)),
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


def integrity(params, elsewhere=False):
    """Rows on whether the files of a run are those that it made, and say the same of every number.

    ``elsewhere``: the maps were made anew on this machine, and may differ from those of the run in rounding.
    """
    return [
        *_damaged(),
        *_or_fail("data", _data(params, elsewhere)),
        *_or_fail("statistics", _statistics(params, elsewhere)),
        *_or_fail("weights", _weights(params)),
        *_or_fail("predictions", _predictions(params)),
        *_or_fail("r2", _numbers(params)),
        *_or_fail("file.tables", _made_again(params)),
        *_or_fail("stage", _stages(params, elsewhere)),
        *_or_fail("environment.training", _environment(params)),
        _lint(),
    ]


def _or_fail(name, rows):
    """``rows``, and a row ``name`` that fails in place of what could not be read."""
    try:
        yield from rows
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        yield row(name, "integrity", FAIL, _unreadable(error), tier=0)


def _unreadable(error, what="it"):
    return f"{what} cannot be read: {type(error).__name__}: {store.one_line(error)}"[:300]


def read(read, path):
    """What ``read`` makes of ``path``, or None without such a file; ValueError that names it if it is damaged."""
    if not path.exists():
        return None
    try:
        return read(path)
    except Exception as error:
        raise ValueError(_unreadable(error, path)) from None


def _damaged():
    """A row that fails for each file of results that is not whole."""
    readers = {".json": store.read_json, ".npz": store.read_arrays}
    for path in sorted(paths.NUMBERS.parent.rglob("*")):
        try:
            if path.suffix in readers:
                read(readers[path.suffix], path)
        except ValueError as error:
            yield row(f"file.{path.relative_to(paths.NUMBERS.parent)}", "integrity", FAIL, str(error), tier=0)


def _data(params, elsewhere):
    for suite in params.suites:
        name, record = f"data.{suite}", paths.cut(suite, "original")
        if not (paths.maps(suite).exists() and record.exists()):
            yield row(name, "integrity", NOT_RUN, "there are no maps, or no record of them: make paper", tier=0)
            continue
        expected = read(store.read_json, record)
        try:
            given = dataset.open_suite(params, suite)
        except ValueError as error:
            yield row(name, "integrity", FAIL, f"{paths.maps(suite)}: {store.one_line(error)}", tier=0)
            continue
        drawn = camels.parameters(suite)[given.numbers] if params.maps.source == "twin" else given.parameters
        if not np.array_equal(given.parameters, drawn):
            yield row(name, "integrity", FAIL, f"{paths.parameters(suite)} is not CAMELS' table", tier=0)
            continue
        digests = [dataset.map_digest(given.simulation(number)) for number in given.numbers]
        pairs = zip(given.numbers, digests, expected["digests"], strict=True)
        other = [number for number, found, seen in pairs if found != seen]
        verdict, why = PASS, "every map is the one that the run saw"
        if other:
            verdict = WARN if elsewhere else FAIL
            why = f"simulation {', '.join(map(str, other[:3]))} of {paths.maps(suite)} is not the one that the run saw"
        yield row(name, "integrity", verdict, why, expected=expected["digest"], got=store.digest(digests), tier=0)


def _statistics(params, elsewhere):
    """The statistics of pixels in universe.json beside those of the maps."""
    record = read(store.read_json, paths.UNIVERSE)
    for suite in params.suites:
        name = f"statistics.{suite}"
        if record is None or not paths.maps(suite).exists():
            lost = paths.maps(suite) if record else paths.UNIVERSE
            yield row(name, "integrity", NOT_RUN, f"{lost} is not there", tier=0)
            continue
        made = validation.pixel_statistics(store.open_maps(suite, params.maps.simulations, params.maps.pixels))
        given, wrong = record["statistics"][suite], None
        if made != given:
            tolerances = PIXELS if elsewhere else dict.fromkeys(made, ROUNDING)
            pairs = [(key, content.values(made[key], given.get(key), most)) for key, most in tolerances.items()]
            wrong = next((f"{key} of the maps{why[2:]}" for key, why in pairs if why), None)
        why = wrong or f"those of the maps{', but for rounding' if made != given else ''}"
        yield row(name, "integrity", FAIL if wrong else PASS, why, tier=0)


def _weights(params):
    for suite, case in product(params.suites, params.cases):
        name, file = f"weights.{suite}.{case}", paths.weights(suite, case)
        try:
            got = weights_digest(file) if file.exists() else None
            records = [read(store.read_json, path(suite, case)) or {} for path in (paths.metrics, paths.history)]
            evaluated, trained = (record.get("weights") for record in records)
        except ValueError as error:
            yield row(name, "integrity", FAIL, str(error), tier=0)
            continue
        facts = {"expected": evaluated, "got": got, "tier": 0}
        if got is None or evaluated is None:
            yield row(name, "integrity", NOT_RUN, "not trained, or not evaluated: make paper", **facts)
        elif got != evaluated or trained not in (None, got):
            why = f"the tensors in {file} are not those {'trained' if got == evaluated else 'evaluated'}"
            yield row(name, "integrity", FAIL, why, **facts)
        elif trained is None:
            why = f"those that were evaluated; without {paths.history(suite, case)} nobody knows what was trained"
            yield row(name, "integrity", NOT_RUN, why, **facts)
        else:
            yield row(name, "integrity", PASS, "those that were trained and evaluated", **facts)


def weights_digest(path):
    """The identity of the weights in ``path``; ValueError if the file is damaged or not there."""
    digest = read(lambda path: store.tensor_digest(safetensors.torch.load_file(path)), path)
    if digest is None:
        raise ValueError(f"expected weights in {path}, got no such file")
    return digest


def differences(given, again, *, rounding, rows=None):
    """Where two results of the same network disagree, for one parameter: ``metric → (value, low, high)`` each, or
    fewer of them in ``again``.

    ``rounding`` is that of 1 - R². ``rows``, the number of predictions, says that these are another processor's: other
    measures may then differ by more, and coverages by two rows.
    """
    unexplained = max(1 - given["r2"][0], 0)
    scales = {"bias": given["rmse"][0], "bias_slope": np.sqrt(unexplained)}
    found = []
    for metric, values in again.items():
        for place, (ours, theirs) in enumerate(zip(values, given[metric], strict=False)):
            scale = max(1 - theirs, 0) if metric == "r2" else scales.get(metric, abs(theirs))
            tolerance = rounding * scale if np.isfinite(scale) else 0
            if rows:
                tolerance *= 1 if (metric, place) == ("r2", 0) else LOOSER
                tolerance += 2 / rows if metric in metrics.COVERAGE else 0
            if not _same(ours, theirs, tolerance):
                found.append(f"{metric}{('', ' low', ' high')[place]}: {ours:.6g} instead of {theirs:.6g}")
    return found


def _predictions(params):
    """Whether predictions are for the test maps, with their true parameters, and say the same as text."""
    for suite, case in product(params.suites, params.cases):
        name, path = f"predictions.{suite}.{case}", paths.predictions(suite, case)
        if not path.exists():
            yield row(name, "integrity", NOT_RUN, f"{path} is not there", tier=0)
            continue
        try:
            arrays = read(store.read_arrays, path)
            wrong = _other_text(suite, case, arrays) or _other_maps(params, suite, arrays)
        except (KeyError, ValueError, OSError) as error:
            wrong = _unreadable(error, path)
        known = paths.parameters(suite).exists()
        why = "of the test maps, with their parameters; the same as text"
        if not known:
            why = f"the same as text; without {paths.parameters(suite)} nobody knows the true parameters"
        verdict = FAIL if wrong else PASS if known else NOT_RUN
        yield row(name, "integrity", verdict, wrong or why, tier=0)


def _other_text(suite, case, arrays):
    path = paths.predictions_text(suite, case)
    if not path.exists():
        return f"{path} is missing"
    text = store.predictions_text(*(arrays[key] for key in ("truth", "mean", "sigma")))
    wrong = content.text(text, path.read_text(encoding="utf-8"))
    return wrong and f"{path} is not what {paths.predictions(suite, case).name} holds: {wrong}"


def _other_maps(params, suite, arrays):
    """Where the rows of predictions are not those of the test maps, or their truth not that of the suite."""
    index = split.map_indices(dataset.splits(params)["test"])
    if params.evaluate.views == "8":
        index = np.repeat(index, scaling.SYMMETRIES)
    simulation = index // cmd.MAPS_PER_SIMULATION
    expected = {"index": index, "simulation": simulation}
    if params.maps.source == "twin":
        expected["truth"] = camels.parameters(suite)[simulation]
    elif paths.parameters(suite).exists():
        expected["truth"] = store.read_parameters(suite, params.maps.simulations)[simulation]
    for name, values in expected.items():
        if wrong := content.arrays(values, arrays[name], 0.0, name):
            return f"not those of the test maps of {suite}: {wrong}"
    return None


def _numbers(params):
    """Each R²: as the predictions have it, in the results, and in the table for programs."""
    by_id = {(one["suite"], one["case"], one["parameter"]): one for one in table()}
    for suite, case in product(params.suites, params.cases):
        try:
            record = read(store.read_json, paths.metrics(suite, case))
            arrays = read(store.read_arrays, paths.predictions(suite, case))
            generator = prediction.bootstrap(params, suite, case)
            again = prediction.measure(arrays, generator, params) if arrays else None
        except (KeyError, ValueError) as error:
            why = _unreadable(error, f"the result of {suite} {case}")
            yield row(f"r2.{suite}.{case}", "integrity", FAIL, why, tier=0)
            continue
        for name in theta.NAMES:
            where, line = f"r2.{suite}.{case}.{name}", by_id.get((suite, case, name))
            facts = {"tier": 0, "got": record["metrics"]["r2"][name][0] if record else None}
            if record is None:
                wrong = f"{paths.TABLES}/r2.csv has it, {paths.metrics(suite, case)} is missing" if line else None
                yield row(where, "integrity", FAIL if line else NOT_RUN, wrong or "no result: make paper", **facts)
                continue
            wrong, value = [], facts["got"]
            if again is not None:
                given, values = (
                    {metric: by_parameter[name] for metric, by_parameter in measures.items()}
                    for measures in (record["metrics"], again)
                )
                wrong += [
                    f"the predictions give {one} in {paths.metrics(suite, case)}"
                    for one in differences(given, values, rounding=ROUNDING)
                ]
            if line is None:
                wrong.append(f"{paths.TABLES}/r2.csv has no such row")
            elif not _same(float(line["r2"]), value):
                wrong.append(f"{paths.TABLES}/r2.csv has {float(line['r2']):.6g}, the result is {value:.6g}")
            if arrays is None and not wrong:
                why = f"results and r2.csv agree; without {paths.predictions(suite, case)} nobody knows whence they are"
                yield row(where, "integrity", NOT_RUN, why, **facts)
                continue
            why = "; ".join(wrong) or "predictions, results and r2.csv agree"
            yield row(where, "integrity", FAIL if wrong else PASS, why, **facts)


def _same(a, b, tolerance=0.0):
    return bool(a == b or abs(a - b) <= tolerance or (np.isnan(a) and np.isnan(b)))


def _made_again(params):
    """Tables, numbers, figures and PDF beside those that their stages make of the same results once more."""
    if not paths.NUMBERS.exists():
        names = ("numbers", "tables", "figures", "ms.pdf")
        yield from (row(name, "integrity", NOT_RUN, "no tables: make paper", tier=0) for name in names)
        return
    with rerun.empty() as folder:
        made = (paths.TABLES, paths.NUMBERS, paths.INTERPRETATION, paths.VERDICT, paths.CRATE)
        results = [path for path in paths.NUMBERS.parent.iterdir() if path not in made]
        rerun.prepare(folder, params, [*results, *paths.TEXTS, paths.REFERENCES, paths.DIGITISED])
        try:
            for stage in ("tabulate", "figures"):
                if stage in REMADE:
                    rerun.here(folder, params, stage)
        except Exception as error:  # what records that somebody made up raise depends on what is wrong with them
            why = f"the results do not give the tables and figures again: {_unreadable(error)}"
            yield row("file.tables", "integrity", FAIL, why, tier=0)
            return
        for place in (paths.NUMBERS.parent, paths.FIGURES):
            yield from _compared(folder, place)
        if "paper" in REMADE:
            yield _typeset(folder, params)


def _compared(folder, place):
    """A row for each file below ``place`` that was made once more in ``folder``, and for each that was not."""
    made = {path.relative_to(folder) for path in (folder / place).rglob("*") if path.is_file()}
    made = {path for path in made if not any((folder / part).is_symlink() for part in (path, *path.parents[:-1]))}
    for path in sorted(made):
        wrong = _other_content(folder / path, path)
        name = path.relative_to(paths.NUMBERS.parent) if place == paths.NUMBERS.parent else path
        verdict, why = (FAIL, wrong) if wrong else (PASS, "what its stage makes of the results")
        if wrong and path.suffix in COMPARED and path.exists() and any(packages.wrong(paths.REQUIREMENTS)):
            verdict, why = NOT_RUN, f"{wrong}; but other packages than those of {paths.REQUIREMENTS} drew it here"
        yield row(f"file.{name}", "integrity", verdict, why, tier=0)
    if place == paths.FIGURES and made:
        given = {path for kind in ("*.pdf", "*.png") for path in paths.FIGURES.rglob(kind)}
        for path in sorted(given - made):
            yield row(f"file.{path}", "integrity", FAIL, "no stage makes it of these results", tier=0)


COMPARED = {".png": content.picture, ".pdf": content.drawing}


def _other_content(made, given):
    """Where the file ``given`` says something else than ``made``, or None."""
    if not given.exists():
        return f"{given} is missing"
    if given.suffix in COMPARED:
        wrong = COMPARED[given.suffix](made.read_bytes(), given.read_bytes())
    else:
        wrong = content.text(*(path.read_text(encoding="utf-8", errors="replace") for path in (made, given)))
    return wrong and f"{given}: {wrong}"


def _typeset(folder, params):
    """A row on the PDF, made of the tables that were made once more and of the figures as they are."""
    name = f"file.{paths.PDF}"
    if not paths.PDF.exists():
        return row(name, "integrity", NOT_RUN, f"{paths.PDF} is not there", tier=0)
    if shutil.which("latexmk") is None:
        return row(name, "integrity", NOT_RUN, "latexmk is not there to make it once more", tier=0)
    for path in (folder / paths.FIGURES).rglob("*.pdf"):
        given = path.relative_to(folder)
        if given.exists():
            shutil.copy(given, path)
    try:
        rerun.here(folder, params, "paper")
    except (OSError, ValueError) as error:
        return row(name, "integrity", FAIL, f"it cannot be made once more: {store.one_line(error)}", tier=0)
    made, given = (folder / paths.PDF).read_bytes(), paths.PDF.read_bytes()
    here, there = content.typesetter(made), content.typesetter(given)
    if made == given:
        return row(name, "integrity", PASS, "what its stage makes of the tables and figures, to the byte", tier=0)
    if here != there and there:
        why = f"typeset by {there}, here by {here}: they cannot be compared; read it"
        return row(name, "integrity", NOT_RUN, why, tier=0)
    return row(name, "integrity", FAIL, "not what the text, the tables and the figures give", tier=0)


def _stages(params, elsewhere):
    """Each stage's inputs and outputs beside the digests that DVC wrote down when it ran."""
    lock = read(locked, paths.DVC_LOCK) or {}
    defined, known = dict(_expanded()), {}
    for name in sorted(defined.keys() - set(launch.stages(params))):
        yield row(f"stage.{name}", "integrity", WARN, f"{paths.DVC} has it, this package has not", tier=0)
    for name in launch.stages(params):
        verdict, why = _stage(name, defined.get(name), lock.get(name), known, elsewhere)
        yield row(f"stage.{name}", "integrity", verdict, why, tier=0)


def _stage(name, definition, entry, known, elsewhere):
    """The verdict on one stage, and why; ``known`` remembers digests of files."""
    if definition is None:
        return FAIL, f"{paths.DVC} has no such stage"
    if entry is None:
        there = next((path for path in sorted(definition["outs"]) if _holds_something(Path(path))), None)
        if there:
            return FAIL, f"{there} is there, but {paths.DVC_LOCK} has no run that made it: make paper"
        return NOT_RUN, f"{paths.DVC_LOCK} has no run of it: make paper"
    outs, deps = entry.get("outs", []), entry.get("deps", [])
    wrong, changed = [], []
    needed = [*outs, *deps] if elsewhere else outs  # an archive does not hold everything
    if missing := [one["path"] for one in needed if not Path(one["path"]).exists()]:
        return NOT_RUN, f"{missing[0]} is not there: make paper"
    if name == "code":
        changed += sorted(source.stale())
    for one in [*outs, *deps]:
        path = one["path"]
        if path == PACKAGE:  # of which only what the stage code makes of it counts
            continue
        if elsewhere and path.startswith("data/"):  # the row of the maps says so once
            continue
        if path not in known:
            known[path] = _md5(Path(path)) if Path(path).exists() else None
        if known[path] != one.get("md5"):
            typed = one in deps and path.startswith(("code/", "paper/", str(paths.CODE)))
            (changed if typed else wrong).append(path)
    wrong += sorted(f"{path}, which {paths.DVC_LOCK} leaves out" for path in definition["outs"] - _named(outs))
    for key, value in entry.get("params", {}).get(str(paths.PARAMS), {}).items():
        if not _equal(_looked_up(definition["raw"], key), value):
            wrong.append(f"{paths.PARAMS}: {key}")
    if entry["cmd"] != definition["cmd"]:
        changed.append(f"the command in {paths.DVC}")
    changed += sorted(f"{path} in {paths.DVC}" for path in definition["deps"] ^ _named(deps))
    if wrong:
        return FAIL, f"not what {paths.DVC_LOCK} has of this stage: {', '.join(wrong[:3])}"
    if changed:
        return WARN, f"changed since: {', '.join(changed[:3])}"
    return PASS, f"inputs and outputs are those of {paths.DVC_LOCK}"


def _holds_something(path):
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _named(entries):
    return {one["path"] for one in entries}


def locked(path):
    """The stages of a dvc.lock, without aliases, which can make gigabytes of a line, and which DVC does not write."""
    try:
        return store.parse_yaml(path.read_bytes(), aliases=False).get("stages") or {}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"expected a file as DVC writes it, got {path}: {error}") from None


def _expanded():
    """(name, {"raw": params, "cmd", "deps", "outs"}) of every stage that dvc.yaml has with the active params."""
    raw = store.parse_yaml(paths.PARAMS.read_text(encoding="utf-8"))
    for name, definition in yaml.safe_load(paths.DVC.read_text(encoding="utf-8"))["stages"].items():
        axes = {axis: _axis(raw, values) for axis, values in definition.get("matrix", {}).items()}
        for values in product(*axes.values()):
            item = {f"${{item.{axis}}}": str(value) for axis, value in zip(axes, values, strict=True)}
            cmd = _replaced(definition["cmd"], item)
            deps, outs = (
                {_replaced(next(iter(one)) if isinstance(one, dict) else one, item) for one in definition.get(key, [])}
                for key in ("deps", "outs")
            )
            full = f"{name}@{'-'.join(item.values())}" if axes else name
            yield full, {"raw": raw, "cmd": cmd, "deps": deps, "outs": outs}


def _replaced(text, values):
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def _axis(raw, values):
    found = re.fullmatch(r"\$\{([\w.]+)\}", values) if isinstance(values, str) else None
    return (_looked_up(raw, found[1]) or []) if found else values


def _looked_up(raw, key):
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def _equal(a, b):
    """Equal, whatever PyYAML and DVC's reader made of numbers such as 1e-3."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    try:
        return a == b or float(a) == float(b)
    except (TypeError, ValueError):
        return False


def _md5(path):
    if path.is_dir():
        files = sorted(
            (one for one in path.rglob("*") if one.is_file()), key=lambda one: one.relative_to(path).as_posix()
        )
        listed = [{"md5": _md5(one), "relpath": one.relative_to(path).as_posix()} for one in files]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _environment(params):
    here = environment.read()
    if paths.REQUIREMENTS.exists():
        other = list(packages.wrong(paths.REQUIREMENTS))
        why = f"not as locked: {', '.join(other[:5])}" if other else "the packages are those of requirements.lock"
        yield row("environment.packages", "integrity", WARN if other else PASS, why, tier=0)
    else:
        yield row("environment.packages", "integrity", NOT_RUN, "requirements.lock is not there", tier=0)
    networks = combinations(params)
    trained = [store.read_json(paths.record(*key)) for key in networks if paths.record(*key).exists()]
    if len(trained) < len(networks) or not trained:
        why = f"{len(networks) - len(trained)} of {len(networks)} networks have no record of what trained them"
        yield row("environment.training", "integrity", NOT_RUN, why if networks else "nothing was trained here", tier=0)
        return
    made = {(one["commit"], one["versions"]["torch"], one["cpu"]) for one in trained}
    if len(made) > 1:
        verdict, why = WARN, f"networks of {len(made)} commits, PyTorch versions or machines stand in one table"
    elif any(one["dirty"] for one in trained):
        verdict, why = WARN, f"trained with uncommitted changes on top of commit {trained[0]['commit'][:12]}"
    elif trained[0]["commit"] == "unknown":
        verdict, why = WARN, "trained outside a checkout: the commit is unknown"
    else:
        verdict, why = PASS, f"all networks: commit {trained[0]['commit'][:12]}"
    why += f", PyTorch {trained[0]['versions']['torch']} on {trained[0]['cpu']}"
    why += f"; here {here['versions']['torch']}, {here['cpu']}"
    yield row("environment.training", "integrity", verdict, why, tier=0)


def macros():
    """Name → text of results/numbers.tex."""
    text = paths.NUMBERS.read_text(encoding="utf-8") if paths.NUMBERS.exists() else ""
    return dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", text))


def _lint():
    for path in paths.TEXTS:
        if not path.exists():
            return row("lint.ms.tex", "integrity", NOT_RUN, f"{path} is not there", tier=0)
        if found := verification.lint(path.read_text(encoding="utf-8"), macros()):
            line, number, advice = found[0]
            why = f"line {line} of {path}: {number} is typed by hand; {advice} ({len(found)} in all)"
            return row("lint.ms.tex", "integrity", FAIL, why, tier=0)
    return row("lint.ms.tex", "integrity", PASS, "no result is typed by hand", tier=0)


def quoted(params):
    """id of an R² → the macro of the paper that quotes it."""
    found = tables.quoted(params.suites, params.cases)
    return {f"r2.{suite}.{case}.{name}": macro for macro, (suite, case, name) in found.items() if suite and case}
