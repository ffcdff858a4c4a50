"""What a network is given: the maps of a case, cut, scaled and split, with their targets."""

import dataclasses
import hashlib
import sys
from dataclasses import dataclass

import numpy as np
import torch

from camelsight.ground import cases, cmd, fields, seeding, split, theta
from camelsight.maps import cuts, scaling
from camelsight.pipeline import cli, map_files, paths, source, store

PER_SIMULATION = cmd.MAPS_PER_SIMULATION
DEVICE_SHARE = 0.5  # of a device's free memory that maps may take; training needs the rest


@dataclass(frozen=True)
class Part:
    """The maps of one part of the split: "train", "valid" or "test"."""

    index: np.ndarray  # (N,) of the map in CAMELS
    simulation: np.ndarray  # (N,) its number in CAMELS
    parameters: np.ndarray  # (N, 6), physical
    maps: torch.Tensor  # (N, C, n, n) float32, scaled; a channel is a field
    targets: torch.Tensor  # (N, 6) float32, normalised

    def subset(self, rows):
        return Part(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})


@dataclass(frozen=True)
class Suite:
    """The maps and parameters of a suite, asked for by CAMELS' numbers of simulations and maps, whatever the row."""

    numbers: np.ndarray  # (S,) of the simulations, ascending: the rows of the files
    maps: tuple  # of a memory map (15 S, n, n) for each field
    parameters: np.ndarray  # (S, 6), physical

    def rows(self, simulations):
        return np.searchsorted(self.numbers, simulations)

    def truth(self, simulations):
        """The physical parameters ``(..., 6)`` of ``simulations``."""
        return self.parameters[self.rows(simulations)]

    def densities(self, index):
        """The maps ``(N, C, n, n)`` with these indices in CAMELS."""
        index = np.asarray(index)
        rows = self.rows(index // PER_SIMULATION) * PER_SIMULATION + index % PER_SIMULATION
        return self._read(rows)

    def simulation(self, number):
        """A copy ``(15, C, n, n)`` of the maps of a simulation, of which the memory maps keep nothing in memory."""
        first = int(self.rows(number)) * PER_SIMULATION
        original = self._read(slice(first, first + PER_SIMULATION))
        for maps in self.maps:
            map_files.release(maps)
        return original

    def _read(self, rows):
        return np.stack([np.array(maps[rows], dtype=cmd.DTYPE) for maps in self.maps], axis=1)  # of any byte order


def open_suite(params, suite, folder=paths.MAPS):
    """The ``Suite`` of the maps that a run has in ``folder``; ValueError in one line if a file is wrong."""
    n = params.maps.simulations
    maps = tuple(map_files.open_maps(suite, field, n, params.maps.pixels, folder) for field in params.fields)
    return Suite(numbers(params), maps, map_files.read_parameters(suite, n, folder))


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


def cut_simulation(params, suite, case, original, simulation, log10_ranges):
    """The maps of one simulation, cut, ``(15, C, n, n)``; ``log10_ranges`` are those of the fields.

    Always this many at a time, so that the same bits come out everywhere.
    """
    return cut_maps(params, suite, case, original, split.map_indices([simulation]), log10_ranges)


def cut_maps(params, suite, case, maps, indices, log10_ranges):
    """The ``maps`` ``(N, C, n, n)`` with these indices in CAMELS, cut as ``case`` says, each field by itself."""
    cut = [
        cuts.apply(
            maps[:, channel],
            cases.parse(case).cuts,
            log10_range=log10_range,
            generator=seeding.numpy_generator(params.seed, suite, case, "fill", *words(field)),
            indices=indices,
        )
        for channel, (field, log10_range) in enumerate(zip(params.fields, log10_ranges, strict=True))
    ]
    return np.stack(cut, axis=1)


def words(field):
    """What names the draws of a ``field`` beside those of total matter."""
    return () if field == fields.TOTAL else (field,)


def log10_ranges(params, record):
    """The (low, high) log10 of each field's uncut set, None where it has pixels of 0; from the ``record`` of a cut."""
    return [record["fields"][field]["log10_range"] for field in params.fields]


def scales(params, record, kind=None):
    """The ``scaling.Scale`` of each field from the ``record`` of a cut; ``kind`` of the statistics is train or all."""
    known = (record["fields"][field] for field in params.fields)
    return [
        scaling.Scale(
            *one[f"statistics_{kind or params.train.normalisation}"], fields.FIELDS[field].offset, one["unit"]
        )
        for field, one in zip(params.fields, known, strict=True)
    ]


def scaled(maps, scales):
    """Raw ``maps`` ``(N, C, n, n)`` as a network sees them, float32."""
    out = np.empty(maps.shape, dtype=np.float32)
    for channel, scale in enumerate(scales):
        out[:, channel] = scale.scale(maps[:, channel])
    return out


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

    The record has digest and digests (of each simulation), and in ``fields`` for each field fraction_cut, uncut
    (statistics), log10_range, unit, statistics_train and statistics_all (mean and standard deviation of the signed
    log). ``keep`` are simulations; the second value maps each to its first cut map, ``(C, n, n)``.
    """
    given = open_suite(params, suite, folder)
    n, channels, case_cuts = len(given.numbers), len(params.fields), cases.parse(case).cuts
    ranges, units = [None] * channels, [1.0] * channels
    for channel, field in enumerate(params.fields):
        random = any(cut.fill == "random" for cut in case_cuts)  # drawn from the range of the whole set
        if random or not fields.FIELDS[field].is_mass:
            before = cmd.statistics(given.maps[channel])
            ranges[channel], units[channel] = _log10_range(before, suite, field), _unit(before, field)
    offsets = [fields.FIELDS[field].offset for field in params.fields]
    logs = [scaling.Scale(0.0, 1.0, offset, unit).log for offset, unit in zip(offsets, units, strict=True)]
    uncut, sums = [cmd.Statistics() for _ in params.fields], np.zeros((channels, n, 3))
    digests, removed, kept = [], np.zeros((channels, n, len(case_cuts))), {}
    for row, simulation in enumerate(given.numbers.tolist()):
        original = given.simulation(simulation)
        cut = cut_simulation(params, suite, case, original, simulation, ranges)
        for channel, (statistics, log) in enumerate(zip(uncut, logs, strict=True)):
            for image in original[:, channel]:
                statistics.add(image)
            sums[channel, row] = scaling.sums(log(cut[:, channel]))
            removed[channel, row] = cuts.fraction_cut(original[:, channel], case_cuts)
        digests.append(map_digest(cut))
        if simulation in keep:
            kept[simulation] = cut[0]
        on_simulation()
    record, training = {}, rows(params)["train"]
    for channel, field in enumerate(params.fields):
        log10_range = _log10_range(uncut[channel].result(), suite, field)
        mean, std = scaling.statistics(sums[channel, training].sum(0))
        if not std > 0:
            raise ValueError(
                f"expected maps with some structure, got {mean:g} in every pixel after the cut {case}: loosen it"
            )
        record[field] = {
            "fraction_cut": removed[channel].mean(0),
            "uncut": uncut[channel].result(),
            "log10_range": log10_range,
            "unit": units[channel],
            "statistics_train": [mean, std],
            "statistics_all": scaling.statistics(sums[channel].sum(0)),
        }
    about = {"suite": suite, "case": case, "fields": record, "digest": store.digest(digests), "digests": digests}
    return about, kept


def _log10_range(statistics, suite, field):
    cmd.check_values(statistics, cmd.maps_file_name(suite, field), field)
    if not fields.FIELDS[field].is_positive:
        return None
    return [float(np.log10(statistics["min"])), float(np.log10(statistics["max"]))]


def _unit(statistics, field):
    """1, or the smallest pixel of a positive field, but for mass, that has some below 1."""
    known = fields.FIELDS[field]
    return min(1.0, statistics["min"]) if known.is_positive and not known.is_mass else 1.0


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
    index, ranges = split.map_indices(simulations), log10_ranges(params, record)
    seen = np.empty((len(index), len(params.fields), *given.maps[0].shape[1:]), dtype=np.float32)
    for position, simulation in enumerate(simulations):
        cut = cut_simulation(params, suite, case, given.simulation(simulation), simulation, ranges)
        if map_digest(cut) != record["digests"][int(given.rows(simulation))]:
            raise ValueError(
                f"expected the maps of simulation {simulation} that the cut stage saw for {suite} {case}, got others: "
                f"the maps or the machine changed; run dvc repro --force cut@{suite}-{case}, then make paper"
            )
        seen[position * PER_SIMULATION : (position + 1) * PER_SIMULATION] = scaled(cut, scales(params, record))
    physical = np.repeat(given.truth(simulations), PER_SIMULATION, axis=0)
    return Part(
        index=index,
        simulation=np.repeat(simulations, PER_SIMULATION),
        parameters=physical,
        maps=torch.from_numpy(seen),
        targets=torch.from_numpy(theta.normalise(physical, suite).astype(np.float32)),
    )
