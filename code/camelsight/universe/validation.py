"""How good the twin is: its power spectra, the pixels of its maps, and a map beside the one that CAMELS has."""

import numpy as np
import torch

from camelsight.ground import cmd, fourier
from camelsight.ground.fields import TOTAL
from camelsight.universe import baryons
from camelsight.universe import mesh as grids

SCALES = ((0.5, 1), (1, 1.5), (2, 3))  # h/Mpc, at which the agreement of two maps is quoted


def spectrum(parts, particles):
    """``(k, P)`` of matter given as pairs of positions ``(n, 3)`` and weights ``(n,)`` or None; h/Mpc, (Mpc/h)^3.

    It reaches the Nyquist wave number of twice as many cells as ``particles`` a side, and 16 h/Mpc at least.
    """
    mesh = max(128, 2 * particles)
    field = sum(grids.paint(positions, mesh, cmd.BOX, weights) for positions, weights in parts)
    return grids.power_spectrum(field, cmd.BOX, mesh // 2 - 1, clouds=1)


def hydro_spectrum(positions, theta, suite, particles):
    """``spectrum`` of a hydrodynamic ``suite`` whose gravity-only run ended at ``positions``."""
    density = grids.paint(positions, particles, cmd.BOX)
    return spectrum(baryons.by_field(positions, density, theta, suite, cmd.BOX)[TOTAL], particles)


def agreement(ours, theirs):
    """``(k, r, ratio)`` of two maps ``(n, n)`` of the box: h/Mpc, correlation of their modes, power over power.

    By shells that have all of their modes.
    """
    a, b = torch.fft.rfft2(torch.from_numpy(np.stack([ours, theirs])).double())
    products = torch.stack([(a * b.conj()).real, a.abs().square(), b.abs().square()])
    k, values = fourier.shell_means(products)
    whole = slice(1, len(ours) // 2)
    both, first, second = values[:, whole].numpy()
    return k[whole].numpy() * 2 * np.pi / cmd.BOX, both / np.sqrt(first * second), first / second


def by_scale(k, values):
    """The means of ``values`` ``(B,)`` at ``k`` ``(B,)`` within each of ``SCALES``; NaN where there is none."""
    k, values = np.asarray(k), np.asarray(values)
    means = []
    for low, high in SCALES:
        inside = values[(k >= low) & (k < high)]
        means.append(float(inside.mean()) if len(inside) else np.nan)
    return means


def resolved(k, power, converged, tolerance=0.1):
    """The first ``k`` at which ``power`` is off from that of a ``converged`` run by ``tolerance``; else the last."""
    off = np.flatnonzero(np.abs(power / converged - 1) > tolerance)
    return float(k[off[0]] if len(off) else k[-1])


def pixel_statistics(maps, offset=0.0, chunk=64):
    """``cmd.Statistics`` of ``maps`` ``(n, pixels, pixels)``, read in chunks, with mean and std of log10 of pixels.

    That is the signed one with the ``offset`` of the field.
    """
    statistics, total, squares = cmd.Statistics(), 0.0, 0.0
    for start in range(0, len(maps), chunk):
        pixels = np.asarray(maps[start : start + chunk])
        statistics.add(pixels)
        pixels = pixels.astype(np.float64)
        log10 = np.sign(pixels) * np.log10(np.abs(pixels) + offset + (pixels == 0))
        total, squares = total + log10.sum(), squares + (log10**2).sum()
    mean = total / maps.size
    spread = {"log10_mean": float(mean), "log10_std": float(np.sqrt(squares / maps.size - mean**2))}
    return statistics.result() | spread
