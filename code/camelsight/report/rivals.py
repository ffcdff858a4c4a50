"""The network on maps beside the power spectrum: rows, table and numbers of the experiments of stage baseline.

``records`` is experiment → record, of those that were run; ``network`` the metrics of the network on maps.
"""

import numpy as np

from camelsight.ground import cases, theta
from camelsight.report.tables import NOT_AVAILABLE, SYMBOLS, _booktabs, _plus_minus

COLUMNS = ("method", "parameter", "r2", "low", "high", "relative_error")
SCALE_COLUMNS = ("case", "method", "parameter", "r2", "low", "high", "gain", "gain_low", "gain_high")
LABELS = {
    "maps": "CNN", "network": "P(k) network", "mean": "P(k)+mean network", "histogram": "P(k)+PDF network",
    "likelihood": "P(k) MCMC",
}  # fmt: skip
WORDS = {"maps": "Maps", "network": "Network", "mean": "Mean", "histogram": "Histogram", "likelihood": "Likelihood"}


def methods(network, records):
    """method → metrics of what was run, in the order of ``LABELS``; nothing where there are no rivals."""
    found = {"maps": network, **{name: record["metrics"] for name, record in records.items()}}
    return {name: found[name] for name in LABELS if name in found} if records else {}


def rows(network, records, suite):
    """Dicts of ``COLUMNS``, empty where a parameter means nothing in ``suite``."""
    return [
        {"method": LABELS[method], "parameter": name}
        | dict.fromkeys(COLUMNS[2:], "")
        | (
            dict(zip(COLUMNS[2:], (*metrics["r2"][name], metrics["relative_error"][name][0]), strict=True))
            if name in theta.meant(suite)
            else {}
        )
        for method, metrics in methods(network, records).items()
        for name in theta.NAMES
    ]


def latex(network, records, suite):
    """R² with its interval and the mean relative error in per cent, a row a method; as a ``booktabs`` tabular."""
    body = []
    for method, metrics in methods(network, records).items():
        cells = []
        for name in theta.NAMES:
            cells.append(_plus_minus(*metrics["r2"][name], 2) if name in theta.meant(suite) else "--")
            if name in theta.COSMOLOGICAL:
                cells.append(f"{100 * metrics['relative_error'][name][0]:.0f}")
        body.append((LABELS[method].replace("P(k)", "$P(k)$"), *cells))
    header = ["method"]
    for name in theta.NAMES:
        header += [theta.LABELS[name]] + [r"err.\ (\%)"] * (name in theta.COSMOLOGICAL)
    return _booktabs(body, header)


def numbers(network, records, errors=None, scatter=None):
    """The macros that the section quotes, with a dash for what was not run.

    ``errors`` ``(5, K)`` are percentiles of measured / emulated - 1 over simulations, ``scatter`` ``(K,)`` is the
    standard deviation of the log P of a map.
    """
    found = methods(network, records)
    out = {"HasRivals": int(bool(found)), "HasLikelihood": int("likelihood" in records)}
    fitted = [name for name in ("network", "mean", "histogram") if name in records]
    out["HasSpectrumNetworks"] = int(bool(fitted))
    out |= {f"HasRival{WORDS[name]}": int(name in fitted) for name in ("network", "mean", "histogram")}
    for method, word in WORDS.items():
        for name, symbol in SYMBOLS.items():
            metrics = found.get(method)
            out[f"Rival{word}{symbol}"] = f"{metrics['r2'][name][0]:.2f}" if metrics else NOT_AVAILABLE
            error = f"{100 * metrics['relative_error'][name][0]:.0f}" if metrics else NOT_AVAILABLE
            out[f"Rival{word}Error{symbol}"] = error
    names = ("Bins", "Hartlap", "Chi", "Maps", "Tau", "Lengths", "Converged", "MeanError", "Band", "Scatter")
    names += ("MapsEach", "Shown")
    grown = [f"{kind}{symbol}" for symbol in SYMBOLS.values() for kind in ("Growth", "PowerGrowth")]
    out |= {f"Likelihood{name}": NOT_AVAILABLE for name in (*names, *grown)}
    if "likelihood" in records:
        record = records["likelihood"]
        chains = {name: np.array(values) for name, values in record["chains"].items()}
        half = (errors[3] - errors[1]) / 2
        values = (
            record["bins"],
            f"{record['hartlap']:.3f}",
            f"{record['chi2_per_bin']:.2f}",
            record["n_maps"],
            f"{chains['tau'].max():.0f}",
            f"{(chains['steps'] / chains['tau']).min():.0f}",
            int(chains["converged"].sum()),
            f"{100 * chains['mean_error'].max():.1f}",
            f"{100 * np.median(half):.0f}",
            f"{np.median(np.exp(scatter)):.1f}",
            record["n_maps"] // record["n_simulations"],
            record["shown"],
        )
        values += tuple(f"{ratio:.1f}" for name in SYMBOLS for ratio in record["growth"][name])
        out |= {f"Likelihood{name}": value for name, value in zip((*names, *grown), values, strict=True)}
    return out


def scale_rows(found, suite):
    """Dicts of ``SCALE_COLUMNS``; ``found`` is case → method → (metrics, gain).

    The gain is that of the network on maps over the method, parameter → (value, low, high); None for that network.
    """
    return [
        {"case": case, "method": method, "parameter": name}
        | dict(zip(("r2", "low", "high"), metrics["r2"][name], strict=True))
        | dict(zip(("gain", "gain_low", "gain_high"), gain[name] if gain else ("",) * 3, strict=True))
        for case, by_method in found.items()
        for method, (metrics, gain) in by_method.items()
        for name in theta.meant(suite)
    ]


def scale_numbers(rows):
    """Under which k_max the network on maps explains more than each rival, beyond the paired interval; in words."""
    out = {"HasScales": int(bool(rows))}
    for method in ("network", "histogram", "likelihood"):
        for name, symbol in SYMBOLS.items():
            chosen = [row for row in rows if (row["method"], row["parameter"]) == (method, name)]
            better = sorted(_k_max(row["case"]) for row in chosen if row["gain_low"] > 0)
            words = ", ".join("uncut" if np.isinf(k) else f"{k:g}" for k in better) or "none"
            out[f"FieldBeats{WORDS[method]}{symbol}"] = words if rows else NOT_AVAILABLE
    return out


def _k_max(case):
    cut = cases.parse(case).only
    return cut.threshold if cut else np.inf
