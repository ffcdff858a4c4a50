"""From one number back to where it comes from."""

import re

import yaml

from camelsight.pipeline import cli, launch, paths, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import comparison, files, locked, quantities, reference

SHORT = {"TNG": "IllustrisTNG", "Nbody": "Nbody_IllustrisTNG", "Nbody_TNG": "Nbody_IllustrisTNG"}  # of the literature


def explain(name, as_json=False):
    """Follow one number from the PDF through results, stages, parameters, inputs and digests to its verdict."""
    params = parameters_file.load()
    quoted = quantities.quoted(params)
    name = next((one for one, macro in quoted.items() if macro == name.lstrip("\\")), name)
    unknown = f"expected an id such as r2.TNG.original.omega_m, or a macro of {paths.NUMBERS}, got"
    if name.count(".") < 3:
        raise ValueError(f"{unknown} {name!r}")
    metric, suite, case, parameter = reference.split(name)
    suite = SHORT.get(suite, suite)
    name, place = f"{metric}.{suite}.{case}.{parameter}", (suite, case, parameter)
    chain = {"id": name}
    if macro := quoted.get(name):
        value = store.read_macros(paths.NUMBERS).get(macro)
        chain["paper"] = {"macro": f"\\{macro}", "value": value, "defined in": str(paths.NUMBERS)}
        chain["paper"] |= {f"lines of {path}": lines for path in paths.TEXTS if (lines := _quoted_at(macro, path))}
    table = [one for one in quantities.table() if (one["suite"], one["case"], one["parameter"]) == place]
    if table:
        chain["table"] = {"file": str(paths.TABLES / "r2.csv"), **table[0]}
    if suite in params.suites and case in params.cases and paths.metrics(suite, case).exists():
        chain["result"] = files.read(lambda path: _result(path, metric, parameter), paths.metrics(suite, case))
        if paths.record(suite, case).exists():
            chain["trained with"] = files.read(store.read_json, paths.record(suite, case))
    chain["stages"] = files.read(lambda path: _stages(path, params, suite, case), paths.DVC_LOCK) or {}
    ids = (name, f"r2_table.{suite}.{case}.{parameter}")
    chain["published"] = [one for one in comparison.statements() if one["id"] in ids]
    ids += (f"weights.{suite}.{case}", f"data.{suite}", f"stage.evaluate@{suite}-{case}")
    chain["verdict"] = files.read(lambda path: _judgements(path, ids), paths.VERDICT) or []
    judged = name in {one["id"] for one in chain["verdict"]}
    if not judged and not any(chain.get(key) for key in ("table", "result", "published")):
        raise ValueError(f"{unknown} {name!r}")
    cli.show(chain, _text, as_json)


def _text(chain):
    style = {"sort_keys": False, "allow_unicode": True, "width": 110}
    lines = [yaml.safe_dump({step: found}, **style).rstrip() for step, found in chain.items()]
    return "\n".join(lines if chain["verdict"] else [*lines, f"there is no {paths.VERDICT}: make verify"])


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


def _stages(path, params, suite, case):
    """What dvc.lock has of the stages that lead to a number, from the maps on."""
    lock, searched = locked.read(path), params.tune.search_of(case)
    cut, tune, train, evaluate = (f"{stage}@{suite}-{case}" for stage in launch.CHAIN)
    tune = f"tune@{suite}-{searched}" if searched else tune
    stages = ("maps", cut, tune, "choose", train, evaluate, "tabulate", "paper")
    return {stage: _stage(lock[stage]) for stage in stages if stage in lock}


def _stage(entry):
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
