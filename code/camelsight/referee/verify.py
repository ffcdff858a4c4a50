"""The referee's verdict, tier by tier; no stage of dvc.yaml, because it judges the pipeline from outside.

  T0  are the files of the run those that it made, and do they agree with one another; tables, figures and PDF are made
      anew; what results exist is compared with what is published, and with the reference of the profile
  T1  the given weights are evaluated anew, and a sample of the attributions
  T2  one case is trained anew        T3  everything is made anew

What is judged is data. An archive, or the folder of somebody else, is judged by the code, the maps, the published
values and the reference of this checkout, in a new folder; whatever is run once more begins in an empty one.

Writes results/verdict.json, results/ro-crate-metadata.json and report/index.html; of an archive, all three into a
folder below report/. Exit codes: 0 nothing failed, 1 a row failed or the command was wrong, 2 nothing to judge.
"""

import argparse
import base64
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import torch
import yaml
from tabulate import tabulate

from camelsight.analysis import networks
from camelsight.ground import theta
from camelsight.pipeline import cli, environment, launch, paths, rerun, source, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import content, crate, evidence, page, reference, verification
from camelsight.referee import pack as archive
from camelsight.referee.evidence import PIXELS
from camelsight.referee.verification import FAIL, NOT_AVAILABLE, NOT_RUN, PASS, WARN, row
from camelsight.report import provenance

AGAIN = {1: ("cut", "evaluate"), 2: ("cut", "tune", "train", "evaluate")}  # stages that a tier runs for a case
GROUPS = {1: "evaluated anew", 2: "trained anew", 3: "made anew"}
TIERS = {
    0: "files, numbers and environment",
    1: "the given weights, evaluated anew",
    2: "one case, trained anew",
    3: "everything, from the maps to the PDF",
}
SAME_MAPS, OTHER_MAPS = 1e-4, 1e-3  # of 1 - R² by the same weights, on the same maps or on maps made anew
ATTRIBUTED = 0.01  # of attributions and their statistics, where another processor rounds differently
RECORDED = 1e-6  # of everything else that is made anew from the same bits
JUDGES = ("benchmarks", "code", "data", "profiles")  # of this checkout, and of no archive
SHORT = {"TNG": "IllustrisTNG", "Nbody": "Nbody_IllustrisTNG", "Nbody_TNG": "Nbody_IllustrisTNG"}  # of the literature
SHOWN = 12  # rows of the terminal; the page has all
DECIDES = ("seed", "maps", "split", "tune", "train")  # blocks of params.yaml that R² depends on, with evaluate.views


def verify(tier, pack=None, suite=None, case="original", as_json=False):
    """Judge this run, or the archive or folder ``pack``, up to ``tier``, and write down what came out."""
    start = time.monotonic()
    home = _home()
    if pack is None and Path.cwd() != home:
        pack = Path.cwd()
    if pack and tier == max(TIERS):
        raise ValueError(f"expected TIER of at most {tier - 1} with PACK, got {tier}, which needs no archive")
    report = _report(pack, home)
    for path in report.values():  # an old verdict must not outlive what it was on
        path.unlink(missing_ok=True)
    with _judged(pack, home) as rows:
        verdict = judge(tier, suite, case, elsewhere=bool(pack), rows=rows)
        crate, page = _crate(parameters_file.load(), verdict), _page(verdict)
    store.write_json(report["verdict"], verdict)
    store.write_json(report["crate"], crate)
    store.write_text(report["page"], page)
    if as_json:
        cli.print_json(verdict)
    else:
        _print(verdict)
    said = f"{report['page'].resolve()}, {report['verdict'].resolve()}"
    print(f"{time.monotonic() - start:.0f} s; {said}", file=sys.stderr)
    sys.exit(verdict["conclusion"]["exit_code"])


def _home():
    """The checkout that judges: this folder where its code is what runs, as in a container, else that of the code."""
    same = Path("code/camelsight").resolve() == paths.PACKAGE.resolve()
    return Path.cwd() if same else environment.ROOT


def _report(pack, home):
    """Where the verdict goes: beside the results of this run, or into a folder of its own."""
    if pack is None:
        return {"verdict": paths.VERDICT, "crate": paths.CRATE, "page": paths.PAGE}
    name = re.sub(r"[^\w.-]", "_", Path(pack).resolve().name) or "run"
    folder = home / paths.PAGE.parent / f"of-{name}"
    return {"verdict": folder / paths.VERDICT.name, "crate": folder / paths.CRATE.name, "page": folder / "index.html"}


@contextlib.contextmanager
def _judged(pack, home):
    """Work where the judged run is: here, or in a new folder with the data of ``pack`` and what judges from here.

    Yields rows on what the run brought with it of what judges.
    """
    if pack is None:
        yield []
        return
    pack, again = Path(pack).resolve(), home / paths.AGAIN
    again.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=again, prefix="pack-") as folder:
        archive.read(pack, folder)
        rows = []
        for name in (paths.DVC, paths.REQUIREMENTS):
            given = Path(folder, name)
            same = given.exists() and given.read_bytes() == (home / name).read_bytes()
            why = f"the {name} of the run is {'that' if same else 'not that'} of this checkout, which judges"
            rows.append(row(f"pack.{name}", "integrity", PASS if same else WARN, why, tier=0))
            given.unlink(missing_ok=True)
        for name in (paths.VERDICT, paths.CRATE, paths.PAGE):  # of whoever judged it before
            Path(folder, name).unlink(missing_ok=True)
        Path(folder, paths.ROBUSTNESS_FIGURES).mkdir(parents=True, exist_ok=True)  # which may be empty
        with contextlib.chdir(home):
            judges = (
                *JUDGES,
                paths.DVC,
                paths.REQUIREMENTS,
                paths.EXPECTED,
                paths.REFERENCES,
                paths.DIGITISED,
                *paths.TEXTS,
            )
            rerun.link(folder, [name for name in judges if Path(name).exists()])
        with contextlib.chdir(folder):
            yield rows


def judge(tier=0, suite=None, case="original", elsewhere=False, rows=()):
    """The verdict as results/verdict.json has it; ``elsewhere``: the maps are not those of the run, but made anew."""
    params = parameters_file.load()
    suite = suite or params.suites[0]
    for key, value, known in (("SUITE", suite, params.suites), ("CASE", case, params.cases)):
        if value not in known:
            raise ValueError(f"expected {key} among {', '.join(known)}, got {value!r}")
    rows, timings = list(rows), {}
    for number in range(tier + 1):
        start = time.monotonic()
        here = environment.read()
        said = f"T{number}: {TIERS[number]}; roughly {_forecast(number, params)}, on {here['cpu']}, {here['hardware']}"
        print(said, file=sys.stderr)
        try:
            rows += _TIER_ROWS[number](params, suite, case, elsewhere)
        except (ValueError, OSError) as error:
            if number == 0:
                raise
            rows.append(row(f"tier.{number}", GROUPS[number], FAIL, store.one_line(error), tier=number))
        timings[f"T{number}"] = round(time.monotonic() - start, 1)
    done = [one["tier"] for one in rows if one["group"] in GROUPS.values() and one["verdict"] != NOT_RUN]
    reached = max(done, default=0)  # without maps no tier above the lowest does anything
    rows += verification.beyond(reached, any(getattr(params.robustness, stage) for stage in launch.EXPERIMENTS))
    real = params.maps.source == "camels"
    return {
        "profile": params.profile,
        "maps": params.maps.source,
        "tier": tier,
        "conclusion": verification.conclusion(
            rows, real=real, profile=params.profile, tier=reached, elsewhere=elsewhere
        ),
        "environment": environment.read(),
        "seconds": timings,
        "error_rates": _error_rates(params),
        "rows": rows,
    }


def _forecast(number, params):
    seconds, cases, jobs = params.seconds, len(params.suites) * len(params.cases), launch.default_jobs(params)
    if number == 0:
        return f"{round(10 + cases / 5 + seconds.tabulate + seconds.figures + seconds.paper)} s"
    if number < 3:
        one = launch.START_SECONDS + sum(getattr(seconds, stage) for stage in AGAIN[number])
        return _minutes(one * (cases / jobs if number == 1 else 1))
    each = sum(getattr(seconds, stage) + launch.START_SECONDS for stage in AGAIN[2])
    each = each * cases + len(params.suites) * (len(params.attribute.cases) * seconds.attribute + seconds.sanity)
    return _minutes(seconds.maps + each / jobs + seconds.universe + seconds.figures + seconds.paper)


def _minutes(seconds):
    return f"{max(1, round(seconds / 60))} min"


def _integrity(params, suite, case, elsewhere):
    expected = _expected()
    rows = evidence.integrity(params, elsewhere)
    gone = sorted(verification.required() - {one["id"] for one in expected})
    rows += [row(f"expected.{name}", "integrity", FAIL, f"{paths.EXPECTED} has no such row", tier=0) for name in gone]
    try:
        measured = evidence.measured(params)
    except Exception as error:  # what a damaged file raises depends on where it is damaged; its own row names it
        why = f"the results cannot be read: {type(error).__name__}: {store.one_line(error)}"
        rows.append(row("measured", "integrity", FAIL, why, tier=0))
        measured = {}
    rows += _published(params, expected, _whole(params, measured) | evidence.code_facts())
    return rows + _reference_rows(params, measured, 0)


def _expected():
    """The rows of expected.yaml; ValueError in one line if the file is damaged."""
    try:
        return verification.check_expected(store.parse_yaml(paths.EXPECTED.read_bytes()))
    except ValueError as error:
        raise ValueError(f"expected a list of published numbers in {paths.EXPECTED}, got: {error}") from None


def _whole(params, measured):
    """``measured`` without means over cases of which not every one is there."""
    suites = {f"consistency.Nbody_{suite}.": (suite, f"Nbody_{suite}") for suite in params.suites}
    places = {prefix: product(pair, params.cases) for prefix, pair in suites.items()}
    short = [prefix for prefix, keys in places.items() if not all(paths.predictions(*key).exists() for key in keys)]
    return {name: value for name, value in measured.items() if not name.startswith(tuple(short))}


def _reference_rows(params, measured, tier, wanted=None):
    """Rows of R², and of the pixels, beside the reference of the profile; ``wanted`` are the only ones that can be."""
    path = paths.reference(params.profile)
    name = f"reference.{params.profile}"
    if not path.exists():
        return [row(name, "reference", NOT_RUN, f"there is no {path}: make reference", tier=tier)]
    record = store.read_json(path)
    if record.get("simulator") != _simulator(params):
        why = f"{path} is of maps that another version of the simulator made: make reference"
        return [row(name, "reference", NOT_RUN, why, tier=tier)]
    other = sorted(key for key, value in _settings(params).items() if record["settings"].get(key) != value)
    if other:
        why = f"made with other {', '.join(other)} in params.yaml"
        return [row(name, "reference", NOT_RUN, f"{path} was {why}", tier=tier)]
    values = {one: by["values"] for one, by in record["r2"].items()}
    limits, got = reference.limits(values), {one: measured[one][0] for one in values if one in measured}
    got |= reference.shifts(limits, got)
    of_record, of_params = (
        {f"r2.{s}.{c}.{n}" for s in suites for c in cases for n in theta.meant(s)}
        for suites, cases in ((record["suites"], record["cases"]), (params.suites, params.cases))
    )
    rows = [
        row(one, "reference", FAIL, f"{path} has no such row: make reference", tier=tier)
        for one in sorted(of_record - values.keys())
    ] + [
        row(one, "reference", NOT_RUN, f"{path} was made without this case: make reference", tier=tier)
        for one in sorted(of_params - of_record)
        if wanted is None
    ]
    rates = f"{100 * reference.FALSE_ALARM['FAIL']:g}% over {len(limits)} rows"
    for one, limit in limits.items():
        if wanted is not None and one not in wanted:
            continue
        low, high = limit["FAIL"]
        least, most = limit["detects"]
        if one in values:
            expected, seen = limit["mean"], f"a network at {least:.3f}"
            reason = f"interval of one more of {len(record['seeds'])} seeds of the training, std {limit['std']:.4f}"
        else:
            expected, seen = 0.0, f"a shift of {most:.2f}"
            reason = f"how far more than half of {len(limit['rows'])} R² moved the same way, in standard errors"
        reason += f"; false alarm {rates}; {seen} fails with probability {reference.POWER:g}"
        facts = {
            "class": "seed-statistical", "expected": expected, "got": got.get(one), "tier": tier, "reason": reason,
            "tolerance": f"{low:.4f} to {high:.4f}", "low": low, "high": high, "source": str(path),
        }  # fmt: skip
        if one not in got:
            lost = got and one in of_params
            verdict = FAIL if lost else NOT_RUN
            why = "the reference has this row, the run has not" if lost else "this run has no such result"
        else:
            verdict = reference.judge(limit, got[one])
            low, high = limit["WARN" if verdict == PASS else verdict]
            why = f"{'within' if verdict == PASS else 'beyond'} the spread of seeds, {low:.4f} to {high:.4f}"
        rows.append(row(one, "reference", verdict, why, **facts))
    for one, value in record["pixels"].items() if wanted is None else ():
        got_value, tolerance = measured.get(one), PIXELS[one.rpartition(".")[2]]
        facts = {
            "class": "float",
            "expected": value,
            "got": got_value,
            "tolerance": f"{100 * tolerance:g}%",
            "tier": tier,
        }
        facts |= {"reason": "the same seeds; another machine rounds differently", "source": str(path)}
        if got_value is None:
            rows.append(row(one, "reference", NOT_RUN, "no result: make paper", **facts))
            continue
        good = abs(got_value / value - 1) <= tolerance
        why = "the same maps but for rounding" if good else f"expected {value:.6g}, got {got_value:.6g}: other maps"
        rows.append(row(one, "reference", PASS if good else FAIL, why, **facts))
    return rows


def _simulator(params):
    """The identity of the code that made the maps, where they are simulated."""
    return source.digest("maps")[:16] if params.maps.source == "twin" else None


def _settings(params):
    """Digests of what a reference holds for, which is everything that R² depends on but the seed of the training."""
    blocks = {name: getattr(params, name) for name in DECIDES} | {"evaluate": params.evaluate.views}
    blocks["train"] = dataclasses.replace(params.train, seed=0)
    return {name: store.digest(value)[:16] for name, value in blocks.items()}


def _error_rates(params):
    path = paths.reference(params.profile)
    record = store.read_json(path) if path.exists() else None
    if record is None or (record["settings"], record.get("simulator")) != (_settings(params), _simulator(params)):
        return None
    return reference.error_rates({name: one["values"] for name, one in record["r2"].items()})


def _again(folder, number, params, queue, links):
    """Run the stages of a tier in the empty ``folder`` for ``queue`` of (suite, case, more stages); what is missing."""
    missing = [str(path) for path in links if not Path(path).exists()]
    missing += [str(paths.maps(suite)) for suite, *_ in queue if not paths.maps(suite).exists()]
    if missing or not queue:
        return f"{missing[0] if missing else 'weights'} is not there: make paper, or make maps with a PACK"
    rerun.prepare(folder, params, links)
    chains = [(folder, AGAIN[number] + more, suite, case) for suite, case, more in queue]
    rerun.everywhere(chains, launch.default_jobs(params), TIERS[number])
    return None


def _evaluate_again(params, _, case, elsewhere):
    evaluated = evidence.combinations(params)
    queue = [key for key in evaluated if paths.weights(*key).exists()]
    asked = [key for key in queue if key[1] in params.attribute.cases]
    sample = [key for key in asked if key[1] == case]
    runs = [path(*key) for key in queue for path in (paths.weights, paths.tuning, paths.history)]
    rows = [
        row(f"weights.{suite}.{case}", GROUPS[1], NOT_RUN, f"{paths.weights(suite, case)} is not there", tier=1)
        for suite, case in evaluated
        if (suite, case) not in queue
    ]
    with rerun.empty() as folder:
        chains = [(*key, ("attribute",) if key in sample else ()) for key in queue]
        if missing := _again(folder, 1, params, chains, [paths.MAPS, *runs]):
            return [*rows, row("evaluate", GROUPS[1], NOT_RUN, missing, tier=1)]
        for key in queue:
            again, given = (store.read_json(place / paths.metrics(*key)) for place in (folder, Path()))
            same = again["maps"] == given["maps"]
            rows += _evaluated_again(again, given, *key, same)
            files = (paths.cut(*key), paths.cut_samples(*key), paths.predictions(*key))
            rounding = SAME_MAPS if same else ATTRIBUTED
            rows += [_recorded_again(folder, path, 1, rounding, ("digest", "digests")) for path in files]
        for key in asked:
            names = (paths.attribution_statistics(*key), paths.attributions(*key))
            if key in sample:
                rows += [_recorded_again(folder, path, 1, ATTRIBUTED) for path in names]
                continue
            why = f"not in the sample of this tier; CASE={key[1]} takes it"
            rows += [row(_name(path), GROUPS[1], NOT_RUN, why, tier=1) for path in names]
    return rows


def _name(path):
    return f"file.{path.relative_to(paths.VERDICT.parent)}"


def _recorded_again(folder, path, tier, rounding, apart=()):
    """A row on a file of results that was made once more in ``folder``, but for the entries ``apart`` of a record."""
    if not path.exists():
        return row(_name(path), GROUPS[tier], NOT_RUN, f"{path} is not there", tier=tier)
    if path.suffix == ".npz":
        wrong = content.named_arrays(store.read_arrays(folder / path), store.read_arrays(path), rounding)
    else:
        made, given = (store.read_json(place / path) for place in (folder, Path()))
        for one in (made, given):
            one.update(dict.fromkeys(apart))
        wrong = content.values(made, given, rounding)
    return row(
        _name(path), GROUPS[tier], FAIL if wrong else PASS, wrong or "made anew, it is the same but for rounding",
        tolerance=rounding, tier=tier, **{"class": "float"},
    )  # fmt: skip


def _evaluated_again(again, given, suite, case, same):
    """Rows on the measures of one network, ``given`` and made once more, on the ``same`` maps or not."""
    tolerance = SAME_MAPS if same else OTHER_MAPS
    maps = "on the same maps" if same else "on maps made anew, which differ in rounding"
    rows = []
    for name in theta.meant(suite):
        ours, theirs = (
            {metric: one["metrics"][metric].get(name) for metric in one["metrics"]} for one in (again, given)
        )
        wrong = evidence.differences(theirs, ours, rounding=tolerance, rows=given["n_maps"])
        if again["weights"] != given["weights"]:
            wrong.append("the weights are others")
        r2 = ours["r2"][0], theirs["r2"][0]
        why = f"the given weights, {maps}: {r2[0]:.6f}, the results have {r2[1]:.6f}"
        why = "; ".join([why, *(wrong[:3] or [f"{len(ours)} measures and their intervals agree"])])
        rows.append(
            row(
                f"r2.{suite}.{case}.{name}", GROUPS[1], FAIL if wrong else PASS, why,
                **{"class": "float"}, expected=r2[1], got=r2[0], tolerance=tolerance, tier=1,
                reason="the same weights; another processor rounds differently",
            )
        )  # fmt: skip
    return rows


def _train_again(params, suite, case, *_):
    with rerun.empty() as folder:
        if missing := _again(folder, 2, params, [(suite, case, ())], [paths.MAPS]):
            return [row("train", GROUPS[2], NOT_RUN, missing, tier=2)]
        record = store.read_json(folder / paths.metrics(suite, case))
        rows = _bits(params, folder, [(suite, case)], 2)
        measured = {f"r2.{suite}.{case}.{name}": tuple(record["metrics"]["r2"][name]) for name in theta.meant(suite)}
        rows += _regroup(_reference_rows(params, measured, 2, wanted=measured), GROUPS[2])
        if params.maps.source == "camels":
            with contextlib.chdir(folder):
                measured = evidence.measured(params)
            expected = [one for one in _expected() if one["profile"] != verification.ANY and one["id"] in measured]
            expected = [one for one in expected if f".{suite}.{case}." in one["id"] and one["value"] != NOT_AVAILABLE]
            rows += _regroup(_published(params, expected, measured), GROUPS[2], tier=2)
    return rows


def _bits(params, folder, combinations, tier):
    """Rows on whether networks trained in ``folder`` are those of this run, bit for bit."""
    rows = []
    for suite, case in combinations:
        got = evidence.weights_digest(folder / paths.weights(suite, case))
        given = evidence.weights_digest(paths.weights(suite, case)) if paths.weights(suite, case).exists() else None
        if given is None:
            verdict, why = NOT_RUN, "there are no weights to compare with"
        elif got == given:
            verdict, why = PASS, "bit for bit those of this run"
        elif _same_place(suite, case):
            verdict, why = FAIL, "other bits than this run has, with the same commit, PyTorch and processor"
        else:
            verdict = NOT_RUN
            why = "other bits than this run has, as on another machine or PyTorch; the reference judges the R²"
        rows.append(row(f"weights.{suite}.{case}", GROUPS[tier], verdict, why, expected=given, got=got, tier=tier))
    return rows


def _same_place(suite, case):
    """Whether a network was trained where this is, with the very code, on a processor: its bits are the same then."""
    if cli.device().type != "cpu" or not all(path(suite, case).exists() for path in (paths.history, paths.record)):
        return False
    if store.read_json(paths.history(suite, case))["engine"] != networks.engine(cli.device()):
        return False
    here, then = environment.read(), store.read_json(paths.record(suite, case))
    facts = [(one["commit"], one["versions"]["torch"], one["hardware"], one["cpu"]) for one in (here, then)]
    return facts[0] == facts[1] and here["commit"] != "unknown" and not (here["dirty"] or then["dirty"])


def _regroup(rows, group, **more):
    return [one | {"group": group} | more for one in rows]


def _published(params, expected, measured):
    """``verification.published`` of this run."""
    return verification.published(expected, measured, _undecided(params))


def _undecided(params):
    """Profile of published rows → why these maps, with these settings, cannot decide them."""
    real = params.maps.source == "camels"
    settings = "settings differ: {} of params.yaml are not those of profile {}; with these"
    reasons = {}
    for name in (verification.REAL, verification.TWIN):
        if other := _differs(params, name):
            reasons[name] = settings.format(other, name)
    if real:
        reasons |= dict.fromkeys((verification.TWIN, verification.TWIN_MAPS), "the maps are the real ones; on these")
    else:
        reasons[verification.REAL] = "a twin decides nothing about the real maps; on it"
    older = reasons.get(verification.REAL)
    return reasons | ({verification.OLD: older} if older else {})


def _differs(params, profile):
    """What of params.yaml is not that of ``profile``, in words, but for the training's seed."""
    paper = parameters_file.load(paths.profile(profile))
    place = dataclasses.replace(params.maps, folder=paper.maps.folder, bases=paper.maps.bases)
    here, there = _settings(dataclasses.replace(params, maps=place)), _settings(paper)
    return ", ".join(sorted(key for key in here if here[key] != there[key]))


def _everything_again(params, *_):
    with rerun.empty() as folder:
        _make_paper(folder, params)
        given = evidence.combinations(params)
        with contextlib.chdir(folder):
            rows, measured, combinations = (
                evidence.integrity(params),
                evidence.measured(params),
                evidence.combinations(params),
            )
            rows += _reference_rows(params, measured, 3)
            rows += _published(params, _expected(), _whole(params, measured))
        rows = [one | {"tier": 3} for one in rows if one["verdict"] != NOT_RUN]
        bits = _bits(params, folder, [key for key in combinations if key in given], 3)
        return _regroup(rows, GROUPS[3]) + bits + _everything_recorded(folder, bits)


def _make_paper(folder, params):
    """``make paper`` in the empty ``folder``, with the code and the parameters of this run and with nothing it made."""
    copied = ("benchmarks", "code", "paper", "profiles", ".dvc/config", ".dvcignore")
    copied += (paths.DVC, paths.PARAMS, paths.REQUIREMENTS)
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "ms.pdf")
    for name in copied:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(name).is_dir():
            shutil.copytree(name, target, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(name, target)
    store.write_text(folder / ".dvc/config.local", "[cache]\n    dir = cache\n")  # not one that others fill
    links = {folder / ".venv": sys.prefix}
    if params.maps.source == "camels" and not params.maps.files.is_absolute():
        links[folder / params.maps.files] = params.maps.files.resolve()
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    here = environment.read()
    surroundings = os.environ | {"PYTHONPATH": str((folder / "code").resolve()), "PYTHONSAFEPATH": "1"}
    if not here["dirty"]:
        surroundings["CAMELSIGHT_COMMIT"] = here["commit"]
    command = [sys.executable, "-m", "camelsight", "paper"]
    if subprocess.run(command, cwd=folder, env=surroundings, stdout=sys.stderr, check=False).returncode:
        raise ValueError("make paper failed in a new folder; the reason stands above")


def _everything_recorded(folder, bits):
    """Rows on every record and array of this run that was made once more in ``folder``, from networks of equal bits."""
    made = {path.relative_to(folder) for path in (folder / paths.VERDICT.parent).rglob("*") if path.is_file()}
    rows, equal = [], {one["verdict"] for one in bits} == {PASS}
    for path in sorted(path for path in made if path.suffix in (".json", ".npz")):
        if equal or path == paths.UNIVERSE or path.is_relative_to(paths.CUTS):
            rows.append(_recorded_again(folder, path, 3, RECORDED if equal else ATTRIBUTED))
        else:
            why = "other networks than those of this run, which have other bits"
            rows.append(row(_name(path), GROUPS[3], NOT_RUN, why, tier=3))
    return rows


_TIER_ROWS = (_integrity, _evaluate_again, _train_again, _everything_again)


def _crate(params, verdict):
    files = [path for path in sorted(paths.VERDICT.parent.rglob("*")) if path.is_file() and path != paths.CRATE]
    image = store.read_json(paths.IMAGE).get("digest") if paths.IMAGE.exists() else None
    return crate.metadata(
        {path.relative_to(paths.VERDICT.parent).as_posix(): store.file_digest(path) for path in files},
        name=f"Results of profile {params.profile}",
        description=verdict["conclusion"]["text"],
        commit=verdict["environment"]["commit"],
        image=image,
        locks={str(p): store.file_digest(p) for p in (paths.REQUIREMENTS, paths.DVC_LOCK) if p.exists()},
        maps=_digests(verdict, "data."),
        weights=_digests(verdict, "weights."),
    )


def _digests(verdict, prefix):
    """Suite, or suite/case → digest, from the rows of T0."""
    rows = [one for one in verdict["rows"] if one["id"].startswith(prefix) and one["got"] and one["tier"] == 0]
    return {one["id"].removeprefix(prefix).replace(".", "/", 1): one["got"] for one in rows}


def _page(verdict):
    figures = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(paths.FIGURES.rglob("*.png"))}
    stages = yaml.safe_load(paths.DVC.read_text(encoding="utf-8"))["stages"] if paths.DVC.exists() else {}
    timings = [store.read_json(path) for path in sorted(paths.TIMINGS.glob("*.json"))]
    return page.html(verdict, figures, stages, timings, made_by=provenance.MADE_BY)


def _print(verdict):
    rows = [one for mark in (FAIL, WARN) for one in verdict["rows"] if one["verdict"] == mark]
    if rows:
        lines = [(one["verdict"], one["id"], one["why"]) for one in rows[:SHOWN]]
        print(tabulate(lines, tablefmt="plain", maxcolwidths=[None, None, 90]))
        print(f"and {len(rows) - SHOWN} more\n" if len(rows) > SHOWN else "")
    for group, counts in verdict["conclusion"]["counts"].items():
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        print(f"  {group:<17} {said}")
    print(f"{verdict['conclusion']['verdict']}: {verdict['conclusion']['text']}.")
    if verdict["conclusion"]["trust"]:
        print(f"{verdict['conclusion']['trust']}.")


def make_reference(seeds, jobs=None):
    """Train every case with ``seeds`` seeds of the training, on the same maps; write the profile's reference."""
    if seeds < reference.MIN_SEEDS:
        raise ValueError(f"expected SEEDS of at least {reference.MIN_SEEDS}, got {seeds}: the spread needs them")
    params = parameters_file.load()
    missing = [str(paths.maps(suite)) for suite in params.suites if not paths.maps(suite).exists()]
    if missing:
        raise ValueError(f"expected {missing[0]}, got no such file: run make maps first")
    if not paths.UNIVERSE.exists():
        raise ValueError(f"expected {paths.UNIVERSE}, got no such file: run make paper first")
    jobs = jobs or launch.default_jobs(params)
    data = {suite: store.file_digest(paths.maps(suite)) for suite in params.suites}
    engine = networks.engine(cli.device())
    code = [source.digest(stage) for stage in AGAIN[2]]  # another figure must not train networks anew
    key = store.digest(_settings(params), data, code, torch.__version__, engine)[:16]
    numbers, queue = range(seeds), []  # that of a run as it comes, 0, among them: it must be known, too
    folders = {number: paths.AGAIN / f"reference-{key}" / f"seed_{number}" for number in numbers}
    combinations = [(suite, case) for suite in params.suites for case in params.cases]
    for number, folder in folders.items():
        other = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=number))
        rerun.prepare(folder, other, [paths.MAPS])
        queue += [(folder, AGAIN[2], *one) for one in combinations if not (folder / paths.metrics(*one)).exists()]
    seconds = sum(getattr(params.seconds, stage) for stage in AGAIN[2]) + launch.START_SECONDS
    here = environment.read()
    print(
        f"Profile {params.profile}: {seeds} seeds × {len(combinations)} networks, {len(queue)} to train; roughly "
        f"{_minutes(len(queue) * seconds / jobs)} with {jobs} processes, on {here['cpu']}",
        file=sys.stderr,
    )
    rerun.everywhere(queue, jobs, "reference")
    values = {}
    for suite, case in combinations:
        found = [store.read_json(folder / paths.metrics(suite, case))["metrics"]["r2"] for folder in folders.values()]
        for name in theta.meant(suite):
            values[f"r2.{suite}.{case}.{name}"] = [one[name][0] for one in found]
    limits = reference.limits(values)
    statistics = store.read_json(paths.UNIVERSE)["statistics"]
    record = {
        "profile": params.profile,
        "what": "R² of networks that differ in train.seed alone, on the same maps: initial weights, order, symmetries "
        "and dropout of tuning and training; the candidates of the search are the same",
        "seeds": list(numbers),
        "suites": params.suites,
        "cases": params.cases,
        "environment": here,
        "engine": engine,
        "maps": data,
        "simulator": _simulator(params),
        "settings": _settings(params),
        "pixels": {
            f"pixels.{suite}.original.{name}": statistics[suite][name] for suite in params.suites for name in PIXELS
        },
        "r2": {name: {**_shown(limits[name]), "values": values.get(name)} for name in values},
        "shifts": {name: _shown(one) for name, one in limits.items() if name not in values},
    }
    store.write_json(paths.reference(params.profile), record)
    print(f"wrote {paths.reference(params.profile)}; {folders[0].parent} can go", file=sys.stderr)


def _shown(limit):
    shown = {"fails_outside": limit["FAIL"], "warns_outside": limit["WARN"], "detects": limit["detects"]}
    shown = {name: [round(value, 5) for value in pair] for name, pair in shown.items()}
    return {name: round(limit[name], 5) for name in ("mean", "std") if name in limit} | shown


def explain(name, as_json=False):
    """Follow one number from the PDF through results, stages, parameters, inputs and digests to its verdict."""
    params = parameters_file.load()
    quoted = evidence.quoted(params)
    name = next((one for one, macro in quoted.items() if macro == name.lstrip("\\")), name)
    metric, suite, case, parameter = _parts(name)
    suite = SHORT.get(suite, suite)
    name, place = f"{metric}.{suite}.{case}.{parameter}", (suite, case, parameter)
    chain = {"id": name}
    if macro := quoted.get(name):
        value = evidence.macros().get(macro)
        chain["paper"] = {"macro": f"\\{macro}", "value": value, "defined in": str(paths.NUMBERS)}
        chain["paper"] |= {f"lines of {path}": lines for path in paths.TEXTS if (lines := _quoted_at(macro, path))}
    table = [one for one in evidence.table() if (one["suite"], one["case"], one["parameter"]) == place]
    if table:
        chain["table"] = {"file": str(paths.TABLES / "r2.csv"), **table[0]}
    if suite in params.suites and case in params.cases and paths.metrics(suite, case).exists():
        chain["result"] = evidence.read(lambda path: _result(path, metric, parameter), paths.metrics(suite, case))
        if paths.record(suite, case).exists():
            chain["trained with"] = evidence.read(store.read_json, paths.record(suite, case))
    stages = ["maps", *(f"{stage}@{suite}-{case}" for stage in AGAIN[2]), "tabulate", "paper"]
    chain["stages"] = evidence.read(lambda path: _locked(path, stages), paths.DVC_LOCK) or {}
    ids = (name, f"r2_table.{suite}.{case}.{parameter}")
    chain["published"] = [one for one in _expected() if one["id"] in ids]
    ids += (f"weights.{suite}.{case}", f"data.{suite}", f"stage.evaluate@{suite}-{case}")
    chain["verdict"] = evidence.read(lambda path: _judgements(path, ids), paths.VERDICT) or []
    if not any(chain.get(key) for key in ("table", "result", "published")) and all(
        one["id"] != name for one in chain["verdict"]
    ):
        raise ValueError(f"expected an id such as r2.TNG.original.omega_m, or a macro of {paths.NUMBERS}, got {name!r}")
    if as_json:
        cli.print_json(chain)
        return
    for step, found in chain.items():
        text = yaml.safe_dump({step: found}, sort_keys=False, allow_unicode=True, width=110)
        print(text.rstrip())
    if not chain["verdict"]:
        print(f"there is no {paths.VERDICT}: make verify")


def _quoted_at(macro, path):
    """The lines of a LaTeX file that use a macro."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if re.search(rf"\\{macro}(?![A-Za-z])", line)]


def _result(path, metric, parameter):
    """What the stage evaluate wrote of a number."""
    record = store.read_json(path)
    values = {"file": str(path), "value, low, high": record["metrics"].get(metric, {}).get(parameter)}
    return values | {key: record[key] for key in ("weights", "maps", "versions")}


def _judgements(path, ids):
    """The rows of a verdict with these ``ids``, in short."""
    shown = ("id", "group", "verdict", "why", "expected", "got")
    return [{key: one[key] for key in shown} for one in store.read_json(path)["rows"] if one["id"] in ids]


def _locked(path, stages):
    """What dvc.lock has of those of ``stages`` that it knows."""
    lock = evidence.locked(path)
    return {stage: _locked_stage(lock[stage]) for stage in stages if stage in lock}


def _locked_stage(entry):
    """What dvc.lock has of a stage, its code as one digest."""
    deps = entry.get("deps", [])
    code = [one for one in deps if one["path"].startswith(str(paths.CODE))]
    return {
        "command": entry["cmd"],
        "params": entry.get("params", {}).get(str(paths.PARAMS), {}),
        "inputs": {one["path"]: one["md5"] for one in deps if one not in code},
        "code": store.digest([one["md5"] for one in code])[:16],
        "outputs": {one["path"]: one.get("md5") for one in entry.get("outs", [])},
    }


def _parts(name):
    if name.count(".") < 3:
        raise ValueError(f"expected an id such as r2.TNG.original.omega_m, or a macro of {paths.NUMBERS}, got {name!r}")
    return reference.split(name)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m camelsight.referee.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tier", type=int, default=0, choices=sorted(TIERS))
    parser.add_argument("--pack", help="an archive of make pack, or the folder of a run, judged instead of this one")
    parser.add_argument("--suite", help="of T2; default: the first of params.yaml")
    parser.add_argument("--case", default="original", help="of T2, and of the attributions of T1")
    parser.add_argument("--explain", metavar="ID", help="follow a number such as r2.TNG.original.omega_m, or a macro")
    parser.add_argument(
        "--reference", type=int, metavar="SEEDS", help="make profiles/reference/PROFILE.json; resumable"
    )
    parser.add_argument("--jobs", type=int, help="processes of --reference")
    parser.add_argument("--json", action="store_true", help="on standard output, for a program")
    arguments = parser.parse_args()
    if arguments.reference is not None:
        action = lambda: make_reference(arguments.reference, arguments.jobs)  # noqa: E731
    elif arguments.explain:
        action = lambda: explain(arguments.explain, arguments.json)  # noqa: E731
    else:
        action = lambda: verify(arguments.tier, arguments.pack, arguments.suite, arguments.case, arguments.json)  # noqa: E731
    cli.guard(action, prefix="verify")


if __name__ == "__main__":
    main()
