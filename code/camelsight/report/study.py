"""Do the statements on attribution depend on the baseline, and on one network? Tables and numbers of stage sanity."""

import numpy as np

from camelsight.ground import theta
from camelsight.interpretation import sanity
from camelsight.report.tables import METHOD_LABELS, SYMBOLS, _booktabs, listed

METHODS = ("integrated_gradients", "gradient_shap")  # which start from a baseline
MUCH = 0.1  # of the total: the limit of the rows void_share in paper/expected.yaml
KINDS = {"symmetries": "Symmetries", "networks": "Networks"}


def baselines_latex(record):
    """A row a baseline; by parameter and method the mean over maps of the ratio and of the share in per cent.

    ``record`` is baseline → parameter → method → ratio, share and area, a list over maps.
    """
    body, header = [], ["baseline"]
    for name in theta.COSMOLOGICAL:
        for method in METHODS:
            header += [f"{theta.LABELS[name]}, {METHOD_LABELS[method]}: ratio", r"below (\%)"]
    for baseline, by_parameter in record.items():
        cells = []
        for name in theta.COSMOLOGICAL:
            for method in METHODS:
                ratio, share = (np.array(by_parameter[name][method][key], float) for key in ("ratio", "share"))
                cells += [_range(ratio, 2), _range(100 * share, 0)]
        body.append((baseline, *cells))
    return _booktabs(body, header)


def shares_latex(shares):
    """A row a field; by parameter and method its share of the attribution in per cent.

    ``shares`` is parameter → method → field → share on each map.
    """
    columns = [(name, method) for name in theta.COSMOLOGICAL for method in METHOD_LABELS]
    name, method = columns[0]
    names = list(shares[name][method])
    body = [[field, *(_range(100 * shares[name][method][field], 0) for name, method in columns)] for field in names]
    return _booktabs(body, ["field", *(f"{theta.LABELS[name]}, {METHOD_LABELS[method]}" for name, method in columns)])


def _range(values, digits):
    """The mean over maps, and the lowest and the highest of them."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "--"
    mean, low, high = known.mean(), known.min(), known.max()
    return f"${mean:.{digits}f}$ $[{low:.{digits}f},{high:.{digits}f}]$"


def numbers(baselines, averaged):
    """The macros that the text quotes: for which baselines each half of the statement holds, and what averages mend."""
    out = {
        "BaselineCount": len(baselines),
        "BaselineMaps": _maps(baselines),
        "HasNetworks": int("networks" in averaged),
    }
    for name, symbol in SYMBOLS.items():
        for method, word in zip(METHODS, ("IG", "Shap"), strict=True):
            by_baseline = {one: by[name][method] for one, by in baselines.items()}
            dense = [one for one, by in by_baseline.items() if np.nanmean(np.array(by["ratio"], float)) > 1]
            much = [one for one, by in by_baseline.items() if np.mean(by["share"]) > MUCH]
            out[f"DenserFor{word}{symbol}"] = _which(dense, by_baseline)
            out[f"MuchBelowFor{word}{symbol}"] = _which(much, by_baseline)
    return out | {f"Averaged{word}": _outcome(averaged, kind) for kind, word in KINDS.items()}


def _which(some, names):
    """Some of the baselines, as a sentence has them after "from"."""
    if len(some) in (0, len(names)):
        return "every baseline" if some else "no baseline"
    return f"{listed(some)} alone"


def _outcome(averaged, kind):
    """What averages change in the checks, as a sentence has it."""
    gained, lost = mended(averaged, kind), mended(averaged, kind, backwards=True)
    if not gained and not lost:
        return "every check comes out as without"
    passed = f"{len(gained)} of the checks that failed pass{f' ({listed(gained)})' if gained else ''}"
    return f"{passed}, and {len(lost)} of those that passed fail{f' ({listed(lost)})' if lost else ''}"


def _maps(baselines):
    first = next(iter(next(iter(baselines.values())).values()))
    return len(first[METHODS[0]]["ratio"])


def mended(averaged, kind, *, backwards=False):
    """Checks that fail for one network and pass for the average, in words; or the other way round."""
    before, after = ("nothing", kind) if not backwards else (kind, "nothing")
    if kind not in averaged:
        return []
    return [
        f"{check.replace('_', ' ')} of {method.replace('_', ' ')} for {name}"
        for check, by_parameter in averaged[before].items()
        for name, by_method in by_parameter.items()
        for method, value in by_method.items()
        if not sanity.passes(check, value) and sanity.passes(check, averaged[after][check][name][method])
    ]
