"""The six parameters of CAMELS: names, ranges per suite, normalisation.

Ranges and the column order are those of the CAMELS Multifield Dataset (CMD) documentation.
"""

import numpy as np

NAMES = ("omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")  # columns of every CMD params file
COSMOLOGICAL = ("omega_m", "sigma_8")
_WRITTEN = {name.lower().replace("_", ""): name for name in NAMES} | {"om": "omega_m", "s8": "sigma_8"}
LABELS = {
    "omega_m": r"$\Omega_{\rm m}$",
    "sigma_8": r"$\sigma_8$",
    "A_SN1": r"$A_{\rm SN1}$",
    "A_AGN1": r"$A_{\rm AGN1}$",
    "A_SN2": r"$A_{\rm SN2}$",
    "A_AGN2": r"$A_{\rm AGN2}$",
}
LOG_UNIFORM = np.array([False, False, True, True, True, True])  # the A's are drawn uniformly in their logarithm
FIDUCIAL = np.array([0.3, 0.8, 1.0, 1.0, 1.0, 1.0])

_LOW = [0.1, 0.6, 0.25, 0.25, 0.5, 0.5]
_HIGH = [0.5, 1.0, 4.0, 4.0, 2.0, 2.0]
_SUITES = {
    "IllustrisTNG": (_LOW, _HIGH),
    "SIMBA": (_LOW, _HIGH),
    "Astrid": ([*_LOW[:5], 0.25], [*_HIGH[:5], 4.0]),  # the only suite whose A_AGN2 spans .25-4
}
_OTHERS = ("EAGLE", "Swift-EAGLE", "Magneticum", "Ramses", "Enzo")  # suites of CAMELS
SUITES = tuple(_SUITES) + tuple(f"Nbody_{suite}" for suite in _SUITES)


def recognise(word):
    """The name of the parameter that ends a ``word`` of a header, such as Omega_m, true_sigma_8 or ASN1; or None."""
    letters = "".join(letter for letter in word.lower() if letter.isalnum())
    return next((name for ending, name in _WRITTEN.items() if letters.endswith(ending)), None)


def hydro_suite(suite):
    """The hydrodynamic suite that ``suite`` is, or, for ``Nbody_X``, is paired with."""
    name = suite.removeprefix("Nbody_")
    if name not in _SUITES:
        why = ", a suite of CAMELS whose parameters are not known here" if name in _OTHERS else ""
        raise ValueError(f"expected a suite among {', '.join(SUITES)}, got {suite!r:.60}{why}")
    return name


def is_nbody(suite):
    return suite.startswith("Nbody_")


def ranges(suite):
    """Lower and upper limits of the six parameters of ``suite``, two ``(6,)`` float64 arrays."""
    low, high = _SUITES[hydro_suite(suite)]
    return np.array(low), np.array(high)


def meaningful(suite):
    """``(6,)`` bool: gravity-only suites carry the four astrophysical columns, but these mean nothing there."""
    return np.array([name in COSMOLOGICAL or not is_nbody(suite) for name in NAMES])


def meant(suite):
    """The names of the ``meaningful`` parameters."""
    return tuple(name for name, good in zip(NAMES, meaningful(suite), strict=True) if good)


def normalise(theta, suite):
    """Physical ``(..., 6)`` parameters to [0, 1] over the suite's range."""
    low, high = ranges(suite)
    return (theta - low) / (high - low)


def denormalise(mean, suite):
    """The inverse of ``normalise``."""
    low, high = ranges(suite)
    return mean * (high - low) + low


def denormalise_sigma(sigma, suite):
    """Normalised standard deviations ``(..., 6)`` to physical units."""
    low, high = ranges(suite)
    return sigma * (high - low)


def to_prior(theta, suite):
    """Physical ``(..., 6)`` parameters to the unit cube that CAMELS drew them from: the A's in their logarithm."""
    low, high = ranges(suite)
    return np.where(LOG_UNIFORM, np.log(theta / low) / np.log(high / low), normalise(theta, suite))


def from_prior(unit, suite):
    """The inverse of ``to_prior``."""
    low, high = ranges(suite)
    log_low, log_high = np.log(low), np.log(high)
    return np.where(LOG_UNIFORM, np.exp(log_low + unit * (log_high - log_low)), low + unit * (high - low))
