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
    path = paths.reference(params.profile)
    name = f"reference.{params.profile}"
    if not path.exists():
        return [row(name, "reference", NOT_RUN, f"there is no {path}: make reference", tier=tier)]
    record = store.read_json(path)
    if record.get("simulator") != references.simulator(params):
        why = f"{path} is of maps that another version of the simulator made: make reference"
        return [row(name, "reference", NOT_RUN, why, tier=tier)]
    other = sorted(key for key, value in references.settings(params).items() if record["settings"].get(key) != value)
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


def error_rates(params):
    record = references.load(params)
    return record and reference.error_rates({name: one["values"] for name, one in record["r2"].items()})


def beside_paper(params, expected, measured):
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
    here, there = references.settings(dataclasses.replace(params, maps=place)), references.settings(paper)
    return ", ".join(sorted(key for key in here if here[key] != there[key]))
