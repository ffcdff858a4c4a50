"""Stages of a run made once more, and compared: the tiers above 0, and the reference."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import torch

from camelsight.analysis import networks
from camelsight.ground import theta
from camelsight.pipeline import cli, environment, launch, paths, references, rerun, source, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import comparison, content, evidence, files, quantities, reference, verification
from camelsight.referee.quantities import PIXELS
from camelsight.referee.verification import FAIL, NOT_AVAILABLE, NOT_RUN, PASS, row

AGAIN = {1: ("cut", "evaluate"), 2: ("cut", "choose", "train", "evaluate")}  # stages that a tier runs for a case
SEARCH = ("cut", "tune")  # what T2 runs before, for the case whose search settles the hyperparameters
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
START_SECONDS = 3  # of a process with torch


def forecast(number, params):
    seconds, cases, jobs = params.seconds, len(params.suites) * len(params.cases), launch.default_jobs(params)
    if number == 0:
        return f"{round(10 + cases / 5 + seconds.tabulate + seconds.figures + seconds.paper)} s"
    if number < 3:
        one = START_SECONDS + sum(getattr(seconds, stage) for stage in AGAIN[number])
        one += seconds.tune * (number == 2)
        return _minutes(one * (cases / jobs if number == 1 else 1))
    stages = [stage for stage in launch.stages(params) if stage != "code"]
    return _minutes(launch.in_all({stage: launch.seconds_of(params, stage) for stage in stages}, jobs))


def _minutes(seconds):
    return f"{max(1, round(seconds / 60))} min"


def _again(folder, number, params, queue, links):
    """Run the stages of a tier in the empty ``folder`` for ``queue`` of (suite, case, more stages); what is missing."""
    missing = [str(path) for path in links if not Path(path).exists()]
    missing += files.lost_maps(params, [suite for suite, *_ in queue])
    if missing or not queue:
        lost = missing[0] if missing else "runs"
        return f"{lost} is not there: {files.how_to_get(lost)}"
    rerun.prepare(folder, params, links)
    chains = [(folder, AGAIN[number] + more, suite, case) for suite, case, more in queue]
    if number == 2:
        rerun.everywhere(_searches(params, chains), launch.default_jobs(params), "searches")
    rerun.everywhere(chains, launch.default_jobs(params), TIERS[number])
    return None


def _searches(params, chains):
    """What is to run before ``chains`` can choose their hyperparameters, but for what is there."""
    wanted = {(folder, suite, params.tune.search_of(case)) for folder, _, suite, case in chains}
    wanted = sorted(one for one in wanted if one[2] and not (one[0] / paths.trials(*one[1:])).exists())
    return [(folder, SEARCH, suite, case) for folder, suite, case in wanted]


def evaluate_again(params, _, case, elsewhere):
    evaluated, rows = quantities.combinations(params), []
    for key in evaluated:
        if not (given := paths.weights(*key)).exists():
            rows.append(row(f"weights.{'.'.join(key)}", GROUPS[1], NOT_RUN, f"{given} is not there", tier=1))
    queue = [key for key in evaluated if paths.weights(*key).exists()]
    asked = [key for key in queue if key[1] in params.attribute.cases]
    sample = [key for key in asked if key[1] == case]
    runs = [path(*key) for key in queue for path in (paths.weights, paths.hyperparameters, paths.history)]
    runs += [paths.repeated_weights(*key, seed) for key in sample for seed in params.repeats]
    with rerun.empty() as folder:
        chains = [(*key, ("attribute",) if key in sample else ()) for key in queue]
        if missing := _again(folder, 1, params, chains, [paths.MAPS, *runs]):
            return [*rows, row("evaluate", GROUPS[1], NOT_RUN, missing, tier=1)]
        for key in queue:
            again, given = (store.read_json(place / paths.metrics(*key)) for place in (folder, Path()))
            same = again["maps"] == given["maps"]
            rows += _evaluated_again(again, given, *key, same)
            made = (paths.cut(*key), paths.cut_samples(*key), paths.predictions(*key))
            rounding = SAME_MAPS if same else ATTRIBUTED
            rows += [_recorded_again(folder, path, 1, rounding, ("digest", "digests")) for path in made]
        for key in asked:
            names = (paths.attribution_statistics(*key), paths.attributions(*key))
            if key in sample:
                rows += [_recorded_again(folder, path, 1, ATTRIBUTED) for path in names]
                continue
            why = f"not in the sample of this tier; CASE={key[1]} takes it"
            rows += [row(files.name_of(path), GROUPS[1], NOT_RUN, why, tier=1) for path in names]
    return rows


def _recorded_again(folder, path, tier, rounding, apart=()):
    """A row on a file of results that was made once more in ``folder``, but for the entries ``apart`` of a record."""
    if not path.exists():
        return row(files.name_of(path), GROUPS[tier], NOT_RUN, f"{path} is not there", tier=tier)
    if path.suffix == ".npz":
        wrong = content.named_arrays(store.read_arrays(folder / path), store.read_arrays(path), rounding)
    else:
        made, given = (store.read_json(place / path) for place in (folder, Path()))
        for name in apart:
            made[name] = given[name] = None
        wrong = content.values(made, given, rounding)
    verdict, why = (FAIL, wrong) if wrong else (PASS, "made anew, it is the same but for rounding")
    about = {"tier": tier, "tolerance": rounding, "class": "float"}
    return row(files.name_of(path), GROUPS[tier], verdict, why, **about)


def _evaluated_again(again, given, suite, case, same):
    """Rows on the measures of one network, ``given`` and made once more, on the ``same`` maps or not."""
    tolerance = SAME_MAPS if same else OTHER_MAPS
    maps = "on the same maps" if same else "on maps made anew, which differ in rounding"
    rows = []
    for name in theta.meant(suite):
        measures = ({metric: by.get(name) for metric, by in one["metrics"].items()} for one in (again, given))
        ours, theirs = measures
        wrong = evidence.differences(theirs, ours, rounding=tolerance, rows=given["n_maps"])
        if again["weights"] != given["weights"]:
            wrong.append("the weights are others")
        r2 = ours["r2"][0], theirs["r2"][0]
        why = f"the given weights, {maps}: {r2[0]:.6f}, the results have {r2[1]:.6f}"
        why = "; ".join([why, *(wrong[:3] or [f"{len(ours)} measures and their intervals agree"])])
        facts = {"class": "float", "expected": r2[1], "got": r2[0], "tolerance": tolerance, "tier": 1}
        facts["reason"] = "the same weights; another processor rounds differently"
        rows.append(row(f"r2.{suite}.{case}.{name}", GROUPS[1], FAIL if wrong else PASS, why, **facts))
    return rows


def train_again(params, suite, case, *_):
    with rerun.empty() as folder:
        if missing := _again(folder, 2, params, [(suite, case, ())], [paths.MAPS]):
            return [row("train", GROUPS[2], NOT_RUN, missing, tier=2)]
        record = store.read_json(folder / paths.metrics(suite, case))
        rows = _bits(folder, [(suite, case)], 2)
        measured = {f"r2.{suite}.{case}.{name}": tuple(record["metrics"]["r2"][name]) for name in theta.meant(suite)}
        rows += _regroup(comparison.beside_reference(params, measured, 2, wanted=measured), GROUPS[2])
        if params.maps.source == "camels":
            with contextlib.chdir(folder):
                measured = quantities.measured(params)
            expected = [one for one in comparison.statements() if one["id"] in measured]
            expected = [one for one in expected if one["profile"] != verification.ANY and one["value"] != NOT_AVAILABLE]
            expected = [one for one in expected if f".{suite}.{case}." in one["id"]]
            rows += _regroup(comparison.beside_paper(params, expected, measured), GROUPS[2], tier=2)
    return rows


def _bits(folder, combinations, tier):
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


def everything_again(params, *_):
    with rerun.empty() as folder:
        _make_paper(folder, params)
        given = quantities.combinations(params)
        with contextlib.chdir(folder):
            rows, measured = evidence.integrity(params), quantities.measured(params)
            combinations = quantities.combinations(params)
            rows += comparison.beside_reference(params, measured, 3)
            rows += comparison.beside_paper(params, comparison.statements(), comparison.whole(params, measured))
        rows = [one | {"tier": 3} for one in rows if one["verdict"] != NOT_RUN]
        bits = _bits(folder, [key for key in combinations if key in given], 3)
        return _regroup(rows, GROUPS[3]) + bits + _everything_recorded(folder, bits)


def _make_paper(folder, params):
    """``make paper`` in the empty ``folder``, with the code and the parameters of this run and with nothing it made."""
    copied = ("benchmarks", "code", "paper", "profiles", ".dvc/config", ".dvcignore")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "ms.pdf")
    for name in (*copied, paths.DVC, paths.PARAMS, paths.REQUIREMENTS):
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
            rows.append(row(files.name_of(path), GROUPS[3], NOT_RUN, why, tier=3))
    return rows


def make_reference(seeds, jobs=None):
    """Train every case with ``seeds`` seeds of the training, on the same maps; write the profile's reference."""
    if seeds < reference.MIN_SEEDS:
        raise ValueError(f"expected SEEDS of at least {reference.MIN_SEEDS}, got {seeds}: the spread needs them")
    params = parameters_file.load()
    if missing := files.lost_maps(params, params.suites):
        raise ValueError(f"expected {missing[0]}, got no such file: run make maps first")
    if not paths.UNIVERSE.exists():
        raise ValueError(f"expected {paths.UNIVERSE}, got no such file: run make paper first")
    data = {str(path): store.file_digest(path) for path in paths.all_maps(params.suites, params.fields)}
    if _renewed(params, seeds, data):
        return
    combinations = list(product(params.suites, params.cases))
    engine, here = networks.engine(cli.device()), environment.read()
    folders = _train_seeds(params, seeds, jobs or launch.default_jobs(params), combinations, data, engine, here)
    values = {}
    for suite, case in combinations:
        found = [store.read_json(folder / paths.metrics(suite, case))["metrics"]["r2"] for folder in folders]
        for name in theta.meant(suite):
            values[f"r2.{suite}.{case}.{name}"] = [one[name][0] for one in found]
    limits = reference.limits(values)
    statistics = store.read_json(paths.UNIVERSE)["statistics"]
    record = {
        "profile": params.profile,
        "what": "R² of networks that differ in train.seed alone, on the same maps: initial weights, order, symmetries "
        "and dropout of tuning and training; the candidates of the search are the same",
        "seeds": list(range(seeds)),
        "suites": params.suites,
        "cases": params.cases,
        "environment": here,
        "engine": engine,
        "maps": data,
        "simulator": references.simulator(params),
        "settings": references.settings(params),
        "pixels": {
            f"pixels.{suite}.original.{name}": statistics[suite][params.fields[0]][name]
            for suite, name in product(params.suites, PIXELS)
        },
        "r2": {name: {**_shown(limits[name]), "values": values.get(name)} for name in values},
        "shifts": {name: _shown(one) for name, one in limits.items() if name not in values},
    }
    store.write_json(paths.reference(params.profile), record)
    print(f"wrote {paths.reference(params.profile)}; {folders[0].parent} can go", file=sys.stderr)


def _train_seeds(params, seeds, jobs, combinations, data, engine, here):
    """The folders in which every network is trained and evaluated: of all seeds, first 0, that of a run as it comes."""
    code = [source.digest(stage) for stage in ("tune", *AGAIN[2])]  # another figure must not train networks anew
    key = store.digest(references.settings(params), data, code, torch.__version__, engine)[:16]
    queue, folders = [], {number: paths.AGAIN / f"reference-{key}" / f"seed_{number}" for number in range(seeds)}
    for number, folder in folders.items():
        other = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=number))
        rerun.prepare(folder, other, [paths.MAPS])
        queue += [(folder, AGAIN[2], *one) for one in combinations if not (folder / paths.metrics(*one)).exists()]
    searches = _searches(params, queue)
    seconds = len(queue) * (sum(getattr(params.seconds, stage) for stage in AGAIN[2]) + START_SECONDS)
    seconds += len(searches) * (params.seconds.tune + START_SECONDS)
    work = f"{seeds} seeds × {len(combinations)} networks, {len(queue)} to train"
    span = f"roughly {_minutes(seconds / jobs)} with {jobs} processes, on {here['cpu']}"
    print(f"Profile {params.profile}: {work}; {span}", file=sys.stderr)
    rerun.everywhere(searches, jobs, "searches")
    rerun.everywhere(queue, jobs, "reference")
    return list(folders.values())


def _renewed(params, seeds, data):
    """Whether the reference needed no new networks: the simulator is another, but its maps have the same bits."""
    path = paths.reference(params.profile)
    known = store.read_json(path) if path.exists() else {}
    asked = {"seeds": list(range(seeds)), "maps": data, "settings": references.settings(params)}
    asked |= {"suites": list(params.suites), "cases": list(params.cases)}
    simulator = references.simulator(params)
    if {name: known.get(name) for name in asked} != asked or known.get("simulator") == simulator:
        return False
    store.write_json(path, known | {"simulator": simulator})
    said = f"{path} holds for this simulator, too: its maps have the same bits"
    print(f"{said}. For new networks remove the file first", file=sys.stderr)
    return True


def _shown(limit):
    shown = {"fails_outside": limit["FAIL"], "warns_outside": limit["WARN"], "detects": limit["detects"]}
    shown = {name: [round(value, 5) for value in pair] for name, pair in shown.items()}
    return {name: round(limit[name], 5) for name in ("mean", "std") if name in limit} | shown
