import numpy as np
import pytest

from camelsight.interpretation import cosmic_web

EDGES = np.array([0.1, 1.0, 10.0])


def profile(attribution, overdensity, simulation=None, edges=EDGES):
    simulation = np.arange(len(attribution)) if simulation is None else simulation
    generator = np.random.default_rng(0)
    return cosmic_web.density_profile(attribution, overdensity, simulation, generator=generator, edges=edges)


def test_a_map_whose_answer_is_known():
    """Three quarters of the area underdense with |a| = 1, one quarter overdense with |a| = 2: ratio 2, share 3/5."""
    overdensity = np.array([[[0.5, 0.5], [0.5, 5.0]]])
    attribution = np.array([[[1.0, -1.0], [1.0, -2.0]]])
    result = profile(attribution, overdensity)
    assert result["area"].tolist() == [0.75, 0.25]
    assert result["ratio"][0] == 2 and result["underdense_share"][0] == pytest.approx(0.6)
    assert result["underdense_area"][0] == 0.75
    np.testing.assert_allclose(result["per_pixel"][0], [1 / 1.25, 2 / 1.25])
    np.testing.assert_allclose(result["total"][0], [0.6, 0.4])
    np.testing.assert_allclose(result["centres"], [10**-0.5, 10**0.5])


def test_no_pixel_is_lost_beyond_the_outermost_bins():
    overdensity = np.array([[[1e-5, 0.5], [5.0, 1e5]]])
    result = profile(np.ones((1, 2, 2)), overdensity)
    assert result["area"].sum() == 1 and result["total"][0].sum() == pytest.approx(1)


def test_attribution_that_knows_nothing_of_density_is_flat():
    rng = np.random.default_rng(0)
    overdensity = np.exp(rng.normal(0, 1, (40, 32, 32)))
    result = profile(rng.standard_normal((40, 32, 32)), overdensity)
    assert result["ratio"][1] < 1 < result["ratio"][2] and result["ratio"][0] == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(result["total"][0], result["area"], atol=0.01)


def test_intervals_come_from_simulations():
    """Simulations that agree leave no interval, however their maps differ; simulations that differ leave one."""
    rng = np.random.default_rng(0)
    overdensity = np.full((4, 2, 2), 0.5)
    overdensity[:, 0] = 5.0
    attribution = np.ones((4, 2, 2))
    attribution[[1, 3], 0] = rng.uniform(2, 3)
    same = profile(attribution, overdensity, simulation=np.array([0, 0, 1, 1]))["ratio"]
    different = profile(attribution, overdensity, simulation=np.array([0, 1, 0, 1]))["ratio"]
    assert same[2] - same[1] == pytest.approx(0, abs=1e-12) and different[2] - different[1] > 0.5


def test_an_empty_bin_is_not_a_number_and_the_rest_stands():
    result = profile(np.ones((2, 2, 2)), np.full((2, 2, 2), 5.0))
    assert np.isnan(result["per_pixel"][0][0]) and result["per_pixel"][0][1] == 1
    assert result["area"].tolist() == [0, 1]
