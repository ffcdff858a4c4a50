"""What attributions say of the uncut maps: the summary for programs, and the numbers that the text quotes."""

import numpy as np

from camelsight.ground import theta
from camelsight.interpretation import attribution, cosmic_web, sanity
from camelsight.report import tables

METHOD = "integrated_gradients"  # that the text quotes
OUTPUTS = {"mean": "posterior mean", "sigma": "posterior standard deviation"}


def summary(record, checks, parameters):
    """parameter -> method -> what ``results/interpretation.json`` says of a suite.

    ``record`` is that of its attributions, ``checks`` that of its sanity checks.
    """
    result = {}
    for name in parameters:
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


def schema(output):
    """What the fields of ``results/interpretation.json`` mean; ``output`` is "mean" or "sigma"."""
    void = cosmic_web.THRESHOLDS[0]
    return {
        "form": "suite: parameter: method: per_pixel_ratio, void_share, completeness_p95, sanity: check: value",
        "what": f"attributions of the network's {OUTPUTS[output]} of each parameter to the pixels of uncut test maps",
        "interval": "[value, low, high]: the central 95% of a bootstrap over simulations",
        "per_pixel_ratio": "mean |attribution| of the pixels above the cosmic mean density over that of those below",
        "void_share": f"share of the summed |attribution| from pixels with rho / cosmic mean below {void:g}",
        "completeness_p95": "95th percentile over maps of |sum of the attributions - difference| / |difference|, where "
        f"the difference is that of the output between map and baseline, and counts as {attribution.FLOOR:g} where it "
        "is smaller; for gradient_shap the mean over its baselines is meant; null where no such sum exists",
        "sanity": {check: f"{what}; passes {sense} {limit:g}" for check, (what, sense, limit) in sanity.CHECKS.items()},
        "sanity_not_run": "a check that was not run for a suite is absent",
    }


def judged(of_suite):
    """The sanity checks in a ``summary``: parameter -> method -> check -> (value, whether it passes)."""
    return {
        name: {
            method: {check: (value, sanity.passes(check, value)) for check, value in one["sanity"].items()}
            for method, one in by_method.items()
        }
        for name, by_method in of_suite.items()
        if name in theta.COSMOLOGICAL
    }


def sanity_latex(checks):
    """The table of what was ``judged``: a row a check, a column a parameter and method; failures in bold."""
    columns = [(name, method, found) for name, by_method in checks.items() for method, found in by_method.items()]
    body = []
    for check, (_, sense, limit) in sanity.CHECKS.items():
        cells = []
        for *_, found in columns:
            value, passed = found.get(check, (None, True))
            text = "--" if value is None else f"{value:.2f}"
            cells.append(text if passed else rf"\textbf{{{text}}}")
        body.append((check.replace("_", " "), f"${'<' if sense == 'below' else '>'} {limit:g}$", *cells))
    header = [f"{theta.LABELS[name]} {tables.METHOD_LABELS[method]}" for name, method, _ in columns]
    return tables._booktabs(body, ("check", "passes", *header))


def failures(checks):
    """Macros of the checks that each method fails for a cosmological parameter, in words, of what was ``judged``."""
    numbers = {}
    for method in attribution.METHODS:
        failed = [
            check.replace("_", " ") for check in sanity.CHECKS
            if not all(by_method[method].get(check, (0, True))[1] for by_method in checks.values())
        ]  # fmt: skip
        numbers[("Failed", method)] = ", ".join(failed) or "none"
    return numbers


def shares(record):
    """parameter → method → field → its share of |attribution| on each test map."""
    return {
        name: {
            method: dict(zip(record["fields"], np.transpose(values), strict=True))
            for method, values in by_method.items()
        }
        for name, by_method in record["field_shares"].items()
    }


def numbers(record):
    """The macros on the attributions of the first suite."""
    settings, gaps = record["settings"], record["completeness_gap"]
    all_gaps = np.concatenate([gaps[name][METHOD] for name in gaps])
    found = {
        "IGSteps": settings["ig_steps"],
        "IGStepsMean": f"{np.mean(record['steps']):.0f}",
        "ShapSamples": settings["shap_samples"],
        "NAttributionMaps": len(record["index"]),
        "Baseline": settings["baseline"],
        "ShapBaseline": settings["shap_baseline"],
        "AttributionViews": "averaged over eight symmetries" if settings["views"] == "mean8" else "of the map as it is",
        "AttributionNetworks": record["networks"],
        "AttributedOutput": OUTPUTS[settings["output"]],
        "CompletenessP": f"{100 * np.percentile(all_gaps, 95):.1f}",
        "CompletenessFlagged": int(np.sum(all_gaps > attribution.TOLERANCE)),
        "CompletenessOf": len(all_gaps),
        "VoidBelow": f"{cosmic_web.THRESHOLDS[0]:g}",
        "SheetBelow": f"{cosmic_web.THRESHOLDS[1]:g}",
        "FilamentBelow": f"{cosmic_web.THRESHOLDS[2]:g}",
        "WebAgreement": f"{100 * record['web']['agreement']:.0f}",
    }
    for name, word in tables.SYMBOLS.items():
        found |= _where(record["statistics"][name][METHOD], word)
    return found | _areas(record["statistics"][name][METHOD])


def _where(statistics, word):
    """Macros of where the attributions to the parameter ``word`` lie."""
    around = {key: statistics["around"][key]["profile"] for key in ("voids", "halos")}
    (voids, _), (tidal_voids, _) = _voids(statistics, "density"), _voids(statistics, "tidal")
    return {
        **tables.with_interval(f"PerPixelRatio{word}", statistics["ratio"], 2),
        **tables.with_interval(f"UnderdenseShare{word}", np.multiply(statistics["underdense_share"], 100), 0),
        **tables.with_interval(f"VoidShare{word}", np.multiply(voids, 100), 0),
        **tables.with_interval(f"TidalVoidShare{word}", np.multiply(tidal_voids, 100), 0),
        **tables.with_interval(f"KHalf{word}", statistics["fourier"]["k_half"], 1),
        **tables.with_interval(f"AtVoids{word}", [value[0] for value in around["voids"]], 2),
        **tables.with_interval(f"AtHalos{word}", [value[0] for value in around["halos"]], 2),
    }


def _areas(statistics):
    """Macros of the areas that such shares are to be held against; they are those of the maps."""
    areas = {
        "UnderdenseArea": statistics["underdense_area"],
        "VoidArea": _voids(statistics, "density")[1],
        "TidalVoidArea": _voids(statistics, "tidal")[1],
    }
    found = {}
    for name, triple in areas.items():
        found |= tables.with_interval(name, np.multiply(triple, 100), 0)
    return found


def _voids(statistics, web):
    """Share of the attributions, and of the area, that voids have; a value with the limits of its interval each."""
    return [[value[0] for value in statistics["classes"][web][key]] for key in ("total", "area")]
