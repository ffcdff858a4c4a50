"""Seconds per simulation of the twin, gravity and maps together; no peer, so that the target stands in."""

import statistics
import time

import torch

from camelsight.pipeline import cli, compiled
from camelsight.universe import camels, linear, particles

ROUNDS = 3


def universe_64_cpu():
    """64^3 particles, 112^3 cells, 32 steps, 15 maps of 64^2 of a suite with baryons and its partner, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        suites = ["IllustrisTNG", "Nbody_IllustrisTNG"]
        return seconds(suites, particles=64, mesh=112, steps=32, pixels=64, device="cpu")
    finally:
        torch.set_num_threads(threads)


def universe_256_gpu():
    """256^3 particles, 512^3 cells, 32 steps, 15 maps of 256^2 of one suite."""
    return seconds(["IllustrisTNG"], particles=256, mesh=512, steps=32, pixels=256, device="cuda")


def seconds(suites, **settings):
    """Median over ``ROUNDS`` simulations of different seeds, after one that is not counted."""
    cli.keep_memory()  # as the stage that simulates does
    compiled.load(particles)
    table, taken = linear.shape_table(), []
    for seed in range(ROUNDS + 1):
        start = time.perf_counter()
        camels.maps(suites, seed, linear_table=table, **settings)  # ends on the host
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


ROWS = [
    {"name": "universe-64-cpu", "unit": "s a simulation", "ours": universe_64_cpu, "peer": 2.0,
     "rounds": 1, "note": "64³ particles, two suites of 15 maps, one core; peer: the target"},
    {"name": "universe-256-gpu", "unit": "s a simulation", "ours": universe_256_gpu, "peer": 3.0,
     "rounds": 1, "gpu": True, "note": "256³ particles, 512³ cells, one suite of 15 maps; peer: the target"},
]  # fmt: skip
