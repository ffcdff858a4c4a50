import numpy as np
import pytest

from camelsight.ground import cmd, theta


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


def lognormal(n=3):
    return np.random.default_rng(0).lognormal(27, 1, (n, 8, 8)).astype(np.float32)


def test_the_size_of_a_maps_file_is_the_published_one():
    assert cmd.maps_bytes(cmd.SIMULATIONS, cmd.PIXELS) == 3_932_160_128


def test_min_and_max_tell_the_release():
    new = cmd.PUBLISHED_STATISTICS["IllustrisTNG"] | {"n_nan": 0, "n_nonpositive": 0}
    old = new | cmd.STATISTICS_BEFORE_MAY_2024["IllustrisTNG"]
    assert cmd.release(new, "IllustrisTNG") == "since May 2024"
    assert cmd.release(old, "IllustrisTNG") == "before May 2024"
    assert cmd.release(new, "SIMBA") is None and cmd.release(new, "Nbody_IllustrisTNG") is None
    for statistics in (new, old):
        cmd.check_statistics(statistics, "IllustrisTNG", "m.npy")
    with pytest.raises(
        ValueError, match=r"expected pixels from 5.2276e\+09 to 4.2038e\+15, got 4.665e\+09 to .* in m.npy"
    ):
        cmd.check_statistics(new, "SIMBA", "m.npy")
    with pytest.raises(ValueError, match=r"expected std 3.6415e\+12 .* got 3e\+12 in m.npy"):
        cmd.check_statistics(new | {"std": 3e12}, "IllustrisTNG", "m.npy")


@pytest.mark.parametrize("array", [lognormal(), np.asfortranarray(lognormal()), lognormal().astype(">f4")])
def test_a_header_is_read_from_the_first_bytes(tmp_path, array):
    np.save(tmp_path / "m.npy", array)
    head = (tmp_path / "m.npy").read_bytes()[:4096]
    if array.flags.f_contiguous:
        with pytest.raises(ValueError, match="expected rows first"):
            cmd.read_header(head, "m.npy")
    else:
        assert cmd.read_header(head, "m.npy") == (array.shape, array.dtype)


@pytest.mark.parametrize(
    "head", [b"", b"<html>", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'", b"\x93NUMPY\x07\x00" + bytes(99)]
)
def test_what_is_no_header_is_one_line(head):
    with pytest.raises(ValueError, match=r"expected an NPY file, got one that begins with b['\"].* in m.npy") as caught:
        cmd.read_header(head, "m.npy")
    assert "\n" not in str(caught.value)


def test_the_first_row_of_a_table_is_six_numbers_or_a_comment():
    for good in (b"0.3 0.8 1 1 1 1\n0.1", b"# Omega_m sigma_8\n", b"\n 3e-1 8e-1 1.0 1 1 1"):
        cmd.check_first_row(good, "p.txt")
    for bad in (b"", b"<html>", b"0.3 0.8\n", b"a b c d e f\n", b"\x00\xff\x00"):
        with pytest.raises(ValueError, match="expected a table of numbers, got a file that begins with b"):
            cmd.check_first_row(bad, "p.txt")


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
