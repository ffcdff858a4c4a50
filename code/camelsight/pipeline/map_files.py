"""Files of maps and of their parameters, as CMD has them: where they lie, and whether they are what they should be."""

import math
import mmap
import shlex
from pathlib import Path

import numpy as np

from camelsight.ground import cmd, fields, theta
from camelsight.pipeline import text_tables

OTHERS = 3  # files of CMD that a message lists at most


def find(folder, suite, field=None, of=cmd.SET):
    """The file with the maps of a ``field`` of a set of ``suite``, or with its parameters, in ``folder``; or None.

    Looked at are also the sub-folder that CMD has, and the one that a run has.
    """
    names, folders = cmd.file_names(suite, field, of), _places(folder, suite)
    return next((place / name for name in names for place in folders if (place / name).exists()), None)


def _places(folder, suite):
    return Path(folder), Path(folder, cmd.folder_name(suite)), Path(folder, suite)


def missing(folder, suite, field=None):
    """What to say where ``find`` has found no such file: also what else of CMD lies there."""
    names = cmd.file_names(suite, field)
    if found := packed(folder, suite, field) if field else None:
        advice = f"which cannot be mapped into memory; unpack it with {cmd.CONVERT} {shlex.quote(str(found))}"
        return f"expected {Path(folder, names[0])}, got {found.name}, {advice}"
    also = others(folder, [field] if field else fields.FIELDS)
    return f"expected {Path(folder, names[0])}, got no such file; run make maps, or put it there{also}"


def packed(folder, suite, field):
    """The maps of a ``field`` of ``suite`` as .npz or .npy.gz where ``find`` looks, or None."""
    places = [place / name for name in cmd.file_names(suite, field) for place in _places(folder, suite)]
    packed = (path for place in places for path in (Path(f"{place}.gz"), place.with_suffix(".npz")))
    return next((path for path in packed if path.is_file()), None)


def others(folder, wanted):
    """What files in ``folder`` hold that CMD has, other than the fields ``wanted``, as the end of a sentence."""
    known = [(suite, field) for suite in theta.SUITES for field in (None, *wanted)]
    known = [(suite, field) for suite, field in known if field in (None, *fields.of_suite(suite))]
    used = {name for suite, field in known for name in cmd.file_names(suite, field)}
    names = sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []
    said = [f"; {name} has {what}" for name in names if name not in used and (what := cmd.described(name))]
    return "".join(said[:OTHERS])


def read_header(path):
    """The ``cmd.Header`` of an NPY file; ValueError in one line if it is none."""
    with open(path, "rb") as file:
        return cmd.read_header(file.read(cmd.LONGEST_HEADER), path)


def check_whole(header, path):
    """ValueError in one line unless an NPY file is as long as its ``header`` says."""
    expected, size = header.size + math.prod(header.shape) * header.dtype.itemsize, Path(path).stat().st_size
    if size != expected:
        advice = "the copy is not whole; remove it and run make maps to fetch or simulate it again"
        raise ValueError(f"expected {expected:,} bytes, got {size:,} in {path}: {advice}")


def open_maps(suite, field, simulations, pixels, folder):
    """The maps of a ``field`` of ``suite`` as a read-only memory map, ``(15 * simulations, pixels, pixels)`` float32.

    A file of another machine may have the other byte order. ValueError if the file is no NPY file, is cut short, or
    holds another shape or type.
    """
    if (path := find(folder, suite, field)) is None:
        raise ValueError(missing(folder, suite, field))
    return open_file(path, simulations, pixels)


def open_file(path, simulations, pixels):
    """As ``open_maps``, of the file at ``path``."""
    header = read_header(path)
    cmd.check_maps(header, simulations, pixels, path)
    check_whole(header, path)
    return np.memmap(path, header.dtype, mode="r", offset=header.size, shape=header.shape)


def release(maps):
    """Let go of the pages that reading from a memory map brought in; they would count as this process's memory."""
    if isinstance(maps.base, mmap.mmap):
        maps.base.madvise(mmap.MADV_DONTNEED)


def read_parameters(suite, simulations, folder):
    """The ``(simulations, 6)`` physical parameters of ``suite``; ValueError if the file holds anything else."""
    if (path := find(folder, suite)) is None:
        raise ValueError(missing(folder, suite))
    values = text_tables.read_parameters(path)
    cmd.check_params(values, simulations, suite, path.name)
    return values
