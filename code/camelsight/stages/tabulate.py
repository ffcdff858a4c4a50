"""Tables of R², and every number that the paper quotes."""

from itertools import product

from camelsight.analysis import dataset, differences, prediction
from camelsight.ground import cases, cmd, fields, seeding, theta
from camelsight.ground.fields import FIELDS, TOTAL
from camelsight.pipeline import cli, paths, references, store
from camelsight.pipeline import params as parameters_file
from camelsight.report import (
    appendix,
    calibration,
    costs,
    interpretation,
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
DVC_METRICS = ("r2", "coverage_68", "coverage_95")


def main(params):
    metrics = {key: store.read_json(paths.metrics(*key)) for key in product(params.suites, params.cases)}
    predictions = {key: store.read_arrays(paths.predictions(*key)) for key in metrics}
    universe, seeds = store.read_json(paths.UNIVERSE), _seeds(params, metrics)
    weights = store.digest([record["weights"] for record in metrics.values()])
    data = {suite: metrics[suite, "original"]["maps"] for suite in params.suites}  # digests of the uncut maps
    _write_r2(params, metrics, predictions, seeds)
    numbers = (
        _provenance(params, metrics, weights, data) | _settings(params, metrics) | _results(params, metrics)
        | _costs(params, predictions, seeds) | _interpretation(params) | _study(params) | _universe(params, universe)
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


def _write_r2(params, metrics, predictions, seeds):
    """Write the tables of R², and what DVC shows."""
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
    """Write the table of the rivals under each k_max of the run, beside the networks on the same maps; its rows."""
    record = store.read_json(paths.experiment("baseline", "scales"))
    arrays, found = store.read_arrays(paths.experiment_arrays("baseline", "scales")), {}
    for row in record["rows"]:
        case = row["case"]
        if (suite, case) not in metrics:
            continue
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


def _provenance(params, metrics, weights, data):
    """Write the table of what made each figure and table; the macros on this run."""
    made_by = {label: stage for label, stage in provenance.MADE_BY.items() if getattr(params.robustness, stage, True)}
    store.write_text(paths.TABLES / "provenance.tex", tables.provenance_latex(made_by, weights, data))
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
        "KNyquist": f"{cmd.nyquist(pixels):.1f}",
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
        numbers |= tables.with_interval(name, triple, 3)
    return numbers


def _interpretation(params):
    """Write what attributions say; the macros on it."""
    records = {suite: store.read_json(paths.attribution_statistics(suite, "original")) for suite in params.suites}
    found = {
        suite: interpretation.summary(
            record, store.read_json(paths.sanity(suite))["checks"], params.attribute.parameters
        )
        for suite, record in records.items()
    }
    first = params.suites[0]
    checks = interpretation.judged(found[first])
    store.write_json(paths.INTERPRETATION, {"schema": interpretation.schema(params.attribute.output), **found})
    store.write_text(paths.TABLES / "attribution.tex", tables.attribution_latex(found))
    store.write_text(paths.TABLES / "field_shares.tex", study.shares_latex(interpretation.shares(records[first])))
    store.write_text(paths.TABLES / "sanity.tex", interpretation.sanity_latex(checks))
    beside_published = published.attribution_numbers(
        store.read_arrays(paths.attributions(first, "original")), list(params.attribute.parameters),
        dataset.scales(params, store.read_json(paths.cut(first, "original")), "train")[0].mean,
    )  # fmt: skip
    return interpretation.numbers(records[first]) | beside_published | interpretation.failures(checks)


def _study(params):
    """Write the table of baselines; the macros on it, and on averages over symmetries and networks."""
    record = store.read_json(paths.sanity(params.suites[0]))
    store.write_text(paths.TABLES / "baselines.tex", study.baselines_latex(record["baselines"]))
    return study.numbers(record["baselines"], record["averaged"])


def _universe(params, universe):
    """Write the table of pixels of the maps at hand, then of the published ones; the macros on the simulator."""
    twin = " (twin)" if params.maps.source == "twin" else ""
    ours = [
        (tables.suite_label(suite) + (f", {FIELDS[field].words}" if field != TOTAL else "") + twin, values)
        for suite, by_field in universe["statistics"].items()
        for field, values in by_field.items()
    ]
    theirs = [
        (f"{suite} (published)", values | cmd.LOG10_BEFORE_MAY_2024.get(suite, {}))
        for suite, values in cmd.PUBLISHED_STATISTICS.items()
    ]
    store.write_text(paths.TABLES / "statistics.tex", tables.statistics_latex(ours + theirs))
    return appendix.universe(universe)


if __name__ == "__main__":
    cli.run_stage(main)
