"""Particles on a periodic mesh: cloud-in-cell deposit and interpolation, gradients, smoothing, spectra.

Positions are ``(n, 3)`` float32 tensors in Mpc/h, of any periodic image; fields are ``(mesh, mesh, mesh)``.
Deposit and interpolation share one kernel, and the gradients are antisymmetric, so that forces sum to zero.
"""

import numpy as np
import torch
import torch.nn.functional as functional


def cloud(positions, mesh, box):
    """The eight cells around every particle: flat index ``(8, n)`` int32 and share of its mass ``(8, n)``."""
    cells = (positions.T * (mesh / box)).contiguous()
    lower = cells.floor()
    upper_share = cells - lower
    lower = lower.int().remainder_(mesh)
    index = torch.stack([lower, (lower + 1).remainder_(mesh)])  # (2, 3, n): lower or upper, axis, particle
    share = torch.stack([1 - upper_share, upper_share])
    index[:, 0] *= mesh**2
    index[:, 1] *= mesh
    index = index[:, None, None, 0] + index[None, :, None, 1] + index[None, None, :, 2]
    share = share[:, None, None, 0] * share[None, :, None, 1] * share[None, None, :, 2]
    return index.view(8, -1), share.view(8, -1)


def deposit(cells, mesh):
    """Mass per cell ``(mesh, mesh, mesh)`` of a ``cloud``."""
    index, share = cells
    field = torch.zeros(mesh**3, dtype=share.dtype, device=share.device)
    return field.index_add_(0, index.view(-1), share.view(-1)).view(mesh, mesh, mesh)


def interpolate(fields, cells):
    """Fields ``(c, mesh, mesh, mesh)`` at the particles of a ``cloud``: ``(n, c)``."""
    value = torch.zeros(len(fields), cells[0].shape[1], dtype=fields.dtype, device=fields.device)
    for field, row in zip(fields.flatten(1), value, strict=True):
        for index, share in zip(*cells, strict=True):
            row.addcmul_(field.index_select(0, index), share)
    return value.T


def paint(positions, mesh, box, weights=None):
    """Mass per cell ``(mesh, mesh, mesh)`` of particles with ``weights`` ``(n,)``, by default one each."""
    index, share = cloud(positions, mesh, box)
    return deposit((index, share if weights is None else share * weights), mesh)


def read(fields, positions, box):
    """Fields ``(c, mesh, mesh, mesh)`` at ``positions``: ``(n, c)``."""
    return interpolate(fields, cloud(positions, fields.shape[-1], box))


def wavenumbers(mesh, box, device="cpu"):
    """Components of k (h/Mpc) on the grid of ``rfftn``, shaped to broadcast."""
    k = 2 * np.pi / box * torch.fft.fftfreq(mesh, 1 / mesh, device=device)
    return k[:, None, None], k[None, :, None], k[None, None, : mesh // 2 + 1].abs()


def inverse_laplacian(k):
    """-1/k^2 for the components ``k`` of ``wavenumbers``; zero at k=0 and where a component is the Nyquist one.

    A real field's derivative has no Nyquist mode: leaving these modes out keeps gradients antisymmetric.
    """
    mesh = k[0].shape[0]
    k_squared = sum(component**2 for component in k)
    kept = k_squared > 0
    if mesh % 2 == 0:
        for axis, component in enumerate(k):
            kept = kept & (torch.arange(component.shape[axis], device=kept.device) != mesh // 2).view(component.shape)
    return torch.where(kept, -1 / k_squared.clamp_min(1e-20), 0.0)


def spectral_gradient(field_k, k, mesh):
    """Gradient ``(3, mesh, mesh, mesh)`` of a field given by its ``rfftn``."""
    return torch.stack([torch.fft.irfftn(1j * component * field_k, s=(mesh,) * 3) for component in k])


def gradient(field, box):
    """Fourth-order central differences ``(3, mesh, mesh, mesh)``; a third of the cost of three transforms."""
    mesh = field.shape[0]
    padded = functional.pad(field[None, None], (2,) * 6, mode="circular")[0, 0]
    slope = torch.empty(3, *field.shape, dtype=field.dtype, device=field.device)
    for axis in range(3):
        others = padded
        for other in (other for other in range(3) if other != axis):
            others = others.narrow(other, 2, mesh)
        torch.sub(others.narrow(axis, 3, mesh), others.narrow(axis, 1, mesh), out=slope[axis])
        slope[axis].mul_(8).sub_(others.narrow(axis, 4, mesh)).add_(others.narrow(axis, 0, mesh))
    return slope.mul_(mesh / (12 * box))


def power_spectrum(field, box, bins):
    """``(k, P)`` of a field's contrast in shells of one fundamental mode, (bins,) each, h/Mpc and (Mpc/h)^3."""
    mesh = field.shape[0]
    contrast_k = torch.fft.rfftn(field.double() / field.double().mean() - 1) / mesh**3
    index = torch.fft.fftfreq(mesh, 1 / mesh, dtype=torch.float64)
    last = torch.arange(mesh // 2 + 1, dtype=torch.float64)
    radius = (index[:, None, None] ** 2 + index[None, :, None] ** 2 + last**2).sqrt().flatten()
    twice = torch.where((last > 0) & (last < mesh / 2), 2.0, 1.0).expand(mesh, mesh, -1).flatten().double()
    shell = radius.round().long()
    count = torch.bincount(shell, twice)
    k = torch.bincount(shell, twice * radius) / count * 2 * np.pi / box
    power = torch.bincount(shell, twice * contrast_k.abs().square().flatten().cpu()) / count * box**3
    return k[1 : bins + 1].numpy(), power[1 : bins + 1].numpy()


def nearest(field, positions, box):
    """The value of ``field`` ``(mesh, mesh, mesh)`` at the node next to each of ``positions`` ``(3, n)``: ``(n,)``."""
    mesh = field.shape[0]
    x, y, z = (positions * (mesh / box)).round().int().remainder_(mesh)
    return field.flatten().index_select(0, (x * mesh + y) * mesh + z)


def smooth(field, radius, box):
    """Periodic Gaussian smoothing, standard deviation ``radius`` in Mpc/h."""
    mesh = field.shape[0]
    k_squared = sum(component**2 for component in wavenumbers(mesh, box, field.device))
    field_k = torch.fft.rfftn(field) * torch.exp(-0.5 * k_squared * radius**2)
    return torch.fft.irfftn(field_k, s=(mesh,) * 3)
