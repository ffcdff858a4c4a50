"""Gravity: Gaussian initial conditions, second-order Lagrangian perturbation theory, particle mesh.

Time is the linear growth factor D. The integrator is BullFrog (Rampf, List & Hahn 2024, arXiv:2409.19049): a
drift-kick-drift leapfrog like FastPM's (Feng et al. 2016), whose kick is exact in second order of Lagrangian
perturbation theory; so linear growth is right for any number of steps.
"""

import numpy as np
import torch

from camelsight.ground import fourier
from camelsight.ground.cmd import BOX
from camelsight.universe import linear
from camelsight.universe import mesh as grids
from camelsight.universe import particles as compiled

A_START = 0.02
STEPS = 0.75  # times the particles a side: 48 at 64^3, 192 at 256^3
STEP_POWER = 2.0  # steps are equal in D1**2, since halos need them late; by trial at 64^3
MASK = (1 << 64) - 1


def evolve(omega_m, sigma_8, *, seed, particles, mesh=None, steps=None, device="cpu", linear_table=None):
    """Positions at z=0, ``(particles**3, 3)`` float32, Mpc/h in [0, BOX), in the order of the Lagrangian lattice.

    ``mesh`` cells per side carry the force (default 7/4 of ``particles``, 64 at least), in ``steps`` steps from
    a=0.02 (default 3/4 of ``particles``). A seed means the same phases at any resolution and on any
    device.
    """
    if particles < 4 or (mesh is not None and mesh < 4) or (steps is not None and steps < 1):
        raise ValueError(
            f"expected particles >= 4, mesh >= 4 and steps >= 1, got particles={particles}, mesh={mesh}, steps={steps}"
        )
    contrast_k = linear_contrast(omega_m, sigma_8, seed, particles, device, linear_table)
    return wrap(evolve_contrast(contrast_k, omega_m, mesh=mesh, steps=steps))


def wrap(positions):
    """Positions folded into [0, BOX); the remainder of a tiny negative number rounds to BOX itself."""
    positions = positions.remainder(BOX)
    return torch.where(positions < BOX, positions, 0.0)


def lattice(particles, device="cpu"):
    """Lagrangian positions ``(particles**3, 3)``, index (i * particles + j) * particles + k."""
    node = torch.arange(particles, device=device) * (BOX / particles)
    return torch.stack(torch.meshgrid(node, node, node, indexing="ij")).view(3, -1).T


def linear_contrast(omega_m, sigma_8, seed, particles, device="cpu", linear_table=None):
    """``scaled`` modes of ``white_noise``."""
    return scaled(white_noise(seed, particles, device), omega_m, sigma_8, linear_table)


def scaled(noise, omega_m, sigma_8, linear_table=None):
    """``rfftn`` of the linear density contrast at z=0, of the shape and type of ``noise``.

    ``noise`` ``(n, n, n // 2 + 1)`` is complex, of unit variance, hermitian, and zero at modes with an index n / 2.
    """
    particles, device = noise.shape[0], noise.device
    squared = sum(axis**2 for axis in fourier.mode_numbers(particles, 3, device)).long()
    k = 2 * np.pi / BOX * np.sqrt(np.arange(3 * (particles // 2) ** 2 + 1))  # of every sum of three squares
    amplitude = np.sqrt(linear.power(k, omega_m, sigma_8, linear_table) / BOX**3) * particles**3
    amplitude = torch.from_numpy(amplitude.astype(np.float32)).to(device)
    return amplitude[squared] * noise


def white_noise(seed, particles, device="cpu"):
    """Hermitian Gaussian modes of unit variance on the grid of ``rfftn``, complex64.

    Each mode is hashed from the seed and its own integer wave vector (SplitMix64, then Box-Muller), so that it
    does not depend on resolution, device or order.
    """
    i, j, k = (axis.long() for axis in fourier.mode_numbers(particles, 3, device))
    label = (i * (1 << 21) + j) * (1 << 21) + k
    # Of the two modes +k and -k the one with a positive label is drawn, the other is its conjugate.
    half = torch.where(k > 0, 1, torch.sign(label))
    bits = _split_mix(label * half + _split_mix(torch.tensor(int(seed), device=device)))
    phase = 2 * np.pi * _uniform(_split_mix(bits))
    noise = torch.sqrt(-torch.log(_uniform(bits))) * torch.exp(1j * half * phase)
    nyquist = (2 * i.abs() == particles) | (2 * j.abs() == particles) | (2 * k == particles)
    return torch.where(nyquist | (label == 0), 0.0, noise).to(torch.complex64)


def _split_mix(bits):
    bits = bits + _signed(0x9E3779B97F4A7C15)
    bits = (bits ^ _shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shift(bits, 31)


def _signed(constant):
    return constant - (1 << 64)


def _shift(bits, places):
    return (bits >> places) & (MASK >> places)


def _uniform(bits):
    """In (0, 1), from the upper 53 bits."""
    return (_shift(bits, 11).double() + 0.5) * 2.0**-53


def displacements(contrast_k):
    """First and second order displacement ``(n**3, 3)`` each, Mpc/h: x = q + D1 first + D2 second."""
    particles = contrast_k.shape[0]
    k = grids.wavenumbers(particles, BOX, contrast_k.device)
    potential_k = grids.inverse_laplacian(k) * contrast_k
    first = -grids.spectral_gradient(potential_k, k, particles)

    def hessian(a, b):
        return torch.fft.irfftn(-k[a] * k[b] * potential_k, s=(particles,) * 3)

    xx, yy, zz = (hessian(a, a) for a in range(3))
    source = xx * yy + yy * zz + zz * xx
    for a, b in ((0, 1), (1, 2), (2, 0)):
        source -= hessian(a, b) ** 2
    second = grids.spectral_gradient(grids.inverse_laplacian(k) * torch.fft.rfftn(source), k, particles)
    return first.flatten(1).T, second.flatten(1).T


def evolve_contrast(contrast_k, omega_m, *, mesh=None, steps=None):
    """Positions at z=0 (not folded into the box) from the ``rfftn`` of the linear contrast at z=0."""
    particles, device = contrast_k.shape[0], contrast_k.device
    mesh, steps = mesh or max(64, 7 * particles // 4), steps or default_steps(particles)
    kernel = force_kernel(mesh, device)
    first, second = displacements(contrast_k)
    d1, d2, slope = growth_nodes(omega_m, steps)
    positions = lattice(particles, device) + d1[0] * first + d2[0] * second
    velocities = first + slope[0] * second
    del first, second  # at 256^3 particles 400 MB
    for n in range(steps):
        keep, kick, half = bullfrog(d1[n : n + 2], d2[n], slope[n : n + 2])
        positions.add_(velocities, alpha=half)
        velocities.mul_(keep).add_(acceleration(positions, kernel), alpha=kick)
        positions.add_(velocities, alpha=half)
    return positions


def default_steps(particles):
    """How many steps a lattice of ``particles`` a side takes.

    Measured at Omega_m .3175, sigma_8 .834 against a published spectrum of Gadget in one box of 25 Mpc/h, at the same
    power for k < 2 h/Mpc: 1.03, 0.84 of it at k = 5.4, 8 h/Mpc with 64^3 particles and 48 steps (0.96, 0.76 with 32);
    1.02, 0.96, 0.92 at k = 5.4, 8, 10.4 h/Mpc with 128^3 and 68 (0.97, 0.90, 0.84 with 48); each to 0.03 to 0.05. With
    256^3, 192 steps are within 2% up to 20 h/Mpc of 384 on twice as fine a mesh, where 96 lose 6% at 10 h/Mpc.
    """
    return round(STEPS * particles)


def growth_nodes(omega_m, steps):
    """``(D1, D2, dD2/dD1)`` at the ends of the steps, ``(steps + 1,)`` each."""
    a = np.linspace(A_START, 1.0, 512)
    d1, f1, d2, f2 = linear.growth(a, omega_m)
    nodes = np.linspace(d1[0] ** STEP_POWER, 1.0, steps + 1) ** (1 / STEP_POWER)
    slope = f2 * d2 / (f1 * d1)
    return nodes, np.interp(nodes, d1, d2), np.interp(nodes, d1, slope)


def bullfrog(d1, d2, slope):
    """What is kept of the velocity, the weight of the acceleration and half a step in D1, for one step.

    Derived from v = psi1 + (dD2/dD1) psi2 and, at the middle, acceleration = D1 psi1 + (D2 - D1^2) psi2.
    """
    half = (d1[1] - d1[0]) / 2
    middle = d1[0] + half
    pull = (d2 + slope[0] * half) / middle - middle
    keep = (slope[1] - pull) / (slope[0] - pull)
    return float(keep), float((1 - keep) / middle), float(half)


def force_kernel(mesh, device="cpu"):
    """From the ``rfftn`` of the mass to that of the potential, sharpened near the mesh's own scale.

    Deposit and interpolation smooth by one cloud each. One is undone; for the other stands
    (1 + x^2 / 12 + 1.3 x^4 / (x^4 + 5)) exp(-x^4 / 80), x = k times a cell, which is right for small x and then pulls
    too hard at two cells' distance what is held too loosely within one. By trial at 64^3 that takes P(k) to within 7%
    of finer runs up to half the particles' Nyquist wave number, where undoing both clouds leaves 12%.
    """
    k = grids.wavenumbers(mesh, BOX, device)
    cell = BOX / mesh
    cloud = 1.0
    for component in k:
        cloud = cloud * torch.sinc(component * (cell / (2 * np.pi))) ** 2
    squared = sum(component**2 for component in k) * cell**2
    fourth = squared**2
    sharpened = (1 + squared / 12 + 1.3 * fourth / (fourth + 5)) * torch.exp(-fourth / 80)
    # Complex, since torch would make it so for every product with a complex field, on a CPU at twice the cost.
    return (grids.inverse_laplacian(k) / cloud * sharpened).to(torch.complex64)


def acceleration(positions, kernel):
    """Minus the gradient of the inverse Laplacian of the density contrast at ``positions``: ``(n, 3)``, Mpc/h."""
    mesh = kernel.shape[0]
    # Clouds respond linearly to small displacements in the middle of a cell, but not on a node, where the lattice is.
    offset = BOX / (2 * mesh)
    if compiled.serves(positions):
        mass = compiled.deposit(positions, mesh, BOX, offset)
    else:
        cells = grids.cloud(positions + offset, mesh, BOX)
        mass = grids.deposit(cells, mesh)
    potential = torch.fft.irfftn(torch.fft.rfftn(mass).mul_(kernel), s=(mesh,) * 3)
    mean = len(positions) / mesh**3
    if compiled.serves(positions):
        return compiled.pull(potential, positions, BOX, offset, 1 / mean)
    return grids.interpolate(grids.gradient(potential.mul_(-1 / mean), BOX), cells)
