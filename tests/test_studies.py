"""Published Optuna studies: files of every schema since 2019, made with sqlite's own calls, and by Optuna itself."""

import json
import os
import re
import sqlite3
import sys

import optuna
import pytest

from camelsight.inference import tuning
from camelsight.pipeline import paths, studies
from camelsight.stages import tune
from conftest import ran, refused

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


def change(path, *statements):
    """Write into a good study what its author did not."""
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(*([statement] if isinstance(statement, str) else statement))
    database.close()
    return path


def unreadable(path, message):
    """Reading ``path``, and choosing from it, ends in one line; nothing is written beside it."""
    before = sorted(path.parent.iterdir())
    with refused(message):
        tuning.choose(studies.read(path))
    assert sorted(path.parent.iterdir()) == before


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
    assert (record["complete"], record["trial"]) == (4, 0)
    assert why.startswith("taken by name") and why.endswith("repeated trials: 3")
    with refused(r"a study 'other' .* got few .*, empty \(0 completed of 0\)"):
        tuning.choose(found, "other")


@pytest.mark.parametrize("contents", [{}, {"empty": []}, {"running": [("RUNNING", None, RELEASED)]}])
def test_a_file_without_a_completed_trial_says_what_it_holds(contents, tmp_path):
    unreadable(write(tmp_path / "study.db", "v2.3", contents), "with a completed trial, got")


def test_a_study_that_maximises_or_lacks_a_hyperparameter_is_refused(tmp_path):
    path = write(tmp_path / "study.db", "v2.3", {"other": trials(3)})
    change(path, "DELETE FROM trial_params WHERE param_name = 'wd'")
    unreadable(path, "weight_decay missing")
    change(path, "UPDATE studies SET direction = 'MAXIMIZE'")
    unreadable(path, r"a study that minimises one loss, .* got other \(3 completed of 4, MAXIMIZE\)")


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
    with refused(r"expected a search that has begun, got none: .* tune\.trials above 0"):
        studies.gather({"three": [paths["missing"], paths["empty"]]})


ENDLESS = "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more) SELECT n FROM more"
ENDLESS_TRIALS = ["ALTER TABLE trials RENAME TO kept", f"CREATE VIEW trials AS {ENDLESS}"]
FORGED = "UPDATE sqlite_master SET sql = replace(sql, 'TABLE trials', 'TABLE others') WHERE name = 'trials'"
OTHERS = "INSERT INTO sqlite_master VALUES ('table', 'others', 'others', 0, ?)"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (ENDLESS_TRIALS, r"tables and indexes alone, got 'CREATE VIEW trials AS .*' for 'trials'"),
        ([f"CREATE VIEW unused AS {ENDLESS}"], "tables and indexes alone, got 'CREATE VIEW unused"),
        (["CREATE VIRTUAL TABLE words USING fts5(word)"], "tables and indexes alone, got 'CREATE VIRTUAL TABLE words"),
        (["CREATE TRIGGER t AFTER INSERT ON trials BEGIN SELECT 1; END"],
         "tables and indexes alone, got 'CREATE TRIGGER t "),
        (["PRAGMA writable_schema = ON", FORGED, (OTHERS, ENDLESS_TRIALS[1:])], ": 'malformed database schema"),
        (["ALTER TABLE trials ADD COLUMN heavy AS (hex(zeroblob(1000000000)))"],
         "expected stored columns alone, got 'heavy' of trials, which is computed"),
        (["DROP TABLE trial_params"], "no column trial_id in a table trial_params"),
    ],
    ids=["view", "unused view", "virtual", "trigger", "forged schema", "computed", "missing"],
)  # fmt: skip
def test_nothing_that_a_file_defines_is_run(statements, message, tmp_path):
    """A view called trials without an end took no notice of SIGTERM and wrote 10 GB of temporary files."""
    unreadable(change(write(tmp_path / "study.db", "v3.0", {"a": trials(3)}), *statements), message)


WITH = "UPDATE trial_params SET distribution_json = ? WHERE param_name = 'hidden'"
CHOICES = '{"name": "CategoricalDistribution", "attributes": {"choices": [7, "many", [1]]}}'


def put(value, name="hidden"):
    return f"UPDATE trial_params SET param_value = {value} WHERE param_name = '{name}'"


def choose_hidden(index):
    return [(WITH, [CHOICES]), put(index)]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([(WITH, ["[1, 2]"])], r"trial 0, hidden: expected a distribution of Optuna, got '\[1, 2\]'"),
        ([(WITH, ["null"])], "trial 0, hidden: expected a distribution of Optuna, got 'null'"),
        ([(WITH, ["[" * 100_000])], r"trial 0, hidden: expected a distribution of Optuna, got '\[\[\[.*\.\.\. "),
        ([(WITH, ["9" * 2_000_000])], "string or blob too big"),
        ([(WITH, ['{"name": "IntDistribution", "attributes": {"low": 1, "high": 9, "evil": 1}}'])], "TypeError"),
        ([(WITH, ['{"name": "IntDistribution", "attributes": {"low": "a", "high": 9}}'])], "hidden: expected a distr"),
        ([(WITH, ['{"name": "os.system", "attributes": {}}'])], "hidden: expected a distribution of Optuna"),
        ([(WITH, [None])], "row 3 of trial_params: distribution_json is None"),
        ([(WITH, [b"\x00\xff"])], r"row 3 of trial_params: distribution_json is b'\\x00\\xff'"),
        (choose_hidden(3), "trial 0, hidden: expected the number of one of 3 choices, got 3.0"),
        (choose_hidden(-1), "trial 0, hidden: expected the number of one of 3 choices, got -1.0"),
        (choose_hidden(0.5), "trial 0, hidden: expected the number of one of 3 choices, got 0.5"),
        (choose_hidden(2), r"trial 0, hidden: expected a choice that is a number or text, got \[1\]"),
        (choose_hidden(1), "study a, trial 1: hyperparameters.hidden: expected an integer from 1 to 64, got 'many'"),
        (["UPDATE trial_params SET param_value = 'many'"], "row 0 of trial_params: param_value is 'many'"),
        (["UPDATE trial_params SET param_value = NULL"], "row 0 of trial_params: param_value is None"),
        ([put(7.9)], "trial 0, hidden: expected a value of IntDistribution, got 7.9"),
        ([put("9e999")], "trial 0, hidden: expected a value of IntDistribution, got inf"),
        ([put(-3)], "study a, trial 1: hyperparameters.hidden: expected an integer from 1 to 64, got -3"),
        ([put(1.0, "dr")], "study a, trial 1: hyperparameters.dropout: expected from 0 to below 1, got 1.0"),
        ([put("9e999", "max_lr")], "trial 0, max_lr: expected a value of FloatDistribution, got inf"),
        (["UPDATE trial_params SET param_name = 'lr' WHERE param_name = 'dr'"],
         "study a, trial 1: expected one value of max_lr, got two, of which one is called lr"),
        (["UPDATE trial_params SET param_name = 'wd' WHERE param_name = 'dr'"], "expected one entry 'wd', got two"),
        ([("UPDATE trial_params SET param_name = ?", [b"wd"])], "row 0 of trial_params: param_name is b'wd'"),
        (["UPDATE trials SET state = 1.5"], r"got a \(0 completed of 4\)"),
        ([("UPDATE trials SET number = ?", ["second"])], "row 0 of trials: number is 'second'"),
        ([("UPDATE studies SET study_name = ?", [b"a"])], "row 0 of studies: study_name is b'a'"),
        ([("UPDATE studies SET study_name = ?", ["\x1b[2J"])], r"row 0 of studies: expected a name, got '\\x1b\[2J'"),
        ([("UPDATE studies SET study_name = ?", ["a" * 100_000])], "row 0 of studies: expected a name, got 'aaa"),
        (["UPDATE trial_values SET value = 'low'"], "row 0 of trial_values: value is 'low'"),
    ],
)  # fmt: skip
def test_what_is_no_hyperparameter_is_refused_by_trial_key_and_value(statements, message, tmp_path):
    unreadable(change(write(tmp_path / "study.db", "v3.0", {"a": trials(3)}), *statements), message)


def test_a_choice_that_is_a_number_is_taken(tmp_path):
    path = change(write(tmp_path / "study.db", "v3.0", {"a": trials(3)}), *choose_hidden(0))
    assert tuning.choose(studies.read(path))[0]["hyperparameters"] == OURS | {"hidden": 7}


@pytest.mark.parametrize("sign", [1, -1])
def test_infinity_as_optuna_2_stored_it_never_wins(sign, tmp_path):
    path = write(tmp_path / "study.db", "v3.0", {"a": trials(5)})
    change(path, f"UPDATE trial_values SET value = {sign * 3.4028234663852886e38} WHERE trial_id = 3")
    record, why = tuning.choose(studies.read(path))
    assert (record["value"], record["complete"]) == (-8.2935, 4) and "without a finite loss, left out: 2" in why


def test_too_much_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "study.db", "v3.0", {"a": trials(30)})
    for limit, value, message in (
        ("ROWS", 100, "at most 100 rows and .* in trial_params, got more"),
        ("TEXT_BYTES", 500, "rows and 500 bytes in trial_params, got more"),
        ("FILE_BYTES", 1000, "expected at most 1,000 bytes, got"),
        ("SECONDS", -1, "expected to read it within -1 s, got no end"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(studies, limit, value)
            patch.setattr(studies, "STEPS", 10)
            unreadable(path, message)
    assert tuning.choose(studies.read(path))[0]["complete"] == 30


def test_a_file_in_wal_mode_is_read_where_nothing_can_be_written(tmp_path):
    path = change(write(tmp_path / "study.db", "v3.0", {"a": trials(3)}), "PRAGMA journal_mode = WAL")
    assert path.read_bytes()[18:20] == b"\2\2" and list(tmp_path.iterdir()) == [path]
    assert tuning.choose(studies.read(path))[0]["complete"] == 3
    assert list(tmp_path.iterdir()) == [path]
    writer = sqlite3.connect(path)
    writer.execute("UPDATE trial_values SET value = 0")
    writer.commit()
    how = r"copy both .* sqlite3 study\.db 'PRAGMA journal_mode=delete'"
    unreadable(path, rf"latest changes are still in study\.db-wal; {how}")
    writer.close()
    assert tuning.choose(studies.read(path))[0]["value"] == 0


def test_what_is_no_file_of_a_study_is_called_what_it_is(tmp_path):
    (tmp_path / "study.db").mkdir()
    (tmp_path / "empty.db").touch()
    unreadable(tmp_path / "study.db", r"an Optuna study in SQLite, got .*study\.db: it is no file")
    unreadable(tmp_path / "empty.db", r"got .*empty\.db: it is empty: 0 bytes")
    unreadable(tmp_path / "none.db", r"got .*none\.db: there is no such file")
    for content in (b"SQLite format 3\0 not really", b"just words " * 100):
        (tmp_path / "words.db").write_bytes(content)
        unreadable(tmp_path / "words.db", r"expected an Optuna .*words\.db")


def test_the_url_of_a_file_is_read_and_that_of_a_server_is_refused_without_its_password(tmp_path):
    path = write(tmp_path / "study.db", "v3.0", {"a": trials(3)})
    assert studies.read(f"sqlite:///{path}") == studies.read(path)
    for scheme in ("postgresql", "mysql+pymysql", "redis"):
        with refused(re.escape(f"got a URL of {scheme}: copy the study into a file")) as caught:
            studies.read(f"{scheme}://me:secret@host/studies")
        assert "secret" not in str(caught.value)


def test_a_study_that_is_being_written_or_was_left_half_written_is_said_to_be(tmp_path, monkeypatch):
    path = write(tmp_path / "study.db", "v3.0", {"a": trials(300, best=-99.0)})
    connect = sqlite3.connect
    monkeypatch.setattr(studies.sqlite3, "connect", lambda *given, **more: connect(*given, **more, timeout=0))
    writer = connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN EXCLUSIVE")
    unreadable(path, r"got .*study\.db: another process is writing to it; wait for that to end")
    writer.execute("UPDATE trial_values SET value = 0")  # more than the cache holds, so that some reaches the file
    (tmp_path / "cut").mkdir()
    for name in ("study.db", "study.db-journal"):
        (tmp_path / "cut" / name).write_bytes((tmp_path / name).read_bytes())
    writer.execute("ROLLBACK")
    writer.close()
    unreadable(tmp_path / "cut/study.db", "a change to it was broken off; copy it with its -journal to where you may")
    assert tuning.choose(studies.read(path))[0]["value"] == -99.0


def test_a_long_list_of_studies_is_cut(tmp_path):
    path = write(tmp_path / "study.db", "v2.3", {f"study {n}": [] for n in range(100)})
    unreadable(path, r"study 19 \(0 completed of 0\) and 80 more")


@pytest.mark.parametrize("line", ["", "{", "[1]", "null", '{"op_code": 5}'])
def test_a_journal_that_is_none_is_exported_in_one_line(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = paths.study("SIMBA", "original")
    journal.parent.mkdir(parents=True)
    journal.write_text(f"{line}\n", encoding="utf-8")
    with refused(r"expected the journal of a search in results/tune/SIMBA/original.log, got: "):
        tune.export_study("study.db", suite="SIMBA", case="original")
    assert not (tmp_path / "study.db").exists()


def test_an_endless_study_ends_the_command_in_one_line(tmp_path):
    path = write(tmp_path / "study.db", "v3.0", {"a": trials(3)})
    change(path, *ENDLESS_TRIALS)
    found = ran(sys.executable, "-m", "camelsight.stages.tune", "--import", path, folder=tmp_path)
    assert found.returncode == 1 and found.stdout == ""
    assert found.stderr.startswith("tune: expected an Optuna study in SQLite") and found.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["study.db"]


def test_the_same_search_gives_the_same_journal_whenever_by_whom_and_however_often_killed(tmp_path):
    """dvc.lock changed with every run of a search: for the times in its journal, and what a killed one said twice."""

    def objective(trial, times):
        for _ in range(times):
            trial.set_user_attr("reason", "none")
        trial.report(0.5, step=1)
        return trial.suggest_float("max_lr", 0, 1)

    for times, name in ((1, "one"), (2, "two")):
        path = tmp_path / f"{name}.log"
        study = optuna.create_study(
            storage=studies.journal(path), study_name="search", sampler=optuna.samplers.RandomSampler(seed=3)
        )
        study.optimize(lambda trial, times=times: objective(trial, times), n_trials=2)
    one, two = (studies.timeless(tmp_path / f"{name}.log") for name in ("one", "two"))
    assert one == two and (tmp_path / "one.log").read_bytes() != (tmp_path / "two.log").read_bytes()
    lines = [json.loads(line) for line in one.decode().splitlines()]
    assert {line["worker_id"] for line in lines} == {"search"}
    assert {value for line in lines for key, value in line.items() if key.startswith("datetime_")} == {studies.NO_TIME}
    (tmp_path / "again.log").write_bytes(one)
    read = optuna.load_study(storage=studies.journal(tmp_path / "again.log"), study_name="search")
    for ours, theirs in zip(read.trials, study.trials, strict=True):
        for name in ("number", "state", "value", "params", "intermediate_values", "user_attrs"):
            assert getattr(ours, name) == getattr(theirs, name)
