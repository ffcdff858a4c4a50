"""How a stage runs: arguments, params, one line for a person's mistake, and how long it took."""

import argparse
import atexit
import contextlib
import ctypes
import gc
import inspect
import json
import os
import select
import signal
import socket
import sys
import time

import threadpoolctl
from tqdm import tqdm

from camelsight.pipeline import machine, params, paths, store, streams

INTERRUPTED = 130
LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1  # linux/prctl.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
BEAT_SECONDS = 1  # between two writes of a heartbeat
JOB_NAMES = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
WARNINGS = (signal.SIGTERM, signal.SIGUSR2)  # of the end; submitit sends the latter before a job's time is up


def run_stage(main, *commands):
    """Call ``main(params, **arguments)``; its parameters after the first become options, such as ``--suite``.

    One of ``commands`` runs instead if its first parameter is given as an option. All of its parameters are options,
    those with the default False are flags. It gets no params, and so works without params.yaml.
    """
    streams.prepare()
    chosen, parser = _choose(main, commands)
    options = list(inspect.signature(chosen).parameters.values())[chosen is main :]
    for option in options:
        name = f"--{option.name.rstrip('_')}"
        if option.default is False:
            parser.add_argument(name, dest=option.name, action="store_true")
        elif option.default is inspect.Parameter.empty:
            parser.add_argument(name, dest=option.name, metavar=name[2:].upper(), required=True)
        else:
            parser.add_argument(name, dest=option.name, metavar=name[2:].upper(), default=option.default)
    arguments = vars(parser.parse_args())
    stage = main.__module__ if main.__module__ != "__main__" else inspect.getmodule(main).__spec__.name
    name = stage.rpartition(".")[2]
    if chosen is main:
        guard(lambda: _timed(main, name, arguments), prefix=" ".join([name, *arguments.values()]))
    else:
        guard(lambda: chosen(**arguments), prefix=name)


def _choose(main, commands):
    switches = {f"--{next(iter(inspect.signature(command).parameters)).rstrip('_')}": command for command in commands}
    given = {argument.partition("=")[0] for argument in sys.argv[1:]}
    chosen = next((command for switch, command in switches.items() if switch in given), main)
    also = "".join(f"\n  {switch}: {command.__doc__.splitlines()[0]}" for switch, command in switches.items())
    parser = argparse.ArgumentParser(
        description=chosen.__doc__ or inspect.getmodule(main).__doc__,
        epilog=f"Instead, with --help for more:{also}" if also and chosen is main else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return chosen, parser


def print_json(value):
    """``value`` on standard output, for a program; NaN and infinities become null."""
    value = json.loads(json.dumps(value, default=store.plain), parse_constant=lambda name: None)  # NaN is not JSON
    print(json.dumps(value, indent=1))


def show(record, text, as_json):
    """``record`` on standard output: as JSON, for a program, or as ``text`` makes it, for a person."""
    if as_json:
        print_json(record)
    else:
        print(text(record))


def guard(action, prefix):
    """Run ``action``; a mistake ends in one line and exit code 1, a bug in a traceback.

    Where nobody reads on, as with ``| head``, it says no more. Ctrl-C, SIGTERM, a job's last minute and a closed
    terminal end in one line and 130, also where a background shell ignores the first.
    """
    streams.prepare()
    atexit.register(gc.freeze)  # or Python's end, with torch in it, looks for cycles for half a second and more
    for warning in (signal.SIGINT, *WARNINGS):
        signal.signal(warning, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        _told(action)
    except (KeyboardInterrupt, Exception) as error:
        if _interrupted:  # also by way of ctypes, which makes an error of its own of it
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one, while Python tidies up
            print(f"{prefix}: interrupted; the same command goes on from here", file=sys.stderr)
            sys.exit(INTERRUPTED)
        if isinstance(error, BrokenPipeError) and _unread(sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is not written yet
            sys.exit(1)
        if not _mistake(error) or os.environ.get("CAMELSIGHT_TRACEBACK"):
            raise
        print(f"{prefix}: {_reason(error)}", file=sys.stderr)
        sys.exit(1)


def _told(action):
    """Call ``action`` and write out what it printed, also where it ends with an exit code of its own."""
    try:
        action()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _unread(stream):
    """Whether ``stream`` is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _mistake(error):
    """Whether ``error`` is a person's or a machine's, and no bug."""
    return isinstance(error, (ValueError, OSError, FloatingPointError)) or _out_of_memory(error)


def _out_of_memory(error):
    torch = sys.modules.get("torch")  # without it nothing of torch's can have been raised
    return isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError))


def _reason(error):
    if _out_of_memory(error):
        return "out of memory; close something, or use fewer processes: make paper JOBS=1"
    return store.one_line(error)


def device():
    """The GPU where there is one, else the CPU; float32 is to mean the same on both, so TF32 is off."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS reads when it is first used
    import torch  # here and below: it takes 1.5 s, and the command line must not wait for it

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware(device):
    """Whose bits ``device`` computes: the model of a GPU, or the instruction set of the CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else str(device)


def processes(threads, bytes_each):
    """How many processes fit the cores and the memory that this process may use, cgroup limits included; at least 1."""
    return max(1, int(min(machine.cores() / threads, machine.memory() / bytes_each)))


def keep_memory():
    """Let this process keep the memory that it frees, where its allocator is glibc's.

    By default glibc gives a large array back to the system and faults the next one in page by page, which takes 15%
    of a step of gravity with 112^3 cells and 45% with 224^3, 7% of a step of training at 64² pixels and 25% at 256².
    """
    if mallopt := getattr(LIBC, "mallopt", None):
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, 1 << 30)


def die_with_parent():
    """In a child: SIGTERM comes when the parent has ended without ending it, as SIGKILL makes it do.

    To be exact, when the thread has ended that starts the child: the main one.
    """
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def set_threads(count):
    """Compute with ``count`` threads of torch, and of the linear algebra that NumPy and SciPy have loaded.

    Left alone, OpenBLAS takes every core, and its threads wait for each other where other processes are at work.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
    threadpoolctl.threadpool_limits(count, user_api="blas")


def free_bytes(device):
    """What this process may still allocate on ``device``, cgroup limits included."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return machine.free_memory()


def progress(total, what, unit, initial=0):
    """A progress bar with the time left on standard error; a line every half minute where that is no terminal."""
    return Progress(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        smoothing=0.05,
    )


class Progress(tqdm):
    """A progress bar that also leaves word in ``runs/status`` of how far its stage is."""

    def update(self, n=1, best=None):
        """``best`` is the best validation loss so far."""
        shown = super().update(n)
        done = self.n - self.initial
        per_item = self.format_dict["elapsed"] / done if done > 0 else None
        left = per_item and self.total and per_item * (self.total - self.n)
        heartbeat.beat(done=self.n, total=self.total, unit=self.unit, per_item=per_item, seconds_left=left, best=best)
        return shown


class Heartbeat:
    """What a running stage says of itself in a file, which outlives it. Without ``begin`` it says nothing."""

    def __init__(self):
        self.path, self.said, self.written = None, {}, 0.0

    def begin(self, stage, arguments, profile):
        self.path = paths.heartbeat("-".join(arguments.values()) or stage)
        job = "_".join(map(os.environ.get, JOB_NAMES)) if JOB_NAMES[0] in os.environ else os.environ.get("SLURM_JOB_ID")
        self.said = {"profile": profile, "stage": stage, **arguments, "node": node(), "pid": os.getpid(), "job": job}
        self.beat(state="running")

    def beat(self, **news):
        """Add ``news`` to what is said; None changes nothing, and best only falls. A new state is written at once."""
        if self.path is None:
            return
        if news.get("best") is not None:
            news["best"] = min(news["best"], self.said.get("best", news["best"]))
        self.said |= {key: value for key, value in news.items() if value is not None}
        if "state" in news or time.monotonic() - self.written >= BEAT_SECONDS:
            self.written = time.monotonic()
            with contextlib.suppress(OSError):  # a stage does not end for want of somebody who listens
                store.write_json(self.path, self.said | {"time": round(time.time(), 1)})

    def end(self, **news):
        self.beat(**news)
        self.path = None


heartbeat = Heartbeat()


def node():
    """What SLURM, or else the machine itself, calls this machine."""
    return os.environ.get("SLURMD_NODENAME", socket.gethostname())


def _timed(main, name, arguments):
    loaded = params.load(paths.PARAMS)
    suites = loaded.robustness.suites if name == "further" else loaded.suites
    experiments = params.EXPERIMENTS.get(name, ())
    for key, known in (("suite", suites), ("case", loaded.cases), ("experiment", experiments)):
        if key in arguments and arguments[key] not in known:
            raise ValueError(f"expected a {key} among {', '.join(known)} ({paths.PARAMS}), got {arguments[key]!r}")
    set_threads(loaded.threads)
    heartbeat.begin(name, arguments, loaded.profile)
    start = time.monotonic()
    try:
        main(loaded, **arguments)
    except KeyboardInterrupt:
        heartbeat.end(state="interrupted")
        raise
    except Exception as error:
        heartbeat.end(state="failed", reason=_reason(error))
        raise
    heartbeat.end(state="done")
    record = {"profile": loaded.profile, "stage": name, "seconds": round(time.monotonic() - start, 2)}
    store.write_json(paths.TIMINGS / f"{'-'.join([name, *arguments.values()])}.json", record)


_interrupted = False


def _interrupt(*_):
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt
