"""The figures of the experiments on robustness; like ``plotting``, with whose style they are drawn."""

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D

from camelsight.ground import theta
from camelsight.report import plotting
from camelsight.report.plotting import BLACK, BLUE, DENSITY_MAP, DENSITY_UNIT, GREY, NEGATIVE, PAGE, SUITES, VERMILION
from camelsight.report.tables import suite_label

COLOURS = {"omega_m": (BLUE, "o", "-"), "sigma_8": (VERMILION, "s", "--")}


@plotting._styled
def transfer(suites, predictions, name):
    """What each network says minus the truth: a row per training suite, a column per tested one.

    ``predictions`` is a dict of (train, test) → dict of truth, mean and sigma, ``(N, 6)`` in physical units.
    """
    column, n = theta.NAMES.index(name), len(suites)
    figure = plotting._figure(PAGE, 1.35 * n + 0.5)
    grid = figure.subplots(n, n, sharex=True, sharey=True, squeeze=False)
    label = theta.LABELS[name]
    for i, train in enumerate(suites):
        for j, test in enumerate(suites):
            axes, (colour, marker) = grid[i, j], SUITES[test]
            truth, mean, sigma = (predictions[train, test][key][:, column] for key in ("truth", "mean", "sigma"))
            axes.axhline(0, color=BLACK, lw=0.8)
            style = {"fmt": marker, "color": colour, "markersize": 2.5, "elinewidth": 0.6, "alpha": 0.8}
            axes.errorbar(truth, mean - truth, sigma, **style)
        grid[i, 0].set_ylabel(f"trained on\n{suite_label(train)}\npredicted − true")
    for axes, test in zip(grid[0], suites, strict=True):
        axes.set_title(f"tested on {suite_label(test)}")
    for axes in grid[-1]:
        axes.set_xlabel(f"true {label}")
    values = [one["mean"][:, column] - one["truth"][:, column] for one in predictions.values()]
    reach = np.percentile(np.abs(np.concatenate(values)), 98) * 1.5
    grid[0, 0].set_ylim(-reach, reach)
    return figure


@plotting._styled
def crossed(pairs):
    """Predicted against true for networks asked about what they have not learned; ``pairs`` as in ``transfer``.

    A row per parameter, a column per pair; dashed: the best line.
    """
    figure = plotting._figure(0.72 * PAGE, 4.4)
    grid = figure.subplots(len(theta.COSMOLOGICAL), len(pairs), squeeze=False, sharey="row")
    for axes, (train, test) in zip(grid[0], pairs, strict=True):
        axes.set_title(f"trained on {suite_label(train)},\ntested on {suite_label(test)}")
    for row, name in zip(grid, theta.COSMOLOGICAL, strict=True):
        column = theta.NAMES.index(name)
        for axes, ((_, test), arrays) in zip(row, pairs.items(), strict=True):
            truth, mean, sigma = (arrays[key][:, column] for key in ("truth", "mean", "sigma"))
            colour, marker = SUITES[test]
            ends = np.array([truth.min(), truth.max()])
            axes.plot(ends, ends, color=BLACK, lw=0.8)
            axes.errorbar(truth, mean, sigma, fmt=marker, color=colour, markersize=3, elinewidth=0.6, alpha=0.75)
            axes.plot(ends, np.polyval(np.polyfit(truth, mean, 1), ends), color=GREY, ls="--")
            axes.set_xlabel(f"true {theta.LABELS[name]}")
        row[0].set_ylabel(f"predicted {theta.LABELS[name]}")
    return figure


@plotting._styled
def smoothing(rows):
    """Mean relative error against the width of the smoothing, with intervals; ``rows`` have width and metrics."""
    figure = plotting._figure(0.5 * PAGE, 2.3)
    axes = figure.subplots()
    widths = [row["width"] for row in rows]
    for name in theta.COSMOLOGICAL:
        colour, marker, line = COLOURS[name]
        values = 100 * np.array([row["metrics"]["relative_error"][name] for row in rows])
        style = {"color": colour, "marker": marker, "ls": line, "elinewidth": 0.8, "capsize": 1.5}
        plotting._intervals(axes, widths, *values.T, **style, label=theta.LABELS[name])
    axes.set(xlabel="smoothing (pixels)", ylabel="mean relative error (%)", xticks=widths)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


@plotting._styled
def probes(panels):
    """One map as each probe shows it to the network; ``panels`` is a dict of probe → ``(n, n)`` density."""
    figure = plotting._figure(PAGE, 1.4)
    grid = figure.subplots(1, len(panels))
    norm = plotting._density_norm(panels["none"])
    colours = mpl.colormaps[DENSITY_MAP].with_extremes(bad=NEGATIVE)
    for axes, (name, density) in zip(grid, panels.items(), strict=True):
        image = plotting._image(axes, np.ma.masked_less_equal(density, 0), norm, colours)
        axes.set_title("as it is" if name == "none" else name)
    figure.colorbar(image, ax=grid, label=DENSITY_UNIT, aspect=15, pad=0.01, shrink=0.9)
    return figure


@plotting._styled
def generalisation(studies, curves):
    """R² of each setting with its interval (left), and the learning curves (right).

    ``studies`` is a dict of study → setting → metrics, ``curves`` a list of rows with simulations, maps and metrics;
    either may be empty.
    """
    lines = [(study, setting, metrics) for study, by in studies.items() for setting, metrics in by.items()]
    figure = plotting._figure(PAGE, max(2.4, 0.19 * len(lines) + 0.9))
    widths = [3] * bool(lines) + [2] * bool(curves)
    panels = list(figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0])
    if lines:
        _settings(panels.pop(0), lines, [len(by) for by in studies.values()])
    if curves:
        _learning_curves(panels.pop(0), curves)
    handles = [
        Line2D([], [], color=COLOURS[name][0], marker=COLOURS[name][1], ls="none", label=theta.LABELS[name])
        for name in theta.COSMOLOGICAL
    ]
    if curves:
        handles += [Line2D([], [], color=BLACK, ls="-", label="more simulations, as many maps")]
        handles += [Line2D([], [], color=BLACK, ls=":", label="more maps, as many simulations")]
    plotting._legend(figure, handles)
    return figure


def _settings(axes, lines, sizes):
    shown, points = [], []
    for name, shift in zip(theta.COSMOLOGICAL, (-0.15, 0.15), strict=True):
        colour, marker, _ = COLOURS[name]
        for position, (_, _, metrics) in enumerate(lines):
            value, low, high = metrics["r2"][name]
            shown += [low] if value > -1 else []
            axes.plot([low, high], [position + shift] * 2, color=colour, lw=0.8)
            points.append(axes.plot(value, position + shift, color=colour, marker=marker, ls="none")[0])
    for start in np.cumsum(sizes)[:-1]:
        axes.axhline(start - 0.5, color=GREY, lw=0.5)
    axes.set_yticks(range(len(lines)), [setting for _, setting, _ in lines])
    axes.set(ylim=(len(lines) - 0.5, -0.5), xlabel="$R^2$")
    if shown:  # where all is far below zero, as in tests, nothing would be left
        edge = max(-1.0, min(shown)) - 0.03
        axes.set_xlim(edge, 1.01)
        for point in points:
            if point.get_xdata()[0] < edge:
                point.set(xdata=[edge], clip_on=False)


def _learning_curves(axes, curves):
    most = max(row["simulations"] for row in curves)
    by_maps = sorted((row for row in curves if row["simulations"] == most), key=lambda row: row["maps"])
    fewer = sorted((row for row in curves if row["simulations"] < most), key=lambda row: row["simulations"])
    for rows, of, line in ((fewer + by_maps[:1], "simulations", "-"), (by_maps, "maps", ":")):
        counts = np.array([row[of] for row in rows])
        for name in theta.COSMOLOGICAL:
            colour, marker, _ = COLOURS[name]
            values = np.array([row["metrics"]["r2"][name] for row in rows])
            apart = 1.04 if of == "maps" else 1 / 1.04
            style = {"color": colour, "marker": marker, "ls": line, "elinewidth": 0.8, "capsize": 1.5}
            plotting._intervals(axes, apart * counts / counts[0], *values.T, **style)
    axes.set(xscale="log", xlabel="times as many", ylabel="$R^2$")
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
