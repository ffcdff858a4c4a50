import numpy as np
import pytest

from camelsight.universe import linear

CAMB = 0.05  # the spectrum noted in FACTS.md is rounded and was made with other settings of CAMB
INTEGRAL = 1e-3  # of sigma_8 over a finite range of k


def test_sigma_8_is_the_integral_of_the_spectrum():
    k = np.geomspace(1e-4, 100, 3000)
    for omega_m, sigma_8 in ((0.1, 0.6), (0.273, 0.83), (0.5, 1.0)):
        measured = linear.sigma_8_of(k, linear.power(k, omega_m, sigma_8))
        assert measured == pytest.approx(sigma_8, rel=INTEGRAL)


def test_spectrum_of_the_fiducial_cosmology_is_the_known_one():
    k = np.array([0.49, 1.43, 5.41, 10.4])
    np.testing.assert_allclose(linear.power(k, 0.3, 0.8), [308, 28.4, 1.04, 0.19], rtol=CAMB)


def test_interpolated_shape_is_that_of_camb_between_the_nodes():
    table = linear.shape_table()
    inside = table.log_k > np.log(0.2)
    expected = linear._log_shape(0.37, table.log_k)[inside]
    np.testing.assert_allclose(np.log(table.power(np.exp(table.log_k), 0.37, 1.0))[inside], expected, atol=1e-3)


def test_amplitude_follows_sigma_8_squared_and_the_mean_has_no_power():
    k = np.array([0.0, 0.3, 30.0])
    np.testing.assert_allclose(linear.power(k, 0.3, 1.0), linear.power(k, 0.3, 0.5) * 4)
    assert linear.power(0.0, 0.3, 0.8) == 0


def test_small_scales_fall_as_cold_dark_matter():
    k = np.geomspace(50, 200, 20)
    slope = np.gradient(np.log(linear.power(k, 0.3, 0.8)), np.log(k))
    assert np.all((slope > linear.N_S - 4) & (slope < -2.6))  # n_s - 4 is reached only with its logarithm


def test_growth_without_dark_energy_is_the_scale_factor():
    a = np.array([0.02, 0.3, 1.0])
    d1, f1, d2, f2 = linear.growth(a, 1.0)
    np.testing.assert_allclose(d1, a, rtol=1e-6)
    np.testing.assert_allclose(d2, -3 / 7 * a**2, rtol=1e-6)
    np.testing.assert_allclose(f1, 1, rtol=1e-6)
    np.testing.assert_allclose(f2, 2, rtol=1e-6)


def test_growth_in_flat_lambda_cdm_has_its_known_rates():
    a = np.linspace(0.1, 1, 10)
    _, f1, _, f2 = linear.growth(a, 0.3)
    matter = 0.3 / a**3 / linear.expansion(a, 0.3) ** 2
    np.testing.assert_allclose(f1, matter**0.55, rtol=0.01)  # Linder (2005)
    np.testing.assert_allclose(f2, 2 * matter ** (6 / 11), rtol=0.02)  # Bouchet et al. (1995)


def test_growth_is_the_integral_of_heath():
    a = np.array([0.25, 1.0])
    grids = [np.linspace(1e-6, value, 10_001) for value in a]
    integral = [np.trapezoid((grid * linear.expansion(grid, 0.3)) ** -3, grid) for grid in grids]
    expected = linear.expansion(a, 0.3) * integral
    np.testing.assert_allclose(linear.growth(a, 0.3)[0], expected / expected[-1], rtol=1e-5)


@pytest.mark.parametrize(("k", "omega_m"), [(1.0, 0.05), (1.0, 0.6), (1e4, 0.3), (-1.0, 0.3)])
def test_outside_the_table_is_refused(k, omega_m):
    with pytest.raises(ValueError, match=r"^expected (omega_m|k) in \[.*got"):
        linear.power(k, omega_m, 0.8)


def test_nonlinear_power_leaves_large_scales_alone_and_raises_small_ones():
    k = np.array([0.005, 0.01, 1.0, 10.0])
    ratio = linear.nonlinear_power(k, 0.3, 0.8) / linear.power(k, 0.3, 0.8)
    np.testing.assert_allclose(ratio[:2], 1, atol=0.02)
    assert 3 < ratio[2] < ratio[3] < 100


def test_nonlinear_power_is_that_of_hmcode_2020():
    """Values from CAMB 2.0.5 called by hand at these parameters."""
    np.testing.assert_allclose(linear.nonlinear_power(np.array([0.49, 1.43]), 0.3, 0.8), [727, 249], rtol=0.01)
