"""The split by simulation: the maps of one simulation share their parameters, so they must stay together."""

import numpy as np

from camelsight.ground.cmd import MAPS_PER_SIMULATION, SIMULATIONS

# Maps of IllustrisTNG in the paper's figures: under cuts of scales, under cuts of densities, and attributed.
SHOWN = {"scales": 0, "densities": 264 * MAPS_PER_SIMULATION, "attribution": 829 * MAPS_PER_SIMULATION + 14}


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


def of_hypercube(n_simulations, *, seed=1, fractions=(0.9, 0.05, 0.05)):
    """As ``by_simulation``, of ``n_simulations`` of CAMELS' 1000: the numbers of simulations.

    Parts are the first of the released ones where these are long enough, in their order, and hold the simulations
    whose maps the paper's figures show: a small set is tested on simulations that the paper's networks were tested on.
    """
    whole, wanted = by_simulation(SIMULATIONS, seed=seed), by_simulation(n_simulations, seed=seed, fractions=fractions)
    if any(len(wanted[name]) > len(whole[name]) for name in whole):
        order, ends = np.concatenate(list(whole.values())), np.cumsum([len(part) for part in wanted.values()])
        return dict(zip(whole, np.split(order, ends)[:3], strict=True))
    parts = {}
    for name, part in whole.items():
        shown = np.isin(part, [index // MAPS_PER_SIMULATION for index in SHOWN.values()])
        others = len(wanted[name]) - shown.sum()
        kept = shown | (np.cumsum(~shown) <= others)
        parts[name] = part[kept][: len(wanted[name])]
    return parts


def numbers(parts):
    """The numbers of all simulations of ``parts``, ascending."""
    return np.sort(np.concatenate(list(parts.values())))


def map_indices(simulations):
    """The indices of the maps of ``simulations``, in their order."""
    return (np.asarray(simulations)[:, None] * MAPS_PER_SIMULATION + np.arange(MAPS_PER_SIMULATION)).reshape(-1)


def at_random(n_maps, n_held, generator):
    """``{"train", "valid", "test"}`` of map indices, ``n_held`` in each of the latter two, whatever their simulation.

    The mistake to learn from: maps of one simulation stand on both sides. ``generator`` is NumPy's.
    """
    order = generator.permutation(n_maps)
    return {"train": order[2 * n_held :], "valid": order[n_held : 2 * n_held], "test": order[:n_held]}
