"""DVC's ``repro`` as a run needs it: ``python -m camelsight.pipeline.dvc_repro [STAGE ...]``.

It runs the stages named, or all that are out of date. Beyond ``dvc repro``, it says in one line why it failed, reads
what it restores, writes dvc.lock whole or not at all, and when told to end (SIGTERM) ends its stage, too.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import sys

from camelsight.pipeline import cli, leftovers, store

SPOKEN = (1, 2, cli.INTERRUPTED)  # exit codes of a stage that has said why


def main(targets):
    import dvc.dvcfile
    from dvc.logger import set_loggers_level

    dvc.dvcfile.modify_yaml = _in_one_go(dvc.dvcfile.modify_yaml)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # as in a job of a cluster
        signal.signal(signal.SIGTERM, _end)
    with set_loggers_level(logging.CRITICAL), leftovers.repository(_wait_for_lock=True) as repo:
        _read_what_is_restored(repo.cache.local)
        repo.reproduce(targets, single_item=bool(targets), repro_fn=_reproduce)


def _end(*_):
    """Once: a parent of several threads dies in as many steps, and the kernel may send its signal at each."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGINT)


def _in_one_go(modify):
    """DVC's ``modify``, by which it writes dvc.lock, so that a signal or a full disk leaves the one before."""

    @contextlib.contextmanager
    def modify_whole(path, fs=None):
        with store.replacing(path) as part:
            if os.path.exists(path):
                shutil.copy(path, part)
            with modify(str(part), fs=fs) as data:
                yield data

    return modify_whole


def _read_what_is_restored(cache):
    """Let ``cache`` hold a file only while it is what its name says; DVC trusts each one that is read-only."""
    from dvc_objects.errors import ObjectFormatError

    trusting = cache.check

    def check(oid, *arguments, **options):
        meta = trusting(oid, *arguments, **options)
        path = cache.oid_to_path(oid)
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
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
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(cli.INTERRUPTED)
    except Exception as error:
        if os.environ.get("CAMELSIGHT_TRACEBACK"):
            raise
        if why := reason(error):
            with contextlib.suppress(OSError):  # a log on a full disk
                print(why, file=sys.stderr, flush=True)
        sys.exit(1)
