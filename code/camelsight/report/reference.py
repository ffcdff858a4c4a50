"""The pipeline's own reference: R² of networks that differ in the seed of their training alone, and what follows.

A run on another machine repeats the same draws, but rounds differently, and is soon on another training trajectory: it
is one more draw from the spread over training seeds at fixed maps. R² is compared as y = ln(1 - R²), the logarithm of
what the network leaves unexplained, in which that spread is about as wide for good networks as for poor ones. The
limits are those of a two-sided t prediction interval with the moderated variance of Smyth (2004), doi
10.2202/1544-6115.1027, which borrows strength from the other rows: four seeds alone leave three degrees of freedom.
"""

import numpy as np
from scipy import optimize, special

FALSE_ALARM = {"WARN": 0.05, "FAIL": 0.01}  # of a whole run that repeats the reference, over all of its rows
POWER = 0.8
MIN_SEEDS = 4
FLOOR = 1e-12  # of 1 - R²


def unexplained(r2):
    return np.log(np.maximum(1 - np.asarray(r2, dtype=float), FLOOR))


def limits(values):
    """Row → dict with mean, std (of R²), center and scale (of y), degrees, and the R² between which a verdict holds.

    ``values`` maps ``r2.<suite>.<case>.<parameter>`` to the R² of K >= 4 seeds. Rows ``r2.<suite>.all.<parameter>``
    are added: the mean of y over the cases, which sees a small shift that all networks share. Limits are (low, high)
    under PASS, WARN and ``detects``: what a run must fall to, or rise to, to FAIL with probability 0.8.
    """
    sizes = {len(one) for one in values.values()}
    if not values or len(sizes) > 1 or min(sizes) < MIN_SEEDS:
        raise ValueError(f"expected rows with as many seeds each, and at least {MIN_SEEDS}, got {sorted(sizes)}")
    y = np.array([unexplained(one) for one in values.values()])  # (rows, K)
    seeds = y.shape[1]
    variance, degrees = moderate(y.var(axis=1, ddof=1), seeds - 1)
    groups = {}
    for index, name in enumerate(values):
        metric, suite, _, parameter = split(name)
        groups.setdefault(f"{metric}.{suite}.all.{parameter}", []).append(index)
    groups = {name: rows for name, rows in groups.items() if len(rows) > 1}
    found = {
        name: {"center": y[i].mean(), "scale": np.sqrt(variance[i]), "degrees": degrees}
        for i, name in enumerate(values)
    }
    for name, rows in groups.items():
        per_seed, raw = y[rows].mean(axis=0), y[rows].var(axis=1, ddof=1)
        free = (seeds - 1) * raw.sum() ** 2 / np.square(raw).sum() if raw.any() else seeds - 1  # Welch-Satterthwaite
        found[name] = {"center": per_seed.mean(), "scale": np.sqrt(raw.sum()) / len(rows), "degrees": free}
    for name, one in found.items():
        width = one["scale"] * np.sqrt(1 + 1 / seeds)
        for verdict, rate in FALSE_ALARM.items():
            reach = width * special.stdtrit(one["degrees"], 1 - rate / len(found) / 2)
            one[verdict] = _r2(one["center"], reach)
        one["detects"] = _r2(one["center"], reach + width * special.stdtrit(one["degrees"], POWER))
        spread = values.get(name, 1 - np.exp(y[groups.get(name, [0])].mean(axis=0)))
        one["mean"], one["std"] = float(np.mean(spread)), float(np.std(spread, ddof=1))
    return found


def judge(found, r2):
    """PASS, WARN or FAIL of the ``r2`` of a run beside one row of ``limits``."""
    if not np.isfinite(r2):
        return "FAIL"
    for verdict in ("FAIL", "WARN"):
        low, high = found[verdict]
        if not low <= r2 <= high:
            return verdict
    return "PASS"


def average(r2):
    """The R² that stands for several: that of the mean of y."""
    return float(1 - np.exp(np.mean(unexplained(list(r2)))))


def error_rates(values):
    """What the test is worth: false alarms by design, and how often the reference's own seeds would raise one.

    Each seed is judged by the others at 5% a row; ``observed_at_5_percent`` is the share of rows outside, and should be
    near 0.05. It needs five seeds, one more than the least for a reference.
    """
    found, seeds = limits(values), len(next(iter(values.values())))
    rates = {
        "false_alarm_family": FALSE_ALARM,
        "false_alarm_row": {verdict: rate / len(found) for verdict, rate in FALSE_ALARM.items()},
        "rows": len(found),
        "seeds": seeds,
        "power": POWER,
        "observed_at_5_percent": None,
    }
    if seeds > MIN_SEEDS:
        outside = []
        for left in range(seeds):
            others = {name: [one for i, one in enumerate(r2) if i != left] for name, r2 in values.items()}
            for name, one in limits(others).items():
                if name in values:
                    reach = one["scale"] * np.sqrt(1 + 1 / (seeds - 1)) * special.stdtrit(one["degrees"], 0.975)
                    outside.append(abs(unexplained(values[name][left]) - one["center"]) > reach)
        rates["observed_at_5_percent"] = float(np.mean(outside))
    return rates


def moderate(variances, degrees):
    """Variances shrunk towards one another, ``(N,)``, and their degrees of freedom (Smyth 2004, section 6.2)."""
    positive = np.maximum(variances, 1e-300)
    e = np.log(positive) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = e.var(ddof=1) - special.polygamma(1, degrees / 2) if len(e) > 1 else np.inf
    if excess <= 1e-6:  # no more scatter than sampling gives: one variance for all
        return np.full(len(e), np.exp(e.mean())), degrees * len(e)
    half = optimize.brentq(lambda x: special.polygamma(1, x) - min(excess, 1e6), 1e-4, 1e7)
    prior, prior_variance = 2 * half, np.exp(e.mean() + special.digamma(half) - np.log(half))
    return (prior * prior_variance + degrees * variances) / (prior + degrees), prior + degrees


def split(name):
    """metric, suite, case, parameter of an id; a case may hold points, as kmax_1.5 does."""
    metric, suite, rest = name.split(".", 2)
    case, _, parameter = rest.rpartition(".")
    return metric, suite, case, parameter


def _r2(center, reach):
    return float(1 - np.exp(center + reach)), float(1 - np.exp(center - reach))
