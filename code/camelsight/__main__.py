"""``python -m camelsight paper`` (or ``maps``): what will run and for how long, the run itself, and its results.

The work is done by ``dvc repro``. Before that, the chains cut -> tune -> train -> evaluate of all cases, attribute for
those that attribute.cases names, sanity for the uncut ones, universe and further suites, which do not depend on one
another, are run by several DVC processes at a time; then, in the same way, the experiments on robustness.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from camelsight import cli, dataset, params, paths, release, store

DVC = [sys.executable, "-m", "dvc"]
CHAIN = ("cut", "tune", "train", "evaluate")
PARALLEL = (*CHAIN, "attribute", "sanity", "universe", "further", *params.EXPERIMENTS)
PROCESS_BYTES = 1.5e9  # of one process without its maps
START_SECONDS = 3  # of a stage, before and after its own work


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    paper = commands.add_parser("paper", help="run what is out of date, up to the PDF")
    maps = commands.add_parser("maps", help="simulate the maps, or fetch and check the real ones")
    for command in (paper, maps):
        command.add_argument("--profile", help=f"copy {paths.PROFILES}/PROFILE.yaml to {paths.PARAMS} first")
        command.add_argument(
            "--json", action="store_true", help="print what was done as JSON; the rest to standard error"
        )
    paper.add_argument("--full", action="store_true", help=f"write every experiment on robustness into {paths.PARAMS}")
    paper.add_argument("--jobs", type=int, help="cases at a time; default: as many as cores and memory allow")
    arguments = parser.parse_args()
    if arguments.command == "maps":
        cli.guard(lambda: say(make_maps, arguments.json, arguments.profile), prefix="maps")
    else:
        choice = arguments.profile, arguments.jobs, arguments.full
        cli.guard(lambda: say(make_paper, arguments.json, *choice), prefix="paper")


def say(make, json, *arguments):
    """Call ``make``, which prints what it does and returns a record of it, for people or for a program."""
    if not json:
        make(*arguments)
        return
    with contextlib.redirect_stdout(sys.stderr):
        record = make(*arguments)
    cli.print_json(record)


def make_maps(profile=None):
    loaded = begin(profile)
    pending = [stage for stage in out_of_date() if stage == "maps"]
    if pending:
        announce(loaded, ["maps"], 1)
        _dvc("repro", "--quiet", "--single-item", "maps")
    else:
        print(f"Profile {loaded.profile}: the maps are up to date.")
    print(f"  maps     {paths.MAPS}/ ({', '.join(loaded.suites)})")
    return {"profile": loaded.profile, "ran": pending, "maps": [str(paths.maps(suite)) for suite in loaded.suites]}


def make_paper(profile=None, jobs=None, full=False):
    loaded = begin(profile, full)
    jobs = default_jobs(loaded) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"expected --jobs of at least 1, got {jobs}")
    pending = out_of_date()
    announce(loaded, pending, jobs)
    start = time.monotonic()
    if jobs > 1:
        if "maps" in pending:
            _dvc("repro", "--quiet", "--single-item", "maps")
        run_chains(chains(loaded, pending), jobs, loaded)
        run_chains(experiments(pending), jobs, loaded, "robustness")
    if pending:
        _dvc("repro", "--quiet")
    seconds = time.monotonic() - start
    report(loaded, pending, seconds)
    results = {"pdf": str(paths.PDF), "tables": str(paths.TABLES), "figures": str(paths.FIGURES)}
    return {"profile": loaded.profile, "ran": list(pending), "seconds": round(seconds, 1)} | results


def begin(profile, full=False):
    """The params of ``profile``, or of the active one, with what they have no use for out of the way."""
    if profile:
        activate(profile)
    if full:
        params.load(paths.PARAMS)
        store.write_text(paths.PARAMS, params.with_everything(paths.PARAMS.read_text()))
    loaded = params.load(paths.PARAMS)
    prune(loaded)
    release.unlink_replaced(loaded)
    return loaded


def activate(profile):
    """Make ``profiles/<profile>.yaml`` the active ``params.yaml``; own changes to the latter are kept beside it."""
    wanted = paths.profile(profile).read_bytes()
    known = [path.read_bytes() for path in paths.PROFILES.glob("*.yaml")]
    known += [params.with_everything(text.decode()).encode() for text in known]
    if paths.PARAMS.exists() and paths.PARAMS.read_bytes() not in known:
        backup = paths.PARAMS.with_suffix(".yaml.bak")
        while backup.exists():
            backup = backup.with_suffix(backup.suffix + "~")
        shutil.copy(paths.PARAMS, backup)
        print(f"{paths.PARAMS} had changes of your own; they are now in {backup}")
    if not paths.PARAMS.exists() or paths.PARAMS.read_bytes() != wanted:
        store.write_bytes(paths.PARAMS, wanted)


def prune(loaded):
    """Remove the results of suites and cases that ``params.yaml`` no longer has: DVC sees folders as a whole."""
    wanted = {paths.CUTS: loaded.cases, paths.TRIALS: loaded.cases, paths.EVALUATIONS: loaded.cases}
    wanted[paths.ATTRIBUTIONS] = loaded.attribute.cases
    for folder, cases in wanted.items():
        for path in folder.glob("*/*"):
            if path.parent.name not in loaded.suites or path.stem not in cases:
                path.unlink()
    for path in paths.SANITY.glob("*"):
        if path.stem not in loaded.suites:
            path.unlink()
    more = loaded.robustness.suites
    for path in (paths.ROBUSTNESS / "inputs").glob("*/*"):
        here = path.stem in loaded.suites and path.parent.name in loaded.cases
        if not here and path not in [paths.robustness_input(suite, "original") for suite in more]:
            path.unlink()
    for stage in params.EXPERIMENTS:
        for path in (paths.ROBUSTNESS / stage).glob("*"):
            if path.stem not in getattr(loaded.robustness, stage):
                path.unlink()


def default_jobs(loaded):
    """One per core and its threads, fewer where memory is short; one where a GPU does the work."""
    if torch.cuda.is_available():
        return 1
    return cli.processes(loaded.threads, process_bytes(loaded))


def process_bytes(loaded):
    """Memory that a process may take: its maps as they are and as it trains on them, and itself."""
    return 2 * suite_bytes(loaded) + PROCESS_BYTES


def suite_bytes(loaded):
    return loaded.maps.simulations * dataset.PER_SIMULATION * loaded.maps.pixels**2 * 4


def out_of_date(describe=lambda stage, pending_upstream: None):
    """What ``dvc repro`` would run, downstream of a change included, in order: a stage's name -> ``describe`` of it."""
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            graph = repo.index.graph  # edges lead from a stage to what it depends on
            pending = {}
            for stage in reversed(list(networkx.topological_sort(graph))):
                upstream = [other for other in graph.successors(stage) if other.addressing in pending]
                if upstream or stage.changed():
                    pending[stage.addressing] = describe(stage, upstream)
    except DvcException as error:
        raise ValueError(f"DVC: {error}") from error
    return pending


def chains(loaded, pending):
    """(name, targets) of the universe, and of every suite and case, with something to do."""
    further = {f"further@{suite}": [f"further@{suite}"] for suite in loaded.robustness.suites}
    everything = {"universe": ["universe"], **further}
    for case in loaded.cases:
        for suite in loaded.suites:
            key = f"{suite}-{case}"
            everything[key] = [f"{stage}@{key}" for stage in CHAIN]
            if case in loaded.attribute.cases:
                everything[key].append(f"attribute@{key}")
            if case == "original":
                everything[key].append(f"sanity@{suite}")
    wanted = {key: [target for target in targets if target in pending] for key, targets in everything.items()}
    return [(key, targets) for key, targets in wanted.items() if targets]


def experiments(pending):
    """(name, targets) of the experiments on robustness that have something to do."""
    return [(stage, [stage]) for stage in pending if stage.partition("@")[0] in params.EXPERIMENTS]


def forecast(loaded, pending, jobs):
    """Seconds that ``pending`` will roughly take."""
    parallel = sum(seconds_of(loaded, stage) for stage in pending if stage.partition("@")[0] in PARALLEL)
    serial = sum(seconds_of(loaded, stage) for stage in pending if stage.partition("@")[0] not in PARALLEL)
    return serial + parallel / jobs


def seconds_of(loaded, stage):
    """As long as the stage took last time here, otherwise as the profile says."""
    timing = paths.TIMINGS / f"{stage.replace('@', '-')}.json"
    last = store.read_json(timing) if timing.exists() else {}
    name = stage.partition("@")[0]
    return START_SECONDS + (last["seconds"] if last.get("profile") == loaded.profile else getattr(loaded.seconds, name))


def announce(loaded, pending, jobs):
    if not pending:
        print(f"Profile {loaded.profile}: everything is up to date.")
        return
    counts = {}
    for stage in pending:
        name = stage.partition("@")[0]
        counts[name] = counts.get(name, 0) + 1
    todo = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
    print(
        f"Profile {loaded.profile} ({len(loaded.suites)} suites × {len(loaded.cases)} cases, {loaded.maps.source} maps)"
    )
    print(f"To run: {todo}")
    minutes = max(1, round(forecast(loaded, pending, jobs) / 60))
    print(
        f"Roughly {minutes} min with {jobs} process{'es' if jobs > 1 else ''} of {loaded.threads} thread(s)", flush=True
    )


def run_chains(queue, jobs, loaded, what="train and evaluate"):
    """Run the chains in ``jobs`` DVC processes; what they print goes to ``runs/logs``."""
    queue, running = list(queue), {}
    if not queue:
        return
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    with cli.progress(len(queue), what, "case") as bar, _ending(running):
        while queue or running:
            while queue and len(running) < jobs:
                key, targets = queue.pop(0)
                log = open(paths.LOGS / f"{key}.log", "w")  # noqa: SIM115
                command = [*DVC, "--wait-for-lock", "repro", "--single-item", *targets]
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
                running[process] = key, log
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                key, log = running.pop(process)
                log.close()
                if process.returncode != 0:
                    raise ValueError(f"{key} failed: {_reason(log.name)} (see {log.name})")
                bar.write(_summary(key, loaded), file=sys.stderr)
                bar.update()


@contextlib.contextmanager
def _ending(running):
    """Whatever ends the block, interrupt the sessions that ``running`` lead, and wait for them.

    They lead sessions because DVC itself ignores signals while a stage runs: the stage must hear them, once.
    """
    try:
        yield
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in running:
            process.wait()


def _reason(log):
    """The line in which a stage said what went wrong, or the last one."""
    lines = Path(log).read_text(errors="replace").splitlines()
    lines = [line for line in lines if line.strip() and not re.search(r"\d+%\|", line)]  # without progress bars
    said = [line for line in lines if line.startswith(PARALLEL) or re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (said or lines or ["no output"])[-1]


def _summary(key, loaded):
    if key == "universe":
        return f"  {key}: power spectra and pixel statistics are in {paths.UNIVERSE}"
    if "@" in key:
        return f"  {key}: done"
    suite = next(suite for suite in loaded.suites if key.startswith(f"{suite}-"))
    r2 = store.read_json(paths.metrics(suite, key.removeprefix(f"{suite}-")))["metrics"]["r2"]
    return f"  {key}: R² {r2['omega_m'][0]:.3f} (omega_m), {r2['sigma_8'][0]:.3f} (sigma_8)"


def report(loaded, pending, seconds):
    if pending:
        print(f"Done in {seconds / 60:.1f} min.")
    figures = len(list(paths.FIGURES.rglob("*.pdf")))
    print(f"  PDF      {paths.PDF}")
    print(f"  tables   {paths.TABLES}/ (r2.csv, r2.md, r2.tex)")
    print(f"  figures  {paths.FIGURES}/ ({figures} as PDF and PNG)")
    if loaded.maps.source == "mock":
        print("  The maps are simulated: these are not results on CAMELS.")


def _dvc(*arguments):
    process = subprocess.Popen([*DVC, *arguments], stdout=sys.stdout, start_new_session=True)
    with _ending({process: None}):
        code = process.wait()
    if code:
        raise ValueError(f"dvc {' '.join(arguments)} ended with {code}; the reason stands above")


if __name__ == "__main__":
    main()
