"""Attributions against the density of the cosmic web."""

import numpy as np

EDGES = np.logspace(-1.5, 2.5, 17)  # overdensity rho / mean rho; the outermost bins are open
RESAMPLES = 1000


def density_profile(attribution, overdensity, simulation, *, generator, edges=EDGES):
    """|attribution| in bins of overdensity, with 95% intervals from a bootstrap over simulations.

    ``attribution`` and ``overdensity`` (rho / cosmic mean of the unscaled map) are ``(M, n, n)``, ``simulation`` is
    ``(M,)``. Returns centres ``(B,)``, area ``(B,)`` (fraction of pixels) and, as (value, low, high): per_pixel
    ``(B,)`` (mean |attribution| over the mean of all pixels), total ``(B,)`` (share of the summed |attribution|), and,
    divided at the cosmic mean, ratio (per pixel, overdense : underdense), underdense_share (of the total) and
    underdense_area.
    """
    counts, sums = _binned_sums(np.abs(attribution), overdensity, simulation, edges)  # (S, B) each
    side_counts, side_sums = _binned_sums(np.abs(attribution), overdensity, simulation, np.array([0, 1, np.inf]))
    n = len(counts)
    weights = np.vstack([np.ones(n), generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)])  # row 0: as observed
    counts, sums, side_counts, side_sums = (weights @ array for array in (counts, sums, side_counts, side_sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums.sum(1, keepdims=True) / counts.sum(1, keepdims=True)
        side_mean = side_sums / side_counts
        return {
            "centres": np.sqrt(edges[:-1] * edges[1:]),
            "area": counts[0] / counts[0].sum(),
            "per_pixel": _interval(sums / counts / mean),
            "total": _interval(sums / sums.sum(1, keepdims=True)),
            "ratio": _interval(side_mean[:, 1] / side_mean[:, 0]),
            "underdense_share": _interval(side_sums[:, 0] / side_sums.sum(1)),
            "underdense_area": _interval(side_counts[:, 0] / side_counts.sum(1)),
        }


def _binned_sums(values, overdensity, simulation, edges):
    _, group = np.unique(simulation, return_inverse=True)
    index = np.clip(np.searchsorted(edges, overdensity, side="right") - 1, 0, len(edges) - 2)
    flat = (group[:, None, None] * (len(edges) - 1) + index).reshape(-1)
    shape = (group.max() + 1, len(edges) - 1)
    counts = np.bincount(flat, minlength=np.prod(shape)).reshape(shape)
    sums = np.bincount(flat, weights=values.reshape(-1), minlength=np.prod(shape)).reshape(shape)
    return counts.astype(float), sums


def _interval(samples):
    """(value, low, high) of resampled ``samples``, whose first row is the value itself."""
    empty = np.isnan(samples).all(0)  # no pixel of any map lies in this bin
    low, high = np.nanpercentile(np.where(empty, 0, samples[1:]), [2.5, 97.5], axis=0)
    return tuple(np.where(empty, np.nan, array) for array in (samples[0], low, high))
