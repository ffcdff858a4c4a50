"""Cuts in Fourier space and in density, and smoothing.

Maps are ``(N, n, n)`` float32 arrays or tensors of surface density, (Msun/h)/(Mpc/h)^2; what comes back is of the same
type, on the same device, and new.
"""

import math

import numpy as np
import torch

from camelsight.ground import fourier
from camelsight.ground.cmd import BOX
from camelsight.maps.scaling import as_tensor


def kmax(maps, k_max):
    """Remove the modes with k >= ``k_max`` [h/Mpc]; the mean stays.

    Equal to Pylians' ``Top-Hat-k`` filter, which the paper used. Pixels can become negative (ringing).
    """
    if not k_max > 0:
        raise ValueError(f"expected k_max above 0 h/Mpc, got {k_max}")
    x = as_tensor(maps)
    n = x.shape[-1]
    keep = _k_squared(n, x.device) < k_max**2
    keep[0, 0] = True
    columns = int(keep[0].sum())  # of rfft2's; the others need no transform along y, which halves the work
    modes = torch.fft.fft(torch.fft.rfft(x)[..., :columns], dim=-2).masked_fill_(~keep[:, :columns], 0)
    return _like(torch.fft.irfft(torch.fft.ifft(modes, dim=-2), n=n), maps)


def share_of_modes(n, k_max):
    """How much ``kmax`` removes of the modes of maps of ``n`` pixels a side, from 0 to 1."""
    cut = (_k_squared(n) >= k_max**2).double()
    return (2 * cut.sum() - cut[:, 0].sum() - cut[:, -1].sum()).item() / n**2  # the conjugates of the others


def smooth(maps, pixels):
    """Convolve with a periodic Gaussian whose standard deviation is ``pixels`` (the smoothing test of 2109.10360).

    Sampled in real space, where it has no negative lobes: one cut off at the Nyquist frequency rings around a peak.
    In float64, because float32 leaves 1e-7 of the peak in all pixels.
    """
    if not pixels >= 0:
        raise ValueError(f"expected a width of at least 0 pixels, got {pixels}")
    x = as_tensor(maps)
    if pixels == 0:
        return _like(x.clone(), maps)
    n = x.shape[-1]
    window = _gaussian(n, pixels, x.device)
    modes = torch.fft.rfft2(x.double()) * window[:, None] * window[: n // 2 + 1]
    return _like(torch.fft.irfft2(modes, s=(n, n)).to(x.dtype), maps)


def _k_squared(n, device="cpu"):
    """k^2 on the grid of ``rfft2``, float64, (h/Mpc)^2."""
    return (2 * math.pi / BOX) ** 2 * sum(axis**2 for axis in fourier.mode_numbers(n, 2, device))


def _gaussian(n, pixels, device="cpu"):
    """The modes ``(n,)`` of a periodic Gaussian on ``n`` pixels, float64; they are real, since it is even."""
    images = 1 + math.ceil(6 * pixels / n)
    distance = torch.arange(-images * n, (images + 1) * n, dtype=torch.float64, device=device)
    gaussian = torch.exp(-((distance / pixels) ** 2) / 2).view(-1, n).sum(0)
    return torch.fft.fft(gaussian / gaussian.sum()).real


def density(maps, threshold, *, side, fill, log10_range=None, generator=None, indices=None):
    """Cut the pixels above (``side="max"``) or below (``"min"``) ``threshold``; the others stay bit-identical.

    ``fill="clamp"`` sets cut pixels to the threshold. ``fill="random"`` draws them log-uniformly from ``log10_range``,
    the (low, high) log10 density of the whole uncut set, so a filled pixel can land on either side of the threshold.
    The noise of map ``indices[i]`` (default ``i``) depends on its index and on the seed of ``generator``, NumPy's or
    torch's, alone: any subset in any order gets the same pixels, and the generator's state is neither used nor changed.
    """
    if side not in ("max", "min") or fill not in ("clamp", "random"):
        raise ValueError(f"expected side max or min and fill clamp or random, got {side!r} and {fill!r}")
    x = as_tensor(maps)
    cut = x > threshold if side == "max" else x < threshold
    if fill == "clamp":
        return _like(torch.where(cut, torch.as_tensor(threshold, dtype=x.dtype, device=x.device), x), maps)
    if log10_range is None or generator is None:
        raise ValueError("fill 'random' needs log10_range and generator, got None")
    indices = np.arange(len(x)) if indices is None else indices
    if len(indices) != len(x):
        raise ValueError(f"expected as many indices as maps, got {len(indices)} for {len(x)}")
    out = x.clone()
    for i, index in enumerate(indices):
        noise = torch.as_tensor(_noise(generator, int(index), tuple(x.shape[1:]), log10_range), device=x.device)
        out[i] = torch.where(cut[i], noise.to(x.dtype), x[i])
    return _like(out, maps)


def apply(maps, cuts, *, log10_range, generator, indices=None):
    """The ``cuts`` of a case one after the other: objects with ``kind``, ``threshold`` and ``fill``."""
    for position, cut in enumerate(cuts):
        if cut.kind == "kmax":
            maps = kmax(maps, cut.threshold)
        elif cut.kind == "smooth":
            maps = smooth(maps, cut.threshold)
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


def fraction_cut(maps, cuts):
    """For each cut the fraction that it removes of the uncut maps: of pixels (density) or of Fourier modes (k_max).

    Smoothing removes nothing wholly; its fraction is that of white noise's power.
    """
    n = maps.shape[-1]
    removed = {
        "kmax": lambda threshold: share_of_modes(n, threshold),
        "smooth": lambda pixels: 1 - _gaussian(n, pixels).square().mean().item() ** 2,
        "max": lambda threshold: np.mean(maps > threshold),
        "min": lambda threshold: np.mean(maps < threshold),
    }
    return [float(removed[cut.kind](cut.threshold)) for cut in cuts]


def _noise(generator, index, shape, log10_range):
    low, high = log10_range
    return 10 ** np.random.default_rng(_child(generator, index)).uniform(low, high, shape)


def _child(generator, number):
    """A seed that follows from the one of ``generator``, whatever has been drawn from it."""
    if isinstance(generator, torch.Generator):
        generator = np.random.default_rng(generator.initial_seed())
    if not isinstance(generator, np.random.Generator):
        raise ValueError(f"expected a generator of NumPy or torch, got {type(generator).__name__}")
    seed = generator.bit_generator.seed_seq
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, number))


def _like(result, maps):
    return result if isinstance(maps, torch.Tensor) else result.numpy()
