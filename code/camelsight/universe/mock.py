"""The embedded mock of CAMELS: from six parameters and a seed to fifteen maps."""

import numpy as np
import torch
from scipy.stats import qmc

from camelsight.ground import theta as parameters
from camelsight.universe import baryons, nbody
from camelsight.universe import mesh as grids
from camelsight.universe.projection import surface_density


def latin_hypercube(n, suite, seed):
    """``(n, 6)`` physical parameters, float64, one in each of the n strata of every column; the A's in log space."""
    unit = qmc.LatinHypercube(len(parameters.NAMES), rng=np.random.default_rng(seed)).random(n)
    return np.clip(parameters.from_prior(unit, suite), *parameters.ranges(suite))


def simulate(theta, *, suite, seed, particles, pixels, device="cpu", **settings):
    """Maps ``(15, pixels, pixels)`` float32, (Msun/h)/(Mpc/h)^2, of one simulation of ``suite`` at z=0.

    ``theta`` ``(6,)`` is physical, ``settings`` are those of ``simulate_suites``. X and Nbody_X with one seed show
    the same region.
    """
    settings |= {"seed": seed, "particles": particles, "pixels": pixels, "device": device}
    return simulate_suites(theta, [suite], **settings)[suite]


def simulate_suites(theta, suites, *, seed, particles, pixels, mesh=None, steps=None, device="cpu", linear_table=None):
    """``simulate`` for several suites that share one gravity-only run: suite -> ``(15, pixels, pixels)`` array."""
    theta = checked(theta, suites)
    omega_m, sigma_8 = (float(value) for value in theta[:2])
    positions = nbody.evolve(
        omega_m,
        sigma_8,
        seed=seed,
        particles=particles,
        mesh=mesh,
        steps=steps,
        device=device,
        linear_table=linear_table,
    )
    density = grids.paint(positions, particles, nbody.BOX)
    matter = [(positions, torch.ones_like(positions[:, 0]))]
    maps = {}
    for suite in suites:
        hydro = not parameters.is_nbody(suite)
        parts = baryons.components(positions, density, theta, suite, nbody.BOX) if hydro else matter
        maps[suite] = surface_density(parts, density, omega_m, pixels).cpu().numpy()
    return maps


def checked(theta, suites):
    """``theta`` as ``(6,)`` float64, or ValueError if it is none or lies outside the range of one of ``suites``."""
    theta = np.asarray(theta, dtype=np.float64)
    if theta.shape != (len(parameters.NAMES),):
        raise ValueError(f"expected six parameters {', '.join(parameters.NAMES)}, got an array of shape {theta.shape}")
    for suite in suites:
        low, high = parameters.ranges(suite)
        for column in np.flatnonzero(parameters.meaningful(suite)):
            if not low[column] <= theta[column] <= high[column]:
                raise ValueError(
                    f"expected {parameters.NAMES[column]} in [{low[column]:g}, {high[column]:g}] for {suite}, "
                    f"got {theta[column]:g}"
                )
    return theta
