"""Maps from which one kind of information was taken, for a network that was trained with it.

Maps are ``(N, n, n)`` arrays of surface density; what comes back is new, float32.
"""

import numpy as np
from scipy import special


def shuffled(maps, generator):
    """Each map with its pixels in random order: the one-point function stays, every correlation goes."""
    return generator.permuted(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape).astype(np.float32)


def mean_only(maps):
    """Every pixel at the mean of its map."""
    return np.broadcast_to(maps.mean((1, 2), dtype=np.float64, keepdims=True), maps.shape).astype(np.float32)


def phases_randomised(maps, generator):
    """The moduli of the Fourier modes with the phases of white noise: real, of the same power and mean.

    P(k) stays mode by mode, all else goes. The result is nearly Gaussian, so a density whose scatter exceeds its mean
    comes back with many pixels below zero.
    """
    return _phases_randomised(np.asarray(maps, dtype=np.float64), generator).astype(np.float32)


def log_phases_randomised(maps, generator):
    """``phases_randomised`` of log10 of the density, which keeps the power of the logarithm and stays above zero."""
    log = np.log10(np.asarray(maps, dtype=np.float64))
    return (10 ** _phases_randomised(log, generator)).astype(np.float32)


def _phases_randomised(fields, generator):
    modes, noise = np.fft.rfft2(fields), np.fft.rfft2(generator.standard_normal(fields.shape))
    random = np.abs(modes) * noise / np.abs(noise)
    random[:, 0, 0] = modes[:, 0, 0]
    return np.fft.irfft2(random, s=fields.shape[1:])


def gaussianised(maps):
    """Each map with the ranks of its pixels and a Gaussian log10 density, of the mean and scatter that it had.

    Where pixels are overdense stays; how dense they are is known from their rank alone.
    """
    log = np.log10(np.asarray(maps, dtype=np.float64)).reshape(len(maps), -1)
    quantiles = special.ndtri((np.arange(log.shape[1]) + 0.5) / log.shape[1])
    quantiles /= quantiles.std()
    order = np.argsort(log, axis=1, kind="stable")
    gaussian = np.empty_like(log)
    np.put_along_axis(gaussian, order, log.mean(1, keepdims=True) + log.std(1, keepdims=True) * quantiles, axis=1)
    return (10**gaussian).reshape(maps.shape).astype(np.float32)


def regression(train, truth, test):
    """What the mean density of a map tells: a line in its logarithm, fitted to ``truth`` ``(N, P)``.

    ``train`` ``(N,)`` and ``test`` ``(M,)`` are mean densities. Returns the predictions for ``test``, ``(M, P)``, and
    the scatter about the line, ``(P,)``.
    """

    def design(means):
        return np.stack([np.ones(len(means)), np.log10(means)], axis=1)

    line, *_ = np.linalg.lstsq(design(train), truth, rcond=None)
    return design(test) @ line, (truth - design(train) @ line).std(0)
