"""What a network is given: the maps of a case, cut, scaled and split, with their targets."""

import dataclasses
import hashlib
import sys
from dataclasses import dataclass

import numpy as np
import torch

from camelsight.ground import cases, cmd, seeding, split, theta
from camelsight.maps import cuts, scaling
from camelsight.pipeline import cli, paths, source, store

PER_SIMULATION = cmd.MAPS_PER_SIMULATION
DEVICE_SHARE = 0.5  # of a device's free memory that maps may take; training needs the rest


@dataclass(frozen=True)
class Part:
    """The maps of one part of the split: "train", "valid" or "test"."""

    index: np.ndarray  # (N,) of the map in CAMELS
    simulation: np.ndarray  # (N,) its number in CAMELS
    parameters: np.ndarray  # (N, 6), physical
    maps: torch.Tensor  # (N, n, n) float32, scaled
    targets: torch.Tensor  # (N, 6) float32, normalised


@dataclass(frozen=True)
class Suite:
    """The maps and parameters of a suite, asked for by CAMELS' numbers of simulations and maps, whatever the row."""

    numbers: np.ndarray  # (S,) of the simulations, ascending: the rows of the files
    maps: np.ndarray  # (15 S, n, n), a memory map
    parameters: np.ndarray  # (S, 6), physical

    def rows(self, simulations):
        return np.searchsorted(self.numbers, simulations)

    def truth(self, simulations):
        """The physical parameters ``(..., 6)`` of ``simulations``."""
        return self.parameters[self.rows(simulations)]

    def densities(self, index):
        """The maps ``(N, n, n)`` with these indices in CAMELS."""
        index = np.asarray(index)
        rows = self.rows(index // PER_SIMULATION) * PER_SIMULATION + index % PER_SIMULATION
        return np.array(self.maps[rows], dtype=cmd.DTYPE)  # a file may have the other byte order

    def simulation(self, number):
        """A copy of the 15 maps of one simulation, of which the memory map keeps nothing in memory."""
        first = int(self.rows(number)) * PER_SIMULATION
        original = np.array(self.maps[first : first + PER_SIMULATION], dtype=cmd.DTYPE)
        store.release(self.maps)
        return original


def open_suite(params, suite, folder=paths.MAPS):
    """The ``Suite`` of the maps that a run has in ``folder``; ValueError in one line if a file is wrong."""
    n = params.maps.simulations
    maps = store.open_maps(suite, n, params.maps.pixels, folder)
    return Suite(numbers(params), maps, store.read_parameters(suite, n, folder))


def splits(params):
    """Part → the numbers of its simulations: a twin has as many of CAMELS' 1000 as the profile asks for."""
    chosen = split.of_hypercube if params.maps.source == "twin" else split.by_simulation
    return chosen(params.maps.simulations, **dataclasses.asdict(params.split))


def numbers(params):
    """The numbers ``(S,)`` of all simulations, ascending."""
    return split.numbers(splits(params))


def rows(params):
    """Part → where its simulations are in an array over ``numbers``."""
    parts = splits(params)
    return {name: np.searchsorted(split.numbers(parts), part) for name, part in parts.items()}


def cut_simulation(params, suite, case, original, simulation, log10_range):
    """The 15 maps of one simulation, cut. Always this many at a time, so that the same bits come out everywhere."""
    return cuts.apply(
        original,
        cases.parse(case).cuts,
        log10_range=log10_range,
        generator=seeding.numpy_generator(params.seed, suite, case, "fill"),
        indices=split.map_indices([simulation]),
    )


def resume_key(params, suite, case, device, stage, *more):
    """A name for unfinished work of ``stage``: equal where data, split, settings, code, hardware and torch are."""
    parameters = hashlib.sha256(paths.parameters(suite).read_bytes()).hexdigest()
    return store.digest(
        suite,
        case,
        params.seed,
        params.threads,
        params.split,
        params.train,
        store.read_json(paths.cut(suite, case))["digest"],
        parameters,
        cli.hardware(device),
        torch.__version__,
        source.digest(stage),
        *more,
    )[:16]


def map_digest(maps):
    return hashlib.sha256(np.ascontiguousarray(maps).tobytes()).hexdigest()[:16]


def survey(params, suite, case, *, folder=paths.MAPS, keep=(), on_simulation=lambda: None):
    """Cut every map of ``suite`` once. Returns what training needs to know of them, and the cut maps of ``keep``.

    The record has fraction_cut, uncut (statistics), log10_range, statistics_train and statistics_all (mean and standard
    deviation of the signed log), digest and digests (of each simulation). ``keep`` are simulations; the second value
    maps each to its first cut map.
    """
    given = open_suite(params, suite, folder)
    n = len(given.numbers)
    case_cuts, uncut = cases.parse(case).cuts, cmd.Statistics()
    log10_range = None
    if any(cut.fill == "random" for cut in case_cuts):  # drawn from the range of the whole set
        log10_range = _log10_range(cmd.statistics(given.maps), suite)
    sums, digests, removed, kept = np.zeros((n, 3)), [], np.zeros((n, len(case_cuts))), {}
    for row, simulation in enumerate(given.numbers.tolist()):
        original = given.simulation(simulation)
        for image in original:
            uncut.add(image)
        cut = cut_simulation(params, suite, case, original, simulation, log10_range)
        sums[row] = scaling.sums(scaling.signed_log10(cut))
        removed[row] = cuts.fraction_cut(original, case_cuts)
        digests.append(map_digest(cut))
        if simulation in keep:
            kept[simulation] = cut[0]
        on_simulation()
    log10_range = _log10_range(uncut.result(), suite)
    mean, std = scaling.statistics(sums[rows(params)["train"]].sum(0))
    if not std > 0:
        raise ValueError(
            f"expected maps with some structure, got {mean:g} in every pixel after the cut {case}: loosen it"
        )
    record = {
        "suite": suite,
        "case": case,
        "fraction_cut": removed.mean(0),
        "uncut": uncut.result(),
        "log10_range": log10_range,
        "statistics_train": [mean, std],
        "statistics_all": scaling.statistics(sums.sum(0)),
        "digest": store.digest(digests),
        "digests": digests,
    }
    return record, kept


def _log10_range(statistics, suite):
    cmd.check_values(statistics, cmd.maps_file_name(suite))
    return [float(np.log10(statistics["min"])), float(np.log10(statistics["max"]))]


def load(params, suite, case, names, *, record=None, folder=paths.MAPS):
    """``{name: Part}`` for the ``names`` among train, valid, test; only these maps are read.

    The cut is applied anew and compared, simulation by simulation, with the digests in the ``record`` of a survey, by
    default the one that the cut stage made.
    """
    given = open_suite(params, suite, folder)
    record = store.read_json(paths.cut(suite, case)) if record is None else record
    return {
        name: _part(params, suite, case, simulations, given, record)
        for name, simulations in splits(params).items()
        if name in names
    }


def load_tensors(params, suite, case, names, device):
    """(maps, targets) of each part on ``device``, of which nothing else stays on the host; see ``place``."""
    parts = load(params, suite, case, names)
    return [(place((part := parts.pop(name)).maps, device), part.targets.to(device)) for name in names]


def place(maps, device):
    """``maps`` on ``device`` where they fit; else where they are, which a line says: training streams them."""
    free = cli.free_bytes(device)
    if maps.device == device or maps.nbytes <= DEVICE_SHARE * free:
        return maps.to(device)
    print(
        f"{len(maps)} maps stay on the host and are streamed: they take {maps.nbytes / 1e9:.1f} GB, and of "
        f"{free / 1e9:.1f} GB free on {device} training needs half",
        file=sys.stderr,
    )
    return maps


def _part(params, suite, case, simulations, given, record):
    index = split.map_indices(simulations)
    scaled = np.empty((len(index), *given.maps.shape[1:]), dtype=np.float32)
    for position, simulation in enumerate(simulations):
        cut = cut_simulation(params, suite, case, given.simulation(simulation), simulation, record["log10_range"])
        if map_digest(cut) != record["digests"][int(given.rows(simulation))]:
            raise ValueError(
                f"expected the maps of simulation {simulation} that the cut stage saw for {suite} {case}, got others: "
                f"the maps or the machine changed; run dvc repro --force cut@{suite}-{case}, then make paper"
            )
        values = scaling.standardise(scaling.signed_log10(cut), *record[f"statistics_{params.train.normalisation}"])
        scaled[position * PER_SIMULATION : (position + 1) * PER_SIMULATION] = values
    physical = np.repeat(given.truth(simulations), PER_SIMULATION, axis=0)
    return Part(
        index=index,
        simulation=np.repeat(simulations, PER_SIMULATION),
        parameters=physical,
        maps=torch.from_numpy(scaled),
        targets=torch.from_numpy(theta.normalise(physical, suite).astype(np.float32)),
    )
