"""``python -m camelsight paper`` (``maps``, ``status``): what will run and for how long, the run itself, its results.

The work is done by ``dvc repro``. Before that, the chains of all cases, which do not depend on one another, and then
the experiments on robustness are run by several DVC processes at a time, here or on a cluster: see ``launch``.
"""

import argparse
import contextlib
import shutil
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path

from camelsight.commands import everything, status
from camelsight.ground import cases, cmd, fields, split
from camelsight.pipeline import checkpoints, cli, launch, leftovers, params, paths, release, slurm, store
from camelsight.report import provenance

FEW = 10  # simulations for a test, of which nothing can be said


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    given = {"argument_default": argparse.SUPPRESS}  # what is not given is as the functions below have it
    paper = commands.add_parser("paper", help="run what is out of date, up to the PDF", **given)
    maps = commands.add_parser("maps", help="simulate the maps, or fetch and check the real ones", **given)
    for command in (paper, maps):
        command.add_argument("--profile", help=f"copy {paths.PROFILES}/PROFILE.yaml to {paths.PARAMS} first")
        said = "print what was done as JSON; the rest to standard error"
        command.add_argument("--json", action="store_true", help=said)
    paper.add_argument("--full", action="store_true", help=f"write every experiment on robustness into {paths.PARAMS}")
    paper.add_argument("--jobs", type=int, help="cases at a time; default: as many as cores and memory allow")
    cluster = paper.add_argument_group("on a SLURM cluster, from its login node")
    cluster.add_argument("--launch", dest="where", choices=("local", "slurm"), help="where cases run")
    for name in ("partition", "account", "qos", "constraint"):
        cluster.add_argument(f"--{name}")
    cluster.add_argument("--memory", choices=slurm.MEMORY, help="for what a job asks memory; default: its node")
    cluster.add_argument("--sbatch", help="more options of sbatch, such as '--exclude=node3 --exclusive'")
    cluster.add_argument("--gpus", type=int, help="of a job that trains; default: none")
    cluster.add_argument("--minutes", type=int, help="of a job, which then goes on in a new one; default: 720")
    cluster.add_argument("--concurrency", type=int, help="jobs at a time; default: 256")
    several = commands.add_parser("challenges", help="which of the profile's fields tell how much")
    look = commands.add_parser("status", help="how far each case is, of a run on this machine or on others")
    for command in (several, look):
        command.add_argument("--json", action="store_true", help="for a program")
    options = vars(parser.parse_args())
    command, as_json = options.pop("command"), options.pop("json", False)
    if command == "status":
        cli.guard(lambda: show_status(as_json), prefix=command)
    else:
        make = {"paper": make_paper, "maps": make_maps, "challenges": make_challenges}[command]
        cli.guard(lambda: say(lambda: make(**options), as_json), prefix=command)


def say(make, as_json):
    """Call ``make``, which prints what it does and returns a record of it, for people or for a program.

    One at a time in a folder: another's would run the same stages, and may change the parameters under it.
    """
    with store.claim(paths.RUN_LOCK) as mine:
        if not mine:
            raise ValueError(f"another make paper or make maps is at work in {Path.cwd()}; wait for it, or end it")
        leftovers.clear()
        if not as_json:
            make()
            return
        with contextlib.redirect_stdout(sys.stderr):
            record = make()
        cli.print_json(record)


def out_of_date(wanted=None):
    """What has to run, for the stage ``wanted`` alone if there is one; what tells so of the code has run by then."""
    pending = launch.out_of_date(wanted=wanted)
    if "code" in pending:
        launch.repro("code")
        del pending["code"]
    return pending


def make_maps(profile=None):
    loaded = begin(profile)
    pending = [stage for stage in out_of_date() if stage == "maps"]
    if pending:
        announce(loaded, ["maps"], 1)
        launch.repro("maps")
    else:
        print(f"Profile {loaded.profile}: the maps are up to date.")
    print(f"  maps     {paths.MAPS}/ ({', '.join(loaded.suites)})")
    maps = [str(path) for path in paths.all_maps(loaded.suites, loaded.fields)]
    return {"profile": loaded.profile, "ran": pending, "maps": maps}


def make_challenges():
    """Run what the table of CMD's challenges needs, for the fields of the active profile."""
    loaded = params.load(paths.PARAMS)
    if len(loaded.fields) < 2:
        raise ValueError(
            f"{paths.PARAMS}: fields: expected two or more to choose from, got {', '.join(loaded.fields)}; a twin has "
            f"{', '.join(fields.SIMULATED)} for suites with gas"
        )
    text = paths.PARAMS.read_text(encoding="utf-8")
    store.write_text(paths.PARAMS, everything.switched_on(text, {"transfer": ["fields"]}))
    loaded = begin(None)
    pending = out_of_date("transfer@fields")
    if pending:
        announce(loaded, pending, 1)
        launch.repro(*pending)
    from camelsight.report import selection  # with tables, which the command line need not wait for

    record = store.read_json(paths.experiment("transfer", "fields"))
    print(selection.text(record))
    return {"profile": loaded.profile, "ran": pending} | record


def make_paper(profile=None, full=False, jobs=None, where="local", **options):
    _check_options(jobs, where, options)
    loaded = begin(profile, full)
    pending = out_of_date()
    if where == "slurm":
        jobs = min(options.get("concurrency", 256), max(1, len(launch.chains(loaded, pending))))
    elif pending and jobs is None:
        jobs = launch.default_jobs(loaded)
    announce(loaded, pending, jobs)
    start = time.monotonic()
    if pending and where == "slurm":
        slurm.run(loaded, pending, lambda key: summary(key, loaded), **options)
    elif pending and jobs > 1:
        _run_several(loaded, pending, jobs)
    if pending:
        launch.repro()
    for path in Path().glob(str(paths.finished_training("*"))):  # recorded by now
        checkpoints.remove(path)
    checkpoints.forget_finished(paths.CHECKPOINTS)
    seconds = time.monotonic() - start
    for path in (paths.VERDICT, paths.CRATE) if pending else ():  # an old verdict is not on these results
        path.unlink(missing_ok=True)
    if pending or not paths.PAGE.exists():
        from camelsight.referee import overview  # with torch, which a run with nothing to do must not wait for

        overview.write(loaded)
    report(loaded, pending, seconds)
    made = {"page": paths.PAGE, "pdf": paths.PDF, "tables": paths.TABLES, "figures": paths.FIGURES}
    results = {name: str(path) for name, path in made.items()}
    return {"profile": loaded.profile, "ran": list(pending), "seconds": round(seconds, 1)} | results


def _check_options(jobs, where, options):
    """ValueError in one line for numbers that are too small, and options that go with another --launch."""
    for name, value in {"jobs": jobs, **options}.items():
        if isinstance(value, int) and value < (name != "gpus"):
            raise ValueError(f"expected --{name} of at least {int(name != 'gpus')}, got {value}")
    if options and where == "local":
        raise ValueError(f"expected --{', --'.join(options)} with --launch slurm only")
    if jobs and where == "slurm":
        raise ValueError("expected --concurrency with --launch slurm, got --jobs")


def _run_several(loaded, pending, jobs):
    """Run what is pending of the cases and experiments, ``jobs`` at a time."""
    if makers := launch.makers(pending):
        launch.repro(*makers)
    first, rest = launch.halves(launch.chains(loaded, pending))
    launch.local(first, jobs, lambda key: summary(key, loaded) if key == "universe" else f"  {key}: searched")
    if "choose" in pending:
        launch.repro("choose")
    for queue in (rest, launch.experiments(loaded, pending)):
        launch.local(queue, jobs, lambda key: summary(key, loaded))


def show_status(as_json):
    loaded = params.load(paths.PARAMS)
    record = {"profile": loaded.profile, "rows": status.rows(loaded, launch.peek())}
    cli.show(record, lambda record: status.table(record["rows"]), as_json)


def begin(profile, full=False):
    """The params of ``profile``, or of the active one, with what they have no use for out of the way."""
    if profile:
        activate(profile)
    if full:
        params.load(paths.PARAMS)
        store.write_text(paths.PARAMS, everything.switched_on(paths.PARAMS.read_text(encoding="utf-8")))
    loaded = params.load(paths.PARAMS)
    prune(loaded)
    launch.forget(loaded)
    release.unlink_replaced(loaded)
    return loaded


def activate(profile):
    """Make ``profiles/<profile>.yaml`` the active ``params.yaml``; own changes to the latter are kept beside it."""
    wanted = paths.profile(profile).read_bytes()
    if paths.PARAMS.exists() and not _is_a_profile(paths.PARAMS.read_bytes()):
        backup = paths.PARAMS.with_suffix(".yaml.bak")
        while backup.exists():
            backup = backup.with_suffix(backup.suffix + "~")
        shutil.copy(paths.PARAMS, backup)
        print(f"{paths.PARAMS} had changes of your own; they are now in {backup}")
    if not paths.PARAMS.exists() or paths.PARAMS.read_bytes() != wanted:
        store.write_bytes(paths.PARAMS, wanted)


def _is_a_profile(content):
    """Whether a params.yaml is one of the profiles as it stands, or as FULL=1 makes it."""
    for path in paths.PROFILES.glob("*.yaml"):
        if path.read_bytes() == content:
            return True
        with contextlib.suppress(ValueError):  # a profile that somebody is at work on
            if everything.switched_on(path.read_text(encoding="utf-8")).encode() == content:
                return True
    return False


def prune(loaded):
    """Remove the results of suites and cases that ``params.yaml`` no longer has: DVC sees folders as a whole."""
    suites, cases = loaded.suites, loaded.cases
    folders = {paths.CUTS: cases, paths.TRIALS: loaded.tune.cases, paths.EVALUATIONS: cases, paths.CURVES: cases}
    folders[paths.ATTRIBUTIONS] = loaded.attribute.cases
    gone = {
        path
        for folder, wanted in folders.items()
        for path in folder.glob("*/*")
        if path.parent.name not in suites or path.stem not in wanted
    }
    gone |= set(Path("runs").glob("*/*/seed_*.safetensors"))
    for again in product(suites, cases, loaded.repeats):
        gone -= {paths.repeat(*again), paths.repeated_weights(*again)}
    further = [paths.robustness_input(suite, "original") for suite in loaded.robustness.suites]
    inputs = set((paths.ROBUSTNESS / "inputs").glob("*/*")).difference(further)
    gone |= {path for path in inputs if path.stem not in suites or path.parent.name not in cases}
    gone |= {path for path in paths.SANITY.glob("*") if path.stem not in suites}
    for stage in params.EXPERIMENTS:
        found = (paths.ROBUSTNESS / stage).glob("*")
        gone |= {path for path in found if path.stem not in getattr(loaded.robustness, stage)}
    for path in gone:
        path.unlink()


def announce(loaded, pending, jobs):
    if not pending:
        print(f"Profile {loaded.profile}: everything is up to date.")
        return
    counts = Counter(map(launch.kind, pending))
    todo = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
    networks = f"{len(loaded.suites)} suites × {len(loaded.cases)} cases"
    print(f"Profile {loaded.profile} ({networks}, {loaded.maps.source} maps)")
    print(f"To run: {todo}")
    pixels, highest = loaded.maps.pixels, cmd.corner(loaded.maps.pixels)
    idle = [case for case, cut in cases.single(loaded.cases, "kmax").items() if cut.threshold > highest]
    if idle:
        print(f"Nothing is cut by {', '.join(idle)}: maps of {pixels}² pixels have no k above {highest:.1f} h/Mpc")
    seconds = launch.in_all({stage: launch.seconds_of(loaded, stage) for stage in pending}, jobs)
    processes = f"{jobs} process{'es' if jobs > 1 else ''}"
    print(f"Roughly {max(1, round(seconds / 60))} min with {processes} of {loaded.threads} thread(s)", flush=True)


def summary(key, loaded):
    if key == "universe":
        return f"  {key}: power spectra and pixel statistics are in {paths.UNIVERSE}"
    if "@" in key or key == "maps":
        return f"  {key}: done"
    suite = launch.suite_of(key, loaded)
    try:
        r2 = store.read_json(paths.metrics(suite, key.removeprefix(f"{suite}-")))["metrics"]["r2"]
    except FileNotFoundError:  # what another machine wrote comes late over NFS
        return f"  {key}: done"
    return f"  {key}: R² {r2['omega_m'][0]:.3f} (omega_m), {r2['sigma_8'][0]:.3f} (sigma_8)"


def report(loaded, pending, seconds):
    if pending:
        print(f"Done in {seconds / 60:.1f} min.")
    numbers = store.read_macros(paths.NUMBERS)  # none of a pipeline that was cut short
    for line in headline(numbers, loaded.suites[0]) if numbers else ():
        print(f"  {line}")
    figures = len(list(paths.FIGURES.rglob("*.pdf")))
    print(f"  page     {paths.PAGE} (everything on one page, for a browser)")
    print(f"  PDF      {paths.PDF}")
    print(f"  tables   {paths.TABLES}/ (r2.csv, r2.md, r2.tex; costs.csv says which cuts cost something)")
    print(f"  figures  {paths.FIGURES}/ ({figures} as PDF and PNG)")
    if loaded.maps.source == "twin":
        print(f"  {provenance.TWIN}")
    tested = len(split.by_simulation(loaded.maps.simulations, fractions=loaded.split.fractions)["test"])
    if tested < FEW:
        print(f"  Tested on {tested} of {loaded.maps.simulations} simulations: these numbers mean nothing.")


def headline(numbers, suite):
    """The three numbers that matter, each for omega_m and sigma_8, as lines; ``numbers`` are the paper's macros."""

    def pair(name, unit=""):
        values = []
        for symbol in ("OmegaM", "SigmaEight"):
            value, *limits = (numbers[f"{name}{symbol}{suffix}"] for suffix in ("", "Low", "High"))
            values.append(f"{value}{unit} [{', '.join(limits)}]")
        return " and ".join(values)

    yield f"R² of omega_m and sigma_8, uncut maps of {suite}: {pair('Orig')}"
    if numbers["HasBoth"] == "1":
        yield f"what {numbers['BothCase'].replace(chr(92), '')} costs of it: {pair('BothCost')}"
    elif numbers["KTightest"] != "n/a":
        yield f"R² with nothing but k < {numbers['KTightest']} h/Mpc: {pair('Tight')}"
    area = f"{numbers['UnderdenseArea']}% of the area"
    yield f"share of the attribution in pixels below the mean density, {area}: {pair('UnderdenseShare', '%')}"


if __name__ == "__main__":
    main()
