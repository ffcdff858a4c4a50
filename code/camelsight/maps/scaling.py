"""From surface density to what the network sees, and the eight symmetries of a map."""

from typing import NamedTuple

import numpy as np
import torch

SYMMETRIES = 8  # of a square


def as_tensor(maps):
    """``maps`` as a tensor, which shares their memory where torch can: not with read-only or reversed arrays."""
    if isinstance(maps, np.ndarray):
        maps = np.ascontiguousarray(maps, dtype=maps.dtype.newbyteorder("="))
        maps = maps if maps.flags.writeable else maps.copy()
    return torch.as_tensor(maps)


def signed_log10(maps, offset=0.0):
    """sign(x) log10(|x| + ``offset``), and 0 where x is 0: k_max cuts leave negative pixels, so the log keeps the sign.

    ``offset`` is 0 but for fields with empty pixels.
    """
    x = as_tensor(maps)
    magnitude = x.abs() + offset if offset else x.abs()
    out = torch.log10(magnitude + (x == 0)) * torch.sign(x)
    return out if isinstance(maps, torch.Tensor) else out.numpy()


class Scale(NamedTuple):
    """How maps of a field become what a network sees: the signed log of maps / ``unit``, standardised.

    A unit other than 1 is the smallest pixel of a field whose pixels are below 1, where the sign of a logarithm says
    nothing about that of the pixel.
    """

    mean: float
    std: float
    offset: float = 0.0
    unit: float = 1.0

    def log(self, maps):
        """The signed log alone, of the same type as ``maps``."""
        return signed_log10(maps if self.unit == 1 else maps / self.unit, self.offset)

    def scale(self, maps):
        return (self.log(maps) - self.mean) / self.std

    def unscale(self, scaled):
        """The float64 maps that ``scale`` takes to ``scaled``."""
        log = scaled.double() * self.std + self.mean if torch.is_tensor(scaled) else scaled * self.std + self.mean
        sign, magnitude = (torch.sign, torch.abs) if torch.is_tensor(log) else (np.sign, np.abs)
        return sign(log) * (10 ** magnitude(log) - self.offset) * self.unit


def sums(maps):
    """``(3,)`` float64: number of pixels, their sum and their sum of squares. These add up over chunks of a set."""
    x = as_tensor(maps).double().reshape(-1)
    return np.array([len(x), x.sum().item(), torch.dot(x, x).item()])


def statistics(sums):
    """Mean and standard deviation over all pixels, from added-up ``sums``."""
    count, total, squares = sums
    mean = total / count
    return float(mean), float(np.sqrt(squares / count - mean**2))


def symmetry_table(size, device="cpu"):
    """``(8, size * size)`` flat pixel indices: ``flat_map[table[g]]`` is the map under the g-th symmetry of the square.

    Row 0 is the identity; rows 0-3 are rotations by g * 90 degrees, rows 4-7 the same of the transposed map.
    """
    index = torch.arange(size * size).reshape(size, size)
    images = [torch.rot90(image, k) for image in (index, index.T) for k in range(4)]
    return torch.stack([image.reshape(-1) for image in images]).to(device)


def transform(maps, group, table):
    """Each map ``maps[i]`` of ``(B, C, n, n)``, all its channels, under the symmetry ``group[i]`` in 0-7."""
    index = table[group][:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).view_as(maps)
