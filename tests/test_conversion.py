"""Maps in every form in which people keep them: read, or refused with the command that converts them, which does."""

import gzip
import os
import re
import shlex
import sys
import zipfile

import numpy as np
import pytest

from camelsight.ground import cmd
from camelsight.pipeline import conversion, map_files
from conftest import ran, refused

SUITE = "IllustrisTNG"
NAME = cmd.maps_file_name(SUITE)
MAPS = np.random.default_rng(0).lognormal(27, 1, (60, 16, 16)).astype(np.float32)


def old(path, array):
    """As NumPy wrote it before 1.14: padded to 16 bytes and not to 64."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}"
    text += " " * (-(11 + len(text)) % 16) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode() + array.tobytes())


def version(path, array, number):
    with open(path, "wb") as file:
        np.lib.format.write_array(file, array, version=number)


def gzipped(path, array):
    with gzip.open(f"{path}.gz", "wb") as file:
        np.save(file, array)


READ = {
    "CMD's": np.save,
    "old": old,
    "2.0": lambda path, array: version(path, array, (2, 0)),
    "3.0": lambda path, array: version(path, array, (3, 0)),
    "big-endian": lambda path, array: np.save(path, array.astype(">f4")),
    "z=0.0": lambda path, array: np.save(path.with_name(path.name.replace("0.00", "0.0")), array),
}
CONVERTED = {
    "float64": lambda path, array: np.save(path, array.astype(np.float64)),
    "big-endian float64": lambda path, array: np.save(path, array.astype(">f8")),
    "column by column": lambda path, array: np.save(path, np.asfortranarray(array)),
    "columns of float64": lambda path, array: np.save(path, np.asfortranarray(array.astype(np.float64))),
    ".npz": lambda path, array: np.savez(path.with_suffix(".npz"), maps=array),
    "packed .npz": lambda path, array: np.savez_compressed(path.with_suffix(".npz"), maps=array.astype(">f4")),
    ".npy.gz": gzipped,
}


@pytest.mark.parametrize("form", READ)
def test_what_loses_nothing_is_mapped(tmp_path, form):
    READ[form](tmp_path / NAME, MAPS)
    opened = map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)
    assert isinstance(opened, np.memmap) and np.array_equal(opened, MAPS)


@pytest.mark.parametrize("form", CONVERTED)
def test_what_cannot_be_mapped_is_refused_with_the_command_that_converts_it(tmp_path, form):
    CONVERTED[form](tmp_path / NAME, MAPS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with refused(rf"{re.escape(cmd.CONVERT)} \S+$") as caught:
        map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)
    assert conversion.convert(shlex.split(str(caught.value))[-1]) == (tmp_path / NAME, 0)
    opened = map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)
    assert opened.dtype == "<f4" and opened.offset == cmd.HEADER_BYTES and np.array_equal(opened, MAPS)
    kept = {path.name.removesuffix(".original"): path.read_bytes() for path in tmp_path.iterdir() if path.name != NAME}
    assert kept == before


def test_the_command_that_is_named_exists(tmp_path):
    path = tmp_path / "a b.npz"
    np.savez(path, MAPS)
    done = ran(sys.executable, *shlex.split(f"{cmd.CONVERT} '{path}'")[1:], folder=tmp_path)
    assert done.stdout == f"{tmp_path / 'a b.npy'}: the same numbers\n"


def test_pixels_that_float32_does_not_hold_are_rounded_and_counted(tmp_path):
    exact = MAPS.astype(np.float64)
    exact[3, 4, :5] *= 1 + 1e-9
    np.save(tmp_path / NAME, exact)
    assert conversion.convert(tmp_path / NAME) == (tmp_path / NAME, 5)
    assert np.array_equal(map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path), MAPS)


def test_what_is_no_number_is_left_for_the_examination(tmp_path):
    strange = MAPS.astype(np.float64)
    strange[0, 0, :3] = 1e300, np.nan, np.frombuffer(b"\1\0\0\0\0\0\xf0\x7f")[0]  # the last one signals
    np.save(tmp_path / NAME, strange)
    conversion.convert(tmp_path / NAME)
    assert np.array_equal(np.isfinite(np.load(tmp_path / NAME)), np.isfinite(strange) & (strange < 1e300))


def test_columns_are_brought_in_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "BLOCK", 7 * MAPS[0].nbytes)
    np.save(tmp_path / NAME, np.asfortranarray(MAPS))
    conversion.convert(tmp_path / NAME)
    assert np.array_equal(map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path), MAPS)


def two_arrays(folder):
    np.savez(folder / "m.npz", a=MAPS, b=MAPS)
    return folder / "m.npz"


def cut_short(folder):
    gzipped(folder / "m.npy", MAPS)
    path = folder / "m.npy.gz"
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def damaged(folder):
    np.savez_compressed(folder / "m.npz", maps=MAPS)
    data = bytearray((folder / "m.npz").read_bytes())
    data[1000:1010] = bytes(10)
    (folder / "m.npz").write_bytes(data)
    return folder / "m.npz"


def columns(folder):
    gzipped(folder / "m.npy", np.asfortranarray(MAPS))
    return folder / "m.npy.gz"


def saved(array):
    def write(folder):
        np.save(folder / "m.npy", array, allow_pickle=True)
        return folder / "m.npy"

    return write


def huge(folder):
    """A thousand million maps, said in a few bytes."""
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 256, 256)}\n"
    with gzip.open(folder / "m.npy.gz", "wb") as file:
        file.write(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode())
    return folder / "m.npy.gz"


def bare(folder):
    with zipfile.ZipFile(folder / "m.npz", "w") as archive:
        archive.writestr("maps.npy", b"<html>")
    return folder / "m.npz"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (two_arrays, r"expected one array in \S+m.npz, got 2: a.npy, b.npy"),
        (cut_short, r"expected maps in \S+m.npy.gz, got a damaged file"),
        (damaged, r"expected maps in \S+m.npz, got a damaged file|an NPY file"),
        (columns, r"row by row in \S+m.npy.gz, got them column by column: gunzip it first"),
        (saved(np.ones((2, 8, 8), np.float16)), r"float32 or float64, .* got \(2, 8, 8\) float16"),
        (saved(np.ones((2, 8, 9))), r"expected square maps .* got \(2, 8, 9\) float64"),
        (saved(np.array([[[print]]])), r"expected square maps .* object"),
        (huge, r"expected 262,144,000,000,000 bytes free in"),
        (bare, r"expected an NPY file, got one that begins with b'<html>'"),
    ],
)
def test_what_holds_no_maps_is_refused_in_one_line_and_leaves_nothing(tmp_path, write, message):
    path = write(tmp_path)
    before = os.listdir(tmp_path)
    with refused(message):
        conversion.convert(path)
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize("taken", [f"{NAME}.original", NAME])
def test_nothing_that_is_there_is_written_over(tmp_path, taken):
    np.save(tmp_path / NAME, np.asfortranarray(MAPS))
    gzipped(tmp_path / NAME, MAPS)
    (tmp_path / f"{NAME}.original").write_bytes(b"mine")
    path = tmp_path / (f"{NAME}.gz" if taken == NAME else NAME)
    with refused(rf"got {re.escape(str(tmp_path / taken))}, which is there: move it away first"):
        conversion.convert(path)
    assert (tmp_path / f"{NAME}.original").read_bytes() == b"mine"
