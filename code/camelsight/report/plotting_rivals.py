"""The figures of the power spectrum as a rival; like ``plotting``, with whose style they are drawn."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from camelsight.ground import cases, theta
from camelsight.report import plotting
from camelsight.report.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, PAGE, PURPLE, VERMILION
from camelsight.report.rivals import LABELS

METHODS = {
    "maps": (BLUE, "o"), "network": (ORANGE, "s"), "mean": (PURPLE, "v"), "histogram": (GREEN, "^"),
    "likelihood": (VERMILION, "D"),
}  # fmt: skip
UNCUT = 1.6  # times the largest k_max: where uncut maps stand on its axis
LOWEST = -0.6  # of the axis of R²; intervals of parameters that nothing constrains go far below


def _label(method):
    return LABELS[method].replace("P(k)", "$P(k)$")


@plotting._styled
def rivals(methods, suite):
    """R² of every method with its interval (left); predicted against true, one map of each test simulation (right).

    ``methods`` is method → dict of metrics, and truth, mean and sigma ``(N, 6)``.
    """
    names = theta.meant(suite)
    figure = plotting._figure(PAGE, 3.0)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))
    axes = left.subplots()
    for position, (method, arrays) in enumerate(methods.items()):
        colour, marker = METHODS[method]
        value, low, high = np.array([arrays["metrics"]["r2"][name] for name in names]).T
        x = np.arange(len(names)) + 0.15 * (position - (len(methods) - 1) / 2)
        style = {"fmt": marker, "color": colour, "elinewidth": 0.8, "capsize": 1.5}
        plotting._intervals(axes, x, value, low, high, **style, label=_label(method))
    axes.axhline(0, color=GREY, lw=0.6, ls=":")
    axes.set(ylabel="$R^2$", ylim=(LOWEST, 1.05), xlim=(-0.6, len(names) - 0.4))
    axes.set_xticks(range(len(names)), [theta.LABELS[name] for name in names])
    left.legend(loc="outside upper center", ncols=2)
    grid = right.subplots(len(theta.COSMOLOGICAL), len(methods), sharex="row", sharey="row", squeeze=False)
    limits = np.stack(theta.ranges(suite), axis=1)
    for row, name in zip(grid, theta.COSMOLOGICAL, strict=True):
        column = theta.NAMES.index(name)
        for panel, (method, arrays) in zip(row, methods.items(), strict=True):
            colour, marker = METHODS[method]
            truth, mean, sigma = (arrays[key][:, column] for key in ("truth", "mean", "sigma"))
            panel.plot(limits[column], limits[column], color=BLACK, lw=0.8)
            panel.errorbar(truth, mean, sigma, fmt=marker, color=colour, markersize=2.5, elinewidth=0.6, alpha=0.75)
            panel.set_xlabel(f"true {theta.LABELS[name]}")
        row[0].set_ylabel(f"predicted {theta.LABELS[name]}")
    for panel, method in zip(grid[0], methods, strict=True):
        panel.set_title(_label(method).replace(" ", "\n", 1))
    return figure


@plotting._styled
def likelihood(k, errors, scatter, contours, points, suite):
    """Errors of the emulator against k (left); contours of the posteriors of some maps, with the network on top.

    ``errors`` ``(5, K)`` are percentiles of measured / emulated - 1 over simulations, ``scatter`` ``(K,)`` the standard
    deviation of the mean log P of as many independent maps. ``contours`` are dicts of x, y, density and levels,
    ``points`` as many of truth, mean and sigma ``(6,)``, the network's.
    """
    figure = plotting._figure(PAGE, 2.4)
    left, *panels = figure.subplots(1, 1 + len(contours), width_ratios=[1.3] + [1] * len(contours))
    for low, high, alpha in ((0, 4, 0.2), (1, 3, 0.35)):
        left.fill_between(k, 100 * errors[low], 100 * errors[high], color=BLUE, alpha=alpha, lw=0)
    left.plot(k, 100 * errors[2], color=BLUE)
    for sign in (-1, 1):
        left.plot(k, 100 * np.expm1(sign * scatter), color=BLACK, lw=0.8, ls=":")
    left.axhline(0, color=GREY, lw=0.6, ls=":")
    left.set(xscale="log", xlim=(k[0], k[-1]), xlabel=r"$k$  $(h/{\rm Mpc})$", ylabel="measured / emulated − 1 (%)")
    plotting._one_two_five(left.xaxis, (k[0], k[-1]))
    low, high = theta.ranges(suite)
    for position, (axes, contour, point) in enumerate(zip(panels, contours, points, strict=True)):
        inner, outer = sorted(contour["levels"], reverse=True)
        surface = [contour[key] for key in ("x", "y", "density")]
        axes.contourf(*surface, [outer, inner, np.inf], colors=[(VERMILION, 0.25), (VERMILION, 0.5)])
        axes.contour(*surface, [outer, inner], colors=[VERMILION], linewidths=0.7)
        (x, y), (dx, dy) = point["mean"][:2], point["sigma"][:2]
        axes.errorbar(x, y, dy, dx, fmt=METHODS["maps"][1], color=BLUE, markersize=3.5, capsize=1.5)
        axes.plot(*point["truth"][:2], marker="*", color=BLACK, markersize=8, ls="none")
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=theta.LABELS["omega_m"])
        axes.set_box_aspect(1)
        if position:
            axes.tick_params(labelleft=False)
    if panels:
        panels[0].set_ylabel(theta.LABELS["sigma_8"])
    handles = [
        Patch(facecolor=(BLUE, 0.35), label="68% and 95% of simulations"),
        Line2D([], [], color=BLACK, lw=0.8, ls=":", label="independent maps"),
        Patch(facecolor=(VERMILION, 0.5), label="$P(k)$ MCMC, 68% and 95%"),
        Line2D([], [], color=BLUE, marker="o", label=r"CNN, mean $\pm\sigma$"),
        Line2D([], [], color=BLACK, marker="*", ls="none", markersize=7, label="truth"),
    ]
    plotting._legend(figure, handles)
    return figure


@plotting._styled
def scales(rows):
    """R² against k_max in h/Mpc by every method, with intervals; ``rows`` are those of ``rivals.scale_rows``.

    The uncut maps stand to the right of the largest k_max.
    """
    figure = plotting._figure(PAGE, 2.5)
    panels = figure.subplots(1, len(theta.COSMOLOGICAL), sharex=True, sharey=True)
    cutoffs = {row["case"]: cut.threshold for row in rows if (cut := cases.parse(row["case"]).only)}
    cutoffs["original"] = UNCUT * max(cutoffs.values(), default=1)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for axes, name in zip(panels, theta.COSMOLOGICAL, strict=True):
        for position, method in enumerate(methods):
            colour, marker = METHODS[method]
            chosen = [row for row in rows if (row["method"], row["parameter"]) == (method, name)]
            chosen.sort(key=lambda row: cutoffs[row["case"]])
            apart = 1.025 ** (position - (len(methods) - 1) / 2)
            x = apart * np.array([cutoffs[row["case"]] for row in chosen])
            triple = (np.array([row[key] for row in chosen]) for key in ("r2", "low", "high"))
            style = {"fmt": marker, "ls": "-" if method == "maps" else "--", "color": colour, "elinewidth": 0.8}
            plotting._intervals(axes, x, *triple, **style, label=_label(method))
        axes.axhline(0, color=GREY, lw=0.6, ls=":")
        axes.set(xscale="log", title=theta.LABELS[name], xlabel=r"$k_{\rm max}$  $(h/{\rm Mpc})$", ylim=(LOWEST, 1.05))
    ticks = {cutoffs[case]: "uncut" if case == "original" else f"{cutoffs[case]:g}" for case in cutoffs}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    panels[0].set_ylabel("$R^2$")
    plotting._legend(figure, axes.get_legend_handles_labels()[0])
    return figure
