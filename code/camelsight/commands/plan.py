"""What ``make paper`` would run, why, and for how long; nothing is run, and nothing is changed."""

import argparse
import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from camelsight.commands import everything
from camelsight.pipeline import cli, launch, params, paths, source, store

MISSING = ("deleted", "not in cache")  # what DVC says of a file that is not there
SHOWN = 3  # reasons of a stage in the text, beside the stages upstream


def plan(profile=None, jobs=None, full=False):
    """The record that ``--json`` prints: profile, jobs, seconds, and each stage with its seconds and its reasons.

    Of a file of the real maps that was replaced in its own folder only the run itself takes notice.
    """
    with _in_place_of_params(profile, full):
        loaded = params.load(paths.PARAMS)
        jobs = launch.default_jobs(loaded) if jobs is None else jobs
        pending = launch.out_of_date(_reasons)
        pending.pop("code", None)  # which tells what runs, and takes no time
        taken = {stage: launch.seconds_of(loaded, stage) for stage in pending}
        stages = [{"stage": stage, "seconds": taken[stage], "why": why} for stage, why in pending.items()]
        seconds = launch.in_all(taken, jobs)
    return {"profile": loaded.profile, "jobs": jobs, "seconds": round(seconds), "stages": stages}


@contextlib.contextmanager
def _in_place_of_params(profile, full):
    """Inside, the working folder looks like this one with the params that the run would take; this one is left."""
    if profile is None and not full:
        yield
        return
    wanted = (paths.profile(profile) if profile else paths.PARAMS).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        for path in Path().resolve().iterdir():
            if path.name not in (paths.PARAMS.name, ".git"):  # a link to .git would lead DVC back here
                Path(folder, path.name).symlink_to(path)
        store.write_text(Path(folder, paths.PARAMS), everything.switched_on(wanted) if full else wanted)
        with mock.patch.dict(os.environ, DVC_SITE_CACHE_DIR=cache), contextlib.chdir(folder):
            yield


def _reasons(stage, upstream):
    """Why a stage of DVC would run: {kind, name, change} of each cause; what runs before it stands for its files."""
    kind, code = stage.name.partition("@")[0], [other for other in upstream if other.name == "code"]
    reasons = [_reason("upstream", other.addressing, "runs before") for other in upstream if other not in code]
    if not any(dependency.hash_info for dependency in stage.deps):
        return [*reasons, _reason("stage", stage.addressing, "never run")]
    if code and not paths.code(kind).exists():  # dvc.lock tells of a run in another clone, or before make clean
        return [*reasons, _reason("stage", stage.addressing, "no run is on record here")]
    if code:
        reasons += [_reason("code", name, "modified") for name in source.changed(kind)]
    to_be_made = [Path(str(out)) for other in upstream for out in other.outs]
    outs = []
    for entry in stage.status().get(stage.addressing, []):
        if not isinstance(entry, dict):
            reasons.append(_reason("command", stage.cmd, "modified"))
            continue
        for name, change in entry.get("changed deps", {}).items():
            if isinstance(change, dict):
                dependency = next(dependency for dependency in stage.deps if str(dependency) == name)
                before, now = dependency.hash_info.value, dependency.read_params()
                reasons += [_reason("parameter", *difference) for key in change
                            for difference in _differences(key, before.get(key), now.get(key))]  # fmt: skip
            elif not any(out.is_relative_to(name) or Path(name).is_relative_to(out) for out in to_be_made):
                reasons.append(_reason("file", name, change))
        outs += entry.get("changed outs", {}).items()
    return reasons or [_reason("output", name, change) for name, change in outs]


def _reason(kind, name, change):
    return {"kind": kind, "name": name, "change": "missing" if change in MISSING else change}


def _differences(key, before, now):
    """Yield (name, "before -> now") of every value that differs below ``key``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from _differences(f"{key}.{name}", before.get(name), now.get(name))
    elif before != now:
        yield key, f"{before} -> {now}"


def text(record):
    """The record for a person: stages of one kind that run for the same reasons in one line."""
    if not record["stages"]:
        return f"Profile {record['profile']}: everything is up to date."
    groups = {}
    for stage in record["stages"]:
        name, _, key = stage["stage"].partition("@")
        why = _in_words(stage["why"], key)
        count, seconds = groups.get((name, why), (0, 0))
        groups[name, why] = count + 1, seconds + stage["seconds"]
    lines = [f"Profile {record['profile']}, with {record['jobs']} at a time. To run, and why:"]
    for (name, why), (count, seconds) in groups.items():
        lines.append(f"  {f'{count} × ' if count > 1 else ''}{name}, {_duration(seconds)}: {why}")
    return "\n".join([*lines, f"Roughly {_duration(record['seconds'])} in all. Nothing was run."])


def _in_words(why, key):
    before = Counter(reason["name"].partition("@")[0] for reason in why if reason["kind"] == "upstream")
    words = [f"after {', '.join(before)}"] if before else []
    causes = [reason for reason in why if reason["kind"] != "upstream"]
    for reason in causes[:SHOWN]:
        name = reason["name"].replace(key.replace("-", "/", 1), "SUITE/CASE") if key else reason["name"]
        words.append(reason["change"] if reason["kind"] == "stage" else f"{name} {reason['change']}")
    more = len(causes) - SHOWN
    return "; ".join(words) + (f"; and {more} more (JSON=1 lists them)" if more > 0 else "")


def _duration(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.commands.plan", description=__doc__)
    parser.add_argument("--profile", help=f"as if {paths.PROFILES}/PROFILE.yaml were {paths.PARAMS}")
    parser.add_argument("--full", action="store_true", help="with every experiment on robustness")
    parser.add_argument("--jobs", type=int, help="cases at a time; default: as many as cores and memory allow")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    cli.show(plan(arguments.profile, arguments.jobs, arguments.full), text, arguments.json)


if __name__ == "__main__":
    cli.guard(main, prefix="plan")
