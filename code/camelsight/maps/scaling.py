"""From surface density to what the network sees, and the eight symmetries of a map."""

import numpy as np
import torch

SYMMETRIES = 8  # of a square


def as_tensor(maps):
    """``maps`` as a tensor, which shares their memory where torch can: not with read-only or reversed arrays."""
    if isinstance(maps, np.ndarray):
        maps = np.ascontiguousarray(maps, dtype=maps.dtype.newbyteorder("="))
        maps = maps if maps.flags.writeable else maps.copy()
    return torch.as_tensor(maps)


def signed_log10(maps):
    """sign(x) log10|x|, and 0 where x is 0: k_max cuts leave negative pixels, so the log keeps the sign."""
    x = as_tensor(maps)
    out = torch.log10(x.abs() + (x == 0)) * torch.sign(x)
    return out if isinstance(maps, torch.Tensor) else out.numpy()


def sums(maps):
    """``(3,)`` float64: number of pixels, their sum and their sum of squares. These add up over chunks of a set."""
    x = as_tensor(maps).double().reshape(-1)
    return np.array([len(x), x.sum().item(), torch.dot(x, x).item()])


def statistics(sums):
    """Mean and standard deviation over all pixels, from added-up ``sums``."""
    count, total, squares = sums
    mean = total / count
    return float(mean), float(np.sqrt(squares / count - mean**2))


def standardise(maps, mean, std):
    return (maps - mean) / std


def symmetry_table(size, device="cpu"):
    """``(8, size * size)`` flat pixel indices: ``flat_map[table[g]]`` is the map under the g-th symmetry of the square.

    Row 0 is the identity; rows 0-3 are rotations by g * 90 degrees, rows 4-7 the same of the transposed map.
    """
    index = torch.arange(size * size).reshape(size, size)
    images = [torch.rot90(image, k) for image in (index, index.T) for k in range(4)]
    return torch.stack([image.reshape(-1) for image in images]).to(device)


def transform(maps, group, table):
    """Each map ``maps[i]`` of ``(B, n, n)`` under the symmetry ``group[i]`` in 0-7."""
    return maps.flatten(1).gather(1, table[group]).view_as(maps)
