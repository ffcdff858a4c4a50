"""The chains of cases as array jobs of a SLURM cluster, by submitit."""

import contextlib
import copy
import itertools
import math
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from camelsight.pipeline import cli, launch, paths, store

WITHOUT_GPU = ("maps", "universe")  # families that begin with one of these
ACTIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED", "RESIZING"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
)
TAKEN_BACK = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")  # where SLURM did not put the job in its queue again by itself
MOST_TIMEOUTS = 100  # of one job, after each of which it goes on in a new one
MAX_ARRAY_SIZE = 1001  # SLURM's default
# What SLURM says where it takes no more for now, or no array as large.
TOO_MANY = re.compile(r"(?i)(job submit|submitjobs?) *limit|maxsubmit|array spec|QOS policy|temporarily")
MEMORY = ("node", "cpu", "none")  # for what a job asks memory; some sites refuse it for a node, or altogether
# What a job in which the command runs, or a site, has set: it would contradict what our jobs ask for.
OTHER_JOB = re.compile(
    r"(SLURM|SBATCH|SRUN)_(MEM_PER_\w+|CPUS_PER_\w+|NTASKS\w*|NPROCS|TRES_PER_TASK|ARRAY_INX|TIMELIMIT)"
)
POLL_SECONDS = 2
RESULT_SECONDS = 90
SILENT_SECONDS = 600  # that SLURM's controller may need to come back, or to hand over to another


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
        env = os.environ | {"CAMELSIGHT_HELPERS": "elsewhere"}
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command, env=env, stdout=log, stderr=log, preexec_fn=_deaf)
        while self.process.poll() is None:  # a signal's handler can run in the pauses
            time.sleep(0.1)
        if self.process.returncode:
            raise ValueError(launch.reason(self.log))

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
    """launch.DVC must outlive the stage that it runs, to clean up after it; a stage chooses what it hears by itself."""
    for warning in cli.WARNINGS:
        signal.signal(warning, signal.SIG_IGN)


def run(loaded, pending, on_end, *, concurrency=256, **options):
    """Run ``maps`` and the chains as jobs, arrays for each family of stages, and wait for them; they end with us.

    A case that fails is left out of the families that follow, and named at the end in a ValueError. What SLURM takes
    back, or has no time left for, goes on in a new job. ``concurrency``: jobs at a time; ``options``: those of
    ``job_parameters``, and ``gpus`` of a job of a family that has a use for them; ``on_end(name)`` as for ``local``.
    """
    missing = [program for program in ("sbatch", "srun", "squeue", "scancel") if not shutil.which(program)]
    if missing:
        raise ValueError(f"expected SLURM's commands on this machine, got no {', '.join(missing)}: use a login node")
    gpus = options.pop("gpus", 0)
    parameters = job_parameters(loaded, **options) | {"array_parallelism": concurrency}
    for name in [name for name in os.environ if OTHER_JOB.fullmatch(name)]:
        del os.environ[name]
    queue = dict(launch.chains(loaded, pending) + launch.experiments(loaded, pending))
    if loaded.maps.source == "twin":
        queue |= {stage: [stage] for stage in launch.makers(pending)}
    elif wanted := launch.makers(pending):  # nodes often have no network
        launch.repro(*wanted)
    failed = {}
    for family in launch.FAMILIES:
        targets = {key: [one for one in stages if launch.kind(one) in family] for key, stages in queue.items()}
        commands = {key: [*launch.DVC, *wanted] for key, wanted in targets.items() if wanted and key not in failed}
        on_gpu = {"gpus_per_node": gpus} if gpus and family[0] not in WITHOUT_GPU else {}
        helpers = _helpers(loaded, commands) if family == ("tune",) else {}
        failed |= _array("+".join(family), commands, helpers, parameters | on_gpu)
        if "maps" in failed or (failed and {"tune", "evaluate"} & set(family)):
            break  # nothing, no network, or no experiment, has what it needs
        if "tune" in family and "choose" in pending:
            launch.repro("choose")
        for key, stages in queue.items():
            if key in commands and stages[-1] in targets[key]:
                print(on_end(key), file=sys.stderr)
    if failed:
        raise ValueError("; ".join(f"{key} failed: {why}" for key, why in failed.items()))


def job_parameters(loaded, *, partition=None, account=None, qos=None, constraint=None, minutes=720, **more):
    """What submitit asks of SLURM for a job.

    ``memory`` (of ``more``) says whether for a node, per cpu, or not at all; ``sbatch`` holds more of its options, as
    on its command line. ValueError if these are no options.
    """
    memory, bytes_ = more.get("memory", MEMORY[0]), launch.process_bytes(loaded)
    if memory not in MEMORY:
        raise ValueError(f"expected memory among {', '.join(MEMORY)}, got {memory!r}")
    asked = {"node": {"mem": _mebibytes(bytes_)}, "cpu": {"mem_per_cpu": _mebibytes(bytes_ / loaded.threads)}}
    named = {"partition": partition, "account": account, "qos": qos, "constraint": constraint}
    return {
        "cpus_per_task": loaded.threads,
        "srun_args": ["--cpus-per-task", str(loaded.threads)],  # which srun does not take from the job
        "time": minutes,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True} | _sbatch_options(more.get("sbatch", "")),
        **asked.get(memory, {}),
        **{name: value for name, value in named.items() if value},
    }


def _mebibytes(value):
    return f"{math.ceil(value / 2**20)}M"


def _sbatch_options(text):
    """Name -> value of options such as ``--reservation=x --exclusive``; True for one without."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote without its end
        words = [""]
    if not all(re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word, re.DOTALL) for word in words):
        raise ValueError(f"expected options of sbatch such as --exclude=node3 --exclusive, got {text!r}")
    pairs = [word.removeprefix("--").partition("=") for word in words]
    return {name: value if equals else True for name, equals, value in pairs}


def _helpers(loaded, commands):
    """Commands that join the searches of ``commands``, tune.workers to each of them."""
    tune = [sys.executable, "-m", "camelsight.stages.tune", "--join"]
    return {
        f"{key}-{worker}": [*tune, "--suite", suite, "--case", key.removeprefix(f"{suite}-")]
        for key in commands
        for suite in [launch.suite_of(key, loaded)]
        for worker in range(2, loaded.tune.workers + 1)
    }


def _array(name, commands, helpers, parameters):
    """Run ``commands`` as the jobs of an array, with ``helpers`` as long as these need them; name -> why it failed."""
    import submitit

    failed, jobs, left = {}, {}, commands | helpers
    if not commands:
        return failed
    executor = submitit.SlurmExecutor(paths.LOGS / "slurm", max_num_timeout=MOST_TIMEOUTS)
    executor.update_parameters(job_name=f"camelsight-{name}", **parameters)
    limits = {"array": _most_in_an_array(), "jobs": parameters["array_parallelism"]}
    with cli.progress(len(commands), name, "job") as bar, _cancelling(jobs):
        while (left.keys() | jobs.keys()) & commands.keys():
            _submit(executor, left, jobs, limits)
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
    return failed


def _submit(executor, left, jobs, limits):
    """Move commands from ``left`` to ``jobs``, in arrays, as long as SLURM takes more.

    An array has at most ``limits["array"]`` jobs. The first one lets as many run at a time as it may by itself; further
    ones only fill up to ``limits["jobs"]``, which falls to what SLURM took where that is less.
    """
    from submitit.core.utils import FailedJobError

    most = limits["array"]
    while left and (room := limits["jobs"] - len(jobs) if jobs else len(left)) > 0:
        piece = dict(itertools.islice(left.items(), min(room, most)))
        try:
            with executor.batch():
                submitted = {key: executor.submit(Job(command, paths.log(key))) for key, command in piece.items()}
        except FailedJobError as error:
            if not TOO_MANY.search(str(error)) or (len(piece) == 1 and not jobs):
                raise ValueError(f"SLURM takes no job: {store.one_line(error)}") from None
            if len(piece) == 1:
                limits["jobs"] = len(jobs)  # more when one of these has ended
                return
            most = len(piece) // 2
        else:
            jobs |= submitted
            for key in piece:
                del left[key]


def _most_in_an_array():
    """How many jobs an array may have here: SLURM's MaxArraySize, or else its default."""
    said, command = "", ["scontrol", "show", "config"]
    if shutil.which(command[0]):
        said = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False).stdout
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


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
    if not job.paths.result_pickle.exists():
        if job.paths.stdout.exists():
            return f"{where} ended as {state}: {launch.reason(job.paths.stdout)} (see {job.paths.stdout})"
        advice = "the repository and its .venv must be on a disk that all nodes share, under one name"
        return f"{where} left nothing in {paths.LOGS.resolve()}: the node does not see {Path.cwd()}; {advice}"
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
        deadline = time.monotonic() + launch.KILL_SECONDS
        while jobs and time.monotonic() < deadline:
            try:
                states = _states(jobs.values(), launch.KILL_SECONDS)
            except ValueError:  # which says no more than that it is not known whether they have ended
                break
            if not {state for state, _ in states.values()}.intersection(ACTIVE):
                break
            time.sleep(POLL_SECONDS)
