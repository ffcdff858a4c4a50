"""Hyperparameter search with Optuna's TPE, in the ranges of a profile."""

import optuna

from camelsight import seeding
from camelsight.inference import training

STARTUP_TRIALS = 10  # random trials before TPE models the rest, as published
LOG_SCALE = ("max_lr", "weight_decay")


def search(objective, *, trials, ranges, first, storage, seed, on_trial=None):
    """Run what is missing of ``trials`` trials in ``storage`` and return the study.

    ``objective(hyperparameters, trial_number)`` returns a validation loss; a ``DivergenceError`` prunes the trial.
    ``ranges``: name -> (low, high), two integers or two floats. ``first``: the hyperparameters of trial 0. The sampler
    of a trial is seeded by (``seed``, trial number): a search that was cut off and goes on equals one that was not.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="search", storage=storage, load_if_exists=True)
    if not study.trials:
        study.enqueue_trial(first)
    while (done := sum(trial.state.is_finished() for trial in study.trials)) < trials:
        study.sampler = optuna.samplers.TPESampler(
            seed=seeding.entropy(seed, "trial", done) % 2**32, n_startup_trials=STARTUP_TRIALS
        )
        study.optimize(lambda trial: _evaluate(objective, trial, ranges), n_trials=1)
        if on_trial is not None:
            on_trial(study)
    return study


def best(study):
    """``{"hyperparameters", "value", "trial", "complete", "trials"}`` of a study; ValueError if no trial completed."""
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        raise ValueError(f"expected a completed trial, got {len(study.trials)} that diverged; lower tune.max_lr")
    winner = min(complete, key=lambda trial: (trial.value, trial.number))
    return {
        "hyperparameters": winner.params,
        "value": winner.value,
        "trial": winner.number,
        "complete": len(complete),
        "trials": [{"number": trial.number, "value": trial.value, **trial.params} for trial in complete],
    }


def _evaluate(objective, trial, ranges):
    hyperparameters = {}
    for name, (low, high) in ranges.items():
        if isinstance(low, int) and isinstance(high, int):
            hyperparameters[name] = trial.suggest_int(name, low, high)
        else:
            hyperparameters[name] = trial.suggest_float(name, low, high, log=name in LOG_SCALE)
    try:
        return objective(hyperparameters, trial.number)
    except training.DivergenceError as error:
        trial.set_user_attr("reason", str(error))
        raise optuna.TrialPruned(str(error)) from error
