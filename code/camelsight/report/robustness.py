"""Tables, rows and numbers of the experiments on robustness, from their records; none of them need have been run."""

import numpy as np

from camelsight.ground import cases, theta
from camelsight.report.tables import (
    NOT_AVAILABLE,
    SYMBOLS,
    _booktabs,
    _grouped,
    _plus_minus,
    _scientific,
    escape,
    suite_label,
)

TRANSFER_COLUMNS = ("train", "test", "parameter", "r2", "low", "high", "relative_error", "bias")
PROBE_COLUMNS = ("probe", "parameter", "r2", "low", "high")
SMOOTHING_COLUMNS = ("width", "parameter", "r2", "low", "high", "relative_error")
GENERALISATION_COLUMNS = ("study", "setting", "parameter", "r2", "low", "high")
STUDIES = ("leakage", "simulations", "normalisation", "augmentation", "seeds")


def comparable(train, test):
    """``(6,)`` bool: which parameters mean the same in both suites, and anything in either.

    Feedback parameters scale another model in every suite.
    """
    same = theta.hydro_suite(train) == theta.hydro_suite(test)
    cosmological = np.isin(theta.NAMES, theta.COSMOLOGICAL)
    return theta.meaningful(train) & theta.meaningful(test) & (same | cosmological)


def rows(record, *labels):
    """A dict per row of ``record`` and parameter: its ``labels``, r2, low, high, relative_error, bias."""
    return [
        {label: row[label] for label in labels}
        | {
            "parameter": name,
            **dict(zip(("r2", "low", "high"), row["metrics"]["r2"][name], strict=True)),
            **{key: row["metrics"][key][name][0] for key in ("relative_error", "bias")},
        }
        for row in record["rows"]
        for name in row["metrics"]["r2"]
    ]


def transfer_rows(record):
    """``rows`` of the transfer matrix; empty fields where a parameter is not comparable."""
    out = []
    for row in rows(record, "train", "test"):
        if not comparable(row["train"], row["test"])[theta.NAMES.index(row["parameter"])]:
            row |= dict.fromkeys(("r2", "low", "high", "relative_error", "bias"), "")
        out.append(row)
    return out


def probe_rows(record, retrained):
    """``rows`` of the probes, with those of networks that were trained anew: ``retrained`` is case → metrics."""
    again = [{"probe": f"{case}, trained anew", "metrics": metrics} for case, metrics in retrained.items()]
    return rows({"rows": record["rows"] + again}, "probe")


def generalisation_rows(records):
    """``rows`` of those of ``STUDIES`` that ``records`` has."""
    return [
        {"study": study, **row}
        for study in STUDIES
        if study in records
        for row in rows(_named(study, records[study]), "setting")
    ]


def _named(study, record):
    """The record, with the suite named in the settings of a study that has several."""
    if study != "normalisation":
        return record
    return {
        "rows": [row | {"setting": f"{suite_label(row['test'])} scaled by {row['setting']}"} for row in record["rows"]]
    }


def settings(records):
    """study → setting → metrics, for a figure."""
    return {
        study: {row["setting"]: row["metrics"] for row in _named(study, record)["rows"]}
        for study, record in records.items()
    }


def transfer_latex(record):
    """The transfer matrix: all that is measured of the cosmological parameters, R² of the others."""
    body = []
    others = [name for name in theta.NAMES if name not in theta.COSMOLOGICAL]
    for row in record["rows"]:
        train, test, metrics = row["train"], row["test"], row["metrics"]
        cells = []
        for name in theta.COSMOLOGICAL:
            value = {key: metrics[key][name] for key in metrics}
            cells += [
                _r2(metrics, name),
                f"{100 * value['relative_error'][0]:.1f}",
                f"${value['bias'][0]:+.3f}$",
                f"${value['bias_slope'][0]:+.2f}$",
                _short(value["chi2"][0]),
            ]
        meant = dict(zip(theta.NAMES, comparable(train, test), strict=True))
        cells += [f"${metrics['r2'][name][0]:.2f}$" if meant[name] else "--" for name in others]
        body.append((suite_label(train), escape(suite_label(test)), *cells))
    header = ["trained on", "tested on"]
    for name in theta.COSMOLOGICAL:
        header += [f"{theta.LABELS[name]}: $R^2$", r"err.\ (\%)", "bias", "slope", r"$\chi^2$"]
    return _booktabs(_grouped(body), (*header, *(f"{theta.LABELS[name]}: $R^2$" for name in others)))


def _short(value):
    if not np.isfinite(value):
        return "--" if np.isnan(value) else r"$\infty$"
    return f"{value:.1f}" if value < 1000 else _scientific(value, 0)


def probes_latex(record, retrained):
    """R² of the network at probes and, for those that are cases, of the network that was trained on them."""
    body = []
    for row in record["rows"]:
        name = row["probe"]
        is_case = name in retrained
        label = cases.parse(name).label if is_case else escape(name)
        cells = [_r2(row["metrics"], parameter) for parameter in theta.COSMOLOGICAL]
        again = [_r2(retrained[name], parameter) if is_case else "--" for parameter in theta.COSMOLOGICAL]
        below = row.get("below_zero")
        body.append((label, *cells, *again, f"{100 * below:.0f}" if below else "--"))
    labels = [theta.LABELS[name] for name in theta.COSMOLOGICAL]
    header = ("test maps", *labels, *(f"{label}, trained anew" for label in labels), r"pixels below zero (\%)")
    return _booktabs(body, header)


def generalisation_latex(records):
    """R² of the cosmological parameters by study and setting."""
    body = [
        (study, escape(row["setting"]), *(_r2(row["metrics"], name) for name in theta.COSMOLOGICAL))
        for study in STUDIES
        if study in records
        for row in _named(study, records[study])["rows"]
    ]
    return _booktabs(_grouped(body), ("study", "setting", *(theta.LABELS[name] for name in theta.COSMOLOGICAL)))


def _r2(metrics, name):
    """R² with its interval; in powers of ten where it is far below zero."""
    value, low, high = metrics["r2"][name]
    if not np.isfinite(value):
        return "--"
    return _plus_minus(value, low, high, 2) if value > -10 else _scientific(value, 0)


def numbers(experiments, records, suites):
    """The macros that the section quotes, with a dash for what was not run.

    ``experiments`` are all that there are, ``records`` those that were run, ``suites`` those of the profile.
    """
    first = suites[0]
    out = {("Has", "transfer", name): int(name in records) for name in experiments}
    out["HasTransfer"] = int(bool(records))
    out["HasGeneralisation"] = int(bool(set(STUDIES) & set(records)))
    out["HasSettings"] = int(bool(set(STUDIES) & set(records) - {"simulations"}))
    rows = {name: records.get(name, {"rows": ()})["rows"] for name in ("suites", "smoothing", "probes", "leakage")}
    tested = records["suites"]["suites"] if "suites" in records else [first]
    return (
        out | _across(rows["suites"], first, tested) | _smoothed(rows["smoothing"]) | _probed(rows["probes"])
        | _studied(records, first) | _leaked(rows["leakage"])
        | _curves(records.get("simulations")) | _seeds(records.get("seeds")) | _choices(records)
    )  # fmt: skip


def _across(rows, first, tested):
    """Macros on networks of one suite that are tested on another."""
    matrix = {(row["train"], row["test"]): row["metrics"] for row in rows}
    hydro = next((suite for suite in tested if suite != first and not theta.is_nbody(suite)), None)
    nbody = f"Nbody_{theta.hydro_suite(first)}"
    out = {"HasHydro": int(hydro is not None), "HasCrossed": int(bool(crossed(first, tested)))}
    out |= {"TransferFirst": suite_label(first), "TransferHydro": suite_label(hydro) if hydro else NOT_AVAILABLE}
    pairs = {"Own": (first, first), "Across": (first, hydro), "Back": (hydro, first), "OwnHydro": (hydro, hydro)}
    pairs |= {"FromNbody": (nbody, first), "ToNbody": (first, nbody)}
    for word, pair in pairs.items():
        for name in theta.COSMOLOGICAL:
            metrics = matrix.get(pair)
            out[f"Transfer{word}Error{SYMBOLS[name]}"] = _text(metrics, "relative_error", name, "{:.1f}", 100)
            out[f"Transfer{word}Bias{SYMBOLS[name]}"] = _text(metrics, "bias", name, "{:+.3f}")
            out[f"Transfer{word}Slope{SYMBOLS[name]}"] = _text(metrics, "bias_slope", name, "{:+.2f}")
            out[f"Transfer{word}Chi{SYMBOLS[name]}"] = _text(metrics, "chi2", name, "{:.1f}")
            out[f"Transfer{word}{SYMBOLS[name]}"] = _text(metrics, "r2", name, "{:.2f}")
    return out


def _smoothed(rows):
    """Macros on smoothed maps."""
    widths = {row["width"]: row["metrics"] for row in rows}
    widest = max(widths, default=None)
    out = {
        "SmoothWidest": f"{widest:g}" if widths else NOT_AVAILABLE,
        "SmoothWidths": ", ".join(f"{width:g}" for width in widths if width) or NOT_AVAILABLE,
    }
    for name in theta.COSMOLOGICAL:
        out[f"SmoothNone{SYMBOLS[name]}"] = _text(widths.get(0.0), "relative_error", name, "{:.1f}", 100)
        out[f"SmoothMost{SYMBOLS[name]}"] = _text(widths.get(widest), "relative_error", name, "{:.1f}", 100)
    return out


def _probed(rows):
    """Macros on maps from which something was taken at test time."""
    probes = {row["probe"]: row["metrics"] for row in rows}
    words = {
        "None": "none", "Shuffled": "pixels shuffled", "MeanOnly": "mean only", "Mass": "total mass alone",
        "Phases": "phases random", "LogPhases": "log phases random", "Gaussianised": "log Gaussianised",
    }  # fmt: skip
    return {
        f"Probe{word}{SYMBOLS[name]}": _text(probes.get(probe), "r2", name, "{:.2f}")
        for word, probe in words.items()
        for name in theta.COSMOLOGICAL
    }


def _studied(records, first):
    """Macros on networks trained with other settings."""
    by_setting = {
        (study, row["setting"]): row["metrics"]
        for study in STUDIES if study in records
        for row in records[study]["rows"] if row.get("test", first) == first
    }  # fmt: skip
    settings = {
        "NormTrain": ("normalisation", "training maps"), "NormTest": ("normalisation", "test maps"),
        "AugmentAll": ("augmentation", "eight symmetries"),
        "AugmentRotations": ("augmentation", "rotations only"), "AugmentNone": ("augmentation", "no symmetries"),
    }  # fmt: skip
    return {
        f"{word}{SYMBOLS[name]}": _text(by_setting.get(key), "r2", name, "{:.3f}")
        for word, key in settings.items()
        for name in theta.COSMOLOGICAL
    }


def _leaked(rows):
    """Macros on test maps whose simulations the networks had seen."""
    out, leaks = {}, {row["kind"]: row["metrics"] for row in rows}
    for name in theta.COSMOLOGICAL:
        for kind in ("clean", "all apparent", "all true", "few apparent", "few true"):
            out[f"Leak{kind.title().replace(' ', '')}{SYMBOLS[name]}"] = _text(leaks.get(kind), "r2", name, "{:.2f}")
        few = [leaks[f"few {which}"]["r2"][name][0] for which in ("apparent", "true")] if leaks else None
        out[f"LeakFewGap{SYMBOLS[name]}"] = f"{few[0] - few[1]:.2f}" if few else NOT_AVAILABLE
    return out


def crossed(first, suites):
    """The pairs (train, test) of a suite and the gravity-only one of its initial conditions, if both are there."""
    partner = f"Nbody_{theta.hydro_suite(first)}"
    return ((partner, first), (first, partner)) if first != partner and partner in suites else ()


def _curves(record):
    """The ends of both learning curves."""
    ends = dict.fromkeys(("Few", "Wide", "Most"))
    if record:
        by_count = sorted(record["rows"], key=lambda row: (row["simulations"], row["maps"]))
        most = max(row["simulations"] for row in by_count)
        all_of_them = [row for row in by_count if row["simulations"] == most]
        ends = {"Few": by_count[0], "Wide": all_of_them[0], "Most": all_of_them[-1]}
    out = {}
    for word, row in ends.items():
        out[f"Curve{word}Sims"] = row["simulations"] if row else NOT_AVAILABLE
        out[f"Curve{word}Maps"] = row["maps"] if row else NOT_AVAILABLE
        for name in theta.COSMOLOGICAL:
            out[f"Curve{word}{SYMBOLS[name]}"] = _text(row and row["metrics"], "r2", name, "{:.2f}")
    return out


def _deviation(record, name):
    """Standard deviation of R² over networks that differ in their seed alone."""
    return np.std([row["metrics"]["r2"][name][0] for row in record["rows"]], ddof=1)


def _seeds(record):
    out = {"SeedCount": len(record["rows"]) if record else NOT_AVAILABLE}
    for name in theta.COSMOLOGICAL:
        out[f"SeedDeviation{SYMBOLS[name]}"] = f"{_deviation(record, name):.3f}" if record else NOT_AVAILABLE
    return out


def _choices(records):
    """Which choices change R² beyond the spread between seeds and beyond the paired interval, and which do not.

    A choice matters where the 95% interval of the difference excludes zero, and it is above two standard deviations.
    """
    out = {}
    for name in theta.COSMOLOGICAL:
        found = {True: [], False: []}
        if "seeds" in records:
            limit = 2 * _deviation(records["seeds"], name)
            for words, difference in _differences(records):
                value, low, high = difference[name]
                found[bool((low > 0 or high < 0) and abs(value) > limit)].append(words)
        for word, matters in (("Matter", True), ("DoNot", False)):
            text = "; ".join(found[matters]) or "nothing"
            out[f"Choices{word}{SYMBOLS[name]}"] = text if "seeds" in records else NOT_AVAILABLE
    return out


def _differences(records):
    """(words, parameter → difference in R²) of each choice that was compared on the same test maps."""
    for row in records.get("leakage", {"rows": ()})["rows"]:
        if row["kind"] == "all true":  # the other trained on fewer simulations too
            yield "a split at random", row["difference"]
    rows = records.get("simulations", {"rows": ()})["rows"]
    most = max((row["simulations"] for row in rows), default=0)
    for row in rows:
        if row["simulations"] < most:
            words = f"{row['simulations']} simulations with {row['maps']} maps each instead of {most} with 1"
            yield words, row["difference"]
    for row in records.get("normalisation", {"rows": ()})["rows"]:
        if "difference" in row:
            yield f"scaling by {row['setting']}", row["difference"]
    for row in records.get("augmentation", {"rows": ()})["rows"]:
        if "difference" in row:
            yield row["setting"], row["difference"]


def _text(metrics, key, name, form, factor=1):
    if metrics is None:
        return NOT_AVAILABLE
    value = factor * metrics[key][name][0]
    if not np.isfinite(value):
        return NOT_AVAILABLE
    return form.format(value) if abs(value) < 100 else f"{float(f'{value:.1e}'):,.0f}"
