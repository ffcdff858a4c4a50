"""Running the chains of cases: in several processes of this machine, or as array jobs of a SLURM cluster.

A chain is cut -> tune -> train -> evaluate of one suite and case, attribute where attribute.cases names it, sanity
where nothing is cut. Chains do not depend on one another; DVC's own lock keeps its processes apart, on several machines
as on one.
"""

import contextlib
import copy
import ctypes
import math
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from camelsight.ground import cmd
from camelsight.pipeline import cli, leftovers, params, paths, source, store

DVC = [sys.executable, "-m", "camelsight.pipeline.dvc_repro"]
LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1  # linux/prctl.h
CHAIN = ("cut", "tune", "train", "evaluate")
EXPERIMENTS = tuple(params.EXPERIMENTS)
LAST = ("tabulate", "figures", "paper")
MAKERS = ("maps", "further")  # of maps; they use every core by themselves
PARALLEL = (*CHAIN, "attribute", "sanity", "universe", *EXPERIMENTS)
FAMILIES = (
    MAKERS,
    ("universe", "cut"),
    ("tune",),
    ("train",),
    ("evaluate", "attribute", "sanity"),
    EXPERIMENTS,
)
WITHOUT_GPU = ("maps", "universe")  # families that begin with one of these
PEEKS, PEEK_SECONDS = 10, 0.5
ACTIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
)
TAKEN_BACK = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # where SLURM did not put the job in its queue again by itself
MOST_TIMEOUTS = 100  # of one job, after each of which it goes on in a new one
POLL_SECONDS = 2
RESULT_SECONDS = 90
SILENT_SECONDS = 600  # that SLURM's controller may need to come back, or to hand over to another
KILL_SECONDS = 60  # SLURM kills what does not end within its KillWait, 30 s
PROCESS_BYTES = 1.5e9  # of one process without its maps
START_SECONDS = 3  # of a stage, before and after its own work


def out_of_date(describe=lambda stage, upstream: None):
    """What ``dvc repro`` would run, downstream of a change included, in order: a stage's name -> ``describe`` of it.

    ``describe`` is given DVC's stage, and those that run before it and that it depends on.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            return _out_of_date(repo, lambda stage: stage.changed(), describe)
    except (DvcException, OSError, sqlite3.Error) as error:
        raise ValueError(leftovers.one_line(error)) from error


def peek():
    """``out_of_date`` without DVC's locks, beside a run that goes on; what it is writing just then is read again."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    def changed(stage):
        return stage.changed_stage() or any(item.status() for item in (*stage.deps, *stage.outs))

    for _ in range(PEEKS):
        before = _modified(paths.DVC_LOCK)
        with contextlib.suppress(DvcException, OSError, sqlite3.Error), Repo() as repo:
            pending = _out_of_date(repo, changed, lambda *_: None)
            if _modified(paths.DVC_LOCK) == before:
                return pending
        time.sleep(PEEK_SECONDS)
    raise ValueError(f"{paths.DVC_LOCK} could not be read, or changed all the time; try again")


def _modified(path):
    return path.stat().st_mtime_ns if path.exists() else None


def _out_of_date(repo, changed, describe):
    import networkx

    graph = repo.index.graph  # edges lead from a stage to what it depends on
    pending, other_code = {}, source.stale()
    for stage in reversed(list(networkx.topological_sort(graph))):
        upstream = [other for other in graph.successors(stage) if other.addressing in pending]
        if stage.name.partition("@")[0] not in other_code:  # an edit changes the code of few stages, or of none
            upstream = [other for other in upstream if other.name != "code"]
        if upstream or changed(stage):
            pending[stage.addressing] = describe(stage, upstream)
    return pending


def chains(loaded, pending):
    """(name, targets) of the universe, and every suite and case, with something to do."""
    wanted = {key: [one for one in targets if one in pending] for key, targets in _chains(loaded).items()}
    return [(key, targets) for key, targets in wanted.items() if targets]


def _chains(loaded):
    """Name -> targets of the universe, and every suite and case."""
    everything = {"universe": ["universe"]}
    for case in loaded.cases:
        for suite in loaded.suites:
            key = f"{suite}-{case}"
            everything[key] = [f"{stage}@{key}" for stage in CHAIN]
            if case in loaded.attribute.cases:
                everything[key].append(f"attribute@{key}")
            if case == "original":
                everything[key].append(f"sanity@{suite}")
    return everything


def stages(loaded):
    """Every stage of the pipeline with these params, by the names that DVC gives them."""
    names = ["code", "maps", *(f"further@{suite}" for suite in loaded.robustness.suites)]
    names += [target for targets in _chains(loaded).values() for target in targets]
    for stage in EXPERIMENTS:
        names += [f"{stage}@{experiment}" for experiment in getattr(loaded.robustness, stage)]
    return [*names, *LAST]


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
    return [stage for stage in pending if stage.partition("@")[0] in MAKERS]


def experiments(pending):
    """(name, targets) of the experiments on robustness that have something to do; they compare what chains made."""
    return [(stage, [stage]) for stage in pending if stage.partition("@")[0] in EXPERIMENTS]


def seconds_of(loaded, stage):
    """As long as the stage took last time here, otherwise as the profile says."""
    timing = paths.TIMINGS / f"{stage.replace('@', '-')}.json"
    last = store.read_json(timing) if timing.exists() else {}
    name = stage.partition("@")[0]
    return START_SECONDS + (last["seconds"] if last.get("profile") == loaded.profile else getattr(loaded.seconds, name))


def forecast(loaded, pending, jobs):
    """Seconds that ``pending`` will roughly take."""
    serial = parallel = 0
    for stage in pending:
        if stage.partition("@")[0] in PARALLEL:
            parallel += seconds_of(loaded, stage)
        else:
            serial += seconds_of(loaded, stage)
    return serial + parallel / jobs


def suite_bytes(loaded):
    return loaded.maps.simulations * cmd.MAPS_PER_SIMULATION * loaded.maps.pixels**2 * 4


def process_bytes(loaded):
    """Memory that a process may take: its maps as they are and as it trains on them, and itself."""
    return 2 * suite_bytes(loaded) + PROCESS_BYTES


def gpus():
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES calls them."""
    import torch

    count = torch.cuda.device_count()
    return (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))).split(",")[:count]


def default_jobs(loaded):
    """One for each GPU, or else one for each core and its threads and workers; fewer where memory is short."""
    workers = loaded.tune.workers if loaded.tune.trials else 1
    if found := gpus():
        return min(len(found), cli.processes(workers, workers * process_bytes(loaded)))
    return cli.processes(workers * loaded.threads, workers * process_bytes(loaded))


def repro(*targets):
    """Run stages here, in sight: these, or all that are out of date."""
    process = subprocess.Popen([*DVC, *targets], stdout=sys.stdout, start_new_session=True, preexec_fn=_die_with_us)
    with _ending({process: None}):
        code = process.wait()
    if code < 0:
        raise ValueError(f"DVC was killed by signal {-code}; the same command goes on from here")
    if code:
        raise ValueError(f"DVC ended with {code}; the reason stands above")


def local(queue, jobs, on_end):
    """Run chains in ``jobs`` DVC processes; what a chain prints goes to ``runs/logs``.

    ``on_end(name)`` says in a line what came out.
    """
    commands = [(key, [*DVC, *targets], paths.log(key), {}) for key, targets in queue]
    processes(commands, jobs, "cases", on_end)


def processes(queue, jobs, what, on_end=lambda name: None):
    """Run commands, ``jobs`` at a time, each with one GPU where there are some; the first that fails ends all.

    ``queue``: (name, command, log, more arguments of Popen) of each; ``on_end(name)`` may return a line for the
    terminal. ValueError with the reason of the one that failed.
    """
    queue, running, slots, devices = list(queue), {}, list(range(jobs)), gpus()
    if not queue:
        return
    with cli.progress(len(queue), what, "case") as bar, _ending(running):
        while queue or running:
            while queue and slots:
                (name, command, log, more), slot = queue.pop(0), slots.pop(0)
                device = {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices else {}
                log.parent.mkdir(parents=True, exist_ok=True)
                with open(log, "w", encoding="utf-8") as output:
                    process = subprocess.Popen(
                        command,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        preexec_fn=_die_with_us,
                        **more | {"env": more.get("env", os.environ) | device},
                    )
                running[process] = name, log, slot
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                name, log, slot = running[process]
                if process.returncode != 0:
                    raise ValueError(f"{name} failed: {reason(log)} (see {log})")
                del running[process]
                slots.append(slot)
                if line := on_end(name):
                    bar.write(line, file=sys.stderr)
                bar.update()


class Job:
    """What a job of the cluster does: one command, and the same again in a new job where it is told to leave."""

    def __init__(self, command, log):
        self.command, self.log, self.root, self.work = command, Path(log), Path.cwd(), _work()
        self.process = None

    def __call__(self):
        os.chdir(self.root)
        if (here := _work()) != self.work:
            raise ValueError(
                f"expected the code and the {paths.PARAMS} that were submitted, {self.work[:8]}, got {here[:8]} on "
                f"{cli.node()}; leave them alone while jobs run, and run the same command again"
            )
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | {"CAMELSIGHT_HELPERS": "elsewhere"},
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_deaf,
            )
        while self.process.poll() is None:  # a signal's handler can run in the pauses
            time.sleep(0.1)
        if self.process.returncode:
            raise ValueError(reason(self.log))

    def checkpoint(self):
        """Called by submitit before a job's time is up; the stage has heard the signal, too, and is about to end."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        again = copy.copy(self)
        again.process = None
        return DelayedSubmission(again)


def _work():
    """The identity of what a job is to do: it is the same in all jobs of a run."""
    return store.digest(store.code_digest(), paths.PARAMS.read_text(encoding="utf-8"))


def _deaf():
    """DVC must outlive the stage that it runs, to clean up after it; a stage chooses what it hears by itself."""
    for warning in cli.WARNINGS:
        signal.signal(warning, signal.SIG_IGN)


def slurm(loaded, pending, on_end, *, partition=None, account=None, gpus=0, minutes=720, concurrency=256):
    """Run ``maps`` and the chains as jobs, one array for each family of stages, and wait for them; they end with us.

    A case that fails is left out of the families that follow, and named at the end in a ValueError. What SLURM takes
    back, or has no time left for, goes on in a new job. ``gpus``: of a job of a family that has a use for them;
    ``minutes``: of a job; ``concurrency``: jobs at a time; ``on_end(name)`` as for ``local``.
    """
    missing = [program for program in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(program)]
    if missing:
        raise ValueError(f"expected SLURM's commands on this machine, got no {', '.join(missing)}: use a login node")
    queue = dict(chains(loaded, pending) + experiments(pending))
    if loaded.maps.source == "twin":
        queue |= {stage: [stage] for stage in makers(pending)}
    elif wanted := makers(pending):  # nodes often have no network
        repro(*wanted)
    parameters = {
        "cpus_per_task": loaded.threads,
        "srun_args": ["--cpus-per-task", str(loaded.threads)],  # which srun does not take from the job
        "mem": f"{math.ceil(process_bytes(loaded) / 2**20)}M",
        "time": minutes,
        "array_parallelism": concurrency,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
        **{name: value for name, value in {"partition": partition, "account": account}.items() if value},
    }
    failed = {}
    for family in FAMILIES:
        targets = {key: [one for one in stages if one.partition("@")[0] in family] for key, stages in queue.items()}
        commands = {key: [*DVC, *wanted] for key, wanted in targets.items() if wanted and key not in failed}
        on_gpu = {"gpus_per_node": gpus} if gpus and family[0] not in WITHOUT_GPU else {}
        helpers = _helpers(loaded, commands) if family == ("tune",) else {}
        failed |= _array("+".join(family), commands, helpers, parameters | on_gpu)
        if "maps" in failed or (failed and "evaluate" in family):
            break  # nothing, or no experiment, has what it needs
        for key, stages in queue.items():
            if key in commands and stages[-1] in targets[key]:
                print(on_end(key), file=sys.stderr)
    if failed:
        raise ValueError("; ".join(f"{key} failed: {why}" for key, why in failed.items()))


def _helpers(loaded, commands):
    """Commands that join the searches of ``commands``, tune.workers to each of them."""
    tune = [sys.executable, "-m", "camelsight.stages.tune", "--join"]
    return {
        f"{key}-{worker}": [*tune, "--suite", suite, "--case", key.removeprefix(f"{suite}-")]
        for key in commands
        for suite in [suite_of(key, loaded)]
        for worker in range(2, loaded.tune.workers + 1)
    }


def suite_of(key, loaded):
    return next(suite for suite in loaded.suites if key.startswith(f"{suite}-"))


def _array(name, commands, helpers, parameters):
    """Run ``commands`` as the jobs of an array, with ``helpers`` as long as these need them; name -> why it failed."""
    import submitit

    failed, jobs, left = {}, {}, commands | helpers
    if not commands:
        return failed
    executor = submitit.SlurmExecutor(paths.LOGS / "slurm", max_num_timeout=MOST_TIMEOUTS)
    with cli.progress(len(commands), name, "job") as bar, _cancelling(jobs):
        while left:
            try:
                executor.update_parameters(job_name=f"camelsight-{name}", **parameters)
                with executor.batch():
                    submitted = {key: executor.submit(Job(command, paths.log(key))) for key, command in left.items()}
            except submitit.core.utils.FailedJobError as error:
                raise ValueError(f"SLURM takes no job: {store.one_line(error)}") from None
            jobs |= submitted
            left = {}
            while jobs.keys() & commands:
                time.sleep(POLL_SECONDS)
                states = _states(jobs.values())
                for key, job in list(jobs.items()):
                    state, node = states.get(job.job_id, (None, None))
                    if state in ACTIVE:
                        continue
                    del jobs[key]
                    if state in TAKEN_BACK:
                        left[key] = (commands | helpers)[key]
                    elif key in commands:
                        if (why := _failure(job, state, node, paths.log(key))) is not None:
                            failed[key] = why
                        bar.update()
            left = {key: command for key, command in left.items() if left.keys() & commands}
    return failed


def _states(jobs, patience=SILENT_SECONDS):
    """Job id -> (state, node) of what SLURM knows of these jobs; it forgets them minutes after their end.

    ValueError if its controller gives no answer for ``patience`` seconds.
    """
    ids = ",".join({job.job_id.partition("_")[0] for job in jobs})
    command = ["squeue", "--array", "--noheader", "--states=all", "--format=%i|%T|%N", f"--jobs={ids}"]
    silent_since = None
    while True:
        result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if result.returncode == 0 or "Invalid job id" in result.stderr:
            lines = [line.split("|") for line in result.stdout.splitlines()]
            return {job: (state, node) for job, state, node in lines}
        why = " ".join(result.stderr.split()) or f"squeue ended with {result.returncode}"
        if silent_since is None:
            silent_since = time.monotonic()
            print(f"SLURM does not answer ({why}); it is asked again for {patience} s", file=sys.stderr)
        if time.monotonic() - silent_since >= patience:
            raise ValueError(f"SLURM has not answered for {patience} s: {why}; the same command goes on from here")
        time.sleep(POLL_SECONDS)


def _failure(job, state, node, log):
    """Why ``job``, which has ended, did not do its work; None if it did."""
    for _ in range(RESULT_SECONDS if state in ("COMPLETED", None) else 1):  # other machines' files come late over NFS
        if job.paths.result_pickle.exists():
            break
        time.sleep(1)
    where = f"job {job.job_id} on {node or 'no node'}"
    if state == "CANCELLED":
        return f"{where} was cancelled; the same command goes on from there"
    if not job.paths.result_pickle.exists() and not job.paths.stdout.exists():
        return (
            f"{where} left nothing in {paths.LOGS.resolve()}: the node does not see {Path.cwd()}; the repository "
            "and its .venv must be on a disk that all nodes share, under one name"
        )
    if not job.paths.result_pickle.exists():
        return f"{where} ended as {state}: {reason(job.paths.stdout)} (see {job.paths.stdout})"
    outcome, result = pickle.loads(job.paths.result_pickle.read_bytes())
    if outcome == "success":
        return None
    return f"{result.strip().splitlines()[-1].removeprefix('ValueError: ')} ({where}; see {log})"


@contextlib.contextmanager
def _cancelling(jobs):
    """Whatever ends the block, cancel what is left in ``jobs`` and give it time to end."""
    try:
        yield
    finally:
        if jobs:
            subprocess.run(["scancel", *(job.job_id for job in jobs.values())], check=False)
        deadline = time.monotonic() + KILL_SECONDS
        while jobs and time.monotonic() < deadline:
            try:
                states = _states(jobs.values(), KILL_SECONDS)
            except ValueError:  # which says no more than that it is not known whether they have ended
                break
            if not {state for state, _ in states.values()}.intersection(ACTIVE):
                break
            time.sleep(POLL_SECONDS)


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


def _die_with_us():
    """In a child: SIGTERM comes when this program has ended without ending it, as SIGKILL makes it do.

    To be exact, when the thread has ended that starts the child: the main one.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def reason(log):
    """The line in which a stage said what went wrong, or the last one."""
    lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip() and not re.search(r"\d+%\|", line)]  # without progress bars
    speakers = (*PARALLEL, "dvc: ")
    said = [line for line in lines if line.startswith(speakers) or re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (said or lines or ["no output"])[-1]
