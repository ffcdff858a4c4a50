"""Attributions against the cosmic web: density, its classes, scales, and the distance from voids and haloes.

Throughout, ``attribution``, ``overdensity`` (rho / cosmic mean of the uncut, unscaled map) and ``classes`` are
``(M, n, n)``, ``simulation`` is ``(M,)``, lengths are in Mpc/h, and a quantity with an interval is (value, low, high):
the central 95% of a bootstrap over simulations. What is averaged is the magnitude of the attribution.
"""

import numpy as np
from scipy import ndimage

from camelsight.ground import fourier
from camelsight.ground.cmd import BOX
from camelsight.maps import cuts

EDGES = np.logspace(-1.5, 2.5, 17)  # overdensity; the outermost bins are open
RESAMPLES = 1000
CLASSES = ("void", "sheet", "filament", "halo")
THRESHOLDS = (0.5, 1.0, 5.0)  # overdensities that separate the classes
WEB_SMOOTHING = 1.0  # standard deviation of the Gaussian, for the classes by the tidal tensor and for void centres
HALO_SMOOTHING = 0.25
SEPARATION = 2.0  # a centre is the extreme of a square of this side
MAX_RADIUS = 6.0


def density_profile(attribution, overdensity, simulation, *, generator, edges=EDGES):
    """|attribution| in bins of overdensity.

    Returns centres ``(B,)``, area ``(B,)`` (fraction of pixels), area_interval (low, high) and, with intervals,
    per_pixel ``(B,)`` (mean |attribution| over the mean of all pixels), total ``(B,)`` (share of the summed
    |attribution|), and, divided at the cosmic mean, ratio (per pixel, overdense : underdense), underdense_share (of the
    total) and underdense_area.
    """
    profile = _profile(attribution, _bin(overdensity, edges), simulation, len(edges) - 1, generator)
    sides = _profile(attribution, _bin(overdensity, np.array([0, 1, np.inf])), simulation, 2, generator)
    return {
        "centres": np.sqrt(edges[:-1] * edges[1:]),
        "area": profile["area"][0],
        "area_interval": profile["area"][1:],
        "per_pixel": profile["per_pixel"],
        "total": profile["total"],
        "ratio": sides["ratio"],
        "underdense_share": tuple(value[0] for value in sides["total"]),
        "underdense_area": tuple(value[0] for value in sides["area"]),
    }


def class_profile(attribution, classes, simulation, *, generator):
    """|attribution| per class of ``CLASSES``: area, per_pixel and total, with intervals, as in ``density_profile``."""
    profile = _profile(attribution, classes, simulation, len(CLASSES), generator)
    return {name: profile[name] for name in ("area", "per_pixel", "total")}


def density_classes(overdensity):
    """The class of each pixel by overdensity: void below 0.5, sheet below 1, filament below 5, otherwise halo."""
    return np.searchsorted(THRESHOLDS, overdensity, side="right")


def tidal_classes(overdensity):
    """The class of each pixel by the two eigenvalues of the tidal tensor of the smoothed map.

    The tensor is that of the second derivatives of phi, where Laplace phi = delta: its eigenvalues add up to delta, and
    a positive one means collapse along its axis (the T-web of Hahn et al. 2007, arXiv:astro-ph/0610280, in two
    dimensions). None positive: void; both: halo; one: filament where delta is positive, otherwise sheet.
    """
    n = overdensity.shape[-1]
    ky, kx = _wavenumbers(n)
    k2 = ky**2 + kx**2
    delta = np.fft.rfft2(_contrast(_smooth(overdensity, WEB_SMOOTHING)))
    scaled = delta / np.where(k2 == 0, 1, k2)
    yy, xx, xy = (np.fft.irfft2(scaled * product, s=(n, n)) for product in (ky**2, kx**2, kx * ky))
    half, root = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    low, high = half - root, half + root
    return np.select([high <= 0, low > 0, half > 0], [0, 3, 2], default=1)


def compare(first, second):
    """``(4, 4)``: how the pixels of each class of ``first`` (rows) fall into those of ``second``; and the agreement."""
    table = np.bincount((first * len(CLASSES) + second).reshape(-1), minlength=len(CLASSES) ** 2)
    table = table.reshape(len(CLASSES), -1)
    return table / np.maximum(table.sum(1, keepdims=True), 1), np.trace(table) / table.sum()


def cross_power(attribution, overdensity, simulation, *, generator):
    """|attribution| and overdensity in Fourier space, in the shells of ``fourier.shells``.

    Both fields are contrasts: divided by their mean in each map, minus one. Returns k ``(B,)`` [h/Mpc] (mean over the
    modes of a shell) and, with intervals, correlation ``(B,)`` (cross power over the root of the two powers), share
    ``(B,)`` (of the covariance of the two fields, which is the sum of their cross power over all modes) and k_half
    (below which half of it lies).
    """
    n = overdensity.shape[-1]
    shell, radius, weight = (one.numpy() for one in fourier.shells(n, 2))
    bins = shell.max() + 1
    fields = [np.fft.rfft2(_contrast(field)) for field in (np.abs(attribution), overdensity)]
    powers = (fields[0] * fields[1].conj()).real, np.abs(fields[0]) ** 2, np.abs(fields[1]) ** 2
    index = np.broadcast_to(shell, fields[0].shape)
    cross, *autos = (_binned_sums(weight * power, index, simulation, bins)[1] for power in powers)
    weights = _weights(len(cross), generator)
    cross, first, second = (weights @ sums for sums in (cross, *autos))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = cross / np.sqrt(first * second)
        share = cross / cross.sum(1, keepdims=True)
    modes, radii = (np.bincount(shell.ravel(), weights=one.ravel()) for one in (weight, weight * radius))
    k = 2 * np.pi / BOX * radii / modes
    half = k[np.argmax(np.cumsum(share, axis=1) >= 0.5, axis=1)]
    return {
        "k": k[1:],
        "correlation": _interval(correlation[:, 1:]),
        "share": _interval(share[:, 1:]),
        "k_half": _interval(half),
    }


def void_centres(overdensity):
    """``(M, n, n)`` bool: the minima of the map smoothed by 1 Mpc/h, where these are voids."""
    smooth = _smooth(overdensity, WEB_SMOOTHING)
    return (smooth == _extreme(ndimage.minimum_filter, smooth)) & (smooth < THRESHOLDS[0])


def halo_centres(overdensity):
    """``(M, n, n)`` bool: the maxima of the map smoothed by 0.25 Mpc/h, where these are haloes."""
    smooth = _smooth(overdensity, HALO_SMOOTHING)
    return (smooth == _extreme(ndimage.maximum_filter, smooth)) & (smooth >= THRESHOLDS[-1])


def stacked_profile(attribution, centres, simulation, *, generator):
    """Mean |attribution| over the map's mean against the distance from ``centres`` ``(M, n, n)`` bool.

    Returns r ``(B,)`` [Mpc/h] (mean distance of the pixels of a ring), profile ``(B,)`` with intervals, and the number
    of centres.
    """
    n = attribution.shape[-1]
    pixel = BOX / n
    magnitude = np.abs(attribution)
    magnitude = magnitude / _mean(magnitude)
    around = np.fft.ifft2(np.fft.fft2(centres).conj() * np.fft.fft2(magnitude)).real  # summed over centres, by offset
    offset = np.fft.fftfreq(n, 1 / BOX)
    distance = np.hypot(offset[:, None], offset)
    width = max(pixel, MAX_RADIUS / 16)
    ring = np.floor(distance / width + 0.5).astype(int)
    bins = int(MAX_RADIUS / width) + 1
    ring = np.where(ring < bins, ring, bins)
    number = np.broadcast_to(centres.sum((1, 2))[:, None, None], centres.shape)
    _, sums = _binned_sums(around, np.broadcast_to(ring, centres.shape), simulation, bins + 1)
    _, counts = _binned_sums(number, np.broadcast_to(ring, centres.shape), simulation, bins + 1)
    weights = _weights(len(sums), generator)
    with np.errstate(invalid="ignore", divide="ignore"):
        profile = (weights @ sums)[:, :bins] / (weights @ counts)[:, :bins]
    pixels = np.bincount(ring.reshape(-1))[:bins]
    r = np.bincount(ring.reshape(-1), weights=distance.reshape(-1))[:bins] / pixels
    return {"r": r, "profile": _interval(profile), "centres": int(centres.sum())}


def _profile(attribution, index, simulation, bins, generator):
    counts, sums = _binned_sums(np.abs(attribution), index, simulation, bins)  # (S, B) each
    weights = _weights(len(counts), generator)
    counts, sums = weights @ counts, weights @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        per_pixel = sums / counts
        return {
            "area": _interval(counts / counts.sum(1, keepdims=True)),
            "per_pixel": _interval(per_pixel / (sums.sum(1) / counts.sum(1))[:, None]),
            "total": _interval(sums / sums.sum(1, keepdims=True)),
            "ratio": _interval(per_pixel[:, -1] / per_pixel[:, 0]),
        }


def _bin(overdensity, edges):
    return np.clip(np.searchsorted(edges, overdensity, side="right") - 1, 0, len(edges) - 2)


def _binned_sums(values, index, simulation, bins):
    """How many pixels, and the sum of their ``values``, in each bin of ``index``, per simulation: ``(S, B)`` each."""
    _, group = np.unique(simulation, return_inverse=True)
    flat = (group[:, None, None] * bins + index).reshape(-1)
    shape = (group.max() + 1, bins)
    counts = np.bincount(flat, minlength=np.prod(shape)).reshape(shape)
    sums = np.bincount(flat, weights=values.reshape(-1), minlength=np.prod(shape)).reshape(shape)
    return counts.astype(float), sums


def _weights(n, generator):
    """How often each of ``n`` simulations counts: once in row 0, as drawn in the others."""
    return np.vstack([np.ones(n), generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)])


def _interval(samples):
    """(value, low, high) of resampled ``samples``, whose first row is the value itself."""
    empty = np.isnan(samples).all(0)  # no pixel of any map lies in this bin
    low, high = np.nanpercentile(np.where(empty, 0, samples[1:]), [2.5, 97.5], axis=0)
    return tuple(np.where(empty, np.nan, array) for array in (samples[0], low, high))


def _mean(maps):
    """``(M, 1, 1)`` means; a map of zeros gets one, so that it can be divided by."""
    mean = maps.mean((1, 2), keepdims=True)
    return np.where(mean == 0, 1, mean)


def _contrast(maps):
    return maps / _mean(maps) - 1


def _wavenumbers(n):
    """ky and kx on the grid of ``rfft2``, h/Mpc; the Nyquist frequencies, whose sign is not defined, are zero."""
    axes = (axis.numpy() for axis in fourier.mode_numbers(n, 2))
    return [2 * np.pi / BOX * np.where(2 * np.abs(axis) == n, 0, axis) for axis in axes]


def _smooth(maps, width):
    return cuts.smooth(maps, width / BOX * maps.shape[-1])


def _extreme(extreme_filter, maps):
    size = max(3, 2 * round(SEPARATION / BOX * maps.shape[-1] / 2) + 1)
    return extreme_filter(maps, size=(1, size, size), mode="wrap")
