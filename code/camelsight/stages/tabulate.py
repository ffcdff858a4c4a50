"""Tables of R², and every number that the paper quotes."""

import numpy as np

from camelsight.analysis import dataset, differences, prediction
from camelsight.ground import cases, cmd, fields, seeding, theta
from camelsight.ground.fields import FIELDS, TOTAL
from camelsight.interpretation import attribution, cosmic_web, sanity
from camelsight.pipeline import cli, paths, references, store
from camelsight.pipeline import params as parameters_file
from camelsight.report import (
    appendix,
    calibration,
    costs,
    paired,
    provenance,
    published,
    rivals,
    robustness,
    selection,
    study,
    tables,
)

R2_COLUMNS = ("suite", "case", "parameter", "r2", "low", "high", "n_maps", "n_simulations", "seeds", "mean")
METHOD = "integrated_gradients"
METHOD_LABELS = {"saliency": "Saliency", "integrated_gradients": "IG", "gradient_shap": "GradientSHAP"}
DVC_METRICS = ("r2", "coverage_68", "coverage_95")


def main(params):
    metrics = {key: store.read_json(paths.metrics(*key)) for key in _combinations(params)}
    predictions = {key: store.read_arrays(paths.predictions(*key)) for key in metrics}
    seeds = _seeds(params, metrics)
    rows = [
        {
            "suite": suite,
            "case": case,
            "parameter": name,
            "seeds": tables.spread(seeds.get(f"r2.{suite}.{case}.{name}", ())),
            "mean": tables.mean(seeds.get(f"r2.{suite}.{case}.{name}", ())),
            **dict(zip(("r2", "low", "high"), record["metrics"]["r2"][name], strict=True)),
            "n_maps": record["n_maps"],
            "n_simulations": record["n_simulations"],
        }
        for (suite, case), record in metrics.items()
        for name in theta.NAMES
    ]
    store.write_text(paths.TABLES / "r2.csv", tables.csv_text(rows, R2_COLUMNS))
    store.write_text(paths.TABLES / "r2.md", tables.r2_markdown(rows))
    store.write_text(paths.TABLES / "r2.tex", tables.r2_latex(rows))
    store.write_text(paths.TABLES / "parameters.tex", tables.parameters_latex(*params.suites))
    _for_dvc(metrics, predictions, rows)
    universe = store.read_json(paths.UNIVERSE)
    store.write_text(paths.TABLES / "statistics.tex", tables.statistics_latex(_statistics(params, universe)))
    interpretation = {suite: _interpretation(params, suite) for suite in params.suites}
    store.write_json(paths.INTERPRETATION, {"schema": _schema(params), **interpretation})
    store.write_text(paths.TABLES / "attribution.tex", tables.attribution_latex(interpretation, METHOD_LABELS))
    judged = {
        name: {
            method: {"sanity": {check: (value, sanity.passes(check, value)) for check, value in one["sanity"].items()}}
            for method, one in by_method.items()
        }
        for name, by_method in interpretation[params.suites[0]].items()
        if name in theta.COSMOLOGICAL
    }
    limits = {
        check: f"{'<' if sense == 'below' else '>'} {limit:g}" for check, (_, sense, limit) in sanity.CHECKS.items()
    }
    store.write_text(paths.TABLES / "field_shares.tex", study.shares_latex(_shares(params), METHOD_LABELS))
    store.write_text(paths.TABLES / "sanity.tex", tables.sanity_latex(judged, METHOD_LABELS, limits))
    weights = store.digest([record["weights"] for record in metrics.values()])
    data = {suite: metrics[suite, "original"]["maps"] for suite in params.suites}  # digests of the uncut maps
    made_by = {label: stage for label, stage in provenance.MADE_BY.items() if getattr(params.robustness, stage, True)}
    store.write_text(paths.TABLES / "provenance.tex", tables.provenance_latex(made_by, weights, data))
    numbers = (
        _provenance(params, metrics, weights, data) | _settings(params, metrics) | _results(params, metrics)
        | _costs(params, predictions, seeds)
        | _attribution(params) | _failures(judged) | _study(params) | appendix.universe(universe)
        | _transfer(params, metrics) | _baseline(params, metrics, predictions)
        | _calibration(params, metrics, predictions)
        | appendix.tuning(store.read_json(paths.TUNING_RECORD))
    )  # fmt: skip
    store.write_text(paths.NUMBERS, tables.macros(numbers))


def _seeds(params, metrics):
    """``r2.suite.case.parameter`` → R² of networks from several seeds: this run's, or the profile's reference."""
    if params.repeats:
        return {
            f"r2.{suite}.{case}.{name}": [
                record["metrics"]["r2"][name][0],
                *(store.read_json(paths.repeat(suite, case, seed))["r2"][name] for seed in params.repeats),
            ]
            for (suite, case), record in metrics.items()
            for name in theta.NAMES
        }
    reference = references.load(params)
    return {name: one["values"] for name, one in reference["r2"].items()} if reference else {}


def _costs(params, predictions, seeds):
    """Write the tables of what each cut costs; the macros on it."""
    losses = {
        (suite, case): differences.of_cut(params, suite, case, predictions[suite, "original"], cut)
        for (suite, case), cut in predictions.items()
        if case != "original"
    }
    rows = costs.rows(losses, seeds)
    store.write_text(paths.TABLES / "costs.csv", tables.csv_text(rows, costs.COLUMNS))
    store.write_text(paths.TABLES / "costs.tex", costs.latex(rows))
    whose = "this run" if params.repeats else "the profile's reference"
    return costs.numbers(rows, params.suites[0], params.cases) | {"SeedsOf": whose}


def _for_dvc(metrics, predictions, rows):
    """Write what ``dvc metrics`` and ``dvc plots`` show."""
    shown, curves = {}, tables.r2_curves(rows)
    for (suite, case), record in metrics.items():
        arrays = predictions[suite, case]
        shown.setdefault(suite, {})[case] = {
            **{name: {one: record["metrics"][name][one][0] for one in theta.COSMOLOGICAL} for name in DVC_METRICS},
            "loss": float(f"{prediction.loss_of(arrays, suite):.9g}"),  # another processor rounds differently
        }
        if case == "original":
            for column, name in enumerate(theta.COSMOLOGICAL):
                pairs = zip(arrays["truth"][:, column], arrays["mean"][:, column], strict=True)
                points = [{"truth": truth, "prediction": mean} for truth, mean in pairs]
                curves[f"truth_prediction/{suite}_{name}.csv"] = points
    store.write_json(paths.METRICS, shown)
    for name, points in curves.items():
        store.write_text(paths.PLOTS / name, tables.csv_text(points, list(points[0])))


def _transfer(params, metrics):
    """Write the tables of the experiments of stage transfer that were run; their macros."""
    records = {name: store.read_json(paths.experiment("transfer", name)) for name in params.robustness.transfer}
    generalisation = {study: records[study] for study in robustness.STUDIES if study in records}
    retrained = {
        case: metrics[params.suites[0], case]["metrics"] for case in params.cases if case in params.robustness.cuts
    }
    texts = {}
    if "suites" in records:
        rows = robustness.transfer_rows(records["suites"])
        texts["transfer.csv"] = tables.csv_text(rows, robustness.TRANSFER_COLUMNS)
        texts["transfer.tex"] = robustness.transfer_latex(records["suites"])
    if "smoothing" in records:
        rows = robustness.rows(records["smoothing"], "width")
        texts["smoothing.csv"] = tables.csv_text(rows, robustness.SMOOTHING_COLUMNS)
    if "probes" in records:
        rows = robustness.probe_rows(records["probes"], retrained)
        texts["probes.csv"] = tables.csv_text(rows, robustness.PROBE_COLUMNS)
        texts["probes.tex"] = robustness.probes_latex(records["probes"], retrained)
    if "fields" in records:
        texts["fields.csv"] = tables.csv_text(selection.rows(records["fields"]), selection.COLUMNS)
        texts["fields.tex"] = selection.latex(records["fields"])
        texts["fields.md"] = selection.text(records["fields"]) + "\n"
    if generalisation:
        rows = robustness.generalisation_rows(generalisation)
        texts["generalisation.csv"] = tables.csv_text(rows, robustness.GENERALISATION_COLUMNS)
        texts["generalisation.tex"] = robustness.generalisation_latex(generalisation)
    for name, text in texts.items():
        store.write_text(paths.TABLES / name, text)
    pixel = {"PixelSize": f"{cmd.BOX / params.maps.pixels:.2g}"}
    several = selection.numbers(records.get("fields"))
    return pixel | several | robustness.numbers(parameters_file.EXPERIMENTS["transfer"], records, params.suites)


def _baseline(params, metrics, predictions):
    """Write the tables of the experiments of stage baseline, if any were run; their macros."""
    ran = [name for name in params.robustness.baseline if name in rivals.LABELS]
    records = {name: store.read_json(paths.experiment("baseline", name)) for name in ran}
    suite, bands = params.suites[0], {}
    network = metrics[suite, "original"]["metrics"]
    if records:
        rows = rivals.rows(network, records, suite)
        store.write_text(paths.TABLES / "rivals.csv", tables.csv_text(rows, rivals.COLUMNS))
        store.write_text(paths.TABLES / "rivals.tex", rivals.latex(network, records, suite))
    if "likelihood" in records:
        arrays = store.read_arrays(paths.experiment_arrays("baseline", "likelihood"))
        bands = {name: arrays[name] for name in ("errors", "scatter")}
    asked = "scales" in params.robustness.baseline
    more = rivals.scale_numbers(_scales(params, metrics, predictions, suite) if asked else [])
    return {"RivalTrials": params.rivals.trials} | rivals.numbers(network, records, **bands) | more


def _scales(params, metrics, predictions, suite):
    """Write the table of the rivals under each k_max, beside the networks on the same maps; its rows."""
    record = store.read_json(paths.experiment("baseline", "scales"))
    arrays, found = store.read_arrays(paths.experiment_arrays("baseline", "scales")), {}
    for row in record["rows"]:
        case = row["case"]
        found[case] = {"maps": (metrics[suite, case]["metrics"], None)}
        for method, measured in row["metrics"].items():
            start = f"{case}.{method}."
            theirs = {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
            generator = seeding.numpy_generator(params.seed, suite, case, "gain", method)
            resamples = params.evaluate.resamples
            gain = paired.difference(predictions[suite, case], theirs, generator=generator, resamples=resamples)
            found[case][method] = measured, gain
    rows = rivals.scale_rows(found, suite)
    store.write_text(paths.TABLES / "scales.csv", tables.csv_text(rows, rivals.SCALE_COLUMNS))
    return rows


def _calibration(params, metrics, predictions):
    """Write what is known of how well the predicted standard deviations are; the macros on it."""
    measured = {(suite, suite, case): record["metrics"] for (suite, case), record in metrics.items()}
    if "suites" in params.robustness.transfer:
        across = store.read_json(paths.experiment("transfer", "suites"))["rows"]
        measured |= {
            (row["train"], row["test"], "original"): row["metrics"] for row in across if row["train"] != row["test"]
        }
    rows = calibration.rows(measured, robustness.comparable)
    store.write_text(paths.TABLES / "calibration.csv", tables.csv_text(rows, calibration.COLUMNS))
    store.write_text(paths.TABLES / "calibration.tex", calibration.latex(measured))
    pit = []
    for (suite, case), arrays in predictions.items():
        found = calibration.histogram(
            calibration.ranks(*(arrays[key] for key in ("truth", "mean", "sigma"))),
            arrays["simulation"],
            generator=seeding.numpy_generator(params.seed, suite, case, "ranks"),
            resamples=params.evaluate.resamples,
        )
        pit += calibration.pit_rows(suite, case, found)
    store.write_text(paths.TABLES / "ranks.csv", tables.csv_text(pit, calibration.PIT_COLUMNS))
    return calibration.numbers(measured, params.suites[0])


def _combinations(params):
    return [(suite, case) for suite in params.suites for case in params.cases]


def _provenance(params, metrics, weights, data):
    twin = params.maps.source == "twin"
    versions = provenance.common([record["versions"] for record in metrics.values()])
    facts = provenance.describe(profile=params.profile, twin=twin, seed=params.seed, versions=versions)
    return facts | {"DataDigest": store.digest(data)[:12], "WeightsDigest": weights[:12]}


def _settings(params, metrics):
    parts, pixels = dataset.splits(params), params.maps.pixels
    first = metrics[params.suites[0], "original"]
    return {
        "NSimulations": params.maps.simulations,
        "NMaps": params.maps.simulations * dataset.PER_SIMULATION,
        "NPixels": pixels,
        **{f"N{name.capitalize()}Sims": len(simulations) for name, simulations in parts.items()},
        "NTestMaps": first["n_maps"],
        "NFields": len(params.fields),
        "IsTotal": int(params.fields == (TOTAL,)),
        "FieldWords": tables.listed(FIELDS[name].words for name in params.fields),
        "Environment": FIELDS[fields.environment(params.fields)].words,
        "NCases": len(params.cases),
        "NSuites": len(params.suites),
        "Particles": params.maps.particles,
        "Mesh": params.maps.mesh,
        "Steps": params.maps.steps,
        "Epochs": params.train.epochs,
        "BatchSize": params.train.batch,
        "Normalisation": params.train.normalisation,
        "Schedule": params.train.schedule,
        "Trials": params.tune.trials,
        "TuneEpochs": params.tune.epochs,
        "TuneCases": _searched(params),
        "Hidden": first["hyperparameters"]["hidden"],
        "NParametersNetwork": f"{first['n_parameters']:,}",
        "KNyquist": f"{np.pi * pixels / cmd.BOX:.1f}",
    }


def _searched(params):
    """The cases whose hyperparameters are searched, in words."""
    if set(params.tune.cases) == set(params.cases):
        return "every case"
    if params.tune.cases == ("original",):
        return "the uncut maps of each suite"
    return ", ".join(rf"\texttt{{{tables.escape(case)}}}" for case in params.tune.cases)


def _results(params, metrics):
    first, second = (*params.suites, None)[:2]
    tightest = tables.tightest(params.cases)
    numbers = {
        "HasPartner": int(second == f"Nbody_{first}"),
        "KTightest": f"{cases.parse(tightest).only.threshold:g}" if tightest else tables.NOT_AVAILABLE,
    }
    for name, (suite, case, parameter) in tables.quoted(params.suites, params.cases).items():
        known = (suite, case) in metrics
        triple = metrics[suite, case]["metrics"]["r2"][parameter] if known else (None,) * 3
        for suffix, value in zip(("", "Low", "High"), triple, strict=True):
            numbers[name + suffix] = f"{value:.3f}" if known else tables.NOT_AVAILABLE
    return numbers


def _interpretation(params, suite):
    """parameter -> method -> what ``results/interpretation.json`` says of the uncut case."""
    record = store.read_json(paths.attribution_statistics(suite, "original"))
    checks = store.read_json(paths.sanity(suite))["checks"]
    result = {}
    for name in params.attribute.parameters:
        curves = sanity.scores(record["curves"][name])
        result[name] = {}
        for method in attribution.METHODS:
            statistics, gaps = record["statistics"][name][method], record["completeness_gap"][name].get(method)
            found = {check: by[name][method] for check, by in checks.items()}
            found |= record["agreement"][name][method] | {check: by[method] for check, by in curves.items()}
            result[name][method] = {
                "per_pixel_ratio": statistics["ratio"],
                "void_share": [value[0] for value in statistics["classes"]["density"]["total"]],
                "completeness_p95": None if gaps is None else float(np.percentile(gaps, 95)),
                "sanity": {check: found[check] for check in sanity.CHECKS if check in found},
            }
    return result


def _shares(params):
    """parameter → method → field → its share of |attribution| on each test map of the first suite, uncut."""
    record = store.read_json(paths.attribution_statistics(params.suites[0], "original"))
    return {
        name: {
            method: dict(zip(record["fields"], np.transpose(values), strict=True))
            for method, values in by_method.items()
        }
        for name, by_method in record["field_shares"].items()
    }


def _schema(params):
    void = cosmic_web.THRESHOLDS[0]
    output = {"mean": "posterior mean", "sigma": "posterior standard deviation"}[params.attribute.output]
    return {
        "form": "suite: parameter: method: per_pixel_ratio, void_share, completeness_p95, sanity: check: value",
        "what": f"attributions of the network's {output} of each parameter to the pixels of uncut test maps",
        "interval": "[value, low, high]: the central 95% of a bootstrap over simulations",
        "per_pixel_ratio": "mean |attribution| of the pixels above the cosmic mean density over that of those below",
        "void_share": f"share of the summed |attribution| from pixels with rho / cosmic mean below {void:g}",
        "completeness_p95": "95th percentile over maps of |sum of the attributions - difference| / |difference|, where "
        f"the difference is that of the output between map and baseline, and counts as {attribution.FLOOR:g} where it "
        "is smaller; for gradient_shap the mean over its baselines is meant; null where no such sum exists",
        "sanity": {check: f"{what}; passes {sense} {limit:g}" for check, (what, sense, limit) in sanity.CHECKS.items()},
        "sanity_not_run": "a check that was not run for a suite is absent",
    }


def _attribution(params):
    record = store.read_json(paths.attribution_statistics(params.suites[0], "original"))
    settings, gaps = record["settings"], record["completeness_gap"]
    all_gaps = np.concatenate([gaps[name][METHOD] for name in gaps])
    numbers = {
        "IGSteps": settings["ig_steps"],
        "IGStepsMean": f"{np.mean(record['steps']):.0f}",
        "ShapSamples": settings["shap_samples"],
        "NAttributionMaps": len(record["index"]),
        "Baseline": settings["baseline"],
        "ShapBaseline": settings["shap_baseline"],
        "AttributionViews": "averaged over eight symmetries" if settings["views"] == "mean8" else "of the map as it is",
        "AttributionNetworks": record["networks"],
        "AttributedOutput": {"mean": "posterior mean", "sigma": "posterior standard deviation"}[settings["output"]],
        "CompletenessP": f"{100 * np.percentile(all_gaps, 95):.1f}",
        "CompletenessFlagged": int(np.sum(all_gaps > attribution.TOLERANCE)),
        "CompletenessOf": len(all_gaps),
        "VoidBelow": f"{cosmic_web.THRESHOLDS[0]:g}",
        "SheetBelow": f"{cosmic_web.THRESHOLDS[1]:g}",
        "FilamentBelow": f"{cosmic_web.THRESHOLDS[2]:g}",
        "WebAgreement": f"{100 * record['web']['agreement']:.0f}",
    }
    for name, word in tables.SYMBOLS.items():
        statistics = record["statistics"][name][METHOD]
        density, tidal = (
            [[value[0] for value in statistics["classes"][web][key]] for key in ("total", "area")]
            for web in ("density", "tidal")
        )
        around = {key: statistics["around"][key]["profile"] for key in ("voids", "halos")}
        numbers |= _triple(f"PerPixelRatio{word}", statistics["ratio"], 2)
        numbers |= _triple(f"UnderdenseShare{word}", np.multiply(statistics["underdense_share"], 100), 0)
        numbers |= _triple(f"VoidShare{word}", np.multiply(density[0], 100), 0)
        numbers |= _triple(f"TidalVoidShare{word}", np.multiply(tidal[0], 100), 0)
        numbers |= _triple(f"KHalf{word}", statistics["fourier"]["k_half"], 1)
        numbers |= _triple(f"AtVoids{word}", [value[0] for value in around["voids"]], 2)
        numbers |= _triple(f"AtHalos{word}", [value[0] for value in around["halos"]], 2)
    numbers |= published.attribution_numbers(
        store.read_arrays(paths.attributions(params.suites[0], "original")), list(params.attribute.parameters),
        dataset.scales(params, store.read_json(paths.cut(params.suites[0], "original")), "train")[0].mean,
    )  # fmt: skip
    numbers |= _triple("UnderdenseArea", np.multiply(statistics["underdense_area"], 100), 0)
    numbers |= _triple("VoidArea", np.multiply(density[1], 100), 0)
    numbers |= _triple("TidalVoidArea", np.multiply(tidal[1], 100), 0)
    return numbers


def _triple(name, triple, digits):
    """Macros of a value and the limits of its interval; one that was never defined, as without any halo, is missing."""
    return {
        name + suffix: f"{value:.{digits}f}" if np.isfinite(value) else tables.NOT_AVAILABLE
        for suffix, value in zip(("", "Low", "High"), np.asarray(triple, dtype=float), strict=True)
    }


def _failures(judged):
    """The checks that each method fails for a cosmological parameter, in words."""
    numbers = {}
    for method in attribution.METHODS:
        failed = [
            check.replace("_", " ") for check in sanity.CHECKS
            if not all(by_method[method]["sanity"].get(check, (0, True))[1] for by_method in judged.values())
        ]  # fmt: skip
        numbers[("Failed", method)] = ", ".join(failed) or "none"
    return numbers


def _study(params):
    """Write the table of baselines; the macros on it, and on averages over symmetries and networks."""
    record = store.read_json(paths.sanity(params.suites[0]))
    store.write_text(paths.TABLES / "baselines.tex", study.baselines_latex(record["baselines"], METHOD_LABELS))
    return study.numbers(record["baselines"], record["averaged"])


def _statistics(params, universe):
    """(label, statistics) of the maps at hand, then of the published ones."""
    twin = " (twin)" if params.maps.source == "twin" else ""
    ours = [
        (tables.suite_label(suite) + (f", {FIELDS[field].words}" if field != TOTAL else "") + twin, values)
        for suite, by_field in universe["statistics"].items()
        for field, values in by_field.items()
    ]
    published = [
        (f"{suite} (published)", values | cmd.LOG10_BEFORE_MAY_2024.get(suite, {}))
        for suite, values in cmd.PUBLISHED_STATISTICS.items()
    ]
    return ours + published


if __name__ == "__main__":
    cli.run_stage(main)
