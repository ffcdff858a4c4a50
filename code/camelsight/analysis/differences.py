"""What a cut costs in R², on the same test simulations: of the tables, and of the verdict on them."""

from camelsight.ground import seeding, theta
from camelsight.inference import metrics


def of_cut(params, suite, case, uncut, cut):
    """Parameter → (value, low, high) of R²(uncut) - R²(cut); both are predictions as stage evaluate writes them."""
    found = metrics.r2_difference(
        uncut["truth"], uncut["mean"], cut["mean"], uncut["simulation"],
        generator=seeding.numpy_generator(params.seed, suite, case, "cost"), resamples=params.evaluate.resamples,
    )  # fmt: skip
    return {name: tuple(map(float, values)) for name, *values in zip(theta.NAMES, *found, strict=True)}
