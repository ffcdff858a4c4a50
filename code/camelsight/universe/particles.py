"""Particles on a mesh in single passes, compiled from particles.cpp, for a CPU.

Without the library, or on a GPU, ``mesh`` computes the same with torch's operators.
"""

import ctypes

import torch

_library = None


def load(path):
    """Use the library at ``path`` in this process from now on, or none where ``path`` is None."""
    global _library
    _library = None if path is None else ctypes.CDLL(str(path))


def serves(positions):
    """Whether the library is there for ``positions``."""
    return _library is not None and positions.device.type == "cpu" and positions.dtype == torch.float32


def deposit(positions, mesh, box, offset=0.0, weights=None):
    """Mass per cell ``(mesh, mesh, mesh)`` of ``positions`` ``(n, 3)`` shifted by ``offset``; weight one by default."""
    field = torch.zeros(mesh, mesh, mesh)
    weights = None if weights is None else weights.float().contiguous()
    _call("deposit", len(positions), mesh, float(box), float(offset), positions.T.contiguous(), weights, field)
    return field


def pull(potential, positions, box, offset=0.0, scale=1.0):
    """Minus the gradient of ``potential`` ``(mesh, mesh, mesh)``, times ``scale``: ``(n, 3)``.

    It is taken at ``positions`` ``(n, 3)`` shifted by ``offset``.
    """
    out = torch.empty(3, len(positions))
    numbers = len(positions), potential.shape[0], float(box), float(offset), float(scale)
    _call("pull", *numbers, positions.T.contiguous(), potential.contiguous(), out)
    return out.T


def project(positions, weights, level_of_cell, box, count):
    """Add the sheet of ``positions`` ``(n**3, 3)`` with ``weights`` to ``count`` (levels, 3, slabs, pixels, pixels).

    ``level_of_cell`` ``(m, m, m)`` int32 holds the level of every cell.
    """
    side, slabs, pixels = round(len(positions) ** (1 / 3)), *count.shape[2:4]
    lattice = torch.cat([positions.T, weights[None]])
    _call(
        "project", side, level_of_cell.shape[0], float(box), lattice, level_of_cell.contiguous(), pixels, slabs, count
    )


def _call(name, *arguments):
    """The function ``name`` of the library; its numbers are int64 and double, tensors (or None) pointers."""
    function = getattr(_library, name)
    function.restype = None
    function(*(_TYPES[type(one)](one) for one in arguments))


_TYPES = {
    int: ctypes.c_int64,
    float: ctypes.c_double,
    type(None): ctypes.c_void_p,
    torch.Tensor: lambda tensor: ctypes.c_void_p(tensor.data_ptr()),
}
