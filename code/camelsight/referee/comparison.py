"""The numbers of a run beside its profile's reference, and beside the published ones."""

import dataclasses
from itertools import product

from camelsight.ground import theta
from camelsight.pipeline import params as parameters_file
from camelsight.pipeline import paths, references, store
from camelsight.referee import reference, verification
from camelsight.referee.quantities import PIXELS
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, row


def statements():
    """The rows of expected.yaml; ValueError in one line if the file is damaged."""
    try:
        return verification.check_expected(store.parse_yaml(paths.EXPECTED.read_bytes()))
    except ValueError as error:
        raise ValueError(f"expected a list of published numbers in {paths.EXPECTED}, got: {error}") from None


def whole(params, measured):
    """``measured`` without means over cases of which not every one is there."""
    suites = {f"consistency.Nbody_{suite}.": (suite, f"Nbody_{suite}") for suite in params.suites}
    places = {prefix: product(pair, params.cases) for prefix, pair in suites.items()}
    short = [prefix for prefix, keys in places.items() if not all(paths.predictions(*key).exists() for key in keys)]
    return {name: value for name, value in measured.items() if not name.startswith(tuple(short))}


def beside_reference(params, measured, tier, wanted=None):
    """Rows of R², and of the pixels, beside the reference of the profile; ``wanted`` are the only ones that can be."""
    path, (record, why_not) = paths.reference(params.profile), references.read(params)
    if why_not:
        return [row(f"reference.{params.profile}", "reference", NOT_RUN, why_not, tier=tier)]
    known = {one: by["values"] for one, by in record["r2"].items()}
    of_params, of_record = _ids(params.suites, params.cases), _ids(record["suites"], record["cases"])
    limits, got = reference.limits(known), {one: measured[one][0] for one in known if one in measured}
    got |= reference.shifts(limits, got)
    absent = dict.fromkeys(sorted(of_record - known.keys()), (FAIL, f"{path} has no such row: make reference"))
    if wanted is None:
        lacking = NOT_RUN, f"{path} was made without this case: make reference"
        absent |= dict.fromkeys(sorted(of_params - of_record), lacking)
    rows = [row(one, "reference", *judged, tier=tier) for one, judged in absent.items()]
    for one, limit in limits.items():
        if wanted is None or one in wanted:
            lost = got and one in of_params
            facts = _expected(limit, len(record["seeds"]), len(limits)) | {"source": str(path), "tier": tier}
            rows.append(_judged(one, limit, got.get(one), lost, facts))
    if wanted is None:
        rows += [_pixels(one, value, measured.get(one), path, tier) for one, value in record["pixels"].items()]
    return rows


def _ids(suites, cases):
    """Those of the R² that mean something."""
    return {f"r2.{suite}.{case}.{name}" for suite, case in product(suites, cases) for name in theta.meant(suite)}


def _expected(limit, seeds, rows):
    """What a row on R², or on a shift of them, expects, and why."""
    (low, high), (least, most) = limit["FAIL"], limit["detects"]
    if "mean" in limit:
        expected, seen = limit["mean"], f"a network at {least:.3f}"
        reason = f"interval of one more of {seeds} seeds of the training, std {limit['std']:.4f}"
    else:
        expected, seen = 0.0, f"a shift of {most:.2f}"
        reason = f"how far more than half of {len(limit['rows'])} R² moved the same way, in standard errors"
    rates = f"false alarm {100 * reference.FALSE_ALARM['FAIL']:g}% over {rows} rows"
    return {
        "class": "seed-statistical", "expected": expected, "tolerance": f"{low:.4f} to {high:.4f}", "low": low,
        "high": high, "reason": f"{reason}; {rates}; {seen} fails with probability {reference.POWER:g}",
    }  # fmt: skip


def _judged(one, limit, got, lost, facts):
    """The row of what was ``got``; where that is None, whether it is ``lost`` although the run should have it."""
    if got is None:
        why = "the reference has this row, the run has not" if lost else "this run has no such result"
        return row(one, "reference", FAIL if lost else NOT_RUN, why, got=got, **facts)
    verdict = reference.judge(limit, got)
    low, high = limit["WARN" if verdict == PASS else verdict]
    why = f"{'within' if verdict == PASS else 'beyond'} the spread of seeds, {low:.4f} to {high:.4f}"
    return row(one, "reference", verdict, why, got=got, **facts)


def _pixels(one, value, got, path, tier):
    """The row of a statistic of the uncut maps."""
    tolerance = PIXELS[one.rpartition(".")[2]]
    facts = {
        "class": "float", "expected": value, "got": got, "tolerance": f"{100 * tolerance:g}%", "tier": tier,
        "reason": "the same seeds; another machine rounds differently", "source": str(path),
    }  # fmt: skip
    if got is None:
        return row(one, "reference", NOT_RUN, "no result: make paper", **facts)
    good = abs(got / value - 1) <= tolerance
    why = "the same maps but for rounding" if good else f"expected {value:.6g}, got {got:.6g}: other maps"
    return row(one, "reference", PASS if good else FAIL, why, **facts)


def error_rates(params):
    record = references.load(params)
    return record and reference.error_rates({name: one["values"] for name, one in record["r2"].items()})


def beside_paper(params, expected, measured):
    """``verification.published`` of this run."""
    return verification.published(expected, measured, _undecided(params))


def _undecided(params):
    """Profile of published rows → why these maps, with these settings, cannot decide them."""
    settings = "settings differ: {} of params.yaml are not those of profile {}; with these"
    others = {name: _differs(params, name) for name in (verification.REAL, verification.TWIN)}
    reasons = {name: settings.format(other, name) for name, other in others.items() if other}
    if params.maps.source == "camels":
        reasons |= dict.fromkeys((verification.TWIN, verification.TWIN_MAPS), "the maps are the real ones; on these")
    else:
        reasons[verification.REAL] = "a twin decides nothing about the real maps; on it"
    older = reasons.get(verification.REAL)
    return reasons | ({verification.OLD: older} if older else {})


def _differs(params, profile):
    """What of params.yaml is not that of ``profile``, in words, but for the training's seed."""
    paper = parameters_file.load(paths.profile(profile))
    place = dataclasses.replace(params.maps, folder=paper.maps.folder, bases=paper.maps.bases)
    here, there = references.settings(dataclasses.replace(params, maps=place)), references.settings(paper)
    return ", ".join(sorted(key for key in here if here[key] != there[key]))
