"""The twin of suites: CAMELS' own universes, simulated again, in CMD's own format."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from concurrent import futures
from itertools import product
from multiprocessing import resource_tracker

from camelsight.ground import cmd, split, theta
from camelsight.pipeline import checkpoints, cli, compiled, paths, source, store
from camelsight.universe import camels, linear, particles

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
        for suite in suites:
            store.write_text(paths.parameters(suite, folder), camels.text(parameters))
        made = product(suites, params.fields)
        partial.move_to({cmd.maps_file_name(*one): paths.maps(*one, folder) for one in made})


def _simulate_universe(params, universe, suites):
    """The parameters of the profile's simulations and the finished ``PartialSet`` of its suites' maps."""
    spec = params.maps
    numbers = split.numbers(split.of_hypercube(spec.simulations, **dataclasses.asdict(params.split)))
    shape = (spec.simulations * cmd.MAPS_PER_SIMULATION, spec.pixels, spec.pixels)
    made_by = spec, numbers, params.threads, suites, params.fields, str(cli.device()), source.digest("maps")
    key = store.digest(*made_by)[:16]
    files = {one: cmd.maps_file_name(*one) for one in product(suites, params.fields)}
    partial = checkpoints.PartialSet(paths.PARTIAL / key, dict.fromkeys(files.values(), shape), spec.simulations)
    missing = partial.missing
    with cli.progress(spec.simulations, f"simulate {universe}", "sim", spec.simulations - len(missing)) as bar:
        for i, maps in _run(params, suites, [(i, int(numbers[i])) for i in missing]):
            rows = slice(i * cmd.MAPS_PER_SIMULATION, (i + 1) * cmd.MAPS_PER_SIMULATION)
            for (suite, field), file in files.items():
                partial.arrays[file][rows] = maps[suite][field]
            partial.done(i)
            bar.update()
    return camels.parameters(universe)[numbers], partial


def _run(params, suites, jobs):
    """Yield (simulation, {suite: {field: maps}}): one at a time on a GPU, as many as there are cores without."""
    if not jobs:
        return
    workers = min(len(jobs), cli.processes(params.threads, WORKER_BYTES + MESH_BYTES * params.maps.mesh**3))
    prepared = params, suites, linear.shape_table()
    if cli.device().type == "cuda" or workers == 1:
        _prepare(*prepared)
        yield from map(_simulate, jobs)
        return
    pool = futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker, initargs=prepared
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
    heard = []
    handler = signal.signal(signal.SIGINT, lambda *_: heard.append(True))  # a library's thread may take the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what new processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _prepare_worker(*prepared):
    """End with the parent, too: when that is killed, a worker would wait for work, and hold its memory, for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: os._exit(parent.join() or 1), daemon=True).start()
    _prepare(*prepared)


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
    row, simulation = job
    maps = camels.maps(
        suites,
        simulation,
        fields=params.fields,
        particles=params.maps.particles,
        mesh=params.maps.mesh,
        steps=params.maps.steps,
        pixels=params.maps.pixels,
        device=cli.device(),
        linear_table=table,
    )
    return row, maps
