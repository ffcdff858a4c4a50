"""Tables and numbers as text: Markdown for people, CSV for programs, LaTeX for the paper."""

import csv
import io
import re
from itertools import groupby

import numpy as np
from tabulate import tabulate

from camelsight.ground import cases, theta

MISSING = "–"
NOT_AVAILABLE = "n/a"  # of a number that the text does not quote in this run
SYMBOLS = {"omega_m": "OmegaM", "sigma_8": "SigmaEight"}  # in the names of macros
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
METHOD_LABELS = {"saliency": "Saliency", "integrated_gradients": "IG", "gradient_shap": "GradientSHAP"}
_MEANINGS = {
    "omega_m": "matter density",
    "sigma_8": "amplitude of fluctuations",
    "A_SN1": "supernovae: wind energy",
    "A_AGN1": "black holes: energy",
    "A_SN2": "supernovae: wind speed",
    "A_AGN2": "black holes: burstiness",
}


def suite_label(suite):
    """The name a reader sees: ``Nbody_IllustrisTNG`` becomes ``N-body (IllustrisTNG)``."""
    return f"N-body ({theta.hydro_suite(suite)})" if theta.is_nbody(suite) else theta.hydro_suite(suite)


def listed(words):
    """Words as a sentence lists them."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def escape(text):
    """Any text as LaTeX prints it literally."""
    return "".join(_SPECIAL.get(character, character) for character in str(text))


def macro_name(*parts):
    """The name of a LaTeX macro, letters only, from words with digits, underscores and points.

    ``("r2", "IllustrisTNG", "kmax_10", "omega_m")`` becomes ``RtwoIllustrisTNGKmaxOneZeroOmegaM``. Different suites,
    cases and parameters give different names.
    """
    if not parts:
        raise ValueError("expected at least one part for the name of a LaTeX macro, got none")
    return "".join(_camel(str(part)) for part in parts)


def _camel(part):
    if not re.fullmatch(r"[A-Za-z0-9]+(?:(?:__?|\.)[A-Za-z0-9]+)*", part):
        raise ValueError(f"expected letters and digits joined by '_', '__' or '.', got {part!r} in a macro name")
    words = part.replace("__", "_and_").replace(".", "_point_").split("_")
    return "".join(_spell(word[0].upper() + word[1:]) for word in words)


def _spell(word):
    word = re.sub(r"(?<=[a-z])\d|(?<=^[A-Z])\d", lambda digit: _DIGITS[int(digit[0])].lower(), word)
    return re.sub(r"\d", lambda digit: _DIGITS[int(digit[0])], word)


def macros(numbers):
    r"""``\newcommand`` lines from a dict of name → plain text, which is escaped.

    A name is a string of letters, or a tuple that goes through ``macro_name``.
    """
    lines = {}
    for key, text in numbers.items():
        name = macro_name(*key) if isinstance(key, tuple) else key
        if not re.fullmatch("[A-Za-z]+", name):
            raise ValueError(f"expected only letters in the name of a LaTeX macro, got {name!r}")
        if name in lines:
            raise ValueError(f"expected different names for LaTeX macros, got {name} twice, then from {key!r}")
        lines[name] = rf"\newcommand{{\{name}}}{{{escape(text)}}}"
    return "".join(line + "\n" for line in lines.values())


def with_interval(name, triple, digits):
    """Macros of a value and the limits of its interval; those that are None or not finite are not available."""
    return {
        name + suffix: f"{value:.{digits}f}" if np.isfinite(value) else NOT_AVAILABLE
        for suffix, value in zip(("", "Low", "High"), np.array(triple, dtype=float), strict=True)
    }


def tightest(case_ids):
    """The case with the smallest k_max and no other cut, or None."""
    cuts = cases.single(case_ids, "kmax")
    return min(cuts, key=lambda case: cuts[case].threshold, default=None)


def quoted(suites, case_ids):
    """Macro → (suite, case, parameter) of every R² in the text of the paper; suite or case None where there is none."""
    first, second = (*suites, None)[:2]
    partner = second if second == f"Nbody_{first}" else None
    places = {"Orig": (first, "original"), "OrigNbody": (partner, "original"), "Tight": (first, tightest(case_ids))}
    return {prefix + word: (*place, name) for prefix, place in places.items() for name, word in SYMBOLS.items()}


def csv_text(rows, columns):
    """Comma-separated text with a header; every row is a dict that holds all ``columns``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
    return text.getvalue()


def r2_curves(rows):
    """File name → rows of ``x`` and R² of the cosmological parameters against it, of cases with a single cut.

    ``rows`` as in ``r2_markdown``. For k_max in h/Mpc a file per suite, for thresholds of density one per fill, too.
    """
    found, cuts = {}, cases.single([row["case"] for row in rows], "kmax", *cases.DENSITY)
    for (suite, case), group in groupby(rows, lambda row: (row["suite"], row["case"])):
        if (cut := cuts.get(case)) is None:
            continue
        x, name = "k_max", f"r2_kmax/{suite}.csv"
        if cut.kind != "kmax":
            x, name = "threshold", f"r2_threshold/{suite}_{cut.kind}_{cut.fill}.csv"
        values = {row["parameter"]: row["r2"] for row in group if row["parameter"] in theta.COSMOLOGICAL}
        found.setdefault(name, []).append({x: cut.threshold} | values)
    return {name: sorted(points, key=lambda point: next(iter(point.values()))) for name, points in found.items()}


def spread(values):
    """Standard deviation of R² over seeds of the training; empty where there are no two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else ""


def mean(values):
    """Mean of R² over seeds of the training; empty where there are no two."""
    return float(np.mean(values)) if len(values) > 1 else ""


def r2_markdown(rows):
    """R² with its 95% interval, one line per suite and case, one column per parameter.

    ``rows`` are dicts with ``suite``, ``case``, ``parameter``, ``r2``, ``low``, ``high``, and ``seeds``: the standard
    deviation over seeds, or nothing. A parameter that means nothing in a suite gets a dash.
    """

    def cell(value, low, high, digits, seeds):
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" + (seeds and f" ± {seeds:.{digits}f}")

    body = [(suite, case, *cells) for suite, case, cells in _pivot(rows, cell, MISSING)]
    return tabulate(body, ("suite", "case", *theta.NAMES), tablefmt="github", disable_numparse=True) + "\n"


def r2_latex(rows):
    """The table of ``r2_markdown`` as a ``booktabs`` tabular."""

    def cell(value, low, high, digits, seeds):
        text = _plus_minus(value, low, high, digits)
        return text if seeds == "" else rf"{text[:-1]}\pm{seeds:.{digits}f}$"

    body = [(suite_label(suite), cases.parse(case).label, *cells) for suite, case, cells in _pivot(rows, cell, "--")]
    return _booktabs(_grouped(body), ("suite", "case", *theta.LABELS.values()))


def parameters_latex(*suites):
    """The six parameters of ``suites``: symbol, range, prior, meaning, as a ``booktabs`` tabular.

    A suite whose range is not that of the first is named with its own; a parameter that means nothing in any of them
    gets a dash.
    """
    body = []
    for column, name in enumerate(theta.NAMES):
        ranges = {}
        for suite in suites:
            if theta.meaningful(suite)[column]:
                low, high = (limits[column] for limits in theta.ranges(suite))
                ranges.setdefault(f"{low:g}--{high:g}", theta.hydro_suite(suite))
        first, *others = ranges.items() or [("--", None)]
        prior = "log-uniform" if theta.LOG_UNIFORM[column] else "uniform"
        text = first[0] + "".join(f" ({suite}: {limits})" for limits, suite in others)
        body.append((theta.LABELS[name], text, prior if ranges else "--", _MEANINGS[name]))
    return _booktabs(body, ("parameter", "range", "prior", "meaning"))


def provenance_latex(made_by, weights, data):
    r"""What made each figure and table, as LaTeX: ``\stageof{label}`` for captions, ``\provenancetable`` for the end.

    ``made_by`` maps label → stage, ``weights`` is the digest of all networks, ``data`` maps suite → digest.
    """
    lines = [rf"\expandafter\def\csname stage:{label}\endcsname{{{stage}}}" for label, stage in made_by.items()]
    by_stage = {}
    for label, stage in made_by.items():
        by_stage.setdefault(stage, []).append(rf"\maderef{{{label}}}")
    wrapped = r"\parbox[t]{{0.58\columnwidth}}{{\raggedright {}\strut}}".format
    body = [(rf"\texttt{{{escape(f'stages/{s}.py')}}}", wrapped(", ".join(labels))) for s, labels in by_stage.items()]
    body.append((r"\addlinespace weights of all networks", rf"\texttt{{{escape(weights[:16])}}}"))
    body += [
        (f"maps, {escape(suite_label(suite))}", rf"\texttt{{{escape(digest[:16])}}}") for suite, digest in data.items()
    ]
    table = _booktabs(body, ("made by", "figures and tables"))
    return "\n".join([*lines, rf"\newcommand{{\provenancetable}}{{{table.strip()}}}", ""])


def statistics_latex(rows):
    """Statistics of pixels as a ``booktabs`` tabular; ``rows`` are (label, dict), a missing statistic gets a dash."""
    columns = dict.fromkeys(("min", "max", "mean", "std"), _scientific) | {"std/mean": "${:.2f}$".format}
    columns |= dict.fromkeys(("log10_mean", "log10_std"), "${:.3f}$".format)
    body = []
    for label, values in rows:
        values = {**values, "std/mean": values["std"] / values["mean"]}
        body.append((label, *(show(values[name]) if name in values else "--" for name, show in columns.items())))
    return _booktabs(
        body, ("maps", "min", "max", "mean", "std", "std/mean", r"mean of $\log_{10}$", r"std of $\log_{10}$")
    )


def attribution_latex(interpretation):
    """What each method says of voids and dense pixels, as a ``booktabs`` tabular.

    ``interpretation`` is suite → parameter → method → dict with per_pixel_ratio, void_share (value, low, high) and
    completeness_p95 (or None).
    """
    body = []
    for suite, by_parameter in interpretation.items():
        for parameter, by_method in by_parameter.items():
            symbols = [theta.LABELS[parameter]]
            for method, record in by_method.items():
                gap = record["completeness_p95"]
                cells = (
                    _plus_minus(*record["per_pixel_ratio"], 2),
                    _plus_minus(*(100 * value for value in record["void_share"]), 1),
                    "--" if gap is None else f"{100 * gap:.1f}",
                )
                symbol = symbols.pop() if symbols else ""
                body.append((suite_label(suite), symbol, METHOD_LABELS[method], *cells))
    header = ("suite", "parameter", "method", "per-pixel ratio", r"void share (\%)", r"gap (\%)")
    return _booktabs(_grouped(body), header)


def _scientific(value, digits=3):
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"


def _plus_minus(value, low, high, digits):
    return f"${value:.{digits}f}^{{+{max(high - value, 0):.{digits}f}}}_{{-{max(value - low, 0):.{digits}f}}}$"


def _pivot(rows, cell, missing):
    """``(suite, case, six cells)`` in the order of first appearance, a suite's cases together."""
    table = {}
    for row in rows:
        table.setdefault(row["suite"], {}).setdefault(row["case"], {})[row["parameter"]] = row
    digits = {name: _digits([row for row in rows if row["parameter"] == name]) for name in theta.NAMES}
    for suite, by_case in table.items():
        shown = theta.meant(suite)
        for case, by_parameter in by_case.items():
            values = {name: _interval(by_parameter[name]) for name in shown if name in by_parameter}
            seeds = {name: by_parameter[name].get("seeds", "") for name in values}
            texts = {
                name: cell(*value, digits[name], seeds[name])
                for name, value in values.items()
                if np.isfinite(value).all()
            }
            yield suite, case, [texts.get(name, missing) for name in theta.NAMES]


def _interval(row):
    return tuple(float(row[key]) for key in ("r2", "low", "high"))


def _digits(rows):
    """Decimals for a column: three where its intervals are mostly narrower than 0.02, otherwise two."""
    widths = [high - low for _, low, high in map(_interval, rows) if np.isfinite(high - low)]
    return 3 if widths and np.median(widths) < 0.02 else 2


def _grouped(body):
    """Rows whose first cell, plain text, is shown where it changes, and after a gap."""
    found, last = [], None
    for first, *cells in body:
        gap = r"\addlinespace " if found else ""
        found.append(("" if first == last else gap + escape(first), *cells))
        last = first
    return found


def _booktabs(body, header):
    text = tabulate(body, header, tablefmt="latex_raw", disable_numparse=True)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        text = text.replace(r"\hline", rule, 1)
    return text + "\n"
