"""The Fourier grid of a periodic box: its modes, and the shells of |k| that everything here is averaged in."""

import torch


def mode_numbers(n, dimensions, device="cpu", dtype=torch.float64):
    """The axes of the grid of ``rfftn`` in fundamental modes, shaped to be broadcast: the last has n // 2 + 1 modes."""
    axes = [torch.fft.fftfreq(n, 1 / n, dtype=dtype, device=device)] * (dimensions - 1)
    axes.append(torch.arange(n // 2 + 1, dtype=dtype, device=device))
    return [
        axis.view([-1 if other == position else 1 for other in range(dimensions)]) for position, axis in enumerate(axes)
    ]


def shells(n, dimensions, device="cpu"):
    """``(shell, radius, weight)`` on the grid of ``rfftn``: shell s has |k| from s to s + 1 fundamental modes.

    ``radius`` is |k| in fundamental modes. The weights, added up over a shell, count a mode and its conjugate once, and
    so a mode that is its own conjugate, as Pylians does.
    """
    axes = mode_numbers(n, dimensions, device)
    own = sum((axis % (n / 2) != 0).double() for axis in axes) == 0
    alone = (axes[-1] > 0) & (axes[-1] < n / 2)  # elsewhere the conjugate is on the grid, too
    radius = sum(axis**2 for axis in axes).sqrt()
    return radius.int(), radius, torch.where(alone | own, 1.0, 0.5).double()


def shell_means(power):
    """The mean |k| ``(B,)`` in fundamental modes and the mean ``power`` ``(N, B)`` of the modes of each shell.

    ``power`` ``(N, n, ..., n // 2 + 1)`` lies on the grid of ``rfftn``, in two dimensions or three.
    """
    shell, radius, weight = (one.flatten() for one in shells(power.shape[1], power.ndim - 1, power.device))
    count = torch.bincount(shell, weight)
    k, *means = (torch.bincount(shell, weight * values) / count for values in (radius, *power.double().flatten(1)))
    return k, torch.stack(means)
