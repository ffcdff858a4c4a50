"""How much a network tells of the parameters, and which few fields tell most of it."""

import numpy as np

SHARES = (0.9, 0.95)  # of the best network's information, for CMD's third challenge


def information(r2):
    """-ln(1 - ``r2``) / 2 in nats: half the logarithm of how much smaller than the prior's variance the mean squared
    error is.

    Of Gaussian errors it is the mutual information of a parameter and its estimate. So it adds up over parameters,
    and its zero is a network that knows nothing, without which a share of it would depend on units.
    """
    return -np.log1p(-np.minimum(r2, 1 - 1e-12)) / 2


def forward(names, measure):
    """Sets that grow by the name that helps most, as tuples in the order of ``names``: the last one is all of them.

    ``measure(set)`` is what is to grow.
    """
    chosen, path = (), []
    while len(chosen) < len(names):
        larger = [tuple(name for name in names if name in (*chosen, one)) for one in names if one not in chosen]
        chosen = max(larger, key=measure)
        path.append(chosen)
    return path


def smallest(path, values, share):
    """The first set of ``path`` whose value, in ``values``, is at least ``share`` of the highest; None if that is 0."""
    best = max(values.values())
    if not best > 0:
        return None
    return next((one for one in path if values[one] >= share * best), max(values, key=values.get))
