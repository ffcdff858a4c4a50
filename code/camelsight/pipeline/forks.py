"""Stages as forks of one process, which imports torch once for all of them: each by itself would take seconds for it.

A stage runs as ``code/stage`` runs it for somebody's ``dvc repro``: in the same session, with the same exit code.
"""

import atexit
import contextlib
import importlib
import json
import os
import runpy
import shlex
import signal
import socket
import sys
import threading
from pathlib import Path

from camelsight.pipeline import cli, paths, source

SCRIPT = "code/stage"
TRAINING = ("tune", "train", "repeat", "sanity", "transfer", "baseline")
SIZE = 1 << 16  # bytes of a message
LOST_OUTPUT = 120  # the exit code of Python that could not write all it printed


def channel():
    """Two sockets that are connected; what is sent arrives in one piece, and open files with it."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def take_outputs(files):
    """Print to ``files`` from now on, standard output and standard error, and close them."""
    sys.stdout.flush()
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)


def begin(*others):
    """Fork who will fork the stages, before this process has threads; returns how to run one.

    ``run(command, environment)`` gives the exit code of a stage, minus the signal where one has ended it; None where
    the command is none, or one of other code than this. ``others`` are open files that a stage must not hold.
    """
    ours, theirs = channel()
    sys.stdout.flush()
    unheard = {signal.SIGINT, signal.SIGHUP, *cli.WARNINGS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, unheard)
    if not (server := os.fork()):
        ours.close()
        for other in others:
            other.close()
        _serve(theirs, unheard, mask)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()

    def end():
        ours.close()
        os.waitpid(server, 0)

    atexit.register(end)

    def run(command, environment):
        words = shlex.split(command)
        if words[0] != SCRIPT or Path(SCRIPT).parent.resolve() != paths.PACKAGE.parent:
            return None
        news = dict(environment.items() - os.environ.items())
        socket.send_fds(ours, [json.dumps([words[1:], news]).encode()], [1, 2])
        return int(ours.recv(SIZE) or -signal.SIGKILL)

    return run


def _serve(requests, unheard, mask):
    """Fork a stage for each of ``requests``, until nobody is left who makes one.

    Signals wait in this process: those of a session reach the stage by themselves, but for those before it was there.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        unheard -= {signal.SIGHUP}
    while True:
        message, outputs, *_ = socket.recv_fds(requests, SIZE, 2)
        if not message:
            os._exit(0)
        take_outputs(outputs)
        (name, *arguments), environment = json.loads(message)
        with contextlib.suppress(Exception):  # which the stage itself will say
            runpy.run_module(f"camelsight.stages.{name}", run_name="imported")
            if name in TRAINING:
                importlib.import_module("torch._dynamo")  # as an optimiser does at its first step
            source.digest(name)  # of keys to unfinished work; for it each fork would parse all this code
        if signal.sigpending() & unheard:
            stage, code = None, cli.INTERRUPTED
        elif not (stage := os.fork()):
            requests.close()
            _become(name, arguments, environment, mask)
        if stage:
            for number in signal.sigpending() & unheard:
                os.kill(stage, number)
            code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
        requests.send(str(code).encode())


def _become(name, arguments, environment, mask):
    """Run a stage as ``python -m`` does, and end without taking Python apart, which with torch in it takes 2 s."""
    cli.die_with_parent()
    places = str(paths.PACKAGE.parent), os.environ.get("PYTHONPATH")
    os.environ.update(environment, PYTHONPATH=os.pathsep.join(filter(None, places)))
    sys.argv = [name, *arguments]
    code = 1
    try:
        code = _exit_code(name, mask)
        threading._shutdown()  # as Python's own end does: it waits for threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except OSError:  # what was printed is lost, on a full disk
        code = code or LOST_OUTPUT
    finally:
        os._exit(code)


def _exit_code(name, mask):
    """Run the stage, and say what it raises as Python does it for a program."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        runpy.run_module(f"camelsight.stages.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the stage could hear it
        return cli.INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0
