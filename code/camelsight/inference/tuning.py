"""Hyperparameter search with Optuna's TPE and successive halving; and the studies that others published."""

import contextlib
import math
import time

import optuna
from optuna.trial import TrialState

from camelsight.ground import seeding
from camelsight.ground.hyperparameters import NAMES as HYPERPARAMETERS
from camelsight.ground.hyperparameters import checked
from camelsight.inference import training

STARTUP_TRIALS = 10  # random trials before TPE models the rest, as published
FACTOR, HALVINGS = 4, 2  # of successive halving: a seventh of the epochs of as many full trials; benchmarks/tuning.json
POLL_SECONDS = 0.5
LOG_SCALE = ("max_lr", "weight_decay")
RELEASED_NAMES = {"wd": "weight_decay", "dr": "dropout", "lr": "max_lr"}  # of the released code and CMD's benchmark
NAMED = 20  # studies of a file in a message


def rungs(epochs):
    """The epochs at which a trial of ``epochs`` waits until it is known to be among the best: ``FACTOR`` apart."""
    return sorted({max(1, round(epochs / FACTOR**k)) for k in range(1, HALVINGS + 1)} - {epochs})


class Paused(Exception):
    """The trial has reached a rung: keep its state, for it may be called again."""


def search(objective, *, trials, ranges, first, storage, seed, rungs=(), claim=None, wait=True):
    """Run what is missing of ``trials`` trials in ``storage`` and return the study.

    ``objective(hyperparameters, number, report)`` returns a validation loss; it calls ``report(epoch, loss)`` after
    each epoch, and once more for the last one if it goes on from a saved state. A ``DivergenceError`` prunes a trial.
    ``ranges``: name -> (low, high), two integers or two floats. ``first``: the hyperparameters of trial 0, or None.

    With ``rungs``, epochs in ascending order, ``report`` raises ``Paused`` at each of them. For every FACTOR trials
    that have reached a rung, the best of those that wait there is called again and goes on from its state; one in any
    case. The others are pruned once every trial has begun and none is left to call. This is asynchronous successive
    halving (arXiv:1810.05934) with the number of calls fixed: what a search costs does not depend on its luck.

    Several processes may share a ``storage``: ``claim(name)`` is a context that says whether this process has got
    ``name``, or waits for it with ``wait=True``; one that dies has let go of it, and its trial is taken up again. What
    is done next follows from the study alone, and the draws of a trial from (``seed``, its number): one process that is
    killed anywhere and goes on gets the study of one that was not. With ``wait=False`` return as soon as there is
    nothing to take, though others are still at work.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    claim = _unclaimed if claim is None else claim
    with claim("study", wait=True):
        study = optuna.create_study(study_name="search", storage=storage, load_if_exists=True)
    while True:
        with contextlib.ExitStack() as held:
            with claim("study", wait=True):
                trial, busy = _take(study, trials, ranges, first, seed, rungs, claim, held)
                if trial is None and not busy:
                    for left in _numbered(study, trials).values():
                        if not left.state.is_finished():
                            study.tell(left.number, state=TrialState.PRUNED)
                    return study
            if trial is not None:
                _run(study, trial, objective, rungs)
        if trial is None:
            if not wait:
                return study
            time.sleep(POLL_SECONDS)


def _take(study, trials, ranges, first, seed, rungs, claim, held):
    """The trial to work on, whose claim is then in ``held``, or None; and whether others are at work."""
    numbered, claims = _numbered(study, trials), {}
    unfinished = [number for number, trial in numbered.items() if not trial.state.is_finished()]
    with contextlib.ExitStack() as tried:
        for number in unfinished:
            claims[number] = contextlib.ExitStack()
            if not claims[number].enter_context(claim(number)):
                del claims[number]
            else:
                tried.push(claims[number])
        last_call = len(numbered) == trials and len(claims) == len(unfinished)
        number = _next(numbered, set(claims), rungs, last_call)
        if number is not None:
            held.push(claims[number].pop_all())
        elif len(numbered) < trials:
            number = len(numbered)
            held.enter_context(claim(number))
            study.add_trial(_propose(numbered, number, ranges, first, seed, rungs))
    if number is None:
        return None, len(claims) < len(unfinished)
    return optuna.Trial(study, _numbered(study)[number]._trial_id), False


def _next(numbered, free, rungs, last_call):
    """The number of the unfinished trial that is to go on, among those that are ``free``, or None."""
    for number in sorted(free):
        if numbered[number].last_step not in rungs:  # its process was killed
            return number
    for rung in reversed(rungs):
        reached = {
            number: trial
            for number, trial in numbered.items()
            if rung in trial.intermediate_values and "reason" not in trial.user_attrs
        }
        waiting = {number: _loss_at(trial, rung) for number, trial in reached.items() if trial.last_step == rung}
        calls = max(len(reached) // FACTOR, int(last_call)) - (len(reached) - len(waiting))
        if calls > 0 and waiting:
            best = min(waiting, key=lambda number: (waiting[number], number))
            if best in free:
                return best
    return None


def _loss_at(trial, rung):
    """The best loss until then: that of a single epoch is noisy while the learning rate is high."""
    return min(value for epoch, value in trial.intermediate_values.items() if epoch <= rung)


def _propose(numbered, number, ranges, first, seed, rungs):
    """A new trial, drawn by TPE from those there are. It is asked of a copy, in which a trial that waits has ended."""
    distributions = {
        name: optuna.distributions.IntDistribution(low, high)
        if isinstance(low, int) and isinstance(high, int)
        else optuna.distributions.FloatDistribution(low, high, log=name in LOG_SCALE)
        for name, (low, high) in ranges.items()
    }
    hyperparameters = first if number == 0 else None
    if hyperparameters is None:
        sampler = optuna.samplers.TPESampler(
            seed=seeding.entropy(seed, "trial", number) % 2**32, n_startup_trials=STARTUP_TRIALS, constant_liar=True
        )
        copy = optuna.create_study(sampler=sampler)
        for trial in numbered.values():
            if not trial.state.is_finished() and not set(rungs).isdisjoint(trial.intermediate_values):
                trial.state, trial.datetime_complete = TrialState.PRUNED, trial.datetime_start
            copy.add_trial(trial)
        hyperparameters = copy.ask(distributions).params
    return optuna.trial.create_trial(state=TrialState.RUNNING, params=hyperparameters, distributions=distributions)


def _run(study, trial, objective, rungs):
    def reported():
        return trial.storage.get_trial(trial._trial_id).intermediate_values

    start = max(reported(), default=0)

    def report(epoch, value):
        if epoch not in reported():
            trial.report(value, epoch)
        if epoch in rungs and epoch > start:
            raise Paused

    try:
        value = objective(trial.params, trial.number, report)
    except Paused:
        pass
    except training.DivergenceError as error:
        trial.set_user_attr("reason", str(error))
        if error.epoch not in reported():
            trial.report(math.nan, error.epoch)  # which TPE takes for worse than any loss
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


@contextlib.contextmanager
def _unclaimed(name, wait=False):
    yield True


def best(study, trials=None):
    """``{"hyperparameters", "value", "trial", "complete"}`` of the first ``trials`` trials, or of all.

    ValueError if none of them completed.
    """
    found = record(study, trials)
    complete = [trial for trial in found if trial["state"] == "complete"]
    if not complete:
        diverged = sum(trial["reason"] is not None for trial in found)
        raise ValueError(
            f"expected a completed trial, got {diverged} that diverged and {len(found) - diverged} stopped early; "
            "lower tune.max_lr"
        )
    winner = min(complete, key=lambda trial: (trial["value"], trial["number"]))
    return {
        "hyperparameters": winner["hyperparameters"],
        "value": winner["value"],
        "trial": winner["number"],
        "complete": len(complete),
    }


def record(study, trials=None):
    """The first ``trials`` trials that ended, or all of them, as a list of dicts.

    number, state ("complete" or "pruned"), value (its best loss; None for a pruned one), losses (of the epochs it ran),
    reason (why it was pruned, if it diverged) and hyperparameters.
    """
    return [
        {
            "number": number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "losses": [value for _, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)],
            "reason": trial.user_attrs.get("reason"),
            "hyperparameters": trial.params,
        }
        for number, trial in _numbered(study, trials).items()
        if trial.state.is_finished()
    ]


def importances(study, trials=None):
    """name -> share of each hyperparameter in what makes the better trials better; empty for fewer than two trials.

    PED-ANOVA (arXiv:2304.10255) on the losses of the last epoch that all of the first ``trials`` trials ran, so that
    pruned ones count; those that diverged are left out.
    """
    ended = [trial for trial in _numbered(study, trials).values() if trial.state.is_finished()]
    ended = [trial for trial in ended if trial.intermediate_values and "reason" not in trial.user_attrs]
    if len(ended) < 2:
        return {}
    common = min(trial.last_step for trial in ended)
    compared = optuna.create_study()
    for trial in ended:
        value = trial.intermediate_values[common]
        compared.add_trial(
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
        )
    found = optuna.importance.get_param_importances(compared)
    return {name: found.get(name, 0.0) for name in HYPERPARAMETERS if name in ended[0].params}


def choose(studies, name=None):
    """The study called ``name``, or else the one with the most completed trials; of equals the one with the best value.

    ``studies`` as ``studies.read`` returns them. Returns (record, reason): the record has study, value, trial, complete
    and hyperparameters, and the reason says in a line why it was this one. ValueError if there is none to take.
    """
    found = ", ".join(_describe(study) for study in studies[:NAMED]) or "none"
    found += f" and {len(studies) - NAMED} more" if len(studies) > NAMED else ""
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
        "hyperparameters": _ours(winner["params"], study["name"], winner["number"]),
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


def _ours(params, name, number):
    """The hyperparameters of a trial under our own names, which may be those of others in the study."""
    where, renamed = f"study {name}, trial {number}", {}
    for key, value in params.items():
        ours = RELEASED_NAMES.get(key, key)
        if ours in renamed:
            raise ValueError(f"{where}: expected one value of {ours}, got two, of which one is called {key}")
        renamed[ours] = value
    if missing := [key for key in HYPERPARAMETERS if key not in renamed]:
        raise ValueError(
            f"expected {', '.join(HYPERPARAMETERS)} (or {', '.join(RELEASED_NAMES)}) in the study {name}, "
            f"got {', '.join(params) or 'nothing'}: {', '.join(missing)} missing"
        )
    chosen = {key: renamed[key] for key in HYPERPARAMETERS}
    if isinstance(chosen["hidden"], float) and chosen["hidden"].is_integer():
        chosen["hidden"] = int(chosen["hidden"])
    return checked(chosen, where)


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


def _numbered(study, trials=None):
    """number -> trial, below ``trials``, in order."""
    return {trial.number: trial for trial in study.get_trials()[:trials]}
