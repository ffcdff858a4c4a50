"""The split by simulation: the maps of one simulation share their parameters, so they must stay together."""

import numpy as np

from camelsight.ground.cmd import MAPS_PER_SIMULATION


def by_simulation(n_simulations, *, seed=1, fractions=(0.9, 0.05, 0.05)):
    """``{"train", "valid", "test"}``: arrays of simulation indices.

    With 1000 simulations and seed 1 this is the released split element by element (``numpy.random.seed(1)``, then
    ``shuffle``), which is why the legacy generator is used; the global one is left alone.
    """
    if n_simulations < 3 or len(fractions) != 3 or not np.isclose(sum(fractions), 1) or min(fractions) <= 0:
        raise ValueError(
            f"expected at least 3 simulations and three positive fractions that add up to 1, "
            f"got {n_simulations} and {tuple(fractions)}"
        )
    order = np.arange(n_simulations)
    np.random.RandomState(seed).shuffle(order)
    n_valid, n_test = (max(1, round(n_simulations * fraction)) for fraction in fractions[1:])
    n_train = n_simulations - n_valid - n_test
    if n_train < 1:
        raise ValueError(
            f"expected a simulation left for training, got {n_valid} + {n_test} of {n_simulations} elsewhere"
        )
    return {"train": order[:n_train], "valid": order[n_train : n_train + n_valid], "test": order[n_train + n_valid :]}


def map_indices(simulations, per_simulation=MAPS_PER_SIMULATION):
    """The indices of the maps of ``simulations``, in their order."""
    return (np.asarray(simulations)[:, None] * per_simulation + np.arange(per_simulation)).reshape(-1)


def at_random(n_maps, n_held, generator):
    """``{"train", "valid", "test"}`` of map indices, ``n_held`` in each of the latter two, whatever their simulation.

    The mistake to learn from: maps of one simulation stand on both sides. ``generator`` is NumPy's.
    """
    order = generator.permutation(n_maps)
    return {"train": order[2 * n_held :], "valid": order[n_held : 2 * n_held], "test": order[:n_held]}
