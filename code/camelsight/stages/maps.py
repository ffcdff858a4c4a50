"""Maps and parameters of every suite, in CMD's own format: simulated here, or checked and taken from a folder."""

import io
import multiprocessing
import os
import signal
from concurrent import futures
from pathlib import Path

import numpy as np
import torch

from camelsight import cli, paths, seeding, store, theta
from camelsight.universe import cmd, linear, mock


def main(params):
    if params.maps.source == "mock":
        simulate(params)
    else:
        adopt(params)


def adopt(params):
    """Check the files of ``maps.folder`` and link them into place; a folder on another disk is linked by name."""
    folder = Path(params.maps.folder)
    for suite in params.suites:
        maps = store.open_maps(suite, params.maps.simulations, params.maps.pixels, folder)
        cmd.check_values(cmd.statistics(maps), cmd.maps_file_name(suite))
        store.read_parameters(suite, params.maps.simulations, folder)
    for suite in params.suites:
        for name in (cmd.maps_file_name(suite), cmd.params_file_name(suite)):
            store.link(folder / name, paths.MAPS / name)


def simulate(params):
    """Simulate what is missing; suites that share a universe (X and Nbody_X) share its run of gravity."""
    universes = {suite: theta.hydro_suite(suite) for suite in params.suites}
    for universe in dict.fromkeys(universes.values()):
        suites = [suite for suite in params.suites if universes[suite] == universe]
        _simulate_universe(params, universe, suites)


def _simulate_universe(params, universe, suites):
    spec = params.maps
    parameters = mock.latin_hypercube(spec.simulations, universe, seeding.entropy(params.seed, universe, "parameters"))
    parameters = np.array(
        [[float(f"{value:.5f}") for value in row] for row in parameters]
    )  # as the file will hold them
    shape = (spec.simulations * cmd.MAPS_PER_SIMULATION, spec.pixels, spec.pixels)
    key = store.digest(spec, params.seed, suites, store.code_digest("universe"))[:16]
    partial = store.PartialSet(
        paths.PARTIAL / key, {cmd.maps_file_name(suite): shape for suite in suites}, spec.simulations
    )
    missing = partial.missing
    with cli.progress(spec.simulations, f"simulate {universe}", "sim", spec.simulations - len(missing)) as bar:
        jobs = [(i, parameters[i], seeding.entropy(params.seed, universe, "phases", i)) for i in missing]
        for i, maps in _run(params, suites, jobs):
            rows = slice(i * cmd.MAPS_PER_SIMULATION, (i + 1) * cmd.MAPS_PER_SIMULATION)
            for suite in suites:
                partial.arrays[cmd.maps_file_name(suite)][rows] = maps[suite]
            partial.done(i)
            bar.update()
    for suite in suites:
        text = io.StringIO()
        np.savetxt(text, parameters, fmt="%.5f")
        store.write_text(paths.parameters(suite), text.getvalue())
    partial.move_to(paths.MAPS)


def _run(params, suites, jobs):
    """Yield (simulation, {suite: maps}): one simulation at a time on a GPU, one on each core without."""
    workers = min(os.cpu_count() // params.threads or 1, len(jobs))
    prepared = params, suites, linear.shape_table()
    if cli.device().type == "cuda" or workers < 2:
        _prepare(*prepared)
        yield from map(_simulate, jobs)
        return
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker, initargs=prepared
    )
    try:
        for future in futures.as_completed([pool.submit(_simulate, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_prepared = None


def _prepare_worker(*prepared):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    _prepare(*prepared)


def _prepare(params, suites, linear_table):
    global _prepared
    torch.set_num_threads(params.threads)
    _prepared = params, suites, linear_table


def _simulate(job):
    params, suites, table = _prepared
    i, parameters, seed = job
    maps = mock.simulate_suites(
        parameters,
        suites,
        seed=seed,
        particles=params.maps.particles,
        mesh=params.maps.mesh,
        steps=params.maps.steps,
        pixels=params.maps.pixels,
        device=cli.device(),
        linear_table=table,
    )
    return i, maps


if __name__ == "__main__":
    cli.run_stage(main)
