"""How good the predictions are, with intervals from a bootstrap over simulations.

Maps of one simulation are not independent, so whole simulations are drawn, with replacement.
"""

import numpy as np
from scipy import special

RESAMPLES = 2000
ROUNDING = 1e-9  # a resample of one simulation has no scatter, hence no R²; sums of squares leave some rounding
COVERAGE = {"coverage_68": 0.68, "coverage_95": 0.95}


def r2(truth, mean):
    """Coefficient of determination of each column of ``(N, P)`` arrays, ``(P,)``."""
    return 1 - np.square(truth - mean).sum(0) / np.square(truth - truth.mean(0)).sum(0)


def summary(truth, mean, sigma, simulation, *, generator, resamples=RESAMPLES):
    """``{metric: (value, low, high)}``, each ``(P,)``; low and high bound the central 95% of the bootstrap.

    ``truth``, ``mean`` and ``sigma`` are ``(N, P)`` in physical units, ``simulation`` ``(N,)``. Metrics: r2, rmse,
    relative_error (mean of |truth - mean| / truth), mean_sigma, chi2 (mean of (truth - mean)^2 / sigma^2), coverage_68
    and coverage_95 (share of maps within the Gaussian interval).
    """
    _, group = np.unique(simulation, return_inverse=True)
    sums = _sums_per_simulation(truth, mean, sigma, group)
    n = group.max() + 1
    counts = generator.multinomial(n, np.full(n, 1 / n), size=resamples)  # (R, S)
    value = _from_sums({name: column.sum(0) for name, column in sums.items()})
    with np.errstate(invalid="ignore"):  # a sigma of 0 makes chi2 infinite
        resampled = _from_sums({name: np.tensordot(counts, column, 1) for name, column in sums.items()})
        return {name: (value[name], *np.nanpercentile(resampled[name], [2.5, 97.5], axis=0)) for name in value}


def _sums_per_simulation(truth, mean, sigma, group):
    centred = truth - truth.mean(0)  # sums of squares lose no digits to the offset
    residual = truth - mean
    with np.errstate(divide="ignore"):
        pull = np.abs(residual) / sigma
    terms = {
        "n": np.ones_like(truth),
        "truth": centred,
        "truth_squared": np.square(centred),
        "residual_squared": np.square(residual),
        "relative": np.abs(residual) / np.abs(truth),
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
        return {
            "r2": np.where(scatter > ROUNDING * sums["truth_squared"], 1 - sums["residual_squared"] / scatter, np.nan),
            "rmse": np.sqrt(sums["residual_squared"] / n),
            "relative_error": sums["relative"] / n,
            "mean_sigma": sums["sigma"] / n,
            "chi2": sums["chi2"] / n,
            **{name: sums[name] / n for name in COVERAGE},
        }
