"""Published Optuna studies: files of every schema since 2019, made with sqlite's own calls, and by Optuna itself."""

import json
import sqlite3

import optuna
import pytest

from camelsight import studies
from camelsight.inference import tuning

RELEASED = {"max_lr": 4.6934e-3, "wd": 1.4667e-5, "dr": 0.21625, "hidden": 6}
OURS = {"max_lr": 4.6934e-3, "weight_decay": 1.4667e-5, "dropout": 0.21625, "hidden": 6}
DISTRIBUTIONS = {
    "old": {
        "max_lr": ("LogUniformDistribution", {"low": 1e-5, "high": 5e-3}),
        "wd": ("LogUniformDistribution", {"low": 1e-8, "high": 1e-1}),
        "dr": ("UniformDistribution", {"low": 0.0, "high": 0.9}),
        "hidden": ("IntUniformDistribution", {"low": 6, "high": 12, "step": 1}),
    },
    "new": {
        "max_lr": ("FloatDistribution", {"step": None, "low": 1e-5, "high": 5e-3, "log": True}),
        "wd": ("FloatDistribution", {"step": None, "low": 1e-8, "high": 1e-1, "log": True}),
        "dr": ("FloatDistribution", {"step": None, "low": 0.0, "high": 0.9, "log": False}),
        "hidden": ("IntDistribution", {"log": False, "step": 1, "low": 6, "high": 12}),
    },
}
TABLES = {
    "v0.9": """
        CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512), direction VARCHAR(8));
        CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, study_id INTEGER, state VARCHAR(8), value FLOAT,
            datetime_start DATETIME, datetime_complete DATETIME);
        CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER, step INTEGER, value FLOAT);
    """,
    "v2.3": """
        CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512), direction VARCHAR(8));
        CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER, state VARCHAR(8),
            value FLOAT, datetime_start DATETIME, datetime_complete DATETIME);
        CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER, step INTEGER, value FLOAT);
    """,
    "v3.0": """
        CREATE TABLE studies (study_id INTEGER PRIMARY KEY, study_name VARCHAR(512));
        CREATE TABLE study_directions (study_direction_id INTEGER PRIMARY KEY, direction VARCHAR(8), study_id INTEGER,
            objective INTEGER);
        CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER, study_id INTEGER, state VARCHAR(8),
            datetime_start DATETIME, datetime_complete DATETIME);
        CREATE TABLE trial_values (trial_value_id INTEGER PRIMARY KEY, trial_id INTEGER, objective INTEGER, value FLOAT,
            value_type VARCHAR(7));
    """,
}
PARAMS_TABLE = """
    CREATE TABLE trial_params (param_id INTEGER PRIMARY KEY, trial_id INTEGER, param_name VARCHAR(512),
        param_value FLOAT, distribution_json TEXT);
    CREATE TABLE version_info (version_info_id INTEGER PRIMARY KEY, schema_version INTEGER, library_version TEXT);
"""


def write(path, schema, contents):
    """``contents``: study name -> list of (state, value, params)."""
    with sqlite3.connect(path) as database:
        database.executescript(TABLES[schema] + PARAMS_TABLE)
        trial_id = 0
        for study_id, (name, trials) in enumerate(contents.items(), start=1):
            insert(database, "studies", study_id=study_id, study_name=name)
            if schema == "v3.0":
                insert(database, "study_directions", direction="MINIMIZE", study_id=study_id, objective=0)
            else:
                database.execute("UPDATE studies SET direction = 'MINIMIZE'")
            for number, (state, value, params) in enumerate(trials):
                trial_id += 1
                insert(database, "trials", trial_id=trial_id, study_id=study_id, state=state)
                if schema != "v0.9":
                    database.execute("UPDATE trials SET number = ? WHERE trial_id = ?", [number, trial_id])
                if schema == "v3.0":
                    insert(database, "trial_values", trial_id=trial_id, objective=0, value=value, value_type="FINITE")
                else:
                    database.execute("UPDATE trials SET value = ? WHERE trial_id = ?", [value, trial_id])
                    insert(database, "trial_values", trial_id=trial_id, step=1, value=-99.0)  # an intermediate value
                for key, item in params.items():
                    kind, attributes = DISTRIBUTIONS["new" if schema == "v3.0" else "old"][key]
                    text = json.dumps({"name": kind, "attributes": attributes})
                    insert(database, "trial_params", trial_id=trial_id, param_name=key, param_value=item,
                           distribution_json=text)  # fmt: skip
    database.close()
    return path


def insert(database, table, **values):
    marks = ", ".join("?" * len(values))
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def trials(n, best=-8.2935, **changes):
    """``n`` completed trials of which number 1 is the best, and one that still runs."""
    others = [("COMPLETE", -5.0 - 0.01 * i, RELEASED | {"hidden": 7}) for i in range(n - 1)]
    return [others[0], ("COMPLETE", best, RELEASED | changes), *others[1:], ("RUNNING", None, RELEASED)]


@pytest.mark.parametrize("schema", TABLES)
def test_the_best_trial_of_a_file_of_any_age(schema, tmp_path):
    path = write(tmp_path / "study.db", schema, {"Mtot_kmax_1": trials(5)})
    before = path.read_bytes()
    record, why = tuning.choose(studies.read(path))
    expected = {"study": "Mtot_kmax_1", "value": -8.2935, "trial": 1, "complete": 5, "hyperparameters": OURS}
    assert record == expected and isinstance(record["hyperparameters"]["hidden"], int)
    assert why == "the only study; trials without a finite loss, left out: 1; repeated trials: 0"
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path], "the file was touched"


def test_files_of_the_installed_optuna_read_as_optuna_reads_them(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=storage, study_name="new", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("wd", 1e-8, 1e-1, log=True)
                   + trial.suggest_int("hidden", 6, 12) + trial.suggest_categorical("dr", [0.1, 0.2])
                   + trial.suggest_float("max_lr", 0, 1), n_trials=7)  # fmt: skip
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.COMPLETE, value=float("-inf")))
    record, _ = tuning.choose(studies.read(tmp_path / "study.db"))
    best = min(study.trials[:-1], key=lambda trial: trial.value)  # a loss of minus infinity is none
    assert (record["value"], record["trial"], record["complete"]) == (best.value, best.number, 7)
    assert record["hyperparameters"]["dropout"] == best.params["dr"]


def test_of_several_studies_the_one_with_most_completed_trials_is_taken_unless_one_is_named(tmp_path):
    contents = {"few": trials(2, best=-20.0), "empty": [], "many": trials(6), "repeats": [trials(3)[1]] * 4}
    found = studies.read(write(tmp_path / "study.db", "v3.0", contents))
    record, why = tuning.choose(found)
    assert record["study"] == "many" and why.startswith("most completed trials of") and "few (2 completed of 3)" in why
    assert tuning.choose(found, "few")[0]["value"] == -20.0
    record, why = tuning.choose(found, "repeats")
    assert (
        (record["complete"], record["trial"]) == (4, 0)
        and why.startswith("taken by name")
        and why.endswith("repeated trials: 3")
    )
    with pytest.raises(ValueError, match=r"a study 'other' .* got few .*, empty \(0 completed of 0\)"):
        tuning.choose(found, "other")


@pytest.mark.parametrize("contents", [{}, {"empty": []}, {"running": [("RUNNING", None, RELEASED)]}])
def test_a_file_without_a_completed_trial_says_what_it_holds(contents, tmp_path):
    found = studies.read(write(tmp_path / "study.db", "v2.3", contents))
    with pytest.raises(ValueError, match="with a completed trial, got"):
        tuning.choose(found)


def test_a_study_that_maximises_or_lacks_a_hyperparameter_is_refused(tmp_path):
    path = write(tmp_path / "study.db", "v2.3", {"other": trials(3)})
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM trial_params WHERE param_name = 'wd'")
    with pytest.raises(ValueError, match="weight_decay missing"):
        tuning.choose(studies.read(path))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE studies SET direction = 'MAXIMIZE'")
    with pytest.raises(
        ValueError, match=r"a study that minimises one loss, .* got other \(3 completed of 4, MAXIMIZE\)"
    ):
        tuning.choose(studies.read(path))


def test_the_reason_for_a_study_is_the_true_one():
    def study(name, losses, direction="MINIMIZE"):
        trials = [{"number": i, "state": "COMPLETE", "value": x, "params": RELEASED} for i, x in enumerate(losses)]
        return {"name": name, "direction": direction, "trials": trials}

    a, b, other = study("a", [-3.0]), study("b", [-4.0]), study("other", [-9.0] * 5, "MAXIMIZE")
    record, why = tuning.choose([a, b])
    assert record["study"] == "b" and why.startswith("lowest loss among those with most completed trials")
    record, why = tuning.choose([a, other])
    assert record["study"] == "a" and why.startswith("the only one that minimises") and "MAXIMIZE" in why
    record, why = tuning.choose([study("c", [-1.0, -2.0]), b, other])
    assert record["study"] == "c" and why.startswith("most completed trials of those that minimise one loss")


def test_hidden_is_an_integer_whatever_it_was_stored_as():
    trials = [{"number": 0, "state": "COMPLETE", "value": -1.0, "params": RELEASED | {"hidden": 7.0}}]
    record, _ = tuning.choose([{"name": "a", "direction": "MINIMIZE", "trials": trials}])
    assert isinstance(record["hyperparameters"]["hidden"], int)


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0 not really", b"just words " * 100])
def test_a_file_that_is_no_study_gets_one_line(content, tmp_path):
    path = tmp_path / "study.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an Optuna .*study\.db") as caught:
        studies.read(path)
    assert "\n" not in str(caught.value)


def test_an_exported_study_comes_back_with_the_released_names(tmp_path):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    ranges = {"max_lr": (1e-5, 5e-3), "weight_decay": (1e-8, 1e-1), "dropout": (0.0, 0.9), "hidden": (6, 12)}
    for number in range(4):
        trial = study.ask()
        for name, (low, high) in ranges.items():
            suggest = trial.suggest_int if name == "hidden" else trial.suggest_float
            suggest(name, low, high)
        study.tell(trial, -float(number))
    study.ask()  # unfinished
    studies.write(tmp_path / "study.db", tuning.released(study, "Mtot_kmax_1"))
    loaded = optuna.load_study(study_name="Mtot_kmax_1", storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert loaded.best_value == -3 and set(loaded.best_params) == set(RELEASED)
    record, _ = tuning.choose(studies.read(tmp_path / "study.db"))
    assert record["hyperparameters"] == study.best_params and record["complete"] == 4


def test_the_studies_that_there_are_are_gathered_under_their_names(tmp_path):
    (tmp_path / "empty.log").touch()
    for number, name in enumerate(("begun", "done"), start=1):
        study = optuna.create_study(storage=studies.journal(tmp_path / f"{name}.log"), study_name="search")
        study.optimize(lambda trial: trial.suggest_float("max_lr", 0, 1), n_trials=number)
    paths = {name: tmp_path / f"{name}.log" for name in ("begun", "done", "empty", "missing")}
    found = studies.gather({"one": [paths["begun"], paths["done"]], "two": [paths["begun"], paths["empty"]],
                            "three": [paths["missing"]]})  # fmt: skip
    counts = {study.study_name: len(found.get_all_trials(study._study_id)) for study in found.get_all_studies()}
    assert counts == {"one": 2, "two": 1}
    with pytest.raises(ValueError, match=r"expected a search that has begun, got none: .* tune\.trials above 0"):
        studies.gather({"three": [paths["missing"], paths["empty"]]})
