"""The moment network's loss, in the convention of the released code (arXiv:2109.10360; Jeffrey & Wandelt 2020)."""

import torch

_TINY = 1e-30  # keeps the gradient of the log finite where a batch is predicted perfectly; far below any float32 result


def moments(mean, sigma, theta):
    """``(2, P)`` batch means of (theta - mean)^2 and of ((theta - mean)^2 - sigma^2)^2, from ``(B, P)`` each."""
    if not mean.shape == sigma.shape == theta.shape:
        raise ValueError(f"expected one shape (B, P), got {mean.shape}, {sigma.shape} and {theta.shape}")
    squared = (theta - mean).square()
    return torch.stack([squared.mean(0), (squared - sigma.square()).square().mean(0)])


def from_moments(moments):
    """The loss of ``(2, P)`` averaged moments: the mean over parameters of the sum of their two logs."""
    return torch.log(moments + _TINY).sum(0).mean()


def moment_loss(mean, sigma, theta):
    """mean_P [ log mean_B (theta - mean)^2 + log mean_B ((theta - mean)^2 - sigma^2)^2 ], a scalar.

    At its minimum ``mean`` is the posterior mean and ``sigma`` the posterior standard deviation. The papers write a sum
    over parameters; the released code averages, and the published study values are in this convention.
    """
    return from_moments(moments(mean, sigma, theta))
