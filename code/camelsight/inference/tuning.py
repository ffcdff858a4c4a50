"""Hyperparameter search with Optuna's TPE, in the ranges of a profile; and the studies that others published."""

import math

import optuna
from optuna.trial import TrialState

from camelsight import seeding
from camelsight.inference import training

STARTUP_TRIALS = 10  # random trials before TPE models the rest, as published
LOG_SCALE = ("max_lr", "weight_decay")
RELEASED_NAMES = {"wd": "weight_decay", "dr": "dropout", "lr": "max_lr"}  # of the released code and CMD's benchmark
HYPERPARAMETERS = ("max_lr", "weight_decay", "dropout", "hidden")


def search(objective, *, trials, ranges, first, storage, seed):
    """Run what is missing of ``trials`` trials in ``storage`` and return the study.

    ``objective(hyperparameters, trial_number)`` returns a validation loss; a ``DivergenceError`` prunes the trial.
    ``ranges``: name -> (low, high), two integers or two floats. ``first``: the hyperparameters of trial 0. The sampler
    of a trial is seeded by (``seed``, trial number): a search that was cut off and goes on equals one that was not.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="search", storage=storage, load_if_exists=True)
    while (done := len(_counted(study))) < trials:
        if done == 0 and not study.get_trials(states=(TrialState.WAITING,)):
            study.enqueue_trial(first)
        study.sampler = optuna.samplers.TPESampler(
            seed=seeding.entropy(seed, "trial", done) % 2**32, n_startup_trials=STARTUP_TRIALS, constant_liar=False
        )
        study.optimize(lambda trial, number=done: _evaluate(objective, trial, number, ranges), n_trials=1)
    return study


def best(study):
    """``{"hyperparameters", "value", "trial", "complete", "trials"}`` of a study; ValueError if no trial completed."""
    counted = _counted(study)
    complete = {number: trial for number, trial in enumerate(counted) if trial.state == TrialState.COMPLETE}
    if not complete:
        raise ValueError(f"expected a completed trial, got {len(counted)} that diverged; lower tune.max_lr")
    winner = min(complete, key=lambda number: complete[number].value)
    return {
        "hyperparameters": complete[winner].params,
        "value": complete[winner].value,
        "trial": winner,
        "complete": len(complete),
        "trials": [{"number": number, "value": trial.value, **trial.params} for number, trial in complete.items()],
    }


def choose(studies, name=None):
    """The study called ``name``, or else the one with the most completed trials; of equals the one with the best value.

    ``studies`` as ``studies.read`` returns them. Returns (record, reason): the record has study, value, trial, complete
    and hyperparameters, and the reason says in a line why it was this one. ValueError if there is none to take.
    """
    found = ", ".join(_describe(study) for study in studies) or "none"
    candidates = [study for study in studies if _complete(study) and study["direction"] == "MINIMIZE"]
    if name is not None:
        candidates = [study for study in candidates if study["name"] == name]
    if not candidates:
        wanted = "a study that minimises" if name is None else f"a study {name!r} that minimises"
        raise ValueError(f"expected {wanted} one loss, with a completed trial, got {found}")
    study = min(candidates, key=lambda study: (-len(_complete(study)), _winner(study)["value"]))
    winner, complete = _winner(study), _complete(study)
    record = {
        "study": study["name"],
        "value": winner["value"],
        "trial": winner["number"],
        "complete": len(complete),
        "hyperparameters": _ours(winner["params"], study["name"]),
    }
    distinct = {(trial["value"], *sorted(trial["params"].items())) for trial in complete}
    rivals = [other for other in candidates if len(_complete(other)) == len(complete)]
    if name is not None:
        why = "taken by name"
    elif len(studies) == 1:
        why = "the only study"
    elif len(candidates) == 1:
        why = f"the only one that minimises one loss and has completed trials, of: {found}"
    else:
        why = "lowest loss among those with most" if len(rivals) > 1 else "most"
        why += f" completed trials of those that minimise one loss: {found}"
    why += f"; trials without a finite loss, left out: {len(study['trials']) - len(complete)}"
    return record, why + f"; repeated trials: {len(complete) - len(distinct)}"


def _describe(study):
    direction = "" if study["direction"] == "MINIMIZE" else f", {study['direction']}"
    return f"{study['name']} ({len(_complete(study))} completed of {len(study['trials'])}{direction})"


def _complete(study):
    return [
        trial
        for trial in study["trials"]
        if trial["state"] == "COMPLETE" and trial["value"] is not None and math.isfinite(trial["value"])
    ]


def _winner(study):
    return min(_complete(study), key=lambda trial: (trial["value"], trial["number"]))


def _ours(params, name):
    renamed = {RELEASED_NAMES.get(key, key): value for key, value in params.items()}
    if missing := [key for key in HYPERPARAMETERS if key not in renamed]:
        raise ValueError(
            f"expected {', '.join(HYPERPARAMETERS)} (or {', '.join(RELEASED_NAMES)}) in the study {name}, "
            f"got {', '.join(params) or 'nothing'}: {', '.join(missing)} missing"
        )
    return {key: renamed[key] for key in HYPERPARAMETERS} | {"hidden": int(renamed["hidden"])}


def released(study, name):
    """``study`` in memory under ``name``, its trials with the released names of the hyperparameters."""
    names = {ours: theirs for theirs, ours in RELEASED_NAMES.items() if theirs != "lr"}
    copy = optuna.create_study(study_name=name, direction="minimize")
    for trial in study.get_trials():
        if trial.state.is_finished():
            trial.params, trial.distributions = (
                {names.get(key, key): value for key, value in values.items()}
                for values in (trial.params, trial.distributions)
            )
            copy.add_trial(trial)
    return copy


def _counted(study):
    """The trials that ended by themselves; one that was interrupted does not count and is repeated."""
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _evaluate(objective, trial, number, ranges):
    hyperparameters = {}
    for name, (low, high) in ranges.items():
        if isinstance(low, int) and isinstance(high, int):
            hyperparameters[name] = trial.suggest_int(name, low, high)
        else:
            hyperparameters[name] = trial.suggest_float(name, low, high, log=name in LOG_SCALE)
    try:
        return objective(hyperparameters, number)
    except training.DivergenceError as error:
        trial.set_user_attr("reason", str(error))
        raise optuna.TrialPruned(str(error)) from error
