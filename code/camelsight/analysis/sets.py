"""Networks on maps of CMD's other sets: the fiducial universe, one parameter at a time, extremes, Sobol sequences."""

import numpy as np
import torch

from camelsight.analysis import dataset, prediction
from camelsight.ground import cmd, split, theta
from camelsight.pipeline import cli, map_files, release, text_tables

CHUNK = 20  # simulations whose maps are in memory at a time
COSMOLOGY = {"omega_m": (0.0, 1.0), "sigma_8": (0.0, 2.0)}  # what no set leaves; astrophysical ones go to extremes


def open_set(params, suite, name):
    """The maps of each field, memory maps ``(15 S, n, n)``, and the parameters ``(S, P)`` of a set of ``suite``.

    P is 6, or 2 where the set varies others than the six, whose table begins with the cosmological ones. What is not in
    ``maps.folder`` is fetched from ``maps.bases``. ValueError in one line if a file is missing or not of this set.
    """
    folder = params.maps.files

    def found(field, simulations=0):
        if (path := map_files.find(folder, suite, field, name)) is not None:
            return path
        wanted = cmd.file_names(suite, field, name)[0]
        if not params.maps.bases:
            raise ValueError(f"expected {wanted} of CMD in {folder}, got no such file; put it there")
        return release.fetch(params, suite, field, simulations, of=name)[0]

    table = found(None)
    values = text_tables.read(table)
    known = len(theta.NAMES) if values.shape[1] == len(theta.NAMES) else len(theta.COSMOLOGICAL)
    count = cmd.SET_SIMULATIONS.get(name, len(values))
    if values.shape[1] < len(theta.NAMES) or len(values) != count:
        expected = f"{count} rows of at least {len(theta.NAMES)} parameters"
        raise ValueError(f"expected {expected} in {table}, got {len(values)} of {values.shape[1]}")
    for column, (parameter, (low, high)) in enumerate(COSMOLOGY.items()):
        if not ((values[:, column] > low) & (values[:, column] < high)).all():
            raise ValueError(
                f"expected {parameter} in column {column + 1} of {table}, got numbers outside ({low:g}, {high:g})"
            )
    opened = []
    for field in params.fields:
        path = found(field, count)
        opened.append(map_files.open_file(path, count, params.maps.pixels))
        cmd.check_values(cmd.statistics(opened[-1]), path.name, field)
    return tuple(opened), values[:, :known]


def predict(params, net, suite, case, record, name, views):
    """``prediction.predict`` of all maps of a set, cut and scaled by the ``record`` of the maps that ``net`` knows."""
    maps, values = open_set(params, suite, name)
    given = dataset.Suite(np.arange(len(values)), maps, values)
    ranges, scales, found = dataset.log10_ranges(params, record), dataset.scales(params, record), []
    with cli.progress(len(values), f"evaluate {suite} {name}", "sim") as bar:
        for start in range(0, len(values), CHUNK):
            numbers = given.numbers[start : start + CHUNK]
            index = split.map_indices(numbers)
            cut = dataset.cut_maps(params, suite, case, given.densities(index), index, ranges)
            simulation = index // dataset.PER_SIMULATION
            part = dataset.Part(
                index=index,
                simulation=simulation,
                parameters=given.truth(simulation),
                maps=torch.from_numpy(dataset.scaled(cut, scales)),
                targets=None,
            )
            found.append(prediction.predict(net, part, suite, views))
            bar.update(len(numbers))
    joined = {key: np.concatenate([one[key] for one in found]) for key in found[0]}
    return joined | {key: joined[key][:, : values.shape[1]] for key in ("mean", "sigma")}
