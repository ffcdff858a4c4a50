import optuna
import pytest

from camelsight.inference import training, tuning
from camelsight.pipeline import studies

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


def climbing(hyperparameters, number, report, epochs=20):
    """A loss that falls with the epochs, and from trial to trial; what is called again goes on."""
    for epoch in range(1, epochs + 1):
        report(epoch, 1 / epoch - number)
    return 1 / epochs - number


@pytest.mark.parametrize("trials", [1, 2, 7, 40])
def test_halving_calls_a_quarter_again_even_where_every_trial_beats_those_before(trials):
    record = tuning.record(search(function=climbing, trials=trials, rungs=(1, 5)))
    ran = [len(trial["losses"]) for trial in record]
    quarter = max(trials // 4, 1)
    assert sum(epochs >= 5 for epochs in ran) == quarter and set(ran) <= {1, 5, 20}
    assert sum(epochs == 20 for epochs in ran) == max(quarter // 4, 1)
    assert {trial["state"] for trial, epochs in zip(record, ran, strict=True) if epochs < 20} <= {"pruned"}
    if trials == 40:
        assert sum(ran) <= trials * 20 / 6


def test_halving_takes_the_best_of_those_that_wait():
    study = search(function=lambda h, n, report: [report(e, n % 5) for e in (1, 2)] and n % 5, trials=8, rungs=(1,))
    finished = [trial["number"] for trial in tuning.record(study) if trial["state"] == "complete"]
    assert finished == [0, 5]


def test_the_rungs_of_a_search_cost_a_sixth():
    assert tuning.rungs(1) == [] and tuning.rungs(2) == [1] and tuning.rungs(20) == [1, 5]
    for epochs in (20, 50, 200):
        first, second = tuning.rungs(epochs)
        assert first + (second - first) / 4 + (epochs - second) / 16 < epochs / 6


def test_a_trial_that_diverged_is_never_called_again_and_the_next_one_is():
    def diverging(hyperparameters, number, report):
        report(1, number)
        if number == 0:
            raise training.DivergenceError("expected a finite loss", 2)
        return number

    record = tuning.record(search(function=diverging, trials=4, rungs=(1,)))
    assert record[0]["state"] == "pruned" and record[0]["reason"] == "expected a finite loss"
    assert [trial["number"] for trial in record if trial["state"] == "complete"] == [1]


def test_importances_are_shares_and_pruned_trials_count():
    def by_dropout(hyperparameters, number, report):
        for epoch in (1, 2):
            report(epoch, hyperparameters["dropout"])
        return hyperparameters["dropout"]

    study = search(function=by_dropout, trials=40, rungs=(1,))
    shares = tuning.importances(study)
    assert sum(shares.values()) == pytest.approx(1) and max(shares, key=shares.get) == "dropout"
    assert tuning.importances(study, 1) == {} and set(tuning.importances(study, 2)) == set(RANGES)


def test_a_line_that_a_killed_process_left_half_written_is_removed(tmp_path):
    before = tuning.record(search(studies.journal(tmp_path / "study.log"), trials=3))
    with open(tmp_path / "study.log", "ab") as file:
        file.write(b'{"op_code":5,"worker_id":"half')
    resumed = search(studies.journal(tmp_path / "study.log"), trials=5)
    assert tuning.record(resumed, 3) == before and tuning.record(resumed) == tuning.record(search(trials=5))
