"""DVC's ``repro`` as a run needs it: ``python -m camelsight.pipeline.dvc_repro [STAGE ...]``.

It runs the stages named, or all that are out of date; with ``--chains SOCKET`` those of one message after the other.
Beyond ``dvc repro``, it forks the stages of this code, says in one line why it failed, reads what it restores, writes
dvc.lock whole or not at all, and when told to end (SIGTERM) ends its stage, too.
"""

import contextlib
import functools
import json
import logging
import os
import pickle
import re
import signal
import socket
import sys
from pathlib import Path

from camelsight.pipeline import cli, forks, leftovers, store

SPOKEN = (1, 2, cli.INTERRUPTED)  # exit codes of a stage that has said why


def main(run, chains, targets):
    """``run`` as of ``forks.begin``; ``chains`` is a socket, or None where ``targets`` are all."""
    import dvc.dvcfile
    import dvc.stage.run
    from dvc.logger import set_loggers_level
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml

    strictyaml.parse_yaml = _yaml.parse_yaml = _parsed
    dvc.dvcfile.modify_yaml = _in_one_go(dvc.dvcfile.modify_yaml)
    dvc.stage.run._run = _forked(run, dvc.stage.run._run)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # as in a job of a cluster
        signal.signal(signal.SIGTERM, _end)
    with set_loggers_level(logging.CRITICAL):
        if not chains:
            return _repro(targets)
        while True:
            message, outputs, *_ = socket.recv_fds(chains, forks.SIZE, 2)
            if not message:
                return None
            forks.take_outputs(outputs)
            _repro(json.loads(message))
            sys.stdout.flush()
            chains.send(b"1")


def _repro(targets):
    with leftovers.repository(_wait_for_lock=True) as repo:
        _read_what_is_restored(repo.cache.local)
        repo.reproduce(targets, single_item=bool(targets), repro_fn=_reproduce)


def _forked(run, otherwise):
    """DVC's ``_run``, by which it runs a command: by ``run`` where that can do it."""
    from dvc.stage.exceptions import StageCmdFailedError

    def run_command(executable, command, **options):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage hears it
        try:
            code = run(command, options["env"])
        finally:
            signal.signal(signal.SIGINT, before)
        if code is None:
            otherwise(executable, command, **options)
        elif code:
            raise StageCmdFailedError(command, code)

    return run_command


def _end(*_):
    """Once: a parent of several threads dies in as many steps, and the kernel may send its signal at each."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)


def _parsed(text, path, typ="safe"):
    """DVC's ``parse_yaml``, once for a text: of a stage it reads dvc.lock three times, params.yaml eleven times."""
    from dvc.utils.serialize import parse_yaml

    return pickle.loads(_pickled(text, path)) if typ == "safe" else parse_yaml(text, path, typ)


@functools.lru_cache(maxsize=8)
def _pickled(text, path):
    from dvc.utils.serialize import parse_yaml

    return pickle.dumps(parse_yaml(text, path))


def _in_one_go(modify):
    """DVC's ``modify``, by which it writes dvc.lock: whole or not at all, and of its text only the stages that change.

    By itself DVC parses and writes all of it for each stage, in Python, which takes longer than many a stage.
    """
    from dvc.utils.serialize import YAMLError, dump_yaml

    @contextlib.contextmanager
    def modify_whole(path, fs=None):
        with store.replacing(path) as part:
            text = Path(path).read_text(encoding="utf-8") if os.path.exists(path) else ""
            data = _parsed(text, path)
            if not data.get("stages"):
                part.write_text(text, encoding="utf-8")
                with modify(str(part), fs=fs) as data:
                    yield data
                return
            before = dict(data["stages"])
            yield data
            text = _with_stages(
                text, {name: new for name, new in data["stages"].items() if new is not before.get(name)}
            )
            try:
                as_meant = _parsed(text, path) == data
            except YAMLError:
                as_meant = False
            if as_meant:
                part.write_text(text, encoding="utf-8")
            else:  # it is not laid out as DVC does it
                dump_yaml(str(part), data)

    return modify_whole


def _with_stages(text, stages):
    """The ``text`` of a dvc.lock with the entries of ``stages``, each in its old one's place or at the end."""
    from dvc.utils.serialize import dumps_yaml

    for name, entry in stages.items():
        _, block = dumps_yaml({"stages": {name: entry}}).split("\n", 1)
        old = re.search(rf"^  {re.escape(name)}:\n((   .*)?\n)*", text, re.MULTILINE)
        start, end = old.span() if old else (len(text), len(text))
        text = text[:start] + block + text[end:]
    return text


def _read_what_is_restored(cache):
    """Let ``cache`` hold a file only while it is what its name says; DVC trusts each one that is read-only."""
    from dvc_objects.errors import ObjectFormatError

    trusting = cache.check

    def check(oid, *arguments, **options):
        meta = trusting(oid, *arguments, **options)
        path = cache.oid_to_path(oid)
        found = store.file_digest(path, "md5")
        if found != oid.removesuffix(".dir"):
            os.unlink(path)
            print(f"dvc: {os.path.relpath(path)} was damaged (its md5 is {found}) and is dropped", file=sys.stderr)
            raise ObjectFormatError(f"{path} is damaged")
        return meta

    cache.check = check


def _reproduce(stage, **options):
    """DVC's own, after what is missing in the cache, and as it should be in the working folder, was put back there."""
    from dvc.repo.reproduce import _reproduce_stage

    for out in stage.outs:
        if out.use_cache and out.hash_info and not out.workspace_status() and out.changed_cache():
            out.commit()
    return _reproduce_stage(stage, **options)


def reason(error):
    """Why DVC failed, in one line; None if a stage did, and has said why."""
    cause = error
    while cause.__cause__:
        cause = cause.__cause__
    if type(cause).__name__ != "StageCmdFailedError":
        return leftovers.one_line(cause)
    code = int(re.search(r"-?\d+$", str(cause))[0])
    if code in SPOKEN:
        return None
    hint = "; was it for want of memory? make paper JOBS=1 needs less" if code == -9 else ""
    return f"dvc: {error}: {cause}{hint}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background shell ignores
    chains = socket.socket(fileno=int(sys.argv[2])) if sys.argv[1:2] == ["--chains"] else None
    run = forks.begin(*filter(None, [chains]))  # a stage goes on from here, so that what it raises is its own
    try:
        main(run, chains, sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(cli.INTERRUPTED)
    except Exception as error:
        if os.environ.get("CAMELSIGHT_TRACEBACK"):
            raise
        if why := reason(error):
            with contextlib.suppress(OSError):  # a log on a full disk
                print(why, file=sys.stderr, flush=True)
        sys.exit(1)
