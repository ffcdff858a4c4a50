"""The pipeline's own reference: R² of networks that differ in the seed of their training alone, and what follows.

A run on another machine repeats the same draws, but rounds differently, and is soon on another training trajectory: it
is one more draw from the spread over training seeds at fixed maps. R² is compared as y = ln(1 - R²), the logarithm of
what the network leaves unexplained, in which that spread is about as wide for good networks as for middling ones. The
limits are those of a two-sided t prediction interval with the moderated variance of Smyth (2004), doi
10.2202/1544-6115.1027, which borrows strength from the other rows: four seeds alone leave three degrees of freedom.
To each variance that of a negligible spread is added first, as do Tusher et al. (2001), doi 10.1073/pnas.091062498:
networks may agree to a thousandth, by chance or because they saw nothing, and a twentieth is no difference.

Now and then a training goes badly, and a normal y does not know such networks. How heavy the tails are, the reference
itself tells: each seed is set beside the others, and Student's t fitted to how far away it lies. The fewest degrees of
freedom that fit are those of the limits, if they are fewer than the theory's.
"""

import numpy as np
from scipy import optimize, special, stats

FALSE_ALARM = {"WARN": 0.05, "FAIL": 0.01}  # of a whole run that repeats the reference, over all of its rows
POWER = 0.8
MIN_SEEDS = 4
FLOOR = 1e-12  # of 1 - R²
NEGLIGIBLE = 0.05  # of y: spread that every row has at least, of what is left unexplained
TAIL_DEGREES = (1.0, 1000.0)  # between which they are looked for


def unexplained(r2):
    return np.log(np.maximum(1 - np.asarray(r2, dtype=float), FLOOR))


def limits(values):
    """Row → the (low, high) outside of which a run is at WARN or FAIL, and what it ``detects``.

    ``values`` maps ``r2.<suite>.<case>.<parameter>`` to the R² of K >= 4 seeds. Their rows have mean and std of R², and
    center and standard error of the prediction of ln(1 - R²) of a further run; their limits are R². Of each suite and
    parameter with more than one case, a row ``shift.<suite>.all.<parameter>`` is added, with the ``rows`` that it is
    of: how far more than half of them moved the same way, in standard errors, upwards if they explain less. One network
    that trained badly does not move it, so that it sees a small shift that all networks share. Its limits are those of
    the r-th largest of independent draws (Wilkinson 1951, doi 10.1037/h0059111). ``detects`` is what a run must fall
    or rise to, to FAIL with probability 0.8.
    """
    sizes = {len(one) for one in values.values()}
    if not values or len(sizes) > 1 or min(sizes) < MIN_SEEDS:
        raise ValueError(f"expected rows with as many seeds each, and at least {MIN_SEEDS}, got {sorted(sizes)}")
    if broken := sorted(name for name, one in values.items() if not np.isfinite(one).all()):
        raise ValueError(f"expected finite R² of every seed, got {values[broken[0]]} for {broken[0]}")
    y = {name: unexplained(one) for name, one in values.items()}
    found, degrees = _predictions(y)
    degrees, groups = min(degrees, tail_degrees(y)), _groups(y)
    count = len(y) + len(groups)

    def away(more, of):  # in standard errors
        far = {verdict: _reach(degrees, more, of, rate / count / 2) for verdict, rate in FALSE_ALARM.items()}
        return far | {"detects": far["FAIL"] - _reach(degrees, more, of, POWER)}

    far = away(1, 1)
    for name, one in found.items():
        one["mean"], one["std"] = float(np.mean(values[name])), float(np.std(values[name], ddof=1))
        for key, reach in far.items():
            one[key] = tuple(float(1 - np.exp(one["center"] + sign * reach * one["error"])) for sign in (1, -1))
    for name, rows in groups.items():
        far = away(len(rows) // 2 + 1, len(rows))
        found[name] = {"rows": rows} | {key: (-reach, reach) for key, reach in far.items()}
    return found


def _reach(degrees, more, of, probability):
    """What at least ``more`` of ``of`` independent draws of a t exceed with ``probability``."""
    return float(special.stdtrit(degrees, 1 - special.betaincinv(more, of - more + 1, probability)))


def shifts(found, r2):
    """The rows ``shift`` of ``found``, of ``limits``, for the ``r2`` of a run that has every row that they are of."""
    moved = {}
    for name, one in found.items():
        if "rows" in one and r2.keys() >= set(one["rows"]):
            y = {row: unexplained(r2[row]) for row in one["rows"]}
            away = sorted((y[row] - found[row]["center"]) / found[row]["error"] for row in y)
            up, down = away[(len(away) - 1) // 2], away[len(away) // 2]  # more than half are at least as far
            moved[name] = float(max(up, 0) or min(down, 0))
    return moved


def tail_degrees(y):
    """The fewest degrees of freedom of a t that can be how far each seed of ``y`` lies from the others, at 95%.

    Below the maximum of the likelihood, as Lange, Little and Taylor (1989), doi 10.1080/01621459.1989.10478852, have
    it, because an estimate that is too high by chance fails honest runs. The distances in a row, and in the rows of one
    network, go together; here they count as if they did not.
    """
    away = np.array([distance for left in _left_out(y) for distance in left.values()])
    cost = lambda log: -stats.t.logpdf(away, np.exp(log)).sum()  # noqa: E731
    low, high = np.log(TAIL_DEGREES)
    best = optimize.minimize_scalar(cost, bounds=(low, high), method="bounded")
    excess = lambda log: cost(log) - best.fun - special.chdtri(1, 0.1) / 2  # noqa: E731
    return float(np.exp(optimize.brentq(excess, low, best.x) if excess(low) > 0 else low))


def _left_out(y):
    """For each seed in turn, row → its distance from what the others predict, in standard errors."""
    for left in range(len(next(iter(y.values())))):
        others, _ = _predictions({name: np.delete(one, left) for name, one in y.items()})
        yield {name: (one[left] - others[name]["center"]) / others[name]["error"] for name, one in y.items()}


def _predictions(y):
    """Row → center and standard error of the prediction for a further run, and the degrees of freedom of all."""
    seeds = len(next(iter(y.values())))
    variances, degrees = moderate(np.array([one.var(ddof=1) + NEGLIGIBLE**2 for one in y.values()]), seeds - 1)
    errors = np.sqrt(variances * (1 + 1 / seeds))
    found = {name: {"center": y[name].mean(), "error": error} for name, error in zip(y, errors, strict=True)}
    return found, degrees


def judge(found, r2):
    """PASS, WARN or FAIL of the ``r2`` of a run beside one row of ``limits``."""
    beyond = (verdict for verdict in ("FAIL", "WARN") if not found[verdict][0] <= r2 <= found[verdict][1])
    return next(beyond, "PASS")


def _groups(names):
    """Row of a shift → rows that it is of, for each suite and parameter with more than one case."""
    found = {}
    for name in names:
        _, suite, _, parameter = split(name)
        found.setdefault(f"shift.{suite}.all.{parameter}", []).append(name)
    return {name: rows for name, rows in found.items() if len(rows) > 1}


def error_rates(values):
    """What the test is worth: false alarms by design, and what each seed of the reference would raise, if left out.

    ``left_out`` counts, for a run that is one seed judged by the others: rows at WARN and at FAIL, of how many; and
    runs with a FAIL. It needs five seeds, one more than the least for a reference.
    """
    found, seeds = limits(values), len(next(iter(values.values())))
    rates = {
        "false_alarm_family": FALSE_ALARM,
        "false_alarm_row": {verdict: rate / len(found) for verdict, rate in FALSE_ALARM.items()},
        "rows": len(found),
        "seeds": seeds,
        "power": POWER,
        "left_out": None,
    }
    if seeds > MIN_SEEDS:
        runs = []
        for left in range(seeds):
            others = limits({name: np.delete(one, left) for name, one in values.items()})
            run = {name: one[left] for name, one in values.items()}
            runs.append([judge(others[name], got) for name, got in (run | shifts(others, run)).items()])
        rates["left_out"] = {
            "rows": sum(map(len, runs)),
            **{verdict: sum(run.count(verdict) for run in runs) for verdict in FALSE_ALARM},
            "runs_with_a_FAIL": sum("FAIL" in run for run in runs),
        }
    return rates


def moderate(variances, degrees):
    """Variances shrunk towards one another, ``(N,)``, and their degrees of freedom (Smyth 2004, section 6.2)."""
    e = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
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
