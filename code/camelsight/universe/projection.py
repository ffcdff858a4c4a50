"""From particles to CMD's maps: five slabs of 5 Mpc/h along three axes, map = axis * 5 + slab.

A map's first index runs along (axis + 1) mod 3, its second along (axis + 2) mod 3.

The Lagrangian lattice is a sheet in phase space: linear interpolation on it gives eight tracers per particle,
which fill voids evenly. Each tracer's mass is spread over the distance to its 32nd neighbour in CAMELS, as CMD does;
so no pixel is empty.
"""

import math
from itertools import product

import torch
import torch.nn.functional as functional

from camelsight.ground.cases import MEAN_SURFACE_DENSITY
from camelsight.ground.cmd import BOX, MAPS_PER_SIMULATION, SLABS
from camelsight.universe import mesh as grids
from camelsight.universe import particles as compiled

NEIGHBOURS, CAMELS_PARTICLES = 32, 256**3  # CMD spreads a particle evenly over the sphere that holds so many others
LEAST = 2  # particles of our own that the sphere holds, sixteen tracers: at 64^3 voids are speckled with less
LEVELS = 7  # of the spread: 0, 1/2, 1/sqrt 2, 1, sqrt 2, 2, 2 sqrt 2 pixels


def surface_density(components, density, omega_m, pixels):
    """Maps ``(15, pixels, pixels)`` float32 in (Msun/h)/(Mpc/h)^2, of exact mean per axis, that of ``omega_m``.

    Of all matter they are strictly positive.

    ``components`` are pairs of positions ``(n**3, 3)`` in Lagrangian order and weights ``(n**3,)``; ``density``
    ``(m, m, m)`` in units of the mean decides how far each tracer is spread.
    """
    level_of_cell = spread_level(density, round(len(components[0][0]) ** (1 / 3)), pixels)
    count = torch.zeros(LEVELS, 3, SLABS, pixels, pixels, device=density.device)
    for positions, weights in components:
        if compiled.serves(positions):
            compiled.project(positions, weights, level_of_cell, BOX, count)
            continue
        for tracers, share in sheet(positions, weights):
            level = grids.nearest(level_of_cell, tracers, BOX)
            _deposit(count.view(-1), tracers, share, level, pixels)
    maps = spread(count.view(LEVELS, MAPS_PER_SIMULATION, pixels, pixels)).view(3, SLABS, pixels, pixels)
    maps[1] = maps[1].mT.clone()  # counted along x, then z
    mean = maps.double().mean(dim=(1, 2, 3), keepdim=True)
    mean = torch.where(mean > 0, mean, 1.0)  # nothing may have condensed
    return (maps * (MEAN_SURFACE_DENSITY * omega_m / mean)).float().view(MAPS_PER_SIMULATION, pixels, pixels)


def sheet(positions, weights):
    """The eight interpolated copies of the Lagrangian lattice, shifted by 0 or half a spacing, where they have weight.

    Yields positions ``(3, m)`` and weights ``(m,)``.
    """
    particles = round(len(positions) ** (1 / 3))
    grid = torch.cat([positions.T, weights[None]]).view(4, particles, particles, particles)
    for shift in product(range(2), repeat=3):
        shifted = grid
        for axis in (axis for axis in (1, 2, 3) if shift[axis - 1]):
            shifted = shifted + _step(shifted, axis) / 2
        flat = shifted.reshape(4, -1)
        weighty = flat[3] > 0
        if not weighty.all():
            flat = flat[:, weighty]
        yield flat[:3], flat[3]


def _step(grid, axis):
    """The difference to the next particle along ``axis``, across the box's edge by the nearer way."""
    step = grid.roll(-1, axis) - grid
    step[:3] -= BOX * torch.round(step[:3] / BOX)
    return step


def spread_level(density, particles, pixels):
    """Index of the spread for every cell of ``density`` ``(m, m, m)``, in units of the mean: int32.

    The spread next to the standard deviation, along an axis, of CMD's sphere; the smallest whose surroundings are
    dense enough for it.
    """
    held = max(NEIGHBOURS / CAMELS_PARTICLES, LEAST / particles**3)  # of the mass in the box
    at_mean = BOX * (3 * held / (4 * math.pi)) ** (1 / 3) / math.sqrt(5)
    narrower = list(reversed(range(LEVELS - 1)))
    sigmas = [2 ** ((n - 3) / 2) * BOX / pixels for n in narrower]  # of level 0 half a step below level 1
    level = torch.full(density.shape, LEVELS - 1, dtype=torch.int32, device=density.device)
    for n, sigma, smoothed in zip(narrower, sigmas, grids.smoothed(density, sigmas, BOX), strict=True):
        dense = smoothed > (at_mean / (2**0.25 * sigma)) ** 3
        level = torch.where(dense, n, level)
    return level


def _deposit(count, tracers, weights, level, pixels):
    """Adds tracers to ``count``, which is flat over (level, axis, slab, pixel, pixel)."""
    cell, slab = (grids.cells_of(tracers, number, BOX).int() for number in (pixels, SLABS))
    for axis in range(3):
        i, j = (other for other in range(3) if other != axis)
        index = ((level * 3 + axis) * SLABS + slab[axis]) * pixels
        count.index_add_(0, (index + cell[i]) * pixels + cell[j], weights)


def spread(levels):
    """Sum over the levels ``(LEVELS, maps, pixels, pixels)``, each blurred by its Gaussian; periodic, positive.

    One cascade: what is left of the widest level is blurred by the difference in variance, joined by the next.
    """
    variances = [0.0] + [2.0 ** (n - 2) for n in range(LEVELS - 1)]
    maps = levels[-1]
    for n in range(LEVELS - 1, 0, -1):
        maps = _blur(maps, variances[n] - variances[n - 1]) + levels[n - 1]
    return maps


def _blur(maps, variance):
    """Periodic Gaussian blur in real space, where rounding cannot make a pixel negative; variance in pixels^2."""
    pixels = maps.shape[-1]
    reach = min(int(4 * variance**0.5) + 1, pixels // 2)
    offset = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    edge = torch.special.ndtr(torch.cat([offset - 0.5, offset[-1:] + 0.5]) / variance**0.5)
    kernel = edge.diff() / (edge[-1] - edge[0])
    wrapped = functional.pad(maps[:, None], (reach,) * 4, mode="circular")
    return functional.conv2d(functional.conv2d(wrapped, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]
