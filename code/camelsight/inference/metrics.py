"""How good the predictions are, with intervals from a bootstrap over simulations.

Maps of one simulation are not independent, so whole simulations are drawn, with replacement.
"""

import warnings

import numpy as np
from scipy import special

from camelsight.ground.cmd import MAPS_PER_SIMULATION
from camelsight.maps.scaling import SYMMETRIES

RESAMPLES = 2000
ROUNDING = 1e-9  # a resample of one simulation has no scatter, hence no R²; sums of squares leave some rounding
COVERAGE = {"coverage_68": 0.68, "coverage_95": 0.95}


def r2(truth, mean):
    """Coefficient of determination of each column of ``(N, P)`` arrays, ``(P,)``."""
    truth, mean = np.asarray(truth, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    if truth.shape != mean.shape:
        raise ValueError(f"expected truth and mean of one shape, got {truth.shape} and {mean.shape}")
    return 1 - np.square(truth - mean).sum(0) / np.square(truth - truth.mean(0)).sum(0)


def summary(truth, mean, sigma, simulation, *, generator=None, resamples=RESAMPLES):
    """``{metric: (value, low, high)}``, each ``(P,)``; low and high bound the central 95% of the bootstrap.

    ``truth``, ``mean`` and ``sigma`` are ``(N, P)`` in physical units, ``simulation`` ``(N,)``. Metrics: r2, rmse,
    relative_error (mean of |truth - mean| / truth), rms_relative_error, mean_sigma, chi2 (mean of
    (truth - mean)^2 / sigma^2), coverage_68 and coverage_95 (share of maps within the Gaussian interval), bias (mean of
    mean - truth) and bias_slope (of the line that fits mean - truth against truth best). Without a NumPy ``generator``
    the resamples are those of seed 1.
    """
    generator = np.random.default_rng(1) if generator is None else generator
    truth, mean, sigma = (np.asarray(values, dtype=np.float64) for values in (truth, mean, sigma))
    if not truth.shape == mean.shape == sigma.shape or truth.shape[:1] != np.shape(simulation) or truth.ndim != 2:
        raise ValueError(
            f"expected truth, mean and sigma of one shape (N, P) and N simulations, got {truth.shape}, {mean.shape}, "
            f"{sigma.shape} and {np.shape(simulation)}"
        )
    if not len(truth) or (sigma < 0).any():
        raise ValueError(
            f"expected at least one row and no sigma below 0, got {len(truth)} and {sigma.min(initial=0):g}"
        )
    group, counts = draws(simulation, generator, resamples)
    sums = _sums_per_simulation(truth, mean, sigma, group)
    value = _from_sums({name: column.sum(0) for name, column in sums.items()})
    with np.errstate(invalid="ignore"), warnings.catch_warnings():  # a sigma of 0 makes chi2 infinite
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # R² of a single simulation
        resampled = _from_sums({name: np.tensordot(counts, column, 1) for name, column in sums.items()})
        return {name: (value[name], *np.nanpercentile(resampled[name], [2.5, 97.5], axis=0)) for name in value}


def draws(simulation, generator, resamples):
    """Which of S simulations each row is of, ``(N,)``, and how often each of these is in each resample, ``(R, S)``."""
    _, group = np.unique(simulation, return_inverse=True)
    n = group.max() + 1
    return group, generator.multinomial(n, np.full(n, 1 / n), size=resamples)


def group_by_truth(truth):
    """Which rows of ``(N, P)`` true values share a simulation: its number ``(N,)``, and in words how rows map to it."""
    _, simulation, rows = np.unique(truth, axis=0, return_inverse=True, return_counts=True)
    n, sizes = len(rows), sorted(set(rows.tolist()))
    maps = f"{MAPS_PER_SIMULATION} maps"
    kinds = {MAPS_PER_SIMULATION: f"{maps} each", SYMMETRIES * MAPS_PER_SIMULATION: f"{maps} × {SYMMETRIES} views each"}
    each = kinds.get(sizes[0], f"{sizes[0]} rows each") if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} rows each"
    return simulation.reshape(-1), f"{len(truth)} rows, {n} simulations by their true values, {each}"


def _sums_per_simulation(truth, mean, sigma, group):
    centred = truth - truth.mean(0)  # sums of squares lose no digits to the offset
    residual = truth - mean
    with np.errstate(divide="ignore", invalid="ignore"):  # what is exact is off by none of a sigma or a truth of 0
        pull, relative = (np.where(residual == 0, 0, np.abs(residual) / scale) for scale in (sigma, np.abs(truth)))
    terms = {
        "n": np.ones_like(truth),
        "truth": centred,
        "truth_squared": np.square(centred),
        "residual": residual,
        "residual_truth": residual * centred,
        "residual_squared": np.square(residual),
        "relative": relative,
        "relative_squared": np.square(relative),
        "sigma": sigma,
        "chi2": np.square(pull),
        **{name: (pull < np.sqrt(2) * special.erfinv(level)).astype(float) for name, level in COVERAGE.items()},
    }
    shape = (group.max() + 1, truth.shape[1])
    sums = {}
    for name, term in terms.items():
        sums[name] = np.zeros(shape)
        np.add.at(sums[name], group, term)
    return sums


def _from_sums(sums):
    n = sums["n"]
    with np.errstate(divide="ignore", invalid="ignore"):
        scatter = sums["truth_squared"] - np.square(sums["truth"]) / n
        scatter = np.where(scatter > ROUNDING * sums["truth_squared"], scatter, np.nan)
        return {
            "r2": 1 - sums["residual_squared"] / scatter,
            "rmse": np.sqrt(sums["residual_squared"] / n),
            "relative_error": sums["relative"] / n,
            "rms_relative_error": np.sqrt(sums["relative_squared"] / n),
            "mean_sigma": sums["sigma"] / n,
            "chi2": sums["chi2"] / n,
            **{name: sums[name] / n for name in COVERAGE},
            "bias": -sums["residual"] / n,
            "bias_slope": -(sums["residual_truth"] - sums["residual"] * sums["truth"] / n) / scatter,
        }


def r2_difference(truth, first, second, simulation, *, generator, resamples=RESAMPLES):
    """(value, low, high) of R²(first) - R²(second), each ``(P,)``: both predict ``truth`` and see the same draws."""
    group, counts = draws(simulation, generator, resamples)
    sums = [_sums_per_simulation(truth, mean, np.ones_like(truth), group) for mean in (first, second)]

    def difference(weights):
        a, b = (_from_sums({name: np.tensordot(weights, s, 1) for name, s in one.items()})["r2"] for one in sums)
        return a - b

    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return difference(np.ones(counts.shape[1])), *np.nanpercentile(difference(counts), [2.5, 97.5], axis=0)
