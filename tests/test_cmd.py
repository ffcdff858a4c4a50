import numpy as np
import pytest

from camelsight.ground import cmd, theta
from conftest import refused


@pytest.mark.parametrize(
    ("suite", "maps", "params"),
    [
        ("IllustrisTNG", "Maps_Mtot_IllustrisTNG_LH_z=0.00.npy", "params_LH_IllustrisTNG.txt"),
        ("Nbody_IllustrisTNG", "Maps_Mtot_Nbody_IllustrisTNG_LH_z=0.00.npy", "params_LH_Nbody_IllustrisTNG.txt"),
    ],
)
def test_file_names_are_those_of_the_release(suite, maps, params):
    assert cmd.maps_file_name(suite) == cmd.maps_file_name(suite, "Mtot") == maps
    assert cmd.params_file_name(suite) == params


def test_unknown_suite_has_no_file():
    with refused(r"expected a suite among .*, got 'EAGLE', a suite of CAMELS whose parameters"):
        cmd.maps_file_name("EAGLE")
    with refused(r"expected a suite among .*, got 'TNG'$"):
        cmd.maps_file_name("TNG")


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
    with refused(r"expected pixels from 5.2276e\+09 to 4.2038e\+15, got 4.665e\+09 to .* in m.npy"):
        cmd.check_statistics(new, "SIMBA", "m.npy")
    with refused(r"expected std 3.6415e\+12 .* got 3e\+12 in m.npy"):
        cmd.check_statistics(new | {"std": 3e12}, "IllustrisTNG", "m.npy")


OLD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8), }   \n"  # as NumPy wrote before 1.14


def npy(text, version=(1, 0)):
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + bytes(3 * 8 * 8 * 4)


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
def test_a_header_is_read_from_the_first_bytes(tmp_path, dtype, order):
    np.save(tmp_path / "m.npy", np.ones((3, 8, 8), dtype, order=order))
    header = cmd.read_header((tmp_path / "m.npy").read_bytes()[:4096], "m.npy")
    assert header == ((3, 8, 8), np.dtype(dtype), order == "F", cmd.HEADER_BYTES)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (npy(OLD), 10 + len(OLD)),
        (npy(OLD.replace("3,", "3L,")), 11 + len(OLD)),  # Python 2 wrote the numbers of some shapes like this
        (npy(OLD, version=(2, 0)), 12 + len(OLD)),
        (npy(OLD, version=(3, 0)), 12 + len(OLD)),
        (npy(OLD.replace("\n", " " * 5000 + "\n")), 5010 + len(OLD)),
    ],
)
def test_headers_of_every_age_are_read(head, size):
    """Those of NumPy before 1.14 and of versions 2 and 3 of the format were called no NPY files."""
    assert cmd.read_header(head, "m.npy") == ((3, 8, 8), np.dtype("<f4"), False, size)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<html>",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00v\x00{'descr'",
        b"\x93NUMPY\x07\x00" + bytes(99),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3L, \n"),
        npy("(" * 5000),
        npy(OLD, version=(3, 3)),
        npy("{[]: 1}\n"),
    ],
)
def test_what_is_no_header_is_one_line(head):
    with refused(r"expected an NPY file, got one that begins with .* in m.npy"):
        cmd.read_header(head, "m.npy")


def test_the_first_row_of_a_table_is_six_numbers_or_a_comment():
    for good in (b"0.3 0.8 1 1 1 1\n0.1", b"# Omega_m sigma_8\n", b"\n 3e-1 8e-1 1.0 1 1 1"):
        cmd.check_first_row(good, "p.txt")
    for bad in (b"", b"<html>", b"0.3 0.8\n", b"a b c d e f\n", b"\x00\xff\x00"):
        with refused("expected a table of numbers, got a file that begins with b"):
            cmd.check_first_row(bad, "p.txt")


def test_published_means_agree_with_the_mean_density_of_the_hypercube():
    for published in cmd.PUBLISHED_STATISTICS.values():
        assert published["mean"] == pytest.approx(1.3877e12 * 0.3, rel=1e-3)  # the mean omega_m is 0.3


WHOLE = r"expected \(2400, 64, 64\) float32, got \(2385, 64, 64\) float32 in m.npy: it holds 159 simu"


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2385, 64, 64), "f4", WHOLE),
        (
            (405, 64, 64),
            "f4",
            r"it holds 27 simulations, as many as CMD's sets CV and BE have; take the file of the whole",
        ),
        ((60, 64, 64), "f4", r"it holds 4 simulations, as many as CMD's set EX has"),
        ((160, 128, 128, 128), "f4", r"these are CMD's 3D grids, not its maps"),
        ((2400, 64, 64), "f8", r"expected .* float32, got .* float64 in m.npy: convert it with python -m .* m.npy$"),
        ((2400, 64, 64), "f2", r"got .* float16 in m.npy: densities go to 1e15 and float16 ends at 65,504"),
        ((2400, 64, 64), "i4", r"got .* int32 in m.npy: these are not CMD's maps"),
        ((2400, 32, 32), "f4", r"got \(2400, 32, 32\) .*profile"),
        ((3000, 64, 64), "f4", r"got \(3000, 64, 64\) .*profile"),
        ((2400,), "f4", r"got \(2400,\) "),
    ],
)
def test_wrong_maps_get_one_line_with_both_values(shape, dtype, message):
    with refused(message):
        cmd.check_maps(cmd.Header(shape, np.dtype(dtype)), 160, 64, "m.npy")


def test_maps_of_the_release_pass_in_either_byte_order_and_columns_are_converted():
    cmd.check_maps(cmd.Header((15000, 256, 256), np.float32), 1000, 256, "maps.npy")
    cmd.check_maps(cmd.Header((2400, 64, 64), np.dtype(">f4")), 160, 64, "m.npy")
    with refused(r"got .* float32 column by column in a b.npy: convert .*--convert 'a b.npy'$"):
        cmd.check_maps(cmd.Header((2400, 64, 64), np.dtype("f4"), True), 160, 64, "a b.npy")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Maps_Mtot_IllustrisTNG_LH_z=0.0.npy", "maps of the total matter density of IllustrisTNG, set LH (1000 "),
        ("Maps_T_SIMBA_CV_z=0.00.npy", "maps of the gas temperature of SIMBA, set CV (27 simulations at the fid"),
        ("Maps_Mcdm_Astrid_1P_z=0.00.npy", "maps of the dark matter density of Astrid, set 1P (simulations that v"),
        ("Maps_Mtot_Nbody_IllustrisTNG_EX_z=0.00.npy", "maps of the total matter density of Nbody_IllustrisTNG, se"),
        ("Maps_HI_IllustrisTNG_BE_z=0.00.npy", "maps of the neutral hydrogen density of IllustrisTNG, set BE (27 s"),
        ("Maps_ne_IllustrisTNG_SB28_z=0.00.npy", "maps of the electron number density of IllustrisTNG, set SB (sim"),
        ("Maps_Mtot_Swift-EAGLE_LH_z=0.00.npy", "maps of the total matter density of Swift-EAGLE, set LH"),
        ("Grids_Vgas_SIMBA_LH_512_z=2.0.npy", "3D grids of the gas velocity at redshift 2.0 of SIMBA, set LH (1000"),
        ("params_SB28_IllustrisTNG.txt", "parameters of IllustrisTNG, set SB (simulations over a Sobol sequence"),
        ("params_CV_Nbody_IllustrisTNG.txt", "parameters of Nbody_IllustrisTNG, set CV"),
        ("params_IllustrisTNG.txt", None),
        ("Maps_Mtot_IllustrisTNG_LH.npy", None),
        ("notes.txt", None),
    ],
)
def test_names_of_cmd_are_said_in_words(name, words):
    assert cmd.described(name) is None if words is None else cmd.described(name).startswith(words)


def test_maps_of_redshift_0_are_found_in_both_spellings():
    """CMD's own documentation writes z=0.00 and z=0.0."""
    assert cmd.file_names("SIMBA", "Mtot") == ("Maps_Mtot_SIMBA_LH_z=0.00.npy", "Maps_Mtot_SIMBA_LH_z=0.0.npy")
    assert cmd.file_names("SIMBA") == ("params_LH_SIMBA.txt", "params_SIMBA.txt")


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
    with refused(r"expected A_AGN2 in \[0.5, 2\], got 3.9 in row 0"):
        cmd.check_params(wide, 1, "IllustrisTNG", "p.txt")


@pytest.mark.parametrize(
    ("row", "column", "value", "simulations", "message"),
    [
        (2, 0, 0.7, 3, r"expected omega_m in \[0.1, 0.5\], got 0.7 in row 2 of p.txt"),
        (1, 3, np.nan, 3, r"expected A_AGN1 in \[0.25, 4\], got nan in row 1 of p.txt"),
        (0, 0, 0.3, 5, r"expected \(5, 6\), got \(3, 6\) in p.txt"),
    ],
)
def test_wrong_parameters_get_one_line_that_names_the_row(row, column, value, simulations, message):
    array = fiducial(3)
    array[row, column] = value
    with refused(message):
        cmd.check_params(array, simulations, "IllustrisTNG", "p.txt")
