"""Particles on a periodic mesh: cloud-in-cell deposit and interpolation, gradients, smoothing, spectra.

Positions are ``(n, 3)`` float32 tensors in Mpc/h, of any periodic image; fields are ``(mesh, mesh, mesh)``.
Deposit and interpolation share one kernel, and the gradients are antisymmetric, so that forces sum to zero.
"""

import numpy as np
import torch
import torch.nn.functional as functional

from camelsight.ground import fourier
from camelsight.universe import particles as compiled


def cells_of(positions, mesh, box):
    """``positions`` ``(3, n)``, of any image of the box, in cells: from 0 to below ``mesh``."""
    cells = positions * (mesh / box)
    cells -= mesh * torch.floor(cells / mesh)
    # A tiny negative number becomes mesh itself; and a GPU, which multiplies by 1 / mesh, may leave one just below 0.
    return torch.where((cells >= 0) & (cells < mesh), cells, 0.0)


def cloud(positions, mesh, box):
    """The eight cells around every particle: flat index ``(8, n)`` int32 and share of its mass ``(8, n)``."""
    upper_share = cells_of(positions.T, mesh, box)
    lower = upper_share.floor()
    upper_share -= lower
    lower = lower.int()
    index = torch.stack([lower, torch.where(lower + 1 < mesh, lower + 1, 0)])  # (2, 3, n): lower or upper, axis
    index[:, 0] *= mesh**2
    index[:, 1] *= mesh
    index = _corners(index, torch.add)
    return index, _corners(torch.stack([1 - upper_share, upper_share]), torch.mul)


def _corners(ends, combine):
    x, y, z = ends[:, None, None, 0], ends[None, :, None, 1], ends[None, None, :, 2]
    return combine(combine(x, y), z).view(8, -1)


def deposit(cells, mesh):
    """Mass per cell ``(mesh, mesh, mesh)`` of a ``cloud``."""
    index, share = cells
    field = torch.zeros(mesh**3, dtype=share.dtype, device=share.device)
    return field.index_add_(0, index.view(-1), share.view(-1)).view(mesh, mesh, mesh)


def interpolate(fields, cells):
    """``fields``, any iterable of c times ``(mesh, mesh, mesh)``, at the particles of a ``cloud``: ``(n, c)``."""
    values = []
    for field in fields:
        value = torch.zeros_like(cells[1][0])
        for index, share in zip(*cells, strict=True):
            value.addcmul_(field.flatten().index_select(0, index), share)
        values.append(value)
    return torch.stack(values).T


def paint(positions, mesh, box, weights=None):
    """Mass per cell ``(mesh, mesh, mesh)`` of particles with ``weights`` ``(n,)``, by default one each."""
    if compiled.serves(positions):
        return compiled.deposit(positions, mesh, box, weights=weights)
    index, share = cloud(positions, mesh, box)
    return deposit((index, share if weights is None else share * weights), mesh)


def read(fields, positions, box):
    """Fields, c times ``(mesh, mesh, mesh)``, at ``positions``: ``(n, c)``."""
    return interpolate(fields, cloud(positions, fields[0].shape[-1], box))


def wavenumbers(mesh, box, device="cpu"):
    """Components of k (h/Mpc) on the grid of ``rfftn``, shaped to broadcast."""
    return [2 * np.pi / box * axis for axis in fourier.mode_numbers(mesh, 3, device, torch.float32)]


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
    """Fourth-order central differences along each axis in turn; a third of the cost of three transforms."""
    mesh = field.shape[0]
    padded = functional.pad(field[None, None], (2,) * 6, mode="circular")[0, 0]
    for axis in range(3):
        others = padded
        for other in (other for other in range(3) if other != axis):
            others = others.narrow(other, 2, mesh)
        slope = others.narrow(axis, 3, mesh) - others.narrow(axis, 1, mesh)
        slope.sub_(others.narrow(axis, 4, mesh), alpha=1 / 8).add_(others.narrow(axis, 0, mesh), alpha=1 / 8)
        yield slope.mul_(2 * mesh / (3 * box))


def power_spectrum(field, box, bins, clouds=0):
    """``(k, P)`` of a field's contrast in the first ``bins`` shells of one fundamental mode, h/Mpc and (Mpc/h)^3.

    ``clouds``: how many cloud-in-cell windows the field carries and P is freed of; one after ``paint``. Shells and
    window are those of Pylians; k is the mean over a shell, which reaches from n to n + 1 fundamental modes.
    """
    mesh = field.shape[0]
    contrast_k = torch.fft.rfftn(field / field.mean(dtype=torch.float64) - 1) / mesh**3
    power = contrast_k.abs().square()
    for axis in fourier.mode_numbers(mesh, 3, field.device):
        power /= torch.sinc(axis / mesh) ** (4 * clouds)
    k, power = fourier.shell_means(power[None])
    k, power = (values[1 : bins + 1].cpu().numpy() for values in (k, power[0]))
    return k * 2 * np.pi / box, power * box**3


def nearest(field, positions, box):
    """The value of ``field`` ``(mesh, mesh, mesh)`` at the node next to each of ``positions`` ``(3, n)``: ``(n,)``."""
    mesh = field.shape[0]
    x, y, z = cells_of(positions + box / (2 * mesh), mesh, box).int()
    return field.flatten().index_select(0, (x * mesh + y) * mesh + z)


def smooth(field, radius, box):
    """Periodic Gaussian smoothing, standard deviation ``radius`` in Mpc/h."""
    return next(smoothed(field, [radius], box))


def smoothed(field, radii, box):
    """``smooth`` by each of ``radii`` in turn."""
    mesh = field.shape[0]
    k_squared = sum(component**2 for component in wavenumbers(mesh, box, field.device))
    field_k = torch.fft.rfftn(field)
    for radius in radii:
        yield torch.fft.irfftn(field_k * torch.exp(-0.5 * k_squared * radius**2), s=(mesh,) * 3)
