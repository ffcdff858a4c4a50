"""What an earlier run may have left in a folder: processes at work, and files of DVC's that were cut off."""

import errno
import json
import os
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from camelsight.pipeline import paths, store

RWLOCK = Path(".dvc/tmp/rwlock")
OURS = ("dvc", "camelsight.pipeline.dvc_repro")
COPIED_TO = (Path(".dvc/cache"), paths.CUTS.parent, paths.LOGS.parent, paths.FIGURES, paths.PDF.parent)
PART = f".{'?' * 22}.tmp"  # as DVC calls a file that it has not copied to the end
POLL_SECONDS = 0.5


def repository(**options):
    """DVC's ``Repo`` of this folder: with its Git, or without any where it is no checkout, as in an image.

    A repository of somebody else's around this folder is none of ours.
    """
    from dvc.repo import Repo

    return Repo(config=repository_settings(), **options)


def repository_settings():
    """DVC's settings of this folder, beyond those in .dvc."""
    return {} if Path(".git").exists() else {"core": {"no_scm": True}}


def clear():
    """Wait for what is still at work in this folder, then drop what would stop DVC; for who holds the run's lock."""
    refuse_conflicts()
    said = None
    while working := at_work():
        pid, command = next(iter(working.items()))
        if pid != said:
            print(f"waiting for process {pid}, which is at work in {Path.cwd()}: {command}", file=sys.stderr)
            said = pid
        time.sleep(POLL_SECONDS)
    if _blocks(RWLOCK):
        RWLOCK.unlink()
    for part in [*Path().glob(f".{paths.DVC_LOCK}.*"), *(part for folder in COPIED_TO for part in folder.rglob(PART))]:
        part.unlink()
    for runs in Path(".dvc/cache/runs").glob("*/*"):
        if not any(runs.iterdir()):  # DVC stops at one
            runs.rmdir()
    if record(paths.DVC_LOCK) is None:
        aside = paths.DVC_LOCK.with_name(f"{paths.DVC_LOCK.name}.damaged")
        os.replace(paths.DVC_LOCK, aside)
        restored = "what did not change is restored from .dvc/cache"
        print(f"{paths.DVC_LOCK} was cut off and is now called {aside}; {restored}", file=sys.stderr)


def refuse_conflicts():
    """ValueError if a merge is not finished in what DVC reads."""
    for path in (paths.DVC, paths.DVC_LOCK):
        store.refuse_conflict(path)


def at_work():
    """Process id -> command of each DVC of this machine, and stage that DVC runs, in this folder."""
    import psutil

    found, here = {}, str(Path.cwd())
    for process in psutil.process_iter(["pid", "cwd", "cmdline"]):
        pid, command = process.info["pid"], process.info["cmdline"]
        if not command or process.info["cwd"] != here or pid == os.getpid():
            continue
        if any(Path(word).name in OURS for word in command[:4]) or _is_run_by_dvc(process):
            found[pid] = " ".join(command)
    return found


def _is_run_by_dvc(process):
    import psutil

    try:
        return "DVC_STAGE" in process.environ()
    except psutil.Error:  # it has just ended, or is another user's
        return False


def _blocks(rwlock):
    """Whether DVC would stop at ``rwlock`` for good: it cannot be read, or names ids that other programs have by now.

    DVC itself forgets ids that no process has.
    """
    import psutil
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        held = SCHEMA(json.loads(rwlock.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    except (ValueError, Invalid):
        return True
    holders = [*held["write"].values(), *(reader for readers in held["read"].values() for reader in readers)]
    return any(psutil.pid_exists(holder["pid"]) for holder in holders)


def record(lock):
    """What a dvc.lock says, nothing where there is none; None if it is cut off, or not as DVC writes it otherwise."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:  # DVC's own reader ends the process where a text has ten thousand levels
        return COMPILED_LOCKFILE_SCHEMA(store.parse_yaml(lock.read_bytes(), aliases=False))
    except FileNotFoundError:
        return {}
    except (ValueError, Invalid):
        return None


def one_line(error):
    """What went wrong in DVC, for a person, and what to do."""
    from dvc.exceptions import CacheLinkError

    again = "the same command goes on from here"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"dvc: the disk is full ({_fullest()}); free some space, and {again}"
    if isinstance(error, CacheLinkError):  # which does not say why
        return f"dvc: expected to copy results from .dvc/cache, got no room or no right to ({_fullest()}); then {again}"
    if isinstance(error, sqlite3.OperationalError):
        return f"dvc: expected to write to {_databases()}, got: {error} ({_fullest()}); mend that, and {again}"
    if isinstance(error, OSError):
        return f"dvc: expected to read and write, got: {store.one_line(error)}; mend that, and {again}"
    if isinstance(error, sqlite3.Error):
        anew = "remove that folder, DVC makes it anew"
        return f"dvc: expected a database of DVC's in {_databases()}, got: {error}; {anew}"
    return f"dvc: {store.one_line(error) or type(error).__name__}"


def _fullest():
    """How much is free where least is, of the disks that a run writes to."""
    places = [Path(), *COPIED_TO, RWLOCK.parent, _databases()]
    free = {place.resolve(): shutil.disk_usage(place).free for place in places if place.exists()}
    place = min(free, key=free.get)
    return f"{free[place] / 1e6:.1f} MB free in {place}"


def _databases():
    from dvc.dirs import site_cache_dir

    return Path(site_cache_dir(), "repo")
