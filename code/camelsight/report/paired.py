"""Differences in R² between predictions of the same maps: what they share, the choice of simulations, drops out."""

import numpy as np

from camelsight.ground import theta
from camelsight.inference import metrics


def difference(first, second, *, generator, resamples):
    """Parameter → (value, low, high) of R²(first) - R²(second), with the central 95% over simulations.

    Both are dicts of index, simulation ``(N,)``, truth and mean ``(N, P)``; ``second`` has each map once, and those of
    ``first`` that it lacks are left out.
    """
    order = np.argsort(second["index"])
    known = second["index"][order]
    place = np.minimum(np.searchsorted(known, first["index"]), len(known) - 1)
    both = known[place] == first["index"]
    if not both.any():
        raise ValueError("expected predictions of the same maps, got none that both have")
    ours = {key: first[key][both] for key in ("truth", "mean", "simulation")}
    theirs = second["mean"][order][place[both]]
    found = metrics.r2_difference(
        ours["truth"], ours["mean"], theirs, ours["simulation"], generator=generator, resamples=resamples
    )
    return {name: values for name, *values in zip(theta.NAMES, *found, strict=True)}
