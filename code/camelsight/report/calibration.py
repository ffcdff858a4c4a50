"""Do the networks keep what moment networks promise, a mean and a standard deviation? Coverage, chi-square and ranks.

``measured`` is a dict of (train, test, case) → metrics: coverage_68, coverage_95 and chi2, each parameter →
(value, low, high).
"""

import numpy as np
from scipy import special

from camelsight.ground import theta
from camelsight.inference.metrics import COVERAGE, draws
from camelsight.report.tables import SYMBOLS, _booktabs, _grouped, _plus_minus, suite_label, with_interval

BINS = 10
NOMINAL = COVERAGE | {"chi2": 1.0}
LABELS = {"coverage_68": r"within 68\%", "coverage_95": r"within 95\%", "chi2": r"$\chi^2$"}
COLUMNS = (
    *("train", "test", "case", "parameter"),
    *(name + suffix for name in NOMINAL for suffix in ("", "_low", "_high")),
)
PIT_COLUMNS = ("suite", "case", "parameter", "from", "to", "density", "low", "high")
WORDS = {"coverage_68": "Narrow", "coverage_95": "Wide", "chi2": "Chi"}


def ranks(truth, mean, sigma):
    """Where the truth lies in the predicted Gaussian, 0 to 1, the probability integral transform.

    Uniform where means and standard deviations are right and the posterior is Gaussian. A sigma of 0 is a step.
    """
    residual = np.asarray(truth) - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = np.where(residual == 0, 0.0, residual / sigma)
    return special.ndtr(pull)


def histogram(values, simulation, *, generator, resamples, bins=BINS):
    """(density, low, high), each ``(bins, P)``, of ranks ``(N, P)``: 1 where they are uniform.

    Low and high bound the central 95% of a bootstrap that draws whole simulations ``(N,)``.
    """
    group, weights = draws(simulation, generator, resamples)
    counts = np.zeros((weights.shape[1], bins, values.shape[1]))
    place = np.minimum((np.asarray(values) * bins).astype(int), bins - 1)
    np.add.at(counts, (group[:, None], place, np.arange(values.shape[1])), 1)
    sizes = np.bincount(group)
    drawn = bins * np.tensordot(weights, counts, 1) / (weights @ sizes)[:, None, None]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return bins * counts.sum(0) / len(values), low, high


def pit_rows(suite, case, found):
    """Dicts of ``PIT_COLUMNS`` from what ``histogram`` returns."""
    edges = np.linspace(0, 1, len(found[0]) + 1)
    return [
        {"suite": suite, "case": case, "parameter": name, "from": f"{edges[b]:g}", "to": f"{edges[b + 1]:g}"}
        | {key: float(values[b, column]) for key, values in zip(("density", "low", "high"), found, strict=True)}
        for column, name in enumerate(theta.NAMES)
        if name in theta.meant(suite)
        for b in range(len(edges) - 1)
    ]


def rows(measured, comparable):
    """Dicts of ``COLUMNS``; ``comparable(train, test)`` is ``(6,)`` bool, the other parameters are left out."""
    return [
        {"train": train, "test": test, "case": case, "parameter": name}
        | {
            key + suffix: value
            for key in NOMINAL
            for suffix, value in zip(("", "_low", "_high"), metrics[key][name], strict=True)
        }
        for (train, test, case), metrics in measured.items()
        for name, good in zip(theta.NAMES, comparable(train, test), strict=True)
        if good
    ]


def latex(measured):
    """The networks of uncut maps on their own suite: a row for each of ``LABELS``, a column a parameter."""
    body = []
    for (train, test, case), metrics in measured.items():
        for key, label in LABELS.items() if train == test and case == "original" else ():
            cells = [_cell(key, metrics[key][name]) if name in theta.meant(train) else "--" for name in theta.NAMES]
            body.append((suite_label(train), label, *cells))
    return _booktabs(_grouped(body), ("suite", "share or mean", *theta.LABELS.values()))


def _cell(key, triple):
    if not np.isfinite(triple).all():
        return "--"
    return _plus_minus(*triple, 2) if max(triple) < 1000 else r"$>1000$"


def numbers(measured, suite):
    """The macros that the text quotes, of the uncut maps of ``suite``; and how many of all intervals keep a promise."""
    out, metrics = {}, measured[suite, suite, "original"]
    for name, symbol in SYMBOLS.items():
        for key, word in WORDS.items():
            scale, digits = (1, 2) if key == "chi2" else (100, 0)
            triple = [scale * value if value < 1e4 else None for value in metrics[key][name]]
            out |= with_interval(f"Calibration{word}{symbol}", triple, digits)
        out[f"CalibrationWords{symbol}"] = verdict(metrics["chi2"][name])
    own = [(test, by) for (train, test, _), by in measured.items() if train == test]
    for key, word in WORDS.items():
        kept = [by[key][name][1] <= NOMINAL[key] <= by[key][name][2] for test, by in own for name in theta.meant(test)]
        out[f"CalibrationKept{word}"], out["CalibrationOf"] = sum(kept), len(kept)
    return out


def verdict(chi2):
    """What (value, low, high) of chi-square says of the predicted standard deviations, in words."""
    _, low, high = chi2
    return "too small" if low > 1 else "too large" if high < 1 else "as large as they should be"
