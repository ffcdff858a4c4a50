"""The files of the CMD release: found in a folder or fetched into it, examined, pinned, linked into place."""

import hashlib
import math
import shutil
import sys
import time
from concurrent import futures
from itertools import product
from pathlib import Path

import numpy as np

from camelsight.ground import cases, cmd, fields, theta
from camelsight.pipeline import cli, download, map_files, paths, store, text_tables

MASS_TOLERANCE = 0.05  # of a simulation's mean density against its omega_m; rows of another simulation are off by more
TABLE_TOLERANCE = 6e-5  # tables with four decimals are met with, neighbours of a hypercube are 4e-4 apart
BY_HAND = "copied"  # the source of a file that was not fetched


def adopt(params, target=paths.MAPS):
    """Fetch what ``maps.folder`` lacks, examine everything, pin it, and link it into ``target``.

    A folder on another disk is linked by name. ValueError in one line for the first file that is not as it should be,
    or that must be unpacked.
    """
    folder, lock, linked = params.maps.files, paths.digests(params.profile), {}
    folder.mkdir(parents=True, exist_ok=True)
    for suite, field in product(params.suites, params.fields):
        if map_files.find(folder, suite, field) is None and map_files.packed(folder, suite, field):
            raise ValueError(map_files.missing(folder, suite, field))
    if others := map_files.others(folder, params.fields):
        print(f"{folder} holds what no stage uses{others}", file=sys.stderr)
    _check_disk(params, folder)
    for field, suite in product((None, *params.fields), params.suites):  # the small files, of parameters, first
        pins, source = read_pins(lock), BY_HAND
        path = map_files.find(folder, suite, field)
        if path is None:
            path, source = fetch(params, suite, field, params.maps.simulations, pins=pins)
        record = examine(path, suite, field, params.maps, linked.get(paths.parameters(suite, target)), pins)
        if record["wrong"]:
            raise ValueError(record["wrong"][0])
        if path.name not in pins:
            write_pins(lock, pins | {path.name: (record["sha256"], record["bytes"], source)})
        linked[_place(suite, field, target)] = path
    for place, path in linked.items():
        store.link(path, place)


def _place(suite, field, folder=paths.MAPS):
    """Where a run has the maps of a ``field`` of ``suite``, or its parameters."""
    return paths.maps(suite, field, folder) if field else paths.parameters(suite, folder)


def unlink_replaced(params):
    """Remove links in ``data/maps`` whose file in ``maps.folder`` is another one by now, so that DVC runs the stage.

    DVC alone would not see it: a hard link keeps the old file.
    """
    if params.maps.source != "camels":
        return
    for suite, field in product(params.suites, (None, *params.fields)):
        source, link = map_files.find(params.maps.files, suite, field), _place(suite, field)
        if link.exists() and (source is None or source.samefile(link)):
            continue
        if link.is_symlink() or link.exists():
            print(f"{link} is not the one in {params.maps.files}; the stage maps checks and links it anew")
            link.unlink()


def read_pins(path):
    """``{name: (sha256, bytes, source)}`` of a lock file; empty where there is none."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    if not all(len(row) == 4 and len(row[0]) == 64 and row[1].isdigit() for row in rows):
        raise ValueError(f"expected lines of sha256, size, name and source in {path}, got others; restore it with git")
    return {name: (digest, int(size), source) for digest, size, name, source in rows}


def write_pins(path, pins):
    lines = [f"{digest}  {size}  {name}  {source}\n" for name, (digest, size, source) in sorted(pins.items())]
    store.write_text(path, "".join(lines))


def examine(path, suite, field, spec, parameters_path=None, pins=None):
    """What there is to say about a file of maps, or without ``field`` of parameters, as a dict for JSON.

    ``wrong`` lists in one line each what is off. ``spec`` is the block ``maps`` of the profile. Maps are compared with
    the omega_m in ``parameters_path``. A file that ``pins`` know must have their sha256, and may then be of a release
    whose statistics are not known here.
    """
    record = {"file": str(path), "suite": suite, "bytes": path.stat().st_size}
    pinned = (pins or {}).get(path.name, (None,))[0]
    if field:
        record |= _examine_maps(path, suite, field, spec, parameters_path, pinned)
    else:
        record |= _examine_parameters(path, suite, spec)
    if pinned and record["sha256"] and record["sha256"] != pinned:
        got = f"expected the {path.name} used before, sha256 {pinned}, got {record['sha256']} in {path.parent}"
        advice = "remove it and run make maps to fetch it again, or remove its line from the profile's .sha256 file"
        record["wrong"].insert(0, f"{got}: {advice} to accept it")
    return record | {"pinned": pinned}


def check(params, folder=None):
    """``examine`` of every file of the profile, in ``folder`` or where it has them; what is missing is wrong, too."""
    camels = params.maps.source == "camels"
    folder = folder or (params.maps.files if camels else paths.MAPS)
    pins, records = read_pins(paths.digests(params.profile)) if camels else {}, []
    for suite, field in product(params.suites, (None, *params.fields)):
        if (path := map_files.find(folder, suite, field)) is None:
            place = str(Path(folder, cmd.file_names(suite, field)[0]))
            records.append({"file": place, "suite": suite, "wrong": [map_files.missing(folder, suite, field)]})
        else:
            records.append(examine(path, suite, field, params.maps, map_files.find(folder, suite), pins))
    return records


def describe(record):
    """A record of ``examine`` as lines for people."""
    lines = [f"  {key:<14} {_text(value)}" for key, value in record.items() if key not in ("file", "wrong")]
    return "\n".join([record["file"], *lines, *(f"  WRONG: {text}" for text in record["wrong"]), ""])


def _text(value):
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ("×" if isinstance(value[0], int) else " to ").join(map(_text, value))
    return f"{value:.5g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _examine_parameters(path, suite, spec):
    record = {"rows": None, "values": None, "ranges": None, "sha256": store.file_digest(path), "wrong": []}
    meant = theta.meant(suite)

    def by_name(low, high):
        pairs = zip(theta.NAMES, low, high, strict=True)
        return {name: [_number(a), _number(b)] if name in meant else None for name, a, b in pairs}

    try:
        values = text_tables.read_parameters(path)
        if values.shape[1] == len(theta.NAMES):
            record |= {"rows": len(values), "values": by_name(values.min(0), values.max(0))}
            record["ranges"] = by_name(*theta.ranges(suite))
        cmd.check_params(values, spec.simulations, suite, path.name)
        if spec.source == "camels":
            _compare_table(values, suite, path.name)
    except ValueError as error:
        record["wrong"].append(store.one_line(error))
    return record


def _compare_table(values, suite, name):
    """ValueError unless the parameters of a whole set are those that CAMELS drew for ``suite``."""
    from camelsight.universe import camels  # here, because it brings in torch, which the command line need not wait for

    own, known = camels.parameters(suite), np.flatnonzero(theta.meaningful(suite))
    if len(values) != len(own) or _alike(values[:, known], own[:, known]):
        return
    where = f"expected the parameters of {suite} in {name}, got"
    for other in camels.HYPERCUBE_SEEDS:
        if _alike(values[:, known], camels.parameters(other)[:, known]):
            raise ValueError(f"{where} those of {other}: fetch the file again")
    places = [[j for j in range(own.shape[1]) if _alike(values[:, i], own[:, j])] for i in known]
    if all(places):
        order = ", ".join(theta.NAMES[found[0]] for found in places)
        raise ValueError(f"{where} its columns in the order {order}: they are {', '.join(theta.NAMES)}")
    row = int(np.argmax(np.abs(values - own)[:, known].max(1) > TABLE_TOLERANCE))
    got = ", ".join(f"{number:g}" for number in values[row, known])
    meant = ", ".join(f"{number:g}" for number in own[row, known])
    raise ValueError(f"{where} {got} for simulation {row}, which has {meant}: fetch the file again")


def _alike(values, others):
    return np.abs(values - others).max() <= TABLE_TOLERANCE


def simulations_of(truth):
    """Which simulations have the true values ``(N, 2 or more)``: (suite, their numbers ``(N,)``), or None.

    The suite is a hydrodynamic one, and its gravity-only partner has the same two cosmological parameters.
    """
    from camelsight.universe import camels

    for suite in camels.HYPERCUBE_SEEDS:
        away = np.abs(truth[:, None, :2] - camels.parameters(suite)[:, :2]).max(-1)
        if (away.min(1) <= TABLE_TOLERANCE).all():
            return suite, away.argmin(1)
    return None


def _examine_maps(path, suite, field, spec, parameters_path, pinned):
    wrong, size = [], path.stat().st_size
    record = dict.fromkeys(("shape", "dtype", "min", "max", "mean", "std", "n_nan", "n_nonpositive", "published"))
    record |= {"density_ratio": None, "release": None, "sha256": None, "wrong": wrong}
    try:
        header = map_files.read_header(path)
        record |= {"shape": list(header.shape), "dtype": str(header.dtype)}
        cmd.check_maps(header, spec.simulations, spec.pixels, path)
        map_files.check_whole(header, path)
    except ValueError as error:
        wrong.append(str(error))
        return record

    statistics, means, record["sha256"] = _scan(path, header)
    record |= {name: _number(value) for name, value in statistics.items()}
    try:
        cmd.check_values(statistics, path.name, field)
        if parameters_path is not None and field == fields.TOTAL:
            omega_m = text_tables.read_parameters(parameters_path)[:, theta.NAMES.index("omega_m")]
            record["density_ratio"] = _compare_density(means, omega_m, path.name)
    except ValueError as error:
        wrong.append(str(error))
    if spec.source != "camels" or (spec.simulations, spec.pixels) != (cmd.SIMULATIONS, cmd.PIXELS):
        record["release"] = "not a CMD release"
        return record
    total = field == fields.TOTAL
    record["published"] = cmd.PUBLISHED_STATISTICS.get(suite) if total else None
    unknown = "unknown" if record["published"] else "unknown: CMD's statistics of these maps are not known here"
    record["release"] = (cmd.release(statistics, suite) if total else None) or unknown
    if record["published"] and record["sha256"] != pinned:
        try:
            cmd.check_statistics(statistics, suite, path.name)
        except ValueError as error:
            line = f"{record['sha256']} {size} {path.name} {BY_HAND}"
            wrong.append(f"{error}, or put the line '{line}' into the profile's .sha256 file to use it all the same")
    return record


def _scan(path, header):
    """Statistics, the mean of every map, and the sha256 of a maps file, in one pass and one simulation at a time."""
    shape, digest = header.shape, hashlib.sha256()
    statistics, means = cmd.Statistics(), np.empty(shape[0])
    block = np.empty((cmd.MAPS_PER_SIMULATION, *shape[1:]), dtype=header.dtype)
    with open(path, "rb") as file, futures.ThreadPoolExecutor(1) as thread:
        digest.update(file.read(header.size))
        for start in range(0, shape[0], len(block)):
            if file.readinto(block) != block.nbytes:
                raise ValueError(f"expected {path} to stay as it is while it is read, got an end at map {start}")
            hashed = thread.submit(digest.update, block)  # both let go of Python's lock
            for values in block:
                statistics.add(values)
            block.mean(axis=(1, 2), dtype=np.float64, out=means[start : start + len(block)])
            hashed.result()
    return statistics.result(), means, digest.hexdigest()


def _compare_density(means, omega_m, name):
    """Smallest and largest ratio of a simulation's mean density to the one that its omega_m implies."""
    if len(omega_m) * cmd.MAPS_PER_SIMULATION != len(means):
        return None
    ratio = means.reshape(len(omega_m), -1).mean(1) / (cases.MEAN_SURFACE_DENSITY * omega_m)
    worst = int(np.argmax(np.abs(ratio - 1)))
    if not abs(ratio[worst] - 1) <= MASS_TOLERANCE:
        expected = f"a mean density within {MASS_TOLERANCE:.0%} of {cases.MEAN_SURFACE_DENSITY:g} omega_m"
        got = f"{ratio[worst]:.3g} times that in simulation {worst} of {name}"
        raise ValueError(f"expected {expected}, got {got}: the parameters belong to other maps")
    return [float(ratio.min()), float(ratio.max())]


def _check_disk(params, folder):
    """ValueError if the maps that are missing do not fit the disk."""
    wanted = product(params.suites, params.fields)
    missing = [cmd.maps_file_name(*one) for one in wanted if map_files.find(folder, *one) is None]
    begun = sum(_size(folder / f"{name}.part") for name in missing)
    needed = len(missing) * cmd.maps_bytes(params.maps.simulations, params.maps.pixels) - begun
    free = shutil.disk_usage(folder).free
    if missing and free < needed:
        expected = f"expected {needed:,} bytes free in {folder} for {', '.join(missing)}, got {free:,}"
        raise ValueError(f"{expected}: free some, or set maps.folder to a larger disk")


def fetch(params, suite, field, simulations, *, pins=None, of=cmd.SET):
    """Fetch the maps of a ``field`` of a set, or its parameters, from the first of ``maps.bases`` that has them.

    Its path, and where it came from. ValueError in one line if none of them has it as it should be.
    """
    spec, name, pins = params.maps, cmd.file_names(suite, field, of)[0], pins or {}
    path = spec.files / name
    size = cmd.maps_bytes(simulations, spec.pixels) if field else None

    def check(head):
        if field is None:
            return of == cmd.SET and cmd.check_first_row(head, name)
        return cmd.check_maps(cmd.read_header(head, name), simulations, spec.pixels, name)

    with cli.progress(size, f"fetch {name}", "B", _size(f"{path}.part")) as bar:

        def wait(seconds, reason):
            bar.write(f"{name}: {reason}; the next try is in {seconds} s", file=sys.stderr)
            time.sleep(seconds)

        try:
            _, source = download.fetch(
                [f"{base.rstrip('/')}/{cmd.folder_name(suite)}/{name}" for base in spec.bases],
                path,
                size=size,
                digest=pins.get(name, (None,))[0],
                check=check,
                on_size=lambda size: bar.update(size - bar.n),
                wait=wait,
            )
        except ValueError as error:
            bar.leave = False
            by_hand = f"copy it into {spec.files} by hand or by Globus from the endpoint {cmd.GLOBUS}"
            raise ValueError(f"{name} could not be fetched: {error}; run make maps to go on, or {by_hand}") from None
    return path, source


def _size(path):
    return Path(path).stat().st_size if Path(path).exists() else 0


def _number(value):
    return value if isinstance(value, int) else float(value) if math.isfinite(value) else None
