"""How a stage runs: arguments, params, one line for a person's mistake, and how long it took."""

import argparse
import ctypes
import inspect
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from camelsight import params, paths, store

INTERRUPTED = 130
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def run_stage(main, *commands):
    """Call ``main(params, **arguments)``; its parameters after the first become options, such as ``--suite``.

    A function among ``commands`` is called in its place where the option named like its first parameter is given. All
    of its parameters become options, those with a default optional ones and those with the default False flags; it
    gets no params, so that it works without params.yaml.
    """
    chosen, parser = _choose(main, commands)
    options = list(inspect.signature(chosen).parameters.values())[chosen is main :]
    for option in options:
        name = f"--{option.name.rstrip('_')}"
        if option.default is False:
            parser.add_argument(name, dest=option.name, action="store_true")
        else:
            required = option.default is inspect.Parameter.empty
            default = None if required else option.default
            parser.add_argument(name, dest=option.name, metavar=name[2:].upper(), required=required, default=default)
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


def guard(action, prefix):
    """Run ``action``; a mistake ends in one line and exit code 1, a bug in a traceback.

    Ctrl-C, SIGTERM and a closed terminal end in one line and 130, also where a background shell ignores the first.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        action()
    except KeyboardInterrupt:
        sys.exit(_say(prefix, "interrupted; the same command goes on from here", INTERRUPTED))
    except (MemoryError, torch.OutOfMemoryError):
        sys.exit(_say(prefix, "out of memory; close something, or use fewer processes: make paper JOBS=1", 1))
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("CAMELSIGHT_TRACEBACK"):
            raise
        sys.exit(_say(prefix, store.one_line(error), 1))


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes(threads, bytes_each):
    """How many processes fit the cores and the memory that this process may use, cgroup limits included; at least 1."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdigit():
        cores = min(cores, int(quota) / int(period))
    if (limit := _cgroup("memory.max")).isdigit():
        memory = min(memory, int(limit))
    return max(1, int(min(cores / threads, memory / bytes_each)))


def keep_memory():
    """Let this process keep the memory that it frees, where its allocator is glibc's.

    By default glibc gives a large array back to the system and faults the next one in page by page, which takes 15%
    of a step of gravity with 112^3 cells and 45% with 224^3, 7% of a step of training at 64² pixels and 25% at 256².
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, 1 << 30)


def free_bytes(device):
    """What this process may still allocate on ``device``, cgroup limits included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    if (limit := _cgroup("memory.max")).isdigit():
        free = min(free, int(limit) - int(_cgroup("memory.current")))
    return max(free, 0)


def _cgroup(name):
    path = Path("/sys/fs/cgroup", name)
    return path.read_text().strip() if path.exists() else ""


def progress(total, what, unit, initial=0):
    """A progress bar with the time left on standard error; a line every half minute where that is no terminal."""
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 30,
        smoothing=0.05,
    )


def timing_key(name, arguments):
    return "-".join([name, *arguments.values()])


def _timed(main, name, arguments):
    loaded = params.load(paths.PARAMS)
    suites = loaded.robustness.suites if name == "further" else loaded.suites
    experiments = params.EXPERIMENTS.get(name, ())
    for key, known in (("suite", suites), ("case", loaded.cases), ("experiment", experiments)):
        if key in arguments and arguments[key] not in known:
            raise ValueError(f"expected a {key} among {', '.join(known)} ({paths.PARAMS}), got {arguments[key]!r}")
    torch.set_num_threads(loaded.threads)
    start = time.monotonic()
    main(loaded, **arguments)
    record = {"profile": loaded.profile, "stage": name, "seconds": round(time.monotonic() - start, 2)}
    store.write_json(paths.TIMINGS / f"{timing_key(name, arguments)}.json", record)


def _interrupt(*_):
    raise KeyboardInterrupt


def _say(prefix, text, code):
    print(f"{prefix}: {text}", file=sys.stderr)
    return code
