"""The door of the real maps, on files of their format: fetched, adopted, pinned, examined, refused."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import smoke
from camelsight.ground import cases, cmd
from camelsight.ground.fields import TOTAL
from camelsight.pipeline import map_files, params, paths, release, store
from camelsight.stages import maps as stage
from camelsight.universe import camels
from conftest import ran, refused

ROOT = Path(__file__).parent.parent
SUITES = ("IllustrisTNG", "Nbody_IllustrisTNG")
SIMULATIONS, PIXELS = 4, 16
PEAK_MB = 500


def write_suite(folder, suite, seed=0):
    """A small set in CMD's format with the mean densities of its omega_m."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    table = camels.parameters(suite)[seed : seed + SIMULATIONS]
    maps = rng.lognormal(0, 1, (SIMULATIONS, 15, PIXELS, PIXELS))
    maps *= cases.MEAN_SURFACE_DENSITY * table[:, 0, None, None, None] / maps.mean((1, 2, 3), keepdims=True)
    np.save(folder / cmd.maps_file_name(suite), maps.reshape(-1, PIXELS, PIXELS).astype(np.float32))
    np.savetxt(folder / cmd.params_file_name(suite), table, fmt="%.5f")


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A profile of small "real" maps, and an empty project to use it in."""
    monkeypatch.chdir(tmp_path)
    profile = params.load(ROOT / "profiles" / "smoke.yaml")
    spec = dataclasses.replace(profile.maps, source="camels", simulations=SIMULATIONS, pixels=PIXELS)
    return dataclasses.replace(profile, suites=SUITES, maps=spec)


@pytest.fixture
def copied(loaded):
    """The same with its files in the folder."""
    for suite in SUITES:
        write_suite(Path(loaded.maps.folder), suite)
    return loaded


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A server with the files in CMD's sub-folders; ``base.asked`` counts the requests."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for suite in SUITES:
        write_suite(tmp_path / "server" / cmd.folder_name(suite), suite)
    with smoke.served(tmp_path / "server") as (url, asked):
        yield namedtuple("Base", "url asked")(url, asked)


def with_maps(loaded, **changes):
    return dataclasses.replace(loaded, maps=dataclasses.replace(loaded.maps, **changes))


def change_byte(path, position=-2):
    """Put a file in the place of ``path`` that differs in one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    store.write_bytes(path, bytes(data))


def wrong(loaded):
    return [line for record in release.check(loaded) for line in record["wrong"]]


def test_missing_files_are_fetched_pinned_and_linked_and_a_second_time_nothing_is_asked_for(loaded, base):
    loaded = with_maps(loaded, bases=(base.url + "/nowhere", base.url + "/"))
    stage.main(loaded)
    for suite in SUITES:
        assert map_files.open_maps(suite, TOTAL, SIMULATIONS, PIXELS, paths.MAPS / suite).shape == (60, PIXELS, PIXELS)
        assert map_files.read_parameters(suite, SIMULATIONS, paths.MAPS / suite).shape == (SIMULATIONS, 6)
        assert os.path.samefile(paths.maps(suite, TOTAL), Path(loaded.maps.folder, cmd.maps_file_name(suite)))
    pins = release.read_pins(paths.digests("smoke"))
    assert list(pins) == sorted(pins) and len(pins) == 4
    digest, size, source = pins[cmd.maps_file_name(SUITES[1])]
    assert size == cmd.maps_bytes(SIMULATIONS, PIXELS) and digest == store.file_digest(paths.maps(SUITES[1], TOTAL))
    assert source == f"{base.url}/Nbody/{cmd.maps_file_name(SUITES[1])}"
    assert len(os.listdir(loaded.maps.folder)) == 4

    asked, lock = len(base.asked), paths.digests("smoke").read_bytes()
    stage.main(loaded)
    assert len(base.asked) == asked and paths.digests("smoke").read_bytes() == lock


def test_files_that_are_there_under_old_names_or_in_subfolders_are_adopted_without_the_network(copied):
    folder = Path(copied.maps.folder)
    os.rename(folder / "params_LH_IllustrisTNG.txt", folder / "params_IllustrisTNG.txt")
    (folder / "Nbody").mkdir()
    for path in folder.glob("*Nbody_*"):
        path.rename(folder / "Nbody" / path.name)
    release.adopt(with_maps(copied, bases=("http://127.0.0.1:9/never-asked",)))
    assert sorted(path for path in paths.MAPS.rglob("*") if not path.is_dir()) == sorted(
        path for suite in SUITES for path in (paths.maps(suite, TOTAL), paths.parameters(suite))
    )
    pins = release.read_pins(paths.digests("smoke"))
    assert pins["params_IllustrisTNG.txt"][2] == "copied"
    assert wrong(copied) == []


def test_a_file_of_another_machine_and_of_an_old_numpy_are_adopted(copied):
    first, second = (Path(copied.maps.folder, cmd.maps_file_name(suite)) for suite in SUITES)
    expected = [np.load(path) for path in (first, second)]
    np.save(first, expected[0].astype(">f4"))
    data = second.read_bytes()
    assert data[8:10] == b"v\0" and data[80:127].isspace()
    second.write_bytes(data[:8] + b"F\0" + data[10:79] + b"\n" + data[cmd.HEADER_BYTES :])
    release.adopt(copied)
    for suite, maps in zip(SUITES, expected, strict=True):
        assert np.array_equal(map_files.open_maps(suite, TOTAL, SIMULATIONS, PIXELS, paths.MAPS / suite), maps)
    assert wrong(copied) == [] and release.check(copied)[1]["dtype"] == ">f4"


def test_packed_maps_are_not_fetched_once_more(copied, base):
    path = Path(copied.maps.folder, cmd.maps_file_name(SUITES[1]))
    np.savez(path.with_suffix(".npz"), np.load(path))
    path.unlink()
    with refused(r"got Maps_\S+.npz, which cannot be mapped into memory; unpack it with python"):
        release.adopt(with_maps(copied, bases=(base.url,)))
    assert base.asked == [] and not paths.MAPS.exists()
    assert "cannot be mapped into memory; unpack it with" in wrong(copied)[0]


def test_other_files_of_cmd_are_said_to_be_what_they_are(copied, capsys):
    path = Path(copied.maps.folder, cmd.maps_file_name(SUITES[0]))
    path.rename(path.with_name(path.name.replace("_LH_", "_CV_")))
    said = f"{path.name.replace('_LH_', '_CV_')} has maps of the total matter density of IllustrisTNG, set CV (27 simu"
    assert said in wrong(copied)[0]
    with refused("could not be fetched"):
        release.adopt(copied)
    assert said in capsys.readouterr().err
    with refused(re.escape(said)):
        map_files.open_maps(SUITES[0], TOTAL, SIMULATIONS, PIXELS, path.parent)


def test_what_is_fetched_must_be_what_was_pinned(loaded, base, tmp_path):
    """The next person gets the file of the first one, or one clear line."""
    loaded = with_maps(loaded, bases=(base.url,))
    release.adopt(loaded)
    shutil.rmtree(loaded.maps.folder)
    change_byte(tmp_path / "server" / "IllustrisTNG" / cmd.maps_file_name(SUITES[0]))
    with refused(r"Maps_Mtot_IllustrisTNG.*expected sha256 \w{64}, got \w{64} from http") as caught:
        release.adopt(loaded)
    assert cmd.GLOBUS in str(caught.value)


def test_a_file_that_was_replaced_is_noticed_refused_and_accepted_once_its_line_has_gone(copied):
    release.adopt(copied)
    release.unlink_replaced(copied)
    assert all(paths.maps(suite, TOTAL).exists() and paths.parameters(suite).exists() for suite in SUITES)

    replaced = Path(copied.maps.folder, cmd.maps_file_name(SUITES[0]))
    change_byte(replaced)
    release.unlink_replaced(copied)
    assert not paths.maps(SUITES[0], TOTAL).exists() and paths.maps(SUITES[1], TOTAL).exists()
    with refused(r"expected the Maps_\S+ used before, sha256 \w{64}, got \w{64}"):
        release.adopt(copied)

    lock = paths.digests("smoke")
    release.write_pins(lock, {name: pin for name, pin in release.read_pins(lock).items() if name != replaced.name})
    release.adopt(copied)
    assert replaced.samefile(paths.maps(SUITES[0], TOTAL))


def test_links_stay_when_the_folder_has_gone_and_dangling_ones_do_not(copied, tmp_path):
    release.adopt(copied)
    path = paths.maps(SUITES[1], TOTAL)
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    shutil.rmtree(copied.maps.folder)
    release.unlink_replaced(copied)
    assert paths.maps(SUITES[0], TOTAL).exists() and not path.is_symlink()


def test_a_disk_too_small_is_told_before_anything_is_fetched(loaded, base, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 100_000, 100_000))
    needed = 2 * cmd.maps_bytes(SIMULATIONS, PIXELS)
    with refused(rf"expected {needed:,} bytes free in data/CMD for Maps_.*, got 100,000: free"):
        release.adopt(with_maps(loaded, bases=(base.url,)))
    assert base.asked == []
    Path(loaded.maps.folder, f"{cmd.maps_file_name(SUITES[0])}.part").write_bytes(bytes(needed - 100_000))
    release.adopt(with_maps(loaded, bases=(base.url,)))  # what is there of it needs no room


def test_no_source_is_one_line_that_says_the_other_way(loaded):
    with refused(rf"params_LH_IllustrisTNG.txt could not be .* no source .*Globus.*{cmd.GLOBUS}"):
        release.adopt(loaded)


def test_a_page_in_place_of_the_parameters_is_not_kept(loaded, base, tmp_path):
    (tmp_path / "server/IllustrisTNG/params_LH_IllustrisTNG.txt").write_text("<html>\nnot today\n</html>\n")
    with refused(r"expected a table of numbers, got a file that begins with b'<html>'"):
        release.adopt(with_maps(loaded, bases=(base.url,)))
    assert os.listdir(loaded.maps.folder) == []


def maps_of(array):
    return lambda folder: np.save(folder / cmd.maps_file_name(SUITES[0]), array)


def spoil_values(folder):
    maps = np.load(folder / cmd.maps_file_name(SUITES[0]))
    maps[17, 3, 5], maps[18, 0, 0] = np.nan, 0
    maps_of(maps)(folder)


def cut_short(folder):
    path = folder / cmd.maps_file_name(SUITES[0])
    path.write_bytes(path.read_bytes()[:-4])


def table_changed(change):
    def spoil(folder):
        path = folder / cmd.params_file_name(SUITES[0])
        np.savetxt(path, change(np.loadtxt(path)), fmt="%.5f")

    return spoil


def other_suite(table):
    table[1, 5] = 3.9  # in range for Astrid alone
    return table


OTHER_MAPS = r"expected a mean density within 5% of 1.3877e\+12 omega_m, got .* the parameters belong to other maps"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_values, r"expected finite surface densities above zero, got 1 NaN or infinite and 1 zero or negative"),
        (cut_short, r"expected 61,568 bytes, got 61,564 in data/CMD/Maps_\S+: the copy is not whole"),
        (table_changed(lambda table: table[::-1]), OTHER_MAPS),
        (table_changed(other_suite), r"expected A_AGN2 in \[0.5, 2\], got 3.9 in row 1"),
        (table_changed(lambda table: table[:, :5]), r"expected \(4, 6\), got \(4, 5\) in params_LH"),
        (lambda folder: (folder / cmd.params_file_name(SUITES[0])).write_text(""), r"expected a table of numbers"),
        (lambda folder: (folder / cmd.maps_file_name(SUITES[0])).write_bytes(b"<html>"), r"expected an NPY file, got"),
        (maps_of(np.ones((60, 16, 16))), r"got \S+ .* float64"),
        (maps_of(np.ones((9, 16, 16), "f4")), r"it holds 0.6 simulations; take"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_links_nothing(copied, spoil, message):
    spoil(Path(copied.maps.folder))
    with refused(message) as caught:
        release.adopt(copied)
    assert not paths.MAPS.exists()
    assert str(caught.value) in wrong(copied)


def test_nbody_ignores_its_astrophysical_columns_and_shows_none(copied):
    path = Path(copied.maps.folder, cmd.params_file_name(SUITES[1]))
    table = np.loadtxt(path)
    table[:, 2:] = 99
    np.savetxt(path, table)
    assert wrong(copied) == []
    record = release.check(copied)[2]
    assert record["values"]["A_AGN2"] is record["ranges"]["A_AGN2"] is None
    assert "A_SN1 -, A_AGN1 -" in release.describe(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table, None),
        (lambda table: np.round(table, 4), None),
        (lambda table: camels.parameters("SIMBA"), "expected the parameters of IllustrisTNG in x, got those of SIMBA"),
        (
            lambda table: table[:, [0, 1, 2, 4, 3, 5]],
            "order omega_m, sigma_8, A_SN1, A_SN2, A_AGN1, A_AGN2: they are om",
        ),
        (lambda table: table[[1, 0, *range(2, 1000)]], r"got 0\.3026, .* for simulation 0, which has 0\.309, 0\.979"),
        (lambda table: table + 0.001 * (np.arange(1000) == 7)[:, None], r"for simulation 7, which has "),
    ],
)
def test_the_parameters_of_a_whole_set_are_those_that_camels_drew(change, message):
    """SIMBA's table under IllustrisTNG's name was found out by its maps alone, and A columns in another order never."""
    table = change(camels.parameters("IllustrisTNG"))
    with refused(message) if message else contextlib.nullcontext():
        release._compare_table(table, "IllustrisTNG", "x")


def test_of_a_gravity_only_table_the_cosmological_columns_count():
    table = camels.parameters("SIMBA")
    table[:, 2:] = 0
    release._compare_table(table, "Nbody_SIMBA", "x")
    with refused("got those of SIMBA"):
        release._compare_table(table, "Nbody_Astrid", "x")


def test_the_command_that_examines_files_compares_tables(copied):
    path = Path(copied.maps.folder, cmd.params_file_name("Astrid"))
    np.savetxt(path, camels.parameters("IllustrisTNG"), fmt="%.5f")
    spec = dataclasses.replace(copied.maps, simulations=1000)
    assert "got those of IllustrisTNG" in release.examine(path, "Astrid", None, spec)["wrong"][0]
    np.savetxt(path, camels.parameters("Astrid"), fmt="%.5f")
    assert release.examine(path, "Astrid", None, spec)["wrong"] == []


def test_a_damaged_lock_file_is_one_line(copied):
    store.write_text(paths.digests("smoke"), "<<<<<<< HEAD\n")
    with refused(r"expected lines of sha256, size, name and source in profiles/smoke.sha256"):
        release.adopt(copied)


def test_maps_of_no_known_release_are_refused_unless_their_line_is_in_the_lock_file(copied, monkeypatch):
    """At the release's size, statistics must be a release's; here this small size is taken for it."""
    monkeypatch.setattr(cmd, "SIMULATIONS", SIMULATIONS)
    monkeypatch.setattr(cmd, "PIXELS", PIXELS)
    monkeypatch.setattr(release, "_compare_table", lambda *_: None)  # no suite has a table of four rows
    with refused(r"expected pixels from 4.665e\+09 to 2.8518e\+15, got .* not known here"):
        release.adopt(copied)
    record = release.check(copied)[1]
    assert record["release"] == "unknown" and record["published"] == cmd.PUBLISHED_STATISTICS["IllustrisTNG"]
    line = re.search("put the line '(.*)' into the profile's .sha256 file", record["wrong"][0])[1]
    with open(paths.digests("smoke"), "a") as lock:
        lock.write(line + "\n")
    release.adopt(copied)
    monkeypatch.setattr(cmd, "release", lambda statistics, suite: "before May 2024")
    assert release.check(copied)[1]["release"] == "before May 2024"


def test_the_check_is_a_command_with_json_and_an_exit_code(copied, tmp_path):
    text = (ROOT / "profiles" / "smoke.yaml").read_text()
    for old, new in (("source: twin", "source: camels"), ("simulations: 8", f"simulations: {SIMULATIONS}")):
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text)
    check = sys.executable, "-m", "camelsight.stages.maps", "--check"
    good = ran(*check, "--json", folder=tmp_path)
    answer = json.loads(good.stdout)
    assert good.returncode == 0 and answer["good"] and good.stderr == ""
    parameters, maps = answer["files"][:2]
    assert list(parameters) == ["file", "suite", "bytes", "rows", "values", "ranges", "sha256", "wrong", "pinned"]
    assert list(maps) == [
        "file", "suite", "bytes", "shape", "dtype", "min", "max", "mean", "std", "n_nan", "n_nonpositive",
        "published", "density_ratio", "release", "sha256", "wrong", "pinned",
    ]  # fmt: skip
    assert maps["shape"] == [60, PIXELS, PIXELS] and maps["release"] == "not a CMD release"
    assert maps["density_ratio"] == pytest.approx([1, 1], abs=1e-4)

    (tmp_path / "elsewhere").mkdir()
    shutil.copy(maps["file"], tmp_path / "elsewhere")
    bad = ran(*check, "--folder", "elsewhere", folder=tmp_path)
    assert bad.returncode == 1 and bad.stderr == ""
    assert bad.stdout.count("  WRONG: ") == 3 and "shape          60×16×16" in bad.stdout


SCAN = """
import json, pathlib, re, sys
from camelsight.ground import cmd
from camelsight.pipeline import release
statistics, _, _ = release._scan(pathlib.Path(sys.argv[1]), cmd.Header((3000, 256, 256), cmd.DTYPE))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(json.dumps([statistics, int(peak[1]) / 1024]))
"""


def test_a_file_of_the_true_size_passes_through_little_memory_and_its_zeros_are_told(tmp_path):
    """3.9 GB of holes take no disk; a fifth is read, 786 MB, which is more than may be kept. VmHWM, since a child's
    maxrss is at least its parent's.
    """
    path = tmp_path / cmd.maps_file_name(SUITES[0])
    np.save(path, np.zeros((0, cmd.PIXELS, cmd.PIXELS), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(0, 256, 256), }    ", b"(15000, 256, 256), }"))
    os.truncate(path, cmd.maps_bytes(cmd.SIMULATIONS, cmd.PIXELS))
    assert path.stat().st_size == 3_932_160_128 and path.stat().st_blocks * 512 < 1e6
    assert map_files.open_maps(SUITES[0], TOTAL, cmd.SIMULATIONS, cmd.PIXELS, tmp_path).shape == (15000, 256, 256)

    statistics, peak = json.loads(ran(sys.executable, "-c", SCAN, path, folder=tmp_path).stdout)
    assert peak < PEAK_MB
    with refused(r"got 0 NaN or infinite and 196608000 zero or negative pixels"):
        cmd.check_values(statistics, path.name)
