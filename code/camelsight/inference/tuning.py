"""Hyperparameter search with Optuna's TPE, in the ranges of a profile."""

import optuna
from optuna.trial import TrialState

from camelsight import seeding
from camelsight.inference import training

STARTUP_TRIALS = 10  # random trials before TPE models the rest, as published
LOG_SCALE = ("max_lr", "weight_decay")


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
