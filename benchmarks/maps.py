"""Cutting, loading and standardising maps of the size of CMD's."""

import dataclasses
import multiprocessing
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import smoothing_library
import torch

from camelsight.analysis import dataset
from camelsight.ground import cmd
from camelsight.ground.fields import TOTAL
from camelsight.maps import cuts, scaling
from camelsight.pipeline import map_files, params, paths
from camelsight.universe import camels

SUITE = "IllustrisTNG"
PIXELS = 256
ALL_MAPS = 15_000
THREADS = len(os.sched_getaffinity(0))
K_MAX = 10.0


def random_maps(n):
    draws = np.random.default_rng(1).standard_normal((15, PIXELS, PIXELS), dtype=np.float32)
    return np.tile(10 ** (11 + draws / 2), (n // 15, 1, 1))


def seconds(action, *arguments):
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def kmax_ours():
    maps = random_maps(600)
    torch.set_num_threads(THREADS)

    def loop():
        for chunk in np.split(maps, 40):
            cuts.kmax(chunk, K_MAX)

    return seconds(loop) * ALL_MAPS / len(maps)


def kmax_peer():
    """The released loop: map by map, the filter made anew for each."""
    maps = random_maps(105)

    def loop():
        for i in range(len(maps)):
            window = smoothing_library.FT_filter_2D(cmd.BOX, 0.0, PIXELS, "Top-Hat-k", THREADS, 0.0, K_MAX)
            maps[i] = smoothing_library.field_smoothing_2D(maps[i], window, THREADS)

    return seconds(loop) * ALL_MAPS / len(maps)


def peak_memory(action):
    """What ``action(folder, profile)`` returns, on a suite of 1800 maps, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(action, [Path(folder), suite_on_disk(Path(folder), 120)])


def peak():
    """The most memory that this process has held, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def suite_on_disk(folder, simulations):
    """A set of maps in CMD's format, and the parameters file of a profile that fits it."""
    profile = params.load("profiles/smoke.yaml")
    spec = dataclasses.replace(profile.maps, source="camels", simulations=simulations, pixels=PIXELS)
    shape = (simulations * cmd.MAPS_PER_SIMULATION, PIXELS, PIXELS)
    path = paths.maps(SUITE, TOTAL, folder)
    path.parent.mkdir()
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    file[:] = random_maps(len(file))
    file.flush()
    table = camels.text(camels.parameters(SUITE)[:simulations])
    paths.parameters(SUITE, folder).write_text(table, encoding="utf-8")
    return dataclasses.replace(profile, maps=spec)


def load_ours(folder, profile):
    """Peak memory above that of the imports, over the float32 size of the maps that were surveyed and loaded."""
    before = peak()
    record, _ = dataset.survey(profile, SUITE, "original", folder=folder)
    parts = dataset.load(profile, SUITE, "original", ("train", "valid", "test"), record=record, folder=folder)
    return (peak() - before) / sum(part.maps.nbytes for part in parts.values())


def load_peer(folder, profile):
    """The plain way: the whole file, its logarithm, the standardised maps, a tensor."""
    before = peak()
    maps = np.load(paths.maps(SUITE, TOTAL, folder))
    maps[maps == 0] = 1
    maps = np.sign(maps) * np.log10(np.abs(maps))
    maps = torch.tensor((maps - maps.mean(dtype=np.float64)) / maps.std(dtype=np.float64), dtype=torch.float32)
    return (peak() - before) / maps.nbytes


def statistics_ours():
    """Seconds to read a file in the page cache and have the mean and standard deviation of its logarithm."""
    with tempfile.TemporaryDirectory() as folder:
        profile = suite_on_disk(Path(folder), 60)
        maps = map_files.open_maps(SUITE, TOTAL, profile.maps.simulations, PIXELS, Path(folder, SUITE))
        chunks = np.split(maps, profile.maps.simulations)
        torch.set_num_threads(THREADS)
        took = seconds(lambda: scaling.statistics(sum(scaling.sums(scaling.signed_log10(c)) for c in chunks)))
        return took / maps.nbytes * 1e9


def statistics_peer():
    maps = random_maps(300)
    took = seconds(lambda: (lambda x: (x.mean(dtype=np.float64), x.std(dtype=np.float64)))(np.log10(maps)))
    return took / maps.nbytes * 1e9


ROWS = [
    {"name": "kmax", "unit": "s a suite", "ours": kmax_ours, "peer": kmax_peer,
     "note": "15,000 maps of 256², extrapolated from 600 (peer: Pylians, 105); same threads"},
    {"name": "load-memory", "unit": "peak / float32 size", "ours": lambda: peak_memory(load_ours),
     "peer": lambda: peak_memory(load_peer), "note": "1800 maps of 256²; peer: NumPy on the whole file"},
    {"name": "statistics", "unit": "s per GB", "ours": statistics_ours, "peer": statistics_peer,
     "note": "mean and std of the logarithm, float64; ours from a file, peer: NumPy in memory"},
]  # fmt: skip
