"""The figure of the calibration; like ``plotting``, with whose style it is drawn."""

import numpy as np
from matplotlib.lines import Line2D

from camelsight.ground import cases, theta
from camelsight.report import plotting
from camelsight.report.calibration import NOMINAL
from camelsight.report.plotting import BLACK, GREY, PAGE, SUITES
from camelsight.report.tables import suite_label

BESIDE = 20  # cases, up to which the two parameters stand side by side
LEVELS = {"coverage_68": "full", "coverage_95": "none"}  # fill of the markers


@plotting._styled
def calibration(pit, rows):
    """Ranks of the truth by parameter (top); coverage and chi-square by case, and on other suites (below).

    ``pit`` and ``rows`` are dicts as ``report.calibration`` has them, with numbers for text.
    """
    suites = list(dict.fromkeys(row["suite"] for row in pit))
    places = list(dict.fromkeys(_place(row) for row in rows))
    wide = len(places) > BESIDE  # so many labels need the width of the page
    figure = plotting._figure(PAGE, 7.0 if wide else 4.8)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 4.6 if wide else 2.7))
    _ranks(top.subplots(1, len(theta.NAMES), sharey=True), pit, suites)
    grid = bottom.subplots(*((4, 1) if wide else (2, 2)), sharex=True, sharey=False if wide else "row").reshape(2, 2)
    for (above, below), name in zip(grid.T, theta.COSMOLOGICAL, strict=True):
        chosen = [row for row in rows if row["parameter"] == name]
        for key, fill in LEVELS.items():
            _points(above, chosen, places, suites, key, fill)
            above.axhline(NOMINAL[key], color=GREY, lw=0.8, ls="--")
        _points(below, chosen, places, suites, "chi2", "full")
        below.axhline(NOMINAL["chi2"], color=GREY, lw=0.8, ls="--")
        above.set(ylim=(-0.03, 1.03), xlim=(-0.7, len(places) - 0.3))
        below.set_yscale("log")
        plotting._one_two_five(below.yaxis, below.get_ylim())
        below.set_xticks(range(len(places)), [_label(*place) for place in places], rotation=90, fontsize=7)
        if wide:
            above.set_ylabel(f"share within,\n{theta.LABELS[name]}")
            below.set_ylabel(rf"$\chi^2$, {theta.LABELS[name]}")
        else:
            above.set_title(theta.LABELS[name])
    if not wide:
        grid[0, 0].set_ylabel("share of maps whose\ntruth lies within")
        grid[1, 0].set_ylabel(r"$\chi^2$")
    fills = [
        Line2D([], [], color=BLACK, marker="o", ls="none", fillstyle=fill, label=f"{100 * NOMINAL[key]:.0f}%")
        for key, fill in LEVELS.items()
    ]
    handles = [
        *plotting._suite_handles(suites),
        *fills,
        Line2D([], [], color=GREY, lw=0.8, ls="--", label="as promised"),
    ]
    plotting._legend(figure, handles)
    return figure


def _ranks(panels, pit, suites):
    for axes, name in zip(panels, theta.NAMES, strict=True):
        for suite in suites:
            chosen = [row for row in pit if row["suite"] == suite and row["parameter"] == name]
            if chosen:
                edges = [row["from"] for row in chosen] + [chosen[-1]["to"]]
                density, low, high = (np.array([row[key] for row in chosen]) for key in ("density", "low", "high"))
                colour, _ = SUITES[suite]
                line = "--" if theta.is_nbody(suite) else "-"
                axes.stairs(density, edges, color=colour, lw=1.0, ls=line, baseline=None)
                axes.fill_between(
                    edges, *(np.append(v, v[-1]) for v in (low, high)), step="post", color=colour, alpha=0.2, lw=0
                )
        axes.axhline(1, color=GREY, lw=0.8, ls="--")
        axes.set(title=theta.LABELS[name], xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    panels[0].set_ylim(0, max(2.0, 1.1 * max(row["density"] for row in pit)))
    panels[0].set_ylabel("density of ranks")
    panels[2].set_xlabel("rank of the truth in the predicted Gaussian", x=1.1)


def _place(row):
    """(case, test suite or None where the network is on its own suite): a place on the axis."""
    return row["case"], None if row["train"] == row["test"] else row["test"]


def _label(case, test):
    return cases.parse(case).label if test is None else f"on {suite_label(test)}"


def _points(axes, rows, places, suites, key, fill):
    for row in rows:
        position = suites.index(row["train"]) if row["train"] in suites else len(suites)
        colour, marker = SUITES[row["train"]]
        x = places.index(_place(row)) + 0.5 * ((position + 0.5) / (len(suites) + 1) - 0.5)
        value, low, high = (row[key + suffix] for suffix in ("", "_low", "_high"))
        if np.isfinite([value, low, high]).all() and value > 0:
            axes.plot([x, x], [max(low, 1e-3), high], color=colour, lw=0.8)
            axes.plot(x, value, marker, color=colour, fillstyle=fill, ms=3, mew=0.7)
