import math
from pathlib import Path

import numpy as np
import pytest

from camelsight.ground import split
from camelsight.pipeline import store
from camelsight.report import published
from camelsight.stages import attribute

ROOT = Path(__file__).parent.parent
NAMES = ["sigma_8", "omega_m"]
MEAN = 11.1


def arrays(pixels=64, at=MEAN):
    """Attribution that goes with the distance of the log density from ``at``, and twice as much for omega_m."""
    density = 10 ** np.random.default_rng(0).normal(MEAN, 0.5, (2, 1, pixels, pixels))
    distance = np.log10(density) - at
    stack = np.stack([distance, 2 * distance], axis=1) * 1e-4
    return {"density": density, **dict.fromkeys(published.WORDS, stack)}


@pytest.mark.parametrize("at", [10.8, 11.1, 11.4])
def test_the_minimum_is_found_where_it_is(at):
    one = arrays(at=at)
    found = published.lowest(one["density"][0, 0], one["integrated_gradients"][0, 0, 0])
    assert abs(found - at) <= published.STEP
    values = published.attribution_values(one, NAMES, MEAN, "IllustrisTNG")
    assert values["attribution_minimum.IllustrisTNG.integrated_gradients.sigma_8"] == pytest.approx(found - MEAN)


def test_bins_of_few_pixels_have_no_minimum():
    density = np.array([1e10] * 5 + [1e11] * 30 + [1e12] * 30)
    assert published.lowest(density, np.array([0.0] * 5 + [2.0] * 30 + [-1.0] * 30)) == pytest.approx(12.025)
    assert math.isnan(published.lowest(density[:5], np.ones(5)))


def test_the_scale_is_a_median_of_magnitudes_and_judged_at_the_papers_pixels_alone():
    one, large = arrays(), arrays(256)
    assert not any(name.startswith("attribution_scale") for name in published.attribution_values(one, NAMES, MEAN, "X"))
    values = published.attribution_values(large, NAMES, MEAN, "X")
    sigma_8 = np.median(np.abs(large["saliency"][0, 0]))
    assert values["attribution_scale.X.saliency.sigma_8"] == sigma_8
    assert values["attribution_scale.X.gradient_shap.omega_m"] == pytest.approx(2 * sigma_8)
    numbers = published.attribution_numbers(large, NAMES, MEAN)
    assert numbers["MedianIGSigmaEight"] == f"{1e4 * sigma_8:.1f}" and numbers["PixelRatio"] == "1"
    assert published.attribution_numbers(one, NAMES, MEAN)["PixelRatio"] == "16"


POSTER = {"max_5e10_random": 0.76, "max_1e11_random": 0.946, "max_1e12_random": 0.983, "min_1e12_clamp": 0.68}


def test_the_posters_own_curves_have_the_shapes_that_they_are_quoted_for():
    found = published.poster_values({(case, "sigma_8"): r2 for case, r2 in POSTER.items()}, "X")
    assert found == {"poster.X.knee.sigma_8": pytest.approx(0.149), "poster.X.sides.sigma_8": pytest.approx(0.303)}
    assert published.poster_values({("max_1e11_random", "sigma_8"): 0.9}, "X") == {}


def test_every_published_row_has_a_value_of_its_name():
    rows = {row["id"]: row for row in store.parse_yaml((ROOT / "paper/expected.yaml").read_text(encoding="utf-8"))}
    suites = ("IllustrisTNG", "Nbody_IllustrisTNG")
    ids = set(published.attribution_values(arrays(256), NAMES, MEAN, suites[0]))
    r2 = {(case, name): r2 for case, r2 in POSTER.items() for name in NAMES}
    ids |= {name for suite in suites for name in published.poster_values(r2, suite)}
    assert ids == {name for name in rows if name.startswith(("attribution_", "poster."))}
    for name in ids:
        row = rows[name]
        assert (row["class"], row["profile"]) == ("qualitative", "camels")
        assert all(isinstance(limit, int | float) for limit in row["tolerance"].values())


def test_the_papers_map_under_density_cuts_is_kept_for_the_figures():
    shown = split.SHOWN["densities"]
    index = np.array([12449, 105, 1290, 2115, 30, shown])
    assert attribute._kept(index) == [0, 1, 2, 5]
    assert attribute._kept(index[:5]) == [0, 1, 2, 3] and attribute._kept(index[[0, 5]]) == [0, 1]
    assert attribute._kept(index[:2]) == [0, 1]
