"""Figures of the searches for hyperparameters."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from camelsight.report import plotting
from camelsight.report.plotting import BLACK, BLUE, GREY, PAGE, SUITES, VERMILION

SEARCHES = {"full": (BLUE, "-", "full trials"), "halving": (VERMILION, "--", "successive halving")}
HYPERPARAMETERS = {"max_lr": "learning rate", "weight_decay": "weight decay", "dropout": "dropout", "hidden": "width"}


@plotting._styled
def tuning(studies):
    """How far each trial stayed above the best one of its study, and which hyperparameters mattered.

    ``studies`` is a dict of suite → list of records with ``trials`` (dicts of number, state and losses) and
    ``importances`` (hyperparameter → share, or nothing). Without any trial, the figure says so.
    """
    studies = {suite: [one for one in records if one["trials"]] for suite, records in studies.items()}
    if not any(studies.values()):
        return plotting.message("no hyperparameters were searched in this run")
    figure = plotting._figure(PAGE, 2.4)
    history, shares = figure.subplots(1, 2)
    for offset, (suite, records) in zip(np.linspace(-0.15, 0.15, len(studies)), studies.items(), strict=True):
        colour, marker = SUITES[suite]
        for state, face in (("complete", colour), ("pruned", "none")):
            points = np.array([point for one in records for point in _above_best(one, state)]).reshape(-1, 2)
            history.plot(points[:, 0] + 1 + offset, points[:, 1], marker, color=colour, mfc=face, ms=3.5, mew=0.7)
        known = [one["importances"] for one in records if one["importances"]]
        for position, name in enumerate(HYPERPARAMETERS):
            values = [100 * one[name] for one in known if name in one]
            place = position + 1.5 * offset
            shares.plot(np.full(len(values), place), values, marker, color=colour, mfc="none", ms=3, mew=0.6, alpha=0.6)
            if values:
                shares.plot([place - 0.1, place + 0.1], [np.mean(values)] * 2, color=colour, lw=2.5)
    history.set(xlabel="trial", ylabel="validation loss above the best", yscale="symlog")
    history.xaxis.get_major_locator().set_params(integer=True)
    history.yaxis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20]))
    history.yaxis.set_major_formatter("{x:g}")
    history.axhline(0, color=GREY, lw=0.6)
    shares.set(ylabel="importance (per cent)", ylim=(-3, 103), xticks=range(len(HYPERPARAMETERS)))
    shares.set_xticklabels(HYPERPARAMETERS.values())
    shares.xaxis.set_minor_locator(NullLocator())
    stopped = Line2D([], [], marker="o", color=BLACK, mfc="none", ls="", label="stopped early")
    plotting._legend(figure, [*plotting._suite_handles(studies, ls=""), stopped])
    return figure


def _above_best(study, state):
    """[(number, loss - the lowest of the trials that were not stopped), ...] of the trials in ``state``."""
    best = {trial["number"]: min(trial["losses"]) for trial in study["trials"] if trial["losses"]}
    lowest = min(best[trial["number"]] for trial in study["trials"] if trial["state"] == "complete")
    return [
        (trial["number"], best[trial["number"]] - lowest)
        for trial in study["trials"]
        if trial["state"] == state and trial["number"] in best
    ]


@plotting._styled
def tuning_epochs(searches):
    """Best validation loss against epochs trained, one line a search; the band is the spread of the full ones' ends.

    ``searches`` are dicts of kind (a key of ``SEARCHES``), epochs (all that were trained) and best: [[epochs, loss],
    ...], where the best loss fell.
    """
    figure = plotting._figure(PAGE, 2.6)
    axes = figure.subplots()
    for search in searches:
        if search["best"]:
            colour, line, label = SEARCHES[search["kind"]]
            epochs, losses = np.array([*search["best"], [search["epochs"], search["best"][-1][1]]]).T
            axes.step(epochs, losses, where="post", color=colour, ls=line, label=label)
            axes.plot(epochs[-1], losses[-1], "o", color=colour)
    ends = [search["best"][-1][1] for search in searches if search["kind"] == "full" and search["best"]]
    if ends:
        axes.axhspan(min(ends), max(ends), color=SEARCHES["full"][0], alpha=0.15, lw=0)
    reached = [search["best"][-1][1] for search in searches if search["best"]]
    axes.set(xscale="log", xlabel="epochs trained", ylabel="best validation loss")
    if reached:
        axes.set_ylim(min(reached) - 0.2, max(reached) + 3)
    unique = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(unique.values(), unique.keys(), loc="upper right")
    return figure
