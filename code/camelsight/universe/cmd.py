"""The CAMELS Multifield Dataset (CMD): names, sizes, published statistics, and checks of what claims to be it.

https://camels-multifield-dataset.readthedocs.io
"""

import numpy as np

from camelsight import theta as parameters

BOX = 25.0  # Mpc/h
SLABS = 5  # per axis, of 5 Mpc/h; map = axis * SLABS + slab
MAPS_PER_SIMULATION = 15
SIMULATIONS = 1000  # of the LH set
PIXELS = 256
DTYPE = np.dtype(np.float32)

# (Msun/h)/(Mpc/h)^2 over all pixels of Maps_Mtot_*_LH_z=0.00.npy as regenerated in May 2024, from CMD's documentation.
PUBLISHED_STATISTICS = {
    "IllustrisTNG": {"min": 4.6650e9, "max": 2.8518e15, "mean": 4.1632e11, "std": 3.6415e12},
    "SIMBA": {"min": 5.2276e9, "max": 4.2038e15, "mean": 4.1632e11, "std": 3.6380e12},
    "Astrid": {"min": 5.4158e9, "max": 2.8644e15, "mean": 4.1631e11, "std": 3.6788e12},
}
# Smallest and largest pixel of IllustrisTNG before the bug at the boundary pixels was mended, from the same place.
STATISTICS_BEFORE_MAY_2024 = {"IllustrisTNG": {"min": 4.5981e9, "max": 3.1863e15}}
# Of log10 of these older maps: what the released code standardises all of them with.
LOG10_BEFORE_MAY_2024 = {"IllustrisTNG": {"log10_mean": 11.104, "log10_std": 0.4918}}


def maps_file_name(suite):
    """The name of the file with the total-matter maps of ``suite``, such as IllustrisTNG or Nbody_IllustrisTNG."""
    parameters.hydro_suite(suite)
    return f"Maps_Mtot_{suite}_LH_z=0.00.npy"


def params_file_name(suite):
    parameters.hydro_suite(suite)
    return f"params_LH_{suite}.txt"


def statistics(maps, chunk=64):
    """min, max, mean, std (float64, of the finite pixels), n_nan (NaN and infinite) and n_nonpositive.

    Reads ``chunk`` maps ``(n, pixels, pixels)`` at a time, so that a memory map never comes in whole.
    """
    low, high, count, mean, squares, n_nan, n_nonpositive = np.inf, -np.inf, 0, 0.0, 0.0, 0, 0
    for start in range(0, len(maps), chunk):
        values = np.asarray(maps[start : start + chunk], dtype=np.float64).ravel()
        finite = values[np.isfinite(values)]
        n_nan += values.size - finite.size
        if not finite.size:
            continue
        n_nonpositive += int((finite <= 0).sum())
        low, high = min(low, finite.min()), max(high, finite.max())
        # Chan, Golub & LeVeque (1983): sums of squares about the mean, joined chunk by chunk.
        shift, total = finite.mean() - mean, count + finite.size
        squares += ((finite - finite.mean()) ** 2).sum() + shift**2 * count * finite.size / total
        mean, count = mean + shift * finite.size / total, total
    if not count:
        low = high = mean = squares = np.nan
    std = np.sqrt(squares / max(count, 1))
    return {
        "min": float(low),
        "max": float(high),
        "mean": float(mean),
        "std": float(std),
        "n_nan": n_nan,
        "n_nonpositive": n_nonpositive,
    }


def check_maps(shape, dtype, expected_simulations, expected_pixels, name):
    """ValueError in one line unless an array of ``shape`` and ``dtype`` is the set of maps that is expected."""
    expected = (expected_simulations * MAPS_PER_SIMULATION, expected_pixels, expected_pixels)
    shape = tuple(shape)
    if shape == expected and np.dtype(dtype) == DTYPE:
        return
    if np.dtype(dtype) != DTYPE:
        advice = "these are not CMD's maps; fetch the file again"
    elif shape[1:] == expected[1:] and shape[0] < expected[0]:
        advice = "the download is incomplete; fetch the file again"
    else:
        advice = "make the profile's simulations and pixels agree with the file, or fetch the file again"
    raise ValueError(f"expected {expected} {DTYPE}, got {shape} {np.dtype(dtype)} in {name}: {advice}")


def check_params(array, simulations, suite, name):
    """ValueError in one line unless ``array`` is the ``(simulations, 6)`` parameters of ``suite``, in its ranges.

    A gravity-only suite's four astrophysical columns mean nothing and are not looked at.
    """
    array = np.asarray(array)
    expected = (simulations, len(parameters.NAMES))
    if array.shape != expected:
        raise ValueError(
            f"expected {expected}, got {array.shape} in {name}: the file belongs to another set; fetch it again"
        )
    low, high = parameters.ranges(suite)
    for column in np.flatnonzero(parameters.meaningful(suite)):
        values = array[:, column]
        bad = ~((values >= low[column]) & (values <= high[column]))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"expected {parameters.NAMES[column]} in [{low[column]:g}, {high[column]:g}], got {values[row]:g} "
                f"in row {row} of {name}: the columns are {', '.join(parameters.NAMES)}; fetch the file again"
            )


def check_values(statistics, name):
    """ValueError in one line unless every pixel, by ``statistics``, is finite and positive."""
    n_nan, n_nonpositive = statistics["n_nan"], statistics["n_nonpositive"]
    if n_nan or n_nonpositive:
        raise ValueError(
            f"expected finite surface densities above zero, got {n_nan} NaN or infinite and {n_nonpositive} zero or "
            f"negative pixels in {name}: fetch or simulate the file again"
        )
