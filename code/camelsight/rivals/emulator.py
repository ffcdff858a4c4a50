"""The power spectrum's likelihood: an emulator of its mean, its covariance, and the sampling of the posterior.

Parameters are ``(B, P)`` in the unit cube of their prior, on which it is flat (``theta.to_prior``); spectra are the
natural logarithm of P(k) in ``(..., K)`` bins. One covariance serves all parameters because of the logarithm: a map's
scatter in P(k) itself goes with its mean. ``growth`` measures what is left.
"""

import itertools
from functools import partial

import emcee
import getdist
import numpy as np
import torch
from scipy import special
from torch import nn

from camelsight.rivals import spectrum_network

LAYERS, WIDTH = 4, 512
MOVES = ((emcee.moves.KDEMove, 0.8), (emcee.moves.DEMove, 0.2))  # correlated over a tenth of the stretch move's steps
BLOCKS = 20  # how often, at most, a chain's length is compared with its autocorrelation time
CONTOURS = (0.68, 0.95)
SMOOTHING = 0.3  # standard deviations, of the density behind the contours
PERCENTILES = (2.5, 16, 50, 84, 97.5)

getdist.chains.print_load_details = False


class Activation(nn.Module):
    """f(x) = (gamma + (1 - gamma) sigmoid(beta x)) x with a trainable beta and gamma for each unit.

    From Alsing et al. (2020), arXiv:1911.11778.
    """

    def __init__(self, width):
        super().__init__()
        self.beta = nn.Parameter(torch.randn(width))
        self.gamma = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return (self.gamma + (1 - self.gamma) * torch.sigmoid(self.beta * x)) * x


class Emulator(nn.Module):
    """Parameters ``(B, P)`` in the unit cube -> log P(k) ``(B, K)``; ``mean`` and ``std`` ``(K,)`` are its scale."""

    def __init__(self, parameters, mean, std, *, layers=LAYERS, width=WIDTH):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        widths = [parameters, *[width] * layers]
        blocks = [(nn.Linear(before, after), Activation(after)) for before, after in itertools.pairwise(widths)]
        self.layers = nn.Sequential(*(module for block in blocks for module in block), nn.Linear(width, len(mean)))

    def forward(self, unit):
        return self.layers(2 * unit - 1) * self.std + self.mean


def fit(train, valid, *, epochs, batch, max_lr, weight_decay, seed, **shape):
    """An ``Emulator`` by Adam and the squared error, in units of each bin's spread over ``train``; and the losses.

    ``train`` and ``valid`` are pairs (parameters, log P), a row a simulation: the mean over its maps, of which the
    squared error has the same gradient as of the maps one by one. The epoch with the best validation loss is kept.
    """
    mean, std = train[1].mean(0), train[1].std(0)
    return spectrum_network.fit(
        lambda: Emulator(train[0].shape[1], mean, std, **shape),
        lambda emulator, unit, log_power: ((emulator(unit) - log_power) / std).square().mean(),
        train,
        valid,
        epochs=epochs,
        batch=batch,
        max_lr=max_lr,
        optimiser=partial(torch.optim.Adam, weight_decay=weight_decay),
        seed=seed,
    )


def errors(emulated, measured):
    """``(5, K)``: the ``PERCENTILES`` over simulations of measured P / emulated P - 1, from logarithms ``(S, K)``."""
    return np.percentile(np.expm1(measured - emulated), PERCENTILES, axis=0)


def covariance(log_power, emulated):
    """``(K, K)``: the scatter at fixed parameters, of the maps of a simulation about the mean emulated for it.

    ``log_power`` is ``(S, M, K)``, M maps of each of S simulations, over which it is averaged, ``emulated`` ``(S, K)``.
    About their own mean the maps would scatter less: what they share, as cuts through one box, would be missing, and so
    would be the error of the emulator.
    """
    residual = (log_power - emulated[:, None]).reshape(-1, log_power.shape[-1])
    return residual.T @ residual / len(residual)


def growth(log_power, emulated, parameter):
    """How many times the scatter at fixed parameters, of log P and of P, is that at a lower ``parameter`` ``(S,)``.

    Between the thirds of the simulations with its largest and smallest values, the median over bins; the arrays are
    those of ``covariance``.
    """
    order, third = np.argsort(parameter), max(1, len(parameter) // 3)
    ratios = []
    for residual in (log_power - emulated[:, None], np.exp(log_power) - np.exp(emulated)[:, None]):
        lowest, highest = (np.square(residual[chosen]).mean((0, 1)) for chosen in (order[:third], order[-third:]))
        ratios.append(float(np.median(np.sqrt(highest / lowest))))
    return ratios


def hartlap(samples, bins):
    """(n - p - 2) / (n - 1): what to multiply the inverse of a covariance of ``bins`` bins from ``samples`` by.

    From Hartlap, Simon & Schneider (2007), arXiv:astro-ph/0608064.
    """
    if samples <= bins + 2:
        raise ValueError(f"expected more samples than bins + 2 to invert a covariance, got {samples} for {bins} bins")
    return (samples - bins - 2) / (samples - 1)


def log_likelihoods(emulated, log_power, precision):
    """``(W,)``: Gaussian log-likelihood of ``log_power`` ``(K,)`` given ``emulated`` ``(W, K)``, without its constant.

    ``precision`` ``(K, K)`` is the inverse covariance.
    """
    residual = emulated - log_power
    return -0.5 * (residual @ precision * residual).sum(1)


def posterior(network, prior, emulated, log_power, precision, **settings):
    """``sample`` for one spectrum ``(K,)``, given an ``Emulator`` and its ``(m, K)`` of ``prior`` ``(m, P)``.

    ``emulated``, ``log_power`` and ``precision`` are float64 tensors on the emulator's device.
    """

    def log_probability(unit):
        with torch.inference_mode():
            unit = torch.as_tensor(unit, dtype=torch.float32, device=emulated.device)
            return log_likelihoods(network(unit).double(), log_power, precision).cpu().numpy()

    weights = log_likelihoods(emulated, log_power, precision).cpu().numpy()
    return sample(log_probability, prior, weights, **settings)


def sample(log_probability, prior, log_weights, *, walkers, steps, lengths, seed):
    """Samples ``(n, P)`` of the posterior with a flat prior in the unit cube, by emcee, and how well they converged.

    ``log_probability`` takes ``(W, P)`` and returns ``(W,)``. Walkers move where the prior is a normal distribution,
    which has no walls. They start at points of ``prior`` ``(m, P)``, uniform in the cube, drawn without repetition by
    their log-probabilities ``log_weights`` ``(m,)``, and so near the posterior. The chain ends when it is ``lengths``
    times the longest integrated autocorrelation time, or after ``steps``; twice that time is left out at the start. The
    record has tau, steps, acceptance, converged and mean_error: the Monte-Carlo error of the mean over the standard
    deviation.
    """
    random = np.random.RandomState(seed % 2**32)
    start = prior[np.argsort(-(log_weights + random.gumbel(size=len(prior))))[:walkers]]  # Gumbel's top k
    sampler = emcee.EnsembleSampler(
        walkers,
        prior.shape[1],
        lambda normal: log_probability(special.ndtr(normal)) - 0.5 * np.square(normal).sum(1),
        moves=[(move(), share) for move, share in MOVES],
        vectorize=True,
    )
    state = emcee.State(special.ndtri(start), random_state=random.get_state())
    while sampler.iteration < steps:
        state = sampler.run_mcmc(state, max(2, steps // BLOCKS))
        with np.errstate(invalid="ignore"):  # of a walker that has not moved yet
            tau = float(np.nan_to_num(np.max(sampler.get_autocorr_time(tol=0)), nan=sampler.iteration))
        if converged := sampler.iteration >= lengths * tau:
            break
    samples = special.ndtr(sampler.get_chain(discard=int(min(2 * tau, sampler.iteration / 2)), flat=True))
    return samples, {
        "tau": tau,
        "steps": sampler.iteration,
        "acceptance": float(np.mean(sampler.acceptance_fraction)),
        "converged": bool(converged),
        "mean_error": float(np.sqrt(tau / len(samples))),
    }


def density(samples, low, high):
    """The density of samples ``(n, 2)`` between ``low`` and ``high`` ``(2,)``, by getdist, which knows of the walls.

    Returns x ``(G,)``, y ``(G,)``, density ``(G, G)``, whose first index is y's and whose largest value is 1, and
    levels ``(2,)``: of the contours that hold ``CONTOURS`` of the samples.
    """
    ranges = {name: limits for name, *limits in zip("xy", low, high, strict=True)}
    settings = {"ignore_rows": 0, "smooth_scale_2D": SMOOTHING}  # left to itself, it takes repeated points for detail
    chain = getdist.MCSamples(samples=samples, names=list(ranges), ranges=ranges, settings=settings)
    found = chain.get2DDensity("x", "y")
    return {"x": found.x, "y": found.y, "density": found.P, "levels": found.getContourLevels(CONTOURS)}
