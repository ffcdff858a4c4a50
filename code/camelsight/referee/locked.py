"""Whether the files of a run are those that dvc.lock has, stage by stage."""

import functools
import hashlib
import json
import re
from itertools import product
from pathlib import Path

from camelsight.pipeline import environment, launch, packages, paths, source, store
from camelsight.referee import files, quantities
from camelsight.referee.files import row
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, WARN

PACKAGE = "code/camelsight"
COMMITS = 20  # of dvc.lock, among which that of files from elsewhere is looked for


def stages(params, elsewhere):
    """Each stage's inputs and outputs beside the digests that DVC wrote down when it ran."""
    lock = files.read(read, paths.DVC_LOCK) or {}
    defined = dict(_expanded())
    counted = {Path(out) for definition in defined.values() for out in definition["outs"]}

    @functools.cache
    def known(path):
        """The digest of a path as it is now. In a folder that stages write to only their outs count (.dvcignore)."""
        place = Path(path)
        within = {out for out in counted if place in out.parents} if place.is_dir() else None
        return _md5(place, within or None)

    for name in sorted(defined.keys() - set(launch.stages(params))):
        yield row(f"stage.{name}", WARN, f"{paths.DVC} has it, this package has not")
    outs = dict.fromkeys(one["path"] for entry in lock.values() for one in entry.get("outs", []))
    lost = [path for path in map(Path, outs) if not path.exists()]
    looked = (known, lost, elsewhere)
    judged = {name: _stage(name, defined.get(name), lock.get(name), *looked) for name in launch.stages(params)}
    wrong = {path for _, _, accuses in judged.values() for path in accuses} & outs.keys()
    if wrong and not elsewhere and (commit := _commit_of({path: known(path) for path in wrong})):
        why = f"{len(wrong)} outputs are those of commit {commit[:12]}, not of this {paths.DVC_LOCK}: dvc checkout"
        yield row("dvc.lock", FAIL, why, accuses=sorted(wrong))
    for name, (verdict, why, accuses) in judged.items():
        yield row(f"stage.{name}", verdict, why, accuses=accuses)


def _commit_of(digests):
    """The latest commit, among the last ``COMMITS`` of dvc.lock, that has these digests of paths; None without one."""
    for commit in environment.git("log", "--all", f"-{COMMITS}", "--format=%H", "--", str(paths.DVC_LOCK)).split():
        text = environment.git("show", f"{commit}:{paths.DVC_LOCK}")
        try:
            stages = store.parse_yaml(text, aliases=False)["stages"].values()
            theirs = {one["path"]: one.get("md5") for entry in stages for one in entry.get("outs", [])}
        except (ValueError, TypeError, KeyError):
            continue
        if digests.items() <= theirs.items():
            return commit
    return None


def _stage(name, definition, entry, known, lost, elsewhere):
    """The verdict on one stage, why, and the files at fault.

    ``known`` gives the digest of a file, ``lost`` are outputs of any stage that are not there.
    """
    if definition is None:
        return FAIL, f"{paths.DVC} has no such stage", []
    if entry is None:
        there = next((path for path in sorted(definition["outs"]) if _holds_something(Path(path))), None)
        if there:
            return FAIL, f"{there} is there, but {paths.DVC_LOCK} has no run that made it: make paper", []
        return NOT_RUN, f"{paths.DVC_LOCK} has no run of it: make paper", []
    outs, deps = entry.get("outs", []), entry.get("deps", [])
    changed = sorted(source.stale()) if name == "code" else []
    left_out = sorted(definition["outs"] - _named(outs))
    missing = [path for path in [*(one["path"] for one in [*outs, *deps]), *left_out] if not Path(path).exists()]
    if outs and _named(outs) <= set(missing):
        return NOT_RUN, f"{missing[0]} is not there: {files.how_to_get(missing[0])}", []
    wrong, typed, gone = _others(outs, deps, missing, known, lost, elsewhere)
    changed, missing = changed + typed, missing + gone
    accuses = list(wrong)
    wrong += [f"{path}, which {paths.DVC_LOCK} leaves out" for path in left_out if path not in missing]
    for key, value in entry.get("params", {}).get(str(paths.PARAMS), {}).items():
        if _looked_up(definition["raw"], key) != value:
            wrong.append(f"{paths.PARAMS}: {key}")
    if entry["cmd"] != definition["cmd"]:
        changed.append(f"the command in {paths.DVC}")
    changed += sorted(f"{path} in {paths.DVC}" for path in definition["deps"] ^ _named(deps))
    if wrong:
        own = [] if len(accuses) < len(wrong) else accuses  # what is more than files follows from no other row
        return FAIL, f"not what {paths.DVC_LOCK} has of this stage: {', '.join(wrong[:3])}", own
    if missing:
        return NOT_RUN, f"{missing[0]} is not there: {files.how_to_get(missing[0])}", []
    if changed:
        return WARN, f"changed since: {', '.join(changed[:3])}", []
    return PASS, f"inputs and outputs are those of {paths.DVC_LOCK}", []


def _others(outs, deps, missing, known, lost, elsewhere):
    """Paths with other content than dvc.lock has: wrong ones, typed ones, which may change, and lost ones within."""
    wrong, typed, gone = [], [], []
    for one in [*outs, *deps]:
        path = one["path"]
        if path == PACKAGE or path in missing:  # of the code only what the stage code makes of it counts
            continue
        if elsewhere and path.startswith("data/"):  # the row of the maps says so once
            continue
        if known(path) == one.get("md5"):
            continue
        if within := [str(other) for other in lost if Path(path) in other.parents]:
            gone += within
        elif one in deps and path.startswith(("code/", "paper/", str(paths.CODE))):
            typed.append(path)
        else:
            wrong.append(path)
    return wrong, typed, gone


def _holds_something(path):
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _named(entries):
    return {one["path"] for one in entries}


def read(path):
    """The stages of a dvc.lock, without aliases, which can make gigabytes of a line, and which DVC does not write."""
    try:
        return store.parse_yaml(path.read_bytes(), aliases=False).get("stages") or {}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"expected a file as DVC writes it, got {path}: {error}") from None


def _expanded():
    """(name, {"raw": params, "cmd", "deps", "outs"}) of every stage that dvc.yaml has with the active params."""
    raw = store.parse_yaml(paths.PARAMS.read_bytes())
    for name, definition in store.parse_yaml(paths.DVC.read_bytes())["stages"].items():
        axes = {axis: _axis(raw, values) for axis, values in definition.get("matrix", {}).items()}
        for values in product(*axes.values()):
            item = {f"${{item.{axis}}}": str(value) for axis, value in zip(axes, values, strict=True)}
            made = {"raw": raw, "cmd": _replaced(definition["cmd"], item)}
            for key in ("deps", "outs"):
                named = (next(iter(one)) if isinstance(one, dict) else one for one in definition.get(key, []))
                made[key] = {_replaced(path, item) for path in named}
            yield f"{name}@{'-'.join(item.values())}" if axes else name, made


def _replaced(text, values):
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def _axis(raw, values):
    found = re.fullmatch(r"\$\{([\w.]+)\}", values) if isinstance(values, str) else None
    return (_looked_up(raw, found[1]) or []) if found else values


def _looked_up(raw, key):
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def _md5(path, counted=None):
    """As DVC has it; of a folder's files only those that are ``counted`` count, all where that is None."""
    if path.is_dir():
        found = [one for one in path.rglob("*") if one.is_file() and (counted is None or one in counted)]
        named = sorted((one.relative_to(path).as_posix(), one) for one in found)
        listed = [{"md5": _md5(one), "relpath": name} for name, one in named]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    return store.file_digest(path, "md5")


def trained_in(params):
    here = environment.read()
    if not paths.REQUIREMENTS.exists():
        yield row("environment.packages", NOT_RUN, "requirements.lock is not there")
    elif other := list(packages.wrong(paths.REQUIREMENTS)):
        yield row("environment.packages", WARN, f"not as locked: {', '.join(other[:5])}")
    else:
        yield row("environment.packages", PASS, "the packages are those of requirements.lock")
    networks = quantities.combinations(params)
    trained = [store.read_json(paths.record(*key)) for key in networks if paths.record(*key).exists()]
    if len(trained) < len(networks) or not trained:
        why = f"{len(networks) - len(trained)} of {len(networks)} networks have no record of what trained them"
        yield row("environment.training", NOT_RUN, why if networks else "nothing was trained here")
        return
    made = {(one["commit"], one["versions"]["torch"], one["cpu"]) for one in trained}
    if len(made) > 1:
        verdict, why = WARN, f"networks of {len(made)} commits, PyTorch versions or machines stand in one table"
    elif any(one["dirty"] for one in trained):
        verdict, why = WARN, f"trained with uncommitted changes on top of commit {trained[0]['commit'][:12]}"
    elif trained[0]["commit"] == "unknown":
        verdict, why = WARN, "trained outside a checkout: the commit is unknown"
    else:
        verdict, why = PASS, f"all networks: commit {trained[0]['commit'][:12]}"
    there = f"PyTorch {trained[0]['versions']['torch']} on {trained[0]['cpu']}"
    yield row("environment.training", verdict, f"{why}, {there}; here {here['versions']['torch']}, {here['cpu']}")
