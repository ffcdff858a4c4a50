"""Simulating the maps and parameters of suites, in CMD's own format."""

import contextlib
import io
import multiprocessing
import signal
from concurrent import futures
from multiprocessing import resource_tracker

import numpy as np

from camelsight.ground import cmd, seeding, theta
from camelsight.pipeline import cli, compiled, paths, source, store
from camelsight.universe import linear, mock, particles

FORMAT = "%.5f"  # of the params files
WORKER_BYTES, MESH_BYTES = 6e8, 150  # memory of a worker, and what a cell of the mesh adds to it


def simulate(params, folder=paths.MAPS):
    """Simulate the suites into ``folder``, with a process on each core.

    Suites that share a universe (X and Nbody_X) share its run of gravity. Nothing is put into place before everything
    is done, since DVC empties that place before the stage runs again.
    """
    universes = {}
    for suite in params.suites:
        universes.setdefault(theta.hydro_suite(suite), []).append(suite)
    finished = [(suites, *_simulate_universe(params, universe, suites)) for universe, suites in universes.items()]
    for suites, parameters, partial in finished:
        text = io.StringIO()
        np.savetxt(text, parameters, fmt=FORMAT)
        for suite in suites:
            store.write_text(paths.parameters(suite, folder), text.getvalue())
        partial.move_to(folder)


def _simulate_universe(params, universe, suites):
    """The parameters of all simulations of a universe and the finished ``PartialSet`` of its suites' maps."""
    spec = params.maps
    parameters = mock.latin_hypercube(spec.simulations, universe, seeding.entropy(params.seed, universe, "parameters"))
    parameters = np.array(
        [[float(FORMAT % value) for value in row] for row in parameters]
    )  # as the file will hold them
    shape = (spec.simulations * cmd.MAPS_PER_SIMULATION, spec.pixels, spec.pixels)
    key = store.digest(spec, params.seed, params.threads, suites, str(cli.device()), source.digest("maps"))[:16]
    files = {suite: cmd.maps_file_name(suite) for suite in suites}
    partial = store.PartialSet(paths.PARTIAL / key, dict.fromkeys(files.values(), shape), spec.simulations)
    missing = partial.missing
    with cli.progress(spec.simulations, f"simulate {universe}", "sim", spec.simulations - len(missing)) as bar:
        jobs = [(i, parameters[i], seeding.entropy(params.seed, universe, "phases", i)) for i in missing]
        for i, maps in _run(params, suites, jobs):
            rows = slice(i * cmd.MAPS_PER_SIMULATION, (i + 1) * cmd.MAPS_PER_SIMULATION)
            for suite, file in files.items():
                partial.arrays[file][rows] = maps[suite]
            partial.done(i)
            bar.update()
    return parameters, partial


def _run(params, suites, jobs):
    """Yield (simulation, {suite: maps}): one simulation at a time on a GPU, as many as there are cores without."""
    if not jobs:
        return
    workers = min(len(jobs), cli.processes(params.threads, WORKER_BYTES + MESH_BYTES * params.maps.mesh**3))
    prepared = params, suites, linear.shape_table()
    if cli.device().type == "cuda" or workers == 1:
        _prepare(*prepared)
        yield from map(_simulate, jobs)
        return
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=prepared
    )
    try:
        with _deaf():
            running = [pool.submit(_simulate, job) for job in jobs]
        for future in futures.as_completed(running):
            yield future.result()
    except futures.process.BrokenProcessPool:
        raise ValueError(
            "a simulation was killed, most likely for lack of memory; run the same command again"
        ) from None
    finally:
        with _deaf():  # a worker that is still starting reads what this process holds
            for worker in multiprocessing.active_children():
                worker.kill()
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf():
    """Hear Ctrl-C only after the block; processes that begin in it never do, since this one ends them."""
    resource_tracker.ensure_running()  # whose start would end the block
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


_prepared = None


def _prepare(params, suites, linear_table):
    global _prepared
    cli.keep_memory()
    cli.set_threads(params.threads)
    if cli.device().type == "cpu":
        compiled.load(particles)
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
