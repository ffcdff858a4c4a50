"""Cuts in Fourier space and in density.

Maps are ``(N, n, n)`` float32 arrays or tensors of surface density, (Msun/h)/(Mpc/h)^2; what comes back is of the same
type, on the same device, and new.
"""

import math

import numpy as np
import torch

from camelsight.universe.cmd import BOX


def kmax(maps, k_max, *, box=BOX):
    """Remove the modes with k >= ``k_max`` [h/Mpc]; the mean stays.

    Equal to Pylians' ``Top-Hat-k`` filter, which the paper used. Pixels can become negative (ringing).
    """
    x = torch.as_tensor(maps)
    n = x.shape[-1]
    fundamental = 2 * math.pi / box
    ky = torch.fft.fftfreq(n, 1 / n, device=x.device) * fundamental
    kx = torch.fft.rfftfreq(n, 1 / n, device=x.device) * fundamental
    keep = ky[:, None] ** 2 + kx[None, :] ** 2 < k_max**2
    keep[0, 0] = True
    return _like(torch.fft.irfft2(torch.fft.rfft2(x) * keep, s=(n, n)), maps)


def density(maps, threshold, *, side, fill, log10_range=None, generator=None, indices=None):
    """Cut the pixels above (``side="max"``) or below (``"min"``) ``threshold``; the others stay bit-identical.

    ``fill="clamp"`` sets cut pixels to the threshold. ``fill="random"`` draws them log-uniformly from ``log10_range``,
    the (low, high) log10 density of the whole uncut set, so a filled pixel can land on either side of the threshold.
    The noise of map ``indices[i]`` (default ``i``) depends on its index and on the seed of ``generator`` alone: any
    subset in any order gets the same pixels, and the generator's state is neither used nor changed.
    """
    if side not in ("max", "min") or fill not in ("clamp", "random"):
        raise ValueError(f"expected side max or min and fill clamp or random, got {side!r} and {fill!r}")
    x = torch.as_tensor(maps)
    cut = x > threshold if side == "max" else x < threshold
    if fill == "clamp":
        return _like(torch.where(cut, torch.as_tensor(threshold, dtype=x.dtype, device=x.device), x), maps)
    if log10_range is None or generator is None:
        raise ValueError("fill 'random' needs log10_range and generator, got None")
    indices = np.arange(len(x)) if indices is None else indices
    out = x.clone()
    for i, index in enumerate(indices):
        noise = torch.as_tensor(_noise(generator, int(index), tuple(x.shape[1:]), log10_range), device=x.device)
        out[i] = torch.where(cut[i], noise.to(x.dtype), x[i])
    return _like(out, maps)


def apply(maps, cuts, *, log10_range, generator, indices=None, box=BOX):
    """The ``cuts`` of a case one after the other: objects with ``kind``, ``threshold`` and ``fill``."""
    for position, cut in enumerate(cuts):
        if cut.kind == "kmax":
            maps = kmax(maps, cut.threshold, box=box)
        else:
            maps = density(
                maps,
                cut.threshold,
                side=cut.kind,
                fill=cut.fill,
                log10_range=log10_range,
                generator=generator and np.random.default_rng(_child(generator, position)),
                indices=indices,
            )
    return maps


def fraction_cut(maps, cuts, *, box=BOX):
    """For each cut the fraction of pixels (density) or of Fourier modes (k_max) of the uncut maps that it removes."""
    n = maps.shape[-1]
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n))) * 2 * math.pi / box
    removed = {
        "kmax": lambda threshold: np.mean(k >= threshold),
        "max": lambda threshold: np.mean(maps > threshold),
        "min": lambda threshold: np.mean(maps < threshold),
    }
    return [float(removed[cut.kind](cut.threshold)) for cut in cuts]


def _noise(generator, index, shape, log10_range):
    low, high = log10_range
    return 10 ** np.random.default_rng(_child(generator, index)).uniform(low, high, shape)


def _child(generator, number):
    """A seed that follows from the one of ``generator``, whatever has been drawn from it."""
    seed = generator.bit_generator.seed_seq
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number))


def _like(result, maps):
    return result if isinstance(maps, torch.Tensor) else result.numpy()
