"""The CAMELS Multifield Dataset (CMD): names, sizes, published statistics, and checks of what claims to be it.

https://camels-multifield-dataset.readthedocs.io
"""

import io
import math
import re
import shlex
import warnings
from typing import NamedTuple

import numpy as np

from camelsight.ground import cases, fields
from camelsight.ground import theta as parameters

SET = "LH"  # that networks are trained on
SETS = {
    "LH": "1000 simulations over a Latin hypercube",
    "CV": "27 simulations at the fiducial parameters",
    "1P": "simulations that vary one parameter at a time",
    "EX": "4 simulations with extreme parameters",
    "BE": "27 simulations that differ by numerical noise alone",
    "SB": "simulations over a Sobol sequence of other parameters",
}
SET_NAME = re.compile(rf"(?:{'|'.join(SETS)})\d*")  # SB28: a Sobol sequence of 28 parameters
SET_SIMULATIONS = {"LH": 1000, "CV": 27, "EX": 4, "BE": 27}  # of the others the table of parameters says it
_WORDS = rf"(?P<field>[A-Za-z]+)_(?P<suite>[A-Za-z][\w-]*)_(?P<set>{'|'.join(SETS)})\d*"
_NAMES = (
    re.compile(rf"(?P<kind>Maps)_{_WORDS}_z=(?P<z>\d+(?:\.\d+)?)\.np[yz](?:\.gz)?"),
    re.compile(rf"(?P<kind>Grids)_{_WORDS}_\d+_z=(?P<z>\d+(?:\.\d+)?)\.np[yz](?:\.gz)?"),
    re.compile(rf"(?P<kind>params)_(?P<set>{'|'.join(SETS)})\d*_(?P<suite>[A-Za-z][\w-]*)\.txt"),
)
BOX = 25.0  # Mpc/h
SLABS = 5  # per axis, of 5 Mpc/h; map = axis * SLABS + slab
MAPS_PER_SIMULATION = 15
SIMULATIONS = 1000  # of the LH set
PIXELS = 256
DTYPE = np.dtype(np.float32)
# CMD's documentation: sim and field for the suite and what is mapped, several fields joined by underscores.
WEIGHTS = re.compile(
    r"weights_(?P<suite>(?:Nbody_)?[A-Za-z-]+)_(?P<fields>[A-Za-z][\w+-]*?)_\d+_all_steps_500_500_o3"
    r"(?:_smoothing_(?P<smoothing>\d+(?:\.\d+)?))?\.pt"
)
STUDIES = re.compile(
    r"(?P<suite>(?:Nbody_)?[A-Za-z-]+)_o3_(?P<fields>[A-Za-z][\w+-]*?)_all_steps_500_500_o3"
    r"(?:_smoothing_(?P<smoothing>\d+(?:\.\d+)?))?\.db"
)
STUDY = "wd_dr_hidden_lr_o3"  # in each of these
HEADER_BYTES = 128  # of an NPY file of maps, as CMD and NumPy since 1.14 write them
LONGEST_HEADER = 1 << 14  # bytes; NumPy itself parses no more than 10,000
CONVERT = "python -m camelsight.stages.maps --convert"
GLOBUS = "1910cb10-4ba8-11ec-a516-b537d6c07c1d"  # the endpoint that CMD's documentation recommends for large files

# (Msun/h)/(Mpc/h)^2 over all pixels of Maps_Mtot_*_LH_z=0.00.npy as regenerated in May 2024, from CMD's documentation.
PUBLISHED_STATISTICS = {
    "IllustrisTNG": {"min": 4.6650e9, "max": 2.8518e15, "mean": 4.1632e11, "std": 3.6415e12},
    "SIMBA": {"min": 5.2276e9, "max": 4.2038e15, "mean": 4.1632e11, "std": 3.6380e12},
    "Astrid": {"min": 5.4158e9, "max": 2.8644e15, "mean": 4.1631e11, "std": 3.6788e12},
}
# Smallest and largest pixel of IllustrisTNG before the bug at the boundary pixels was mended, from the same place.
STATISTICS_BEFORE_MAY_2024 = {"IllustrisTNG": {"min": 4.5981e9, "max": 3.1863e15}}
# Of log10 of these older maps: what the released code standardises all of them with.
LOG10_BEFORE_MAY_2024 = {"IllustrisTNG": {"log10_mean": 11.104, "log10_std": 0.4918}}
# Five digits are published; the two releases of IllustrisTNG differ by 1e-2 in the minimum and 1e-1 in the maximum. How
# CMD summed up a thousand million pixels is not known, hence more room for the moments.
EXTREMES_TOLERANCE = 1e-4
MOMENTS_TOLERANCE = 1e-3


def maps_file_name(suite, field=fields.TOTAL, of=SET):
    """The name of the file with the maps of a ``field`` of ``suite``, such as IllustrisTNG or Nbody_IllustrisTNG."""
    fields.check([field], [suite])
    check_set(of)
    return f"Maps_{field}_{suite}_{of}_z=0.00.npy"


def params_file_name(suite, of=SET):
    parameters.hydro_suite(suite)
    check_set(of)
    return f"params_{of}_{suite}.txt"


def check_set(name):
    if not SET_NAME.fullmatch(name):
        raise ValueError(f"expected a set among {', '.join(SETS)} (SB with its number, as in SB28), got {name!r:.60}")


def file_names(suite, field=None, of=SET):
    """Names under which CMD has had the maps of a ``field`` of a set of ``suite``, or its parameters, today's first."""
    if field is None:
        return (params_file_name(suite, of), *([f"params_{suite}.txt"] if of == SET else []))
    name = maps_file_name(suite, field, of)
    return name, name.replace("z=0.00", "z=0.0")


def described(name):
    """What a file holds that CMD calls ``name``, in words, or None if CMD calls no file so."""
    match = next(filter(None, (pattern.fullmatch(name) for pattern in _NAMES)), None)
    if match is None:
        return None
    said = match.groupdict()
    what = {"Maps": "maps of the ", "Grids": "3D grids of the ", "params": "parameters"}[said["kind"]]
    what += _words(said["field"]) if "field" in said else ""
    when = f" at redshift {said['z']}" if float(said.get("z", 0)) else ""
    return f"{what}{when} of {said['suite']}, set {said['set']} ({SETS[said['set']]})"


def _words(field):
    return fields.FIELDS[field].words if field in fields.FIELDS else f"field {field}"


def published(name):
    """(suite, fields, smoothing) in the name of a file of CMD's benchmark, weights or a study; None if it is none.

    Fields is a tuple. Smoothing is the width of a Gaussian in pixels, as text, or None. The suite may be one that is
    not known here; ValueError if a field is.
    """
    match = WEIGHTS.fullmatch(name) or STUDIES.fullmatch(name)
    if match is None:
        return None
    suite, joined, smoothing = match.group("suite", "fields", "smoothing")
    names = tuple(joined.split("_"))
    if unknown := [one for one in names if one not in fields.FIELDS]:
        raise ValueError(f"expected fields among {', '.join(fields.FIELDS)}, got {unknown[0]} by the name {name}")
    return suite, names, smoothing


def benchmark_names(suite, names, case, trial):
    """The names that CMD's benchmark gives to the study and to the weights of a suite, its fields and a ``case``.

    ValueError for a case that the benchmark does not know: it has uncut and smoothed maps.
    """
    cut = cases.parse(case).only
    if case != "original" and (cut is None or cut.kind != "smooth"):
        raise ValueError(f"expected original or smooth_<pixels>, which CMD's benchmark has names for, got {case}")
    fields.check(names, [suite])
    joined, end = "_".join(names), f"all_steps_500_500_o3{f'_smoothing_{cut.threshold:g}' if cut else ''}"
    return f"{suite}_o3_{joined}_{end}.db", f"weights_{suite}_{joined}_{trial}_{end}.pt"


def folder_name(suite):
    """The folder below ``2D_maps/data`` in which CMD keeps the files of ``suite``."""
    return "Nbody" if parameters.is_nbody(suite) else parameters.hydro_suite(suite)


def nyquist(pixels):
    """The highest k [h/Mpc] along a side of maps of so many ``pixels``."""
    return np.pi * pixels / BOX


def corner(pixels):
    """The highest k [h/Mpc] of maps of so many ``pixels``, along their diagonal."""
    return np.sqrt(2) * nyquist(pixels)


def maps_bytes(simulations, pixels):
    """The size of a maps file; 3,932,160,128 for the LH set."""
    return HEADER_BYTES + simulations * MAPS_PER_SIMULATION * pixels**2 * DTYPE.itemsize


class Statistics:
    """min, max, mean and std of pixels that are added map by map, in float64, of the finite ones."""

    def __init__(self):
        self.low, self.high, self.count, self.mean, self.squares = np.inf, -np.inf, 0, 0.0, 0.0
        self.n_nan = self.n_nonpositive = 0

    def add(self, values):
        """Add an array of one map or so: it is gone through several times, which is cheap while a cache holds it."""
        low, high = values.min(), values.max()  # a NaN shows in both, an infinity in one
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            self.n_nan += values.size - finite.size
            if finite.size:
                self.add(finite)
            return
        if low <= 0:
            self.n_nonpositive += int((values <= 0).sum())
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        # Chan, Golub & LeVeque (1983): sums of squares about the mean, joined piece by piece.
        deviation = values.astype(np.float64).ravel()
        mean, total = deviation.mean(), self.count + deviation.size
        deviation -= mean
        shift = mean - self.mean
        self.squares += np.square(deviation, out=deviation).sum() + shift**2 * self.count * deviation.size / total
        self.mean, self.count = self.mean + shift * deviation.size / total, total

    def result(self):
        """min, max, mean, std, n_nan (NaN and infinite) and n_nonpositive."""
        known = self.count > 0
        return {
            "min": self.low if known else math.nan,
            "max": self.high if known else math.nan,
            "mean": float(self.mean) if known else math.nan,
            "std": math.sqrt(self.squares / self.count) if known else math.nan,
            "n_nan": self.n_nan,
            "n_nonpositive": self.n_nonpositive,
        }


def statistics(maps, chunk=1):
    """``Statistics`` of ``(n, pixels, pixels)``; reads ``chunk`` maps at a time: a memory map never comes in whole."""
    total = Statistics()
    for start in range(0, len(maps), chunk):
        total.add(np.asarray(maps[start : start + chunk]))
    return total.result()


def release(statistics, suite):
    """Which release of ``suite`` has these ``statistics``: a name, or None where it is none whose numbers are known."""
    for name, table in (("since May 2024", PUBLISHED_STATISTICS), ("before May 2024", STATISTICS_BEFORE_MAY_2024)):
        published = table.get(suite)
        if published and all(
            math.isclose(statistics[key], published[key], rel_tol=EXTREMES_TOLERANCE) for key in ("min", "max")
        ):
            return name
    return None


def check_statistics(statistics, suite, name):
    """ValueError in one line unless ``statistics`` are those of a release of ``suite`` whose numbers are known."""
    published, known = PUBLISHED_STATISTICS[suite], release(statistics, suite)
    if known is None:
        raise ValueError(
            f"expected pixels from {published['min']:g} to {published['max']:g}, got {statistics['min']:g} to "
            f"{statistics['max']:g} in {name}: it is damaged, or of a release whose statistics are not known here; "
            "fetch it again"
        )
    for key in ("mean", "std"):
        if known == "since May 2024" and not math.isclose(statistics[key], published[key], rel_tol=MOMENTS_TOLERANCE):
            raise ValueError(
                f"expected {key} {published[key]:g} of the release since May 2024, got {statistics[key]:g} in {name}: "
                "it is damaged; fetch it again"
            )


class Header(NamedTuple):
    """What the header of an NPY file says, and its length in bytes."""

    shape: tuple
    dtype: np.dtype
    columns_first: bool = False
    size: int = HEADER_BYTES


_PARSERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # the same but for names of fields, which maps have not
}


def read_header(head, name):
    """The ``Header`` in the first bytes of an NPY file of any age; ValueError in one line if there is none.

    ``LONGEST_HEADER`` bytes are enough.
    """
    file = io.BytesIO(head)
    try:
        parse = _PARSERS[np.lib.format.read_magic(file)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 wrote 15000L, which is as good
            shape, columns_first, dtype = parse(file)
    except Exception:  # NumPy raises whatever the bytes make it raise
        wrong = "a damaged header" if head.startswith(np.lib.format.MAGIC_PREFIX) else f"{bytes(head[:16])!r}"
        raise ValueError(f"expected an NPY file, got one that begins with {wrong} in {name}") from None
    return Header(shape, dtype, columns_first, file.tell())


def check_first_row(head, name):
    """ValueError in one line unless the first bytes of a params file begin with a row of six numbers."""
    line = head.lstrip().split(b"\n")[0]
    try:
        good = len([float(word) for word in line.split()]) == len(parameters.NAMES)
    except ValueError:
        good = line.startswith(b"#")
    if not good:
        raise ValueError(f"expected a table of numbers, got a file that begins with {bytes(line[:16])!r} in {name}")


def check_maps(header, expected_simulations, expected_pixels, name):
    """ValueError in one line unless ``header`` is that of the maps that are expected, in a form that can be mapped.

    Of either byte order, that is float32, row by row. ``name`` is the path of the file, which the advice takes up.
    """
    expected = (expected_simulations * MAPS_PER_SIMULATION, expected_pixels, expected_pixels)
    shape, dtype = tuple(header.shape), np.dtype(header.dtype)
    if shape == expected and dtype.newbyteorder("=") == DTYPE and not header.columns_first:
        return
    form = f"{dtype}{' column by column' if header.columns_first else ''}"
    if dtype.newbyteorder("=") == np.float16:
        advice = "densities go to 1e15 and float16 ends at 65,504: these are no densities; fetch the file again"
    elif dtype.newbyteorder("=") not in (DTYPE, np.float64):
        advice = "these are not CMD's maps; fetch the file again"
    elif len(shape) == 4:
        advice = "these are CMD's 3D grids, not its maps"
    elif shape[1:] == expected[1:] and shape[0] < expected[0]:
        advice = f"{_fewer(shape[0])}; take the file of the whole set, or change maps.simulations of the profile"
    elif shape != expected:
        advice = "make the profile's simulations and pixels agree with the file, or fetch the file again"
    else:
        advice = f"convert it with {CONVERT} {shlex.quote(str(name))}"
    raise ValueError(f"expected {expected} {DTYPE}, got {shape!s:.60} {form:.60} in {name}: {advice}")


def _fewer(maps):
    """What a file of so few ``maps`` holds."""
    sets = {27: "sets CV and BE have", 4: "set EX has"}.get(maps / MAPS_PER_SIMULATION)
    also = f", as many as CMD's {sets}" if sets else ""
    return f"it holds {maps / MAPS_PER_SIMULATION:g} simulations{also}"


def check_params(array, simulations, suite, name):
    """ValueError in one line unless ``array`` is the ``(simulations, 6)`` parameters of ``suite``, in its ranges.

    A gravity-only suite's four astrophysical columns mean nothing and are not looked at.
    """
    array = np.asarray(array)
    expected = (simulations, len(parameters.NAMES))
    if array.shape != expected:
        raise ValueError(
            f"expected {expected}, got {array.shape} in {name}: the file belongs to another set; fetch it again"
        )
    low, high = parameters.ranges(suite)
    for column in np.flatnonzero(parameters.meaningful(suite)):
        values = array[:, column]
        bad = ~((values >= low[column]) & (values <= high[column]))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"expected {parameters.NAMES[column]} in [{low[column]:g}, {high[column]:g}], got {values[row]:g} "
                f"in row {row} of {name}: the columns are {', '.join(parameters.NAMES)}; fetch the file again"
            )


def check_values(statistics, name, field=fields.TOTAL):
    """ValueError in one line unless every pixel, by ``statistics``, is finite and as low as ``field`` may be."""
    n_nan, n_nonpositive, known = statistics["n_nan"], statistics["n_nonpositive"], fields.FIELDS[field]
    what = "surface densities" if known.is_mass else "values"
    if n_nan or (n_nonpositive and known.is_positive):
        raise ValueError(
            f"expected finite {what} above zero, got {n_nan} NaN or infinite and {n_nonpositive} zero or "
            f"negative pixels in {name}: fetch or simulate the file again"
        )
    if known.least == "at least 0" and statistics["min"] < 0:
        raise ValueError(f"expected {what} of at least zero, got {statistics['min']:g} in {name}: fetch the file again")
