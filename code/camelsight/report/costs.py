"""Which cuts cost something: what R² loses by a cut, paired over simulations and over seeds of the training.

The loss of one pair of networks, uncut and cut, has two uncertainties. Which simulations were tested: a bootstrap on
the same maps for both. Which networks came out: several seeds, of the profile's reference or of ``repeats``, of which
each has both networks. Where there are some, the cost is the mean over them, and its interval joins both in quadrature:
the bootstrap of the pair at hand, and Student's interval of that mean. Elsewhere it is the loss of the pair at hand.
"""

import numpy as np
from scipy import special

from camelsight.ground import cases, theta
from camelsight.report.tables import NOT_AVAILABLE, SYMBOLS, _booktabs, _grouped, suite_label, with_interval

COLUMNS = ("suite", "case", "parameter", "loss", "loss_low", "loss_high", "seeds", "cost", "low", "high", "resolved")
WORDS = ("not resolved", "resolved")


def cost(loss, uncut=(), cut=()):
    """(cost, low, high) at 95%, and whether it excludes zero, which an interval without a width says of nothing.

    ``loss`` is (value, low, high) over simulations; ``uncut`` and ``cut`` are the R² of the same seeds, or nothing.
    """
    value, low, high = loss
    if len(uncut) > 1:
        each = np.subtract(uncut, cut)
        error = special.stdtrit(len(each) - 1, 0.975) * each.std(ddof=1) / np.sqrt(len(each))
        low, high = each.mean() - np.hypot(value - low, error), each.mean() + np.hypot(high - value, error)
        value = each.mean()
    return (float(value), float(low), float(high)), bool(low < high and (low > 0 or high < 0))


def rows(losses, seeds):
    """Dicts of ``COLUMNS``; ``losses`` is (suite, case) → parameter → (value, low, high), uncut minus cut.

    ``seeds`` maps ``r2.suite.case.parameter`` to the R² of several seeds; what it lacks has none.
    """
    found = []
    for (suite, case), by_parameter in losses.items():
        for name in theta.COSMOLOGICAL:
            uncut, cut = (seeds.get(f"r2.{suite}.{one}.{name}", ()) for one in ("original", case))
            several = len(uncut) if len(uncut) == len(cut) else 0
            triple, resolved = cost(by_parameter[name], uncut, cut) if several else cost(by_parameter[name])
            found.append(
                {"suite": suite, "case": case, "parameter": name, "seeds": several, "resolved": int(resolved)}
                | dict(zip(("loss", "loss_low", "loss_high"), by_parameter[name], strict=True))
                | dict(zip(("cost", "low", "high"), triple, strict=True))
            )
    return found


def latex(found):
    """A row a suite and case: the cost by parameter, and beside a mean over seeds the loss of this run.

    What is resolved stands in bold.
    """
    body, by_place = [], {}
    several = any(row["seeds"] for row in found)
    for row in found:
        by_place.setdefault((row["suite"], row["case"]), {})[row["parameter"]] = row
    for (suite, case), by_parameter in by_place.items():
        cells = []
        for name in theta.COSMOLOGICAL:
            row = by_parameter[name]
            cells += [_interval(row, "loss", "loss_low", "loss_high")] * several
            cells.append(_interval(row, "cost", "low", "high"))
            cells.append(r"\textbf{yes}" if row["resolved"] else "no")
        body.append((suite_label(suite), cases.parse(case).label, *cells))
    header = ["suite", "case"]
    for name in theta.COSMOLOGICAL:
        header += [f"{theta.LABELS[name]}: this run"] * several + [f"{theta.LABELS[name]}: cost", "resolved"]
    return _booktabs(_grouped(body), header)


def _interval(row, value, low, high):
    return f"${row[value]:+.3f}$ $[{row[low]:+.3f},{row[high]:+.3f}]$"


def numbers(found, suite, case_ids):
    """The macros that the text quotes of ``suite``: how far cuts cost nothing that is seen, and what the next costs."""
    seeds = {row["seeds"] for row in found} or {0}
    out = {"CostSeeds": max(seeds), "HasCostSeeds": int(min(seeds) > 1)}
    of_suite = [row for row in found if row["suite"] == suite]
    for name, symbol in SYMBOLS.items():
        chosen = {row["case"]: row for row in of_suite if row["parameter"] == name}
        out |= _scales(symbol, [chosen[case] for case in cases.single(case_ids, "kmax") if case in chosen])
        densities = [chosen[case] for case in cases.single(chosen, *cases.DENSITY)]
        costly = list(filter(_is_costly, densities))
        out |= {f"DensityCuts{symbol}": len(densities), f"DensityCostly{symbol}": len(costly)}
        worst = max(costly, key=lambda row: row["cost"], default=None)
        out |= {
            f"HasDensityCost{symbol}": int(worst is not None),
            f"DensityWorst{symbol}": (worst or {}).get("case", NOT_AVAILABLE),
        }
        out |= _triple(f"DensityCost{symbol}", worst)
        both = chosen.get(next(iter(together(case_ids)), None))
        out |= {"HasBoth": int(both is not None), "BothCase": both["case"] if both else NOT_AVAILABLE}
        out |= {f"BothResolved{symbol}": WORDS[both["resolved"]] if both else NOT_AVAILABLE}
        out |= _triple(f"BothCost{symbol}", both)
    return out


def together(case_ids):
    """The cases in which scales and densities are cut at once."""
    kinds = {case: {cut.kind for cut in cases.parse(case).cuts} for case in case_ids}
    return [case for case, found in kinds.items() if "kmax" in found and found & set(cases.DENSITY)]


def _scales(symbol, rows):
    """Down to which k_max no loss is seen, and what the next tighter one costs; either may not be there."""
    free, costly = None, None
    for row in sorted(rows, key=lambda row: -cases.parse(row["case"]).only.threshold):
        if _is_costly(row):
            costly = row
            break
        free = row
    out = {f"HasKFree{symbol}": int(free is not None), f"HasKCost{symbol}": int(costly is not None)}
    for word, row in (("KFree", free), ("KCostly", costly)):
        out[f"{word}{symbol}"] = f"{cases.parse(row['case']).only.threshold:g}" if row else NOT_AVAILABLE
    return out | _triple(f"KCost{symbol}", costly)


def _is_costly(row):
    return row["resolved"] and row["cost"] > 0


def _triple(name, row):
    return with_interval(name, [row[key] if row else None for key in ("cost", "low", "high")], 3)
