"""Maps as people keep them, written as CMD writes its own: float32, row by row, in an NPY file that can be mapped."""

import contextlib
import gzip
import math
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np

from camelsight.ground import cmd
from camelsight.pipeline import cli, map_files, store

BLOCK = 1 << 28  # bytes that are brought in at a time where every map is scattered over the whole file
MOST_PIXELS = 1 << 12  # a side, of a map


def convert(path):
    """Write the maps in ``path``, a .npy, .npz or .npy.gz, into a .npy beside it: its path, and how many were rounded.

    Pixels of float64 are rounded where float32 does not hold them. Where ``path`` has the name of what is written, it
    is kept with .original at its end. ValueError in one line if ``path`` holds anything else than one array of maps.
    """
    path = Path(path)
    target = path.with_suffix("") if path.suffix == ".gz" else path.with_suffix(".npy")
    original = path.with_name(f"{path.name}.original")
    if (taken := original if target == path else target).exists():
        raise ValueError(f"expected to write {target}, got {taken}, which is there: move it away first")
    rounded = 0
    with _opened(path) as file:
        header = cmd.read_header(file.read(cmd.LONGEST_HEADER), path)
        _check(header, path)
        with store.replacing(target) as part, open(part, "wb") as out:
            described = {"descr": cmd.DTYPE.str, "fortran_order": False, "shape": header.shape}
            np.lib.format.write_array_header_1_0(out, described)
            with cli.progress(header.shape[0], f"convert {path.name}", "map") as bar:
                for maps in _blocks(file, header, path):
                    with np.errstate(all="ignore"):  # an infinity or a NaN is found when the file is examined
                        single = np.ascontiguousarray(maps, dtype=cmd.DTYPE)
                    rounded += np.count_nonzero(single != maps)
                    out.write(single)
                    bar.update(len(maps))
            if target == path:
                os.replace(path, original)
    return target, rounded


@contextlib.contextmanager
def _opened(path):
    """The bytes of the one array in ``path``, unpacked as they are read."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                yield file
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise ValueError(f"expected one array in {path}, got {len(names)}: {', '.join(names):.100}")
                with archive.open(names[0]) as file:
                    yield file
        else:
            with open(path, "rb") as file:
                yield file
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"expected maps in {path}, got a damaged file: {store.one_line(error):.150}") from None


def _check(header, path):
    shape, dtype = header.shape, header.dtype.newbyteorder("=")
    square = len(shape) == 3 and shape[0] > 0 and 0 < shape[1] == shape[2] <= MOST_PIXELS
    if not square or dtype not in (np.float32, np.float64):
        got = f"{shape!s:.60} {header.dtype!s:.60}"
        raise ValueError(f"expected square maps of float32 or float64, a row of them, in {path}, got {got}")
    if header.columns_first and path.suffix != ".npy":
        unpack = "gunzip" if path.suffix == ".gz" else "unzip"
        raise ValueError(f"expected maps row by row in {path}, got them column by column: {unpack} it first")
    needed, free = math.prod(shape) * cmd.DTYPE.itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(f"expected {needed:,} bytes free in {path.parent}, got {free:,}: free some")


def _blocks(file, header, path):
    """The maps in order, some at a time."""
    shape, size = header.shape, math.prod(header.shape[1:]) * header.dtype.itemsize
    if header.columns_first:
        map_files.check_whole(header, path)
        maps = np.memmap(path, header.dtype, mode="r", offset=header.size, shape=shape, order="F")
        step = max(1, BLOCK // size)
        for start in range(0, shape[0], step):
            yield maps[start : start + step]
        return
    file.seek(header.size)
    for number in range(shape[0]):
        data = file.read(size)
        if len(data) < size:
            raise ValueError(f"expected {shape[0]} maps in {path}, got {number}: the copy is not whole")
        yield np.frombuffer(data, header.dtype).reshape(1, *shape[1:])
    if file.read(1):
        raise ValueError(f"expected {shape[0]} maps in {path}, got more bytes behind them")
