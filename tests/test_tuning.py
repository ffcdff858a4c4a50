import optuna
import pytest

from camelsight.inference import training, tuning

RANGES = {"max_lr": (1e-4, 1e-1), "dropout": (0.0, 0.9), "hidden": (2, 6)}
FIRST = {"max_lr": 1e-3, "dropout": 0.3, "hidden": 3}


def objective(hyperparameters, number, report):
    return (hyperparameters["hidden"] - 5) ** 2 + hyperparameters["dropout"] + number * 0


def search(storage=None, trials=6, seed=1, function=objective, **keywords):
    storage = storage or optuna.storages.InMemoryStorage()
    return tuning.search(function, trials=trials, ranges=RANGES, first=FIRST, storage=storage, seed=seed, **keywords)


def test_the_first_trial_is_the_given_one_and_the_others_stay_in_range():
    study = search()
    assert study.trials[0].params == FIRST
    for trial in study.trials:
        assert 1e-4 <= trial.params["max_lr"] <= 1e-1 and isinstance(trial.params["hidden"], int)


def test_the_best_trial_wins():
    study = search(trials=12)
    best, trials = tuning.best(study), tuning.record(study)
    assert best["value"] == min(trial["value"] for trial in trials) and best["complete"] == 12
    assert trials[best["trial"]]["hyperparameters"] == best["hyperparameters"]
    assert tuning.best(study, 3) == tuning.best(search(trials=3)), "of the first three, though there are more"


def test_a_search_that_goes_on_equals_one_that_was_not_cut_off():
    storage = optuna.storages.InMemoryStorage()
    search(storage, trials=2)
    resumed, whole = search(storage, trials=5), search(trials=5)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in whole.trials]
    assert [trial.params for trial in search(trials=5, seed=2).trials] != [trial.params for trial in whole.trials]


@pytest.mark.parametrize("stop", [0, 2])
def test_a_trial_that_was_interrupted_is_repeated(stop):
    storage = optuna.storages.InMemoryStorage()

    def interrupted(hyperparameters, number, report):
        if number == stop:
            raise KeyboardInterrupt
        return objective(hyperparameters, number, report)

    with pytest.raises(KeyboardInterrupt):
        search(storage, function=interrupted)
    assert tuning.best(search(storage, trials=4)) == tuning.best(search(trials=4))


def test_a_diverging_trial_is_pruned_and_the_search_goes_on():
    def diverging(hyperparameters, number, report):
        if number == 0:
            raise training.DivergenceError("expected a finite loss")
        return objective(hyperparameters, number, report)

    study = search(function=diverging, trials=3)
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert tuning.best(study)["complete"] == 2


def test_a_search_in_which_nothing_completed_says_so():
    def diverging(hyperparameters, number, report):
        raise training.DivergenceError("expected a finite loss")

    with pytest.raises(ValueError, match=r"got 2 that diverged and 0 stopped early; lower tune\.max_lr"):
        tuning.best(search(function=diverging, trials=2))
