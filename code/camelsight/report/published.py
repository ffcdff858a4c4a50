"""The numbers that the paper's figures are compared in; the published ones are rows of paper/expected.yaml."""

import numpy as np

from camelsight.ground import theta
from camelsight.report.tables import NOT_AVAILABLE, SYMBOLS

STEP = 0.05  # of log10 density, the bins in which a minimum is looked for
FEWEST = 20  # pixels of a bin
PIXELS = 256  # a side of the paper's maps: attribution per pixel goes with their area
UNIT = 1e-4
WORDS = {"saliency": "Saliency", "integrated_gradients": "IG", "gradient_shap": "Shap"}


def lowest(density, values):
    """The log10 density where the median |value| is lowest, of all bins with enough pixels; NaN without one."""
    log10, magnitude = np.log10(density).ravel(), np.abs(values).ravel()
    place = np.floor(log10 / STEP).astype(int)
    medians = {
        int(one): np.median(magnitude[place == one])
        for one, count in zip(*np.unique(place, return_counts=True), strict=True)
        if count >= FEWEST
    }
    return (min(medians, key=medians.get) + 0.5) * STEP if medians else np.nan


def attribution_numbers(arrays, names, log10_mean):
    """Macros on the first map and field of ``arrays``: density ``(M, C, n, n)``, by method ``(M, P, C, n, n)``."""
    out = {"MeanLog": f"{log10_mean:.2f}", "PixelRatio": f"{(PIXELS / arrays['density'].shape[-1]) ** 2:g}"}
    for name, symbol in SYMBOLS.items():
        for method, word in WORDS.items():
            values = arrays[method][0, names.index(name), 0]
            out[f"Median{word}{symbol}"] = f"{np.median(np.abs(values)) / UNIT:.1f}"
        minimum = lowest(arrays["density"][0, 0], arrays["integrated_gradients"][0, names.index(name), 0])
        out[f"LowestLog{symbol}"] = f"{minimum:.2f}" if np.isfinite(minimum) else NOT_AVAILABLE
    return out


def attribution_values(arrays, names, log10_mean, suite):
    """What rows ``attribution_scale`` and ``attribution_minimum`` of expected.yaml are judged by; id → value.

    The scale is that of maps of the paper's ``PIXELS``, and not defined for others.
    """
    found = {}
    for name in set(names) & set(theta.COSMOLOGICAL):
        column = names.index(name)
        minimum = lowest(arrays["density"][0, 0], arrays["integrated_gradients"][0, column, 0])
        found[f"attribution_minimum.{suite}.integrated_gradients.{name}"] = minimum - log10_mean
        if arrays["density"].shape[-1] == PIXELS:
            medians = {method: np.median(np.abs(arrays[method][0, column, 0])) for method in WORDS}
            found |= {f"attribution_scale.{suite}.{method}.{name}": float(one) for method, one in medians.items()}
    return found


def poster_values(r2, suite):
    """What the rows ``poster`` are judged by: the shape of R² against thresholds; ``r2`` is (case, name) → R².

    ``knee``: how much more is lost from 1e11 to 5e10 than from 1e12 to 1e11, cut above and filled with noise.
    ``sides``: R² where what is above 1e12 is cut, minus R² where what is below is.
    """
    found = {}
    for name in theta.COSMOLOGICAL:
        curve = [r2.get((f"max_{threshold}_random", name)) for threshold in ("5e10", "1e11", "1e12")]
        below = r2.get(("min_1e12_clamp", name))
        if None not in curve:
            found[f"poster.{suite}.knee.{name}"] = (curve[1] - curve[0]) - (curve[2] - curve[1])
        if curve[2] is not None and below is not None:
            found[f"poster.{suite}.sides.{name}"] = curve[2] - below
    return found
