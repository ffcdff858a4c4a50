import numpy as np
import pytest

from camelsight.ground import theta


def test_columns_are_in_the_order_of_cmd():
    assert theta.NAMES == ("omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")


@pytest.mark.parametrize("suite", theta.SUITES)
def test_normalise_maps_the_range_to_zero_one_and_back(suite):
    low, high = theta.ranges(suite)
    np.testing.assert_allclose(theta.normalise(np.stack([low, high]), suite), [[0] * 6, [1] * 6], atol=1e-15)
    physical = low + 0.3 * (high - low)
    np.testing.assert_allclose(theta.denormalise(theta.normalise(physical, suite), suite), physical, rtol=1e-14)


def test_a_standard_deviation_scales_but_does_not_shift():
    np.testing.assert_allclose(theta.denormalise_sigma(np.full(6, 0.1), "IllustrisTNG")[:2], [0.04, 0.04])


def test_only_astrid_has_the_wide_agn_range():
    assert theta.ranges("Astrid")[1][5] == 4 and theta.ranges("Astrid")[0][5] == 0.25
    assert theta.ranges("SIMBA")[1][5] == 2 and theta.ranges("Nbody_Astrid")[1][5] == 4


def test_feedback_means_nothing_in_gravity_only_suites():
    assert theta.meaningful("Nbody_IllustrisTNG").tolist() == [True, True, False, False, False, False]
    assert theta.meaningful("IllustrisTNG").all()


def test_an_unknown_suite_names_the_known_ones():
    with pytest.raises(ValueError, match=r"IllustrisTNG.*got 'TNG'"):
        theta.ranges("TNG")


def test_the_prior_is_a_unit_cube():
    low, high = theta.ranges("Astrid")
    np.testing.assert_allclose(theta.to_prior(np.stack([low, high]), "Astrid"), [[0] * 6, [1] * 6], atol=1e-15)
    middle = theta.from_prior(np.full(6, 0.5), "Astrid")  # geometric means of the A's, arithmetic ones of the others
    np.testing.assert_allclose(middle, [0.3, 0.8, 1, 1, 1, 1])
    np.testing.assert_allclose(theta.to_prior(middle, "Astrid"), 0.5)
