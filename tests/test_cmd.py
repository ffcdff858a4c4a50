import numpy as np
import pytest

from camelsight import theta
from camelsight.universe import cmd


@pytest.mark.parametrize(
    ("suite", "maps", "params"),
    [
        ("IllustrisTNG", "Maps_Mtot_IllustrisTNG_LH_z=0.00.npy", "params_LH_IllustrisTNG.txt"),
        ("Nbody_IllustrisTNG", "Maps_Mtot_Nbody_IllustrisTNG_LH_z=0.00.npy", "params_LH_Nbody_IllustrisTNG.txt"),
    ],
)
def test_file_names_are_those_of_the_release(suite, maps, params):
    assert cmd.maps_file_name(suite) == maps
    assert cmd.params_file_name(suite) == params


def test_unknown_suite_has_no_file():
    with pytest.raises(ValueError, match="expected a suite among"):
        cmd.maps_file_name("EAGLE")


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_statistics_are_those_of_the_whole_at_any_chunk(chunk):
    maps = np.random.default_rng(0).lognormal(27, 2, (11, 8, 8)).astype(np.float32)
    whole = maps.astype(np.float64)
    statistics = cmd.statistics(maps, chunk)
    for name in ("min", "max", "mean", "std"):
        assert statistics[name] == pytest.approx(getattr(whole, name)(), rel=1e-12)
    assert statistics["n_nan"] == statistics["n_nonpositive"] == 0


def test_statistics_count_what_may_not_be_there():
    maps = np.ones((3, 2, 2), dtype=np.float32)
    maps[0, 0, 0], maps[1, 0, 1], maps[2, 1, 1], maps[2, 0, 0] = np.nan, np.inf, 0, -3
    statistics = cmd.statistics(maps, chunk=2)
    assert statistics["n_nan"] == 2 and statistics["n_nonpositive"] == 2
    assert statistics["max"] == 1 and statistics["min"] == -3


def test_statistics_of_nothing_finite_are_nan():
    assert np.isnan(cmd.statistics(np.full((1, 2, 2), np.nan))["mean"])


def test_published_means_agree_with_the_mean_density_of_the_hypercube():
    for published in cmd.PUBLISHED_STATISTICS.values():
        assert published["mean"] == pytest.approx(1.3877e12 * 0.3, rel=1e-3)  # the mean omega_m is 0.3


def test_maps_of_the_release_pass():
    cmd.check_maps((15000, 256, 256), np.float32, 1000, 256, "maps.npy")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2385, 64, 64), "f4", r"expected \(2400, 64, 64\) float32, got \(2385, 64, 64\) float32 in m.npy: .*incompl"),
        ((2400, 64, 64), "f8", r"expected .* float32, got .* float64 in m.npy: .*not CMD's"),
        ((2400, 32, 32), "f4", r"got \(2400, 32, 32\) .*profile"),
        ((3000, 64, 64), "f4", r"got \(3000, 64, 64\) .*profile"),
        ((2400,), "f4", r"got \(2400,\) "),
    ],
)
def test_wrong_maps_get_one_line_with_both_values(shape, dtype, message):
    with pytest.raises(ValueError, match=message) as error:
        cmd.check_maps(shape, np.dtype(dtype), 160, 64, "m.npy")
    assert "\n" not in str(error.value)


def fiducial(n):
    return np.tile(theta.FIDUCIAL, (n, 1))


def test_parameters_in_range_pass_and_nbody_ignores_astrophysics():
    cmd.check_params(fiducial(4), 4, "IllustrisTNG", "p.txt")
    meaningless = fiducial(4)
    meaningless[:, 2:] = np.nan
    cmd.check_params(meaningless, 4, "Nbody_IllustrisTNG", "p.txt")


def test_astrid_has_its_own_range():
    wide = fiducial(1)
    wide[0, 5] = 3.9
    cmd.check_params(wide, 1, "Astrid", "p.txt")
    with pytest.raises(ValueError, match=r"expected A_AGN2 in \[0.5, 2\], got 3.9 in row 0"):
        cmd.check_params(wide, 1, "IllustrisTNG", "p.txt")


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (2, 0, 0.7, r"expected omega_m in \[0.1, 0.5\], got 0.7 in row 2 of p.txt"),
        (1, 3, np.nan, r"expected A_AGN1 in \[0.25, 4\], got nan in row 1 of p.txt"),
    ],
)
def test_wrong_parameters_get_one_line_that_names_the_row(row, column, value, message):
    array = fiducial(3)
    array[row, column] = value
    with pytest.raises(ValueError, match=message) as error:
        cmd.check_params(array, 3, "IllustrisTNG", "p.txt")
    assert "\n" not in str(error.value)


def test_wrong_number_of_rows_is_told():
    with pytest.raises(ValueError, match=r"expected \(5, 6\), got \(3, 6\) in p.txt"):
        cmd.check_params(fiducial(3), 5, "IllustrisTNG", "p.txt")
