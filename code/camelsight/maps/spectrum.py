"""Summaries of a map: its power spectrum, and the histogram of its log density."""

import math

import numpy as np
import torch

from camelsight.ground import fourier
from camelsight.ground.cmd import BOX
from camelsight.maps.scaling import as_tensor

EDGES = np.linspace(10, 14, 33)  # of log10 density in (Msun/h)/(Mpc/h)^2


def power(maps):
    """``(k, P)`` of maps ``(N, n, n)``: k ``(B,)`` in h/Mpc and P ``(N, B)``, float64, in the maps' unit squared
    times (Mpc/h)^2.

    Shells, units and k (the mean over a shell) are those of Pylians' ``Pk_plane``, without a mass-assignment window.
    The mean of a map has no part in it.
    """
    x = as_tensor(maps).double()
    k, values = fourier.shell_means(torch.fft.rfft2(x).abs().square())
    k, values = k[1:] * 2 * math.pi / BOX, values[:, 1:] * (BOX / x.shape[-1] ** 2) ** 2
    return (k, values) if isinstance(maps, torch.Tensor) else (k.numpy(), values.numpy())


def complete(n):
    """How many shells of a map of ``n`` pixels a side have all of their modes."""
    return n // 2 - 1


def histogram(maps, edges=EDGES):
    """``(N, B)``: the share of the pixels of each map whose log10 density is between two of ``edges`` ``(B + 1,)``.

    The outermost bins are open: what lies beyond the edges is counted there.
    """
    bins = len(edges) - 1
    position = np.searchsorted(edges, np.log10(maps, dtype=np.float64), side="right") - 1
    flat = np.arange(len(maps))[:, None] * bins + np.clip(position, 0, bins - 1).reshape(len(maps), -1)
    counts = np.bincount(flat.ravel(), minlength=len(maps) * bins).reshape(len(maps), bins)
    return counts / maps[0].size
