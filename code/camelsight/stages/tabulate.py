"""Tables of R², and every number that the paper quotes."""

import os
import shutil
import subprocess

import numpy as np
import torch

from camelsight import cases, cli, dataset, paths, store, theta
from camelsight.report import provenance, tables
from camelsight.universe import cmd

R2_COLUMNS = ("suite", "case", "parameter", "r2", "low", "high", "n_maps", "n_simulations")
METHOD = "integrated_gradients"
MAKES_RESULTS = ("code", "paper", "dvc.yaml", "params.yaml", "requirements.lock")
MISSING = "n/a"


def main(params):
    metrics = {key: store.read_json(paths.metrics(*key)) for key in _combinations(params)}
    rows = [
        {
            "suite": suite,
            "case": case,
            "parameter": name,
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
    universe = store.read_json(paths.UNIVERSE)
    store.write_text(paths.TABLES / "statistics.tex", tables.statistics_latex(_statistics(params, universe)))
    numbers = _provenance(params) | _settings(params, metrics) | _results(params, metrics) | _attribution(params)
    numbers |= _universe(universe)
    store.write_text(paths.NUMBERS, tables.macros(numbers))


def _combinations(params):
    return [(suite, case) for suite in params.suites for case in params.cases]


def _provenance(params):
    commit, dirty = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", *MAKES_RESULTS)
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return provenance.describe(
        profile=params.profile,
        commit=commit or os.environ.get("CAMELSIGHT_COMMIT", "unknown"),
        dirty=bool(dirty),
        mock=params.maps.source == "mock",
        seed=params.seed,
        versions=provenance.versions(),
        hardware=provenance.hardware(accelerator),
    )


def _git(*arguments):
    if shutil.which("git") is None:
        return ""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _settings(params, metrics):
    parts, pixels = dataset.splits(params), params.maps.pixels
    first = metrics[params.suites[0], "original"]
    return {
        "NSimulations": params.maps.simulations,
        "NMaps": params.maps.simulations * dataset.PER_SIMULATION,
        "NPixels": pixels,
        **{f"N{name.capitalize()}Sims": len(simulations) for name, simulations in parts.items()},
        "NTestMaps": first["n_maps"],
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
        "Hidden": first["hyperparameters"]["hidden"],
        "NParametersNetwork": f"{first['n_parameters']:,}",
        "KNyquist": f"{np.pi * pixels / cmd.BOX:.1f}",
    }


def _results(params, metrics):
    cut_values = [cases.parse(case).only for case in params.cases]
    k_max = [cut.threshold for cut in cut_values if cut and cut.kind == "kmax"]
    tightest = min(k_max, default=None)
    tight_case = next((case for case, cut in zip(params.cases, cut_values, strict=True)
                       if cut and cut.kind == "kmax" and cut.threshold == tightest), None)  # fmt: skip
    first, second = (*params.suites, None)[:2]
    partner = second is not None and second == f"Nbody_{first}"
    numbers = {"HasPartner": int(partner), "KTightest": MISSING if tightest is None else f"{tightest:g}"}
    for prefix, suite, case in (
        ("Orig", first, "original"),
        ("OrigNbody", second if partner else None, "original"),
        ("Tight", first, tight_case),
    ):
        for name, word in zip(theta.COSMOLOGICAL, ("OmegaM", "SigmaEight"), strict=True):
            known = (suite, case) in metrics
            triple = metrics[suite, case]["metrics"]["r2"][name] if known else (None,) * 3
            for suffix, value in zip(("", "Low", "High"), triple, strict=True):
                numbers[f"{prefix}{word}{suffix}"] = f"{value:.3f}" if known else MISSING
    return numbers


def _attribution(params):
    record = store.read_json(paths.attribution_statistics(params.suites[0]))
    numbers = {
        "IGSteps": record["ig_steps"],
        "ShapSamples": record["shap_samples"],
        "NAttributionMaps": len(record["index"]),
        "Baseline": record["baseline"],
        "CompletenessP": f"{100 * np.percentile(np.concatenate(list(record['completeness_gap'].values())), 95):.1f}",
    }
    for name, word in zip(theta.COSMOLOGICAL, ("OmegaM", "SigmaEight"), strict=True):
        statistics = record["statistics"][name][METHOD]
        numbers[f"PerPixelRatio{word}"] = f"{statistics['ratio'][0]:.2f}"
        numbers[f"VoidShare{word}"] = f"{100 * statistics['underdense_share'][0]:.0f}"
        numbers["UnderdenseArea"] = f"{100 * statistics['underdense_area'][0]:.0f}"
    return numbers


def _statistics(params, universe):
    """(label, statistics) of the maps at hand, then of the published ones."""
    mock = " (mock)" if params.maps.source == "mock" else ""
    ours = [(tables.suite_label(suite) + mock, values) for suite, values in universe["statistics"].items()]
    published = [
        (f"{suite} (published)", values | cmd.LOG10_BEFORE_MAY_2024.get(suite, {}))
        for suite, values in cmd.PUBLISHED_STATISTICS.items()
    ]
    return ours + published


def _universe(universe):
    """What the appendix on the mock quotes; not available where maps are not simulated."""
    names = (
        "NUniverseSeeds",
        "ConvergenceWorst",
        "KHalfNyquist",
        "KResolved",
        "MockOverHMCodeLow",
        "MockOverHMCodeHigh",
    )
    names += ("SuppressionTNG", "SuppressionSIMBA")
    if "gravity" not in universe:
        return dict.fromkeys(names, MISSING)
    gravity = {name: np.array(value) for name, value in universe["gravity"].items()}
    k, half = gravity["k"], float(gravity["k_half_nyquist"])
    off = np.abs(gravity["power"][0] / gravity["converged"] - 1)[k <= half]
    share = gravity["power"].mean(axis=0) / gravity["hmcode"]
    values = [
        len(gravity["power"]),
        f"{100 * off.max():.0f}",
        f"{half:.1f}",
        f"{float(gravity['k_resolved']):.1f}",
        f"{share[(k > 0.5) & (k < 1.5)].mean():.2f}",
        f"{np.interp(half, k, share):.2f}",
    ]
    for suite in ("IllustrisTNG", "SIMBA"):
        ratio = np.mean(universe["baryons"][suite]["fiducial"], axis=0)
        values.append(f"{100 * (1 - ratio[(k > 9) & (k < 11)].mean()):.0f}")
    return dict(zip(names, values, strict=True))


if __name__ == "__main__":
    cli.run_stage(main)
