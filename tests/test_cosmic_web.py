import numpy as np
import pytest

from camelsight.interpretation import cosmic_web
from camelsight.maps import spectrum

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
    np.testing.assert_allclose(result["area_interval"], [[0.75, 0.25]] * 2)  # there is but one simulation
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


def test_classes_by_density_are_divided_at_the_stated_thresholds():
    assert cosmic_web.density_classes(np.array([0.49, 0.5, 0.99, 1.0, 4.9, 5.0])).tolist() == [0, 1, 1, 2, 2, 3]


def grid(n=64, box=25.0):
    return np.meshgrid(np.arange(n) * box / n, np.arange(n) * box / n, indexing="ij")


def test_the_tidal_tensor_of_plane_waves_is_known():
    """delta = a cos y + b cos x: the eigenvalues are these two terms, so their signs are the classes."""
    y, x = (2 * np.pi / 25 * values for values in grid())
    terms = np.array([0.6 * np.cos(y), 0.3 * np.cos(x)])
    classes = cosmic_web.tidal_classes((1 + terms.sum(0))[None])[0]
    clear = np.abs(terms).min(0) > 1e-6
    expected = np.select(
        [(terms <= 0).all(0), (terms > 0).all(0), terms.sum(0) > 0], [0, 3, 2], default=1
    )  # equal wavelengths are smoothed alike
    assert (classes == expected)[clear & (np.abs(terms.sum(0)) > 1e-6)].all()
    assert set(classes[clear].tolist()) == {0, 1, 2, 3}


def test_a_wall_is_no_halo_and_a_peak_is():
    y, x = grid()
    wall = 1 + 20 * np.exp(-((y - 12.5) ** 2) / 2)
    peak = 1 + 200 * np.exp(-((y - 12.5) ** 2 + (x - 12.5) ** 2) / 2)
    assert cosmic_web.tidal_classes(wall[None])[0, 32].tolist() == [2] * 64
    assert cosmic_web.tidal_classes(peak[None])[0, 32, 32] == 3


def test_classes_are_compared_pixel_by_pixel():
    first, second = np.array([[[0, 0], [1, 3]]]), np.array([[[0, 1], [1, 3]]])
    table, agreement = cosmic_web.compare(first, second)
    assert agreement == 0.75 and table[0].tolist() == [0.5, 0.5, 0, 0] and table[2].tolist() == [0, 0, 0, 0]


def test_shares_of_classes_on_a_map_whose_answer_is_known():
    classes = np.array([[[0, 0], [0, 3]]])
    result = cosmic_web.class_profile(
        np.array([[[1.0, -1], [1, -7]]]), classes, np.zeros(1), generator=np.random.default_rng(0)
    )
    assert result["area"][0].tolist() == [0.75, 0, 0, 0.25]
    np.testing.assert_allclose(result["total"][0], [0.3, 0, 0, 0.7])
    np.testing.assert_allclose(result["per_pixel"][0], [0.4, np.nan, np.nan, 2.8])


def cross(attribution, overdensity):
    simulation = np.arange(len(attribution))
    return cosmic_web.cross_power(attribution, overdensity, simulation, generator=np.random.default_rng(0))


def test_cross_power_of_waves_is_where_they_are():
    """Both fields have a wave of 3 periods, in phase; a second one, of 5, is theirs with opposite signs."""
    y, x = (2 * np.pi / 25 * values for values in grid())
    overdensity = (1 + 0.3 * np.cos(3 * x) + 0.2 * np.cos(5 * y))[None]
    attribution = -(2 + 0.4 * np.cos(3 * x) - 0.2 * np.cos(5 * y))[None]
    result = cross(attribution, overdensity)
    k = 2 * np.pi / 25
    np.testing.assert_allclose(result["k"], spectrum.power(overdensity)[0], err_msg="the shells of P(k)")
    assert result["correlation"][0][[2, 4]] == pytest.approx([1, -1])
    covariance = np.array(
        [0.3 * 0.2, -0.2 * 0.1]
    )  # half of the product of the amplitudes, which the share does not see
    np.testing.assert_allclose(result["share"][0][[2, 4]], covariance / covariance.sum())
    assert np.nansum(result["share"][0]) == pytest.approx(1)
    assert result["k_half"][0] == result["k"][2] and 3 * k < result["k"][2] < 4 * k


def test_the_shares_of_all_shells_add_up_to_the_covariance():
    rng = np.random.default_rng(0)
    overdensity = np.exp(rng.normal(size=(6, 16, 16)))
    attribution = overdensity * (1 + 0.1 * rng.normal(size=overdensity.shape))
    result = cross(attribution, overdensity)
    assert result["share"][0].sum() == pytest.approx(1) and (result["correlation"][0] > 0.9).all()
    unrelated = cross(rng.normal(size=(6, 16, 16)), overdensity)["correlation"]
    assert np.abs(unrelated[0][3:]).max() < 0.3


def test_the_profile_around_a_bump_is_the_bump():
    """Attribution 1 + exp(-r²/2) around the only centre: the stack returns it, over the map's mean."""
    y, x = grid()
    distance = np.hypot((y - 5 + 12.5) % 25 - 12.5, (x - 20 + 12.5) % 25 - 12.5)
    attribution = -(1 + np.exp(-(distance**2) / 2))
    centres = distance == distance.min()
    result = cosmic_web.stacked_profile(
        attribution[None], centres[None], np.zeros(1), generator=np.random.default_rng(0)
    )
    assert result["centres"] == centres.sum()
    expected = (1 + np.exp(-(result["r"] ** 2) / 2)) / -attribution.mean()
    np.testing.assert_allclose(result["profile"][0], expected, rtol=0.05)
    assert result["r"][0] == 0 and result["r"][-1] == pytest.approx(cosmic_web.MAX_RADIUS, abs=0.4)


def test_without_centres_a_profile_is_not_a_number():
    none = np.zeros((2, 16, 16), dtype=bool)
    result = cosmic_web.stacked_profile(np.ones((2, 16, 16)), none, np.arange(2), generator=np.random.default_rng(0))
    assert np.isnan(result["profile"][0]).all() and result["centres"] == 0


def test_voids_and_haloes_are_found_where_they_are():
    y, x = grid()
    void = np.exp(-((y - 6) ** 2 + (x - 6) ** 2) / 8)
    halo = np.exp(-((y - 18) ** 2 + (x - 18) ** 2) / 0.5)
    overdensity = (1 - 0.9 * void + 50 * halo)[None]
    (row,), (column,) = np.nonzero(cosmic_web.void_centres(overdensity)[0])
    assert np.hypot(row * 25 / 64 - 6, column * 25 / 64 - 6) < 0.4
    (row,), (column,) = np.nonzero(cosmic_web.halo_centres(overdensity)[0])
    assert np.hypot(row * 25 / 64 - 18, column * 25 / 64 - 18) < 0.4
    assert not cosmic_web.void_centres(np.ones((1, 16, 16))).any()
