"""Running the chains of cases in several processes of this machine; ``slurm`` does it on a cluster.

A chain is cut -> train -> evaluate of one suite and case, tune after cut where tune.cases names it, attribute where
attribute.cases does, with the repeats that it averages over, sanity where nothing is cut. Between tune and train comes
choose, which needs every search; else chains do not depend on one another. DVC's own lock keeps its processes apart, on
several machines as on one.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from itertools import chain, product
from pathlib import Path

from camelsight.ground import cmd
from camelsight.pipeline import cli, forks, leftovers, params, paths, rehearsal, source, store

DVC = [sys.executable, "-P", "-m", "camelsight.pipeline.dvc_repro"]
CHAIN = ("cut", "tune", "train", "evaluate")
SEARCH = ("universe", "cut", "tune")  # what is worth its time before choose
EXPERIMENTS = tuple(params.EXPERIMENTS)
LAST = ("tabulate", "figures", "paper")
MAKERS = ("maps", "further")  # of maps; they use every core by themselves
PARALLEL = (*CHAIN, "repeat", "attribute", "sanity", "universe", *EXPERIMENTS)
FAMILIES = (
    MAKERS,
    ("universe", "cut"),
    ("tune",),
    ("train", "repeat"),
    ("evaluate", "attribute", "sanity"),
    EXPERIMENTS,
)
PEEKS, PEEK_SECONDS = 10, 0.5
KILL_SECONDS = 60  # SLURM kills what does not end within its KillWait, 30 s
PROCESS_BYTES = 1.5e9  # of one process without its maps
START_SECONDS = 1  # of a stage in a run, before and after its own work


def out_of_date(describe=lambda stage, upstream: None, wanted=None):
    """What ``dvc repro`` would run, downstream of a change included, in order: a stage's name -> ``describe`` of it.

    ``describe`` is given DVC's stage, and those that run before it and that it depends on. With ``wanted``, only this
    stage and what it depends on count.
    """
    from dvc.exceptions import DvcException

    leftovers.refuse_conflicts()
    try:
        with leftovers.repository() as repo, repo.lock:
            return _out_of_date(repo, lambda stage: stage.changed(), describe, wanted)
    except (DvcException, OSError, sqlite3.Error) as error:
        raise ValueError(leftovers.one_line(error)) from error


def peek():
    """``out_of_date`` without DVC's locks, beside a run that goes on; what it is writing just then is read again."""
    from dvc.exceptions import DvcException

    def changed(stage):
        return stage.changed_stage() or any(item.status() for item in (*stage.deps, *stage.outs))

    leftovers.refuse_conflicts()
    for _ in range(PEEKS):
        before = _modified(paths.DVC_LOCK)
        with contextlib.suppress(DvcException, OSError, sqlite3.Error), leftovers.repository() as repo:
            pending = _out_of_date(repo, changed, lambda *_: None)
            if _modified(paths.DVC_LOCK) == before:
                return pending
        time.sleep(PEEK_SECONDS)
    raise ValueError(f"{paths.DVC_LOCK} could not be read, or changed all the time; try again")


def _modified(path):
    return path.stat().st_mtime_ns if path.exists() else None


def _out_of_date(repo, changed, describe, wanted=None):
    import networkx

    graph = repo.index.graph  # edges lead from a stage to what it depends on
    if wanted:
        (last,) = (stage for stage in graph if stage.addressing == wanted)
        graph = graph.subgraph({last, *networkx.descendants(graph, last)})
    pending, other_code, spared = {}, source.stale(), []
    for stage in reversed(list(networkx.topological_sort(graph))):
        upstream = [other for other in graph.successors(stage) if other.addressing in pending]
        if stage.name.partition("@")[0] not in other_code:  # an edit changes the code of few stages, or of none
            upstream = [other for other in upstream if other.name != "code"]
        upstream = [other for other in upstream if other not in spared]
        if upstream or changed(stage):
            pending[stage.addressing] = describe(stage, upstream)
            if stage.name == "choose" and not upstream and _lists_alone(stage):
                spared.append(stage)
    return pending


def _lists_alone(stage):
    """Whether nothing has changed for ``stage`` but which suites and cases there are: those that stay keep theirs."""
    changes = {}
    for item in (*stage.deps, *stage.outs):  # each by itself, since a run that goes on holds the lock of the stage
        changes |= item.status()
    lists = changes.pop(str(paths.PARAMS), {})
    return not changes and not stage.changed_stage() and isinstance(lists, dict) and lists.keys() <= {"suites", "cases"}


def chains(loaded, pending):
    """(name, targets) of the universe, and every suite and case, with something to do."""
    return _some(_chains(loaded).items(), lambda stage: stage in pending)


def halves(queue):
    """What of ``chains`` is to run before choose, the universe and the searches, and what after it."""
    searched = [(key, targets) for key, targets in queue if {"universe", "tune"} & set(map(kind, targets))]
    first = _some(searched, lambda stage: kind(stage) in SEARCH)
    before = {stage for _, targets in first for stage in targets}
    return first, _some(queue, lambda stage: stage not in before)


def _some(queue, wanted):
    """The stages of each chain of ``queue`` that are ``wanted``, without the chains that have none."""
    some = [(key, list(filter(wanted, targets))) for key, targets in queue]
    return [(key, targets) for key, targets in some if targets]


def kind(target):
    return target.partition("@")[0]


def _chains(loaded):
    """Name -> targets of the universe, and every suite and case."""
    everything = {"universe": ["universe"]}
    for case in loaded.cases:
        for suite in loaded.suites:
            key = f"{suite}-{case}"
            everything[key] = [f"{stage}@{key}" for stage in CHAIN if stage != "tune" or case in loaded.tune.cases]
            if case in loaded.attribute.cases:
                everything[key] += [*(f"repeat@{key}-{seed}" for seed in loaded.repeats), f"attribute@{key}"]
            if case == "original":
                everything[key].append(f"sanity@{suite}")
    return everything


def stages(loaded):
    """Every stage of the pipeline with these params, by the names that DVC gives them."""
    names = ["code", "maps", *(f"further@{suite}" for suite in loaded.robustness.suites), "choose"]
    names += chain(*_chains(loaded).values())
    names += ["repeat@{}-{}-{}".format(*key) for key in product(loaded.suites, loaded.cases, loaded.repeats)]
    for stage in EXPERIMENTS:
        names += [f"{stage}@{experiment}" for experiment in getattr(loaded.robustness, stage)]
    return list(dict.fromkeys([*names, *LAST]))


def forget(loaded):
    """Take stages that the pipeline has no more out of dvc.lock, which DVC reads and writes for every stage."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    known = leftovers.record(paths.DVC_LOCK) or {}  # what is not whole is set aside when the run begins
    gone = set(known.get("stages", {})) - set(stages(loaded))
    if gone:
        text = paths.DVC_LOCK.read_text(encoding="utf-8")
        lock = parse_yaml_for_update(text, paths.DVC_LOCK)  # as DVC reads it: numbers keep their form
        for name in gone:
            del lock["stages"][name]
        store.write_text(paths.DVC_LOCK, dumps_yaml(lock))


def makers(pending):
    """The stages that make maps and have something to do."""
    return [stage for stage in pending if kind(stage) in MAKERS]


def experiments(loaded, pending):
    """(name, targets) of what is to do outside of chains, and needs what they made: repeats, tests of robustness."""
    within = set(chain(*_chains(loaded).values()))
    return [(stage, [stage]) for stage in pending if kind(stage) in ("repeat", *EXPERIMENTS) and stage not in within]


def seconds_of(loaded, stage):
    """As long as the stage took last time here, else as a rehearsal forecasts it, else as the profile says."""
    timing = paths.TIMINGS / f"{stage.replace('@', '-')}.json"
    last = store.read_json(timing) if timing.exists() else {}
    if last.get("profile") == loaded.profile:
        return START_SECONDS + last["seconds"]
    if (rehearsed := rehearsal.seconds(loaded, stage)) is not None:
        return START_SECONDS + rehearsed
    return START_SECONDS + getattr(loaded.seconds, kind(stage))


def in_all(seconds, jobs):
    """Seconds of a run of stages, name -> seconds of each, in which ``jobs`` cases run at a time."""
    return sum(one / jobs if kind(stage) in PARALLEL else one for stage, one in seconds.items())


def suite_bytes(loaded):
    return len(loaded.fields) * loaded.maps.simulations * cmd.MAPS_PER_SIMULATION * loaded.maps.pixels**2 * 4


def process_bytes(loaded):
    """Memory that a process may take: its maps as they are and as it trains on them, and itself."""
    return 2 * suite_bytes(loaded) + PROCESS_BYTES


def gpus():
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    if not _has_driver():  # torch, which takes seconds to import, would find none
        return []
    import torch

    count = torch.cuda.device_count()
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))).split(",")[:count]


def _has_driver():
    """Whether there is NVIDIA's driver, or AMD's, without which torch finds no GPU."""
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL("libcuda.so.1"))
    return any(map(os.path.exists, ("/dev/kfd", "/dev/dxg")))  # the latter in WSL


def default_jobs(loaded):
    """One for each GPU, or else one for each core and its threads and workers; fewer where memory is short."""
    workers = loaded.tune.workers if loaded.tune.trials else 1
    if found := gpus():
        return min(len(found), cli.processes(workers, workers * process_bytes(loaded)))
    return cli.processes(workers * loaded.threads, workers * process_bytes(loaded))


def repro(*targets):
    """Run stages here, in sight: these, or all that are out of date."""
    process = _start([*DVC, *targets], stdout=sys.stdout)
    with _ending({process: None}):
        code = process.wait()
    if code < 0:
        raise ValueError(f"DVC was killed by signal {-code}; the same command goes on from here")
    if code:
        raise ValueError(f"DVC ended with {code}; the reason stands above")


def local(queue, jobs, on_end):
    """Run chains in ``jobs`` DVC processes; what a chain prints goes to ``runs/logs``.

    ``on_end(name)`` may say in a line what came out. ValueError with the reason of the first chain that fails, which
    ends all.
    """
    if not queue:
        return
    queue, busy = list(queue), {}
    with cli.progress(len(queue), "cases", "case") as bar, _workers(min(jobs, len(queue))) as idle:
        while queue or busy:
            while queue and idle:
                worker, (name, targets) = idle.pop(0), queue.pop(0)
                paths.log(name).parent.mkdir(parents=True, exist_ok=True)
                with open(paths.log(name), "w", encoding="utf-8") as log:
                    socket.send_fds(worker, [json.dumps(targets).encode()], [log.fileno()] * 2)
                busy[worker] = name
            for worker in select.select(busy, [], [])[0]:
                name = busy.pop(worker)
                if not worker.recv(1):
                    raise ValueError(f"{name} failed: {reason(paths.log(name))} (see {paths.log(name)})")
                idle.append(worker)
                if line := on_end(name):
                    bar.write(line, file=sys.stderr)
                bar.update()


@contextlib.contextmanager
def _workers(count):
    """Sockets to as many DVC processes, each with one GPU where there are some; they end with the block.

    Before they are waited for, the sockets close: an idle process hears that, if it hears no signal.
    """
    running, devices = {}, gpus() or [None]
    with _ending(running), contextlib.ExitStack() as sockets:
        for slot in range(count):
            ours, theirs = forks.channel()
            sockets.enter_context(ours)
            with theirs:
                command, gpu = [*DVC, "--chains", str(theirs.fileno())], devices[slot % len(devices)]
                running[_start(command, gpu, pass_fds=[theirs.fileno()])] = ours
        yield list(running.values())
        sockets.close()
        for process in running:
            process.wait()


def processes(queue, jobs, what):
    """Run commands, ``jobs`` at a time, each with one GPU where there are some; the first that fails ends all.

    ``queue``: (name, command, log, more arguments of Popen) of each. ValueError with the reason of the one that failed.
    """
    queue, running, slots, devices = list(queue), {}, list(range(jobs)), gpus() or [None]
    if not queue:
        return
    with cli.progress(len(queue), what, "case") as bar, _ending(running):
        while queue or running:
            while queue and slots:
                (name, command, log, more), slot = queue.pop(0), slots.pop(0)
                log.parent.mkdir(parents=True, exist_ok=True)
                with open(log, "w", encoding="utf-8") as output:
                    gpu = devices[slot % len(devices)]
                    process = _start(command, gpu, stdout=output, stderr=subprocess.STDOUT, **more)
                running[process] = name, log, slot
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                name, log, slot = running[process]
                if process.returncode != 0:
                    raise ValueError(f"{name} failed: {reason(log)} (see {log})")
                del running[process]
                slots.append(slot)
                bar.update()


def _start(command, gpu=None, env=None, **more):
    """Start a session that hears of our end; it sees all GPUs, or the one that is named."""
    device = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
    session = {"start_new_session": True, "preexec_fn": cli.die_with_parent, "env": (env or os.environ) | device}
    return subprocess.Popen(command, **session, **more)


def suite_of(key, loaded):
    return next(suite for suite in loaded.suites if key.startswith(f"{suite}-"))


@contextlib.contextmanager
def _ending(running):
    """Whatever ends the block, interrupt the sessions that ``running`` lead, and wait for them.

    They lead sessions because DVC itself ignores signals while a stage runs: the stage must hear them, once. A leader
    that was killed has left its stage at work.
    """
    try:
        yield
    finally:
        left = [process for process in running if process.poll() is None or process.returncode < 0]
        for process in left:
            _signal(process, signal.SIGINT)
        deadline = time.monotonic() + KILL_SECONDS
        for process in left:
            process.wait()
            while _signal(process, 0) and time.monotonic() < deadline:
                time.sleep(0.1)


def _signal(process, number):
    """Whether the session that ``process`` leads, or led, has still somebody to hear ``number``."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def reason(log):
    """The line in which a stage said what went wrong, or the last one."""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip() and not re.search(r"\d+%\|", line)]  # without progress bars
    speakers = (*PARALLEL, "dvc: ")
    said = [line for line in lines if line.startswith(speakers) or re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (said or lines or ["no output"])[-1]
