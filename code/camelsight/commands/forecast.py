"""From what a rehearsal measured of a few simulations, epochs and maps to a forecast of the whole profile."""

import dataclasses

import numpy as np

from camelsight.ground import theta
from camelsight.pipeline import launch

RULES = {  # in words; the functions below are named alike, and a stage without one takes what it took
    "maps": "a simulation × simulations × universes",
    "universe": "a step × steps",
    "cut": "a simulation × simulations",
    "tune": "reading × simulations; trials × epochs, at the width in the middle of the range",
    "choose": "the same",
    "train": "reading × simulations; an epoch × simulations × epochs, linear between two widths",
    "evaluate": "× simulations",
    "attribute": "reading × simulations; a map × maps",
    "tabulate": "× networks",
    "figures": "the same",
    "sanity": "reading × simulations; a map of a network × maps × networks; trainings as train",
}
NOT_REHEARSED = "not rehearsed: the profile's own guess"


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What was measured: ``took[stage]`` is a list of records of ``rehearse_stage``, with its suite and case."""

    full: object  # params of the profile
    small: object  # params that were rehearsed
    took: dict
    workers: int  # simulations at a time

    @property
    def ratio(self):
        return self.full.maps.simulations / self.small.maps.simulations


def of_stages(rehearsal):
    """{name of DVC's stage: seconds of its own work} for the whole profile."""
    found = {}
    for target in launch.stages(rehearsal.full):
        stage, _, place = target.partition("@")
        if stage == "code":
            continue
        if stage in rehearsal.took:
            rule = globals().get(f"_{stage}")
            took = rehearsal.took[stage][0]["seconds"]
            found[target] = rule(rehearsal, *place.split("-", 1)) if rule else took
        else:
            found[target] = getattr(rehearsal.full.seconds, stage)
    return found


def in_all(forecast, jobs):
    """Seconds of the whole run, in which ``jobs`` cases run at a time."""
    return launch.in_all({target: launch.START_SECONDS + seconds for target, seconds in forecast.items()}, jobs)


def per_item(items, at_once=1):
    """Seconds of an item, of which ``at_once`` run at a time: the first lot, which a process begins with, aside."""
    if len(items) <= at_once:
        return items[-1] / len(items)
    return (items[-1] - items[at_once - 1]) / (len(items) - at_once)


def epoch(rehearsal, hidden):
    """(seconds of an epoch, seconds before the first one) of a network of this width, on the rehearsed maps."""
    known = {}
    for record in rehearsal.took["train"]:
        for training in record["trainings"]:
            first, *later = training["epochs"]
            steady = float(np.median(later)) if later else first
            known[training["hidden"]] = steady, max(0.0, first - steady)
    widths = sorted(known)
    return tuple(float(np.interp(hidden, widths, [known[width][which] for width in widths])) for which in (0, 1))


def _training(rehearsal, hidden, epochs):
    steady, before = epoch(rehearsal, hidden)
    return before + epochs * steady * rehearsal.ratio


def _rest(record):
    """Seconds of a stage beside its reading of maps and its trainings."""
    return record["seconds"] - record["reading"] - sum(sum(one["epochs"]) for one in record["trainings"])


def _maps(rehearsal, *_):
    (record,) = rehearsal.took["maps"]
    one = per_item(record["items"], rehearsal.workers)
    universes = len({theta.hydro_suite(suite) for suite in rehearsal.full.suites})
    before = max(0.0, record["seconds"] - one * len(record["items"]))
    return before + one * rehearsal.full.maps.simulations * universes


def _universe(rehearsal, *_):
    few, more = rehearsal.took["universe"]
    one = max(0.0, (more["seconds"] - few["seconds"]) / (more["steps"] - few["steps"]))
    return few["seconds"] + one * (rehearsal.full.maps.steps - few["steps"])


def _cut(rehearsal, suite, case):
    records = rehearsal.took["cut"]
    alike = [record for record in records if record["case"] == case] or records
    return max(record["seconds"] for record in alike) * rehearsal.ratio


def _tune(rehearsal, suite, case):
    spec, record = rehearsal.full.tune, rehearsal.took["tune"][0]
    trials = spec.trials * _training(rehearsal, sum(spec.hidden) / 2, spec.epochs)
    return _rest(record) + record["reading"] * rehearsal.ratio + trials


def _train(rehearsal, suite, case):
    record, spec = rehearsal.took["train"][0], rehearsal.full
    trained = _training(rehearsal, spec.tune.start_of(case).hidden, spec.train.epochs)
    return _rest(record) + record["reading"] * rehearsal.ratio + trained


def _evaluate(rehearsal, suite, case):
    return rehearsal.took["evaluate"][0]["seconds"] * rehearsal.ratio


def _attribute(rehearsal, suite, case):
    (record,) = rehearsal.took["attribute"]
    maps = rehearsal.full.attribute.maps / rehearsal.small.attribute.maps
    return record["reading"] * rehearsal.ratio + (record["seconds"] - record["reading"]) * maps


def _tabulate(rehearsal, *_):
    counts = [len(spec.suites) * len(spec.cases) for spec in (rehearsal.full, rehearsal.small)]
    return rehearsal.took["tabulate"][0]["seconds"] * counts[0] / counts[1]


def _sanity(rehearsal, suite):
    full, small, (record,) = rehearsal.full, rehearsal.small, rehearsal.took["sanity"]
    others = _others(full.sanity) if suite == full.suites[0] else []
    alone = record["total"] - len(_others(small.sanity))  # networks that are attributed and not trained
    networks = (alone + len(others)) / record["total"]
    hidden = full.tune.start_of("original").hidden
    return (
        record["reading"] * rehearsal.ratio * (1 + len(others)) / record["loads"]
        + _rest(record) * networks * full.sanity.maps / small.sanity.maps
        + sum(_training(rehearsal, hidden, epochs) for epochs in others)
    )


def _others(spec):
    """The epochs of each network that the stage sanity trains."""
    return [spec.shuffled_epochs] * bool(spec.shuffled_epochs) + [spec.seed_epochs] * spec.seeds
