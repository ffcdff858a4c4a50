"""Optuna studies: journals, which several processes may share, and SQLite files, in which others publish theirs."""

import contextlib
import sqlite3
import warnings
from pathlib import Path

import optuna

from camelsight import store


def read(path):
    """The studies of an Optuna SQLite file of any age, which is left as it is, schema and all.

    Returns a list of dicts: name, direction (MINIMIZE, MAXIMIZE, NOT_SET; several joined by a plus sign) and trials,
    dicts of number, state, value (None where there is no finite one) and params. ValueError if it is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected an Optuna database {path}, got no such file")
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?mode=ro", uri=True)) as database:
            return [_read_study(database, row) for row in _rows(database, "SELECT * FROM studies ORDER BY study_id")]
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise ValueError(f"expected an Optuna study in SQLite, got {path}, which holds none: {error}") from None


def _read_study(database, study):
    def of_study(query):
        return _rows(database, query, study["study_id"])

    if "direction" in study:  # before Optuna 2.4
        directions = [study["direction"]]
    else:
        query = "SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective"
        directions = [row["direction"] for row in of_study(query)]
    trials = {}
    for position, row in enumerate(of_study("SELECT * FROM trials WHERE study_id = ? ORDER BY trial_id")):
        number = position if row.get("number") is None else row["number"]  # no column before Optuna 1.3
        trials[row["trial_id"]] = {"number": number, "state": row["state"], "value": row.get("value"), "params": {}}
    belongs = "JOIN trials USING (trial_id) WHERE study_id = ?"
    for row in of_study(f"SELECT trial_values.* FROM trial_values {belongs}"):
        if "objective" in row:  # before Optuna 2.4 this table held intermediate values
            trials[row["trial_id"]]["value"] = row["value"]
    for row in of_study(f"SELECT trial_params.* FROM trial_params {belongs}"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the distributions' old names
            distribution = optuna.distributions.json_to_distribution(row["distribution_json"])
        trials[row["trial_id"]]["params"][row["param_name"]] = distribution.to_external_repr(row["param_value"])
    return {
        "name": study["study_name"],
        "direction": "+".join(directions) or "NOT_SET",
        "trials": list(trials.values()),
    }


def _rows(database, query, *values):
    cursor = database.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def write(path, study):
    """An Optuna study as an SQLite file, which replaces what is there."""
    with store.replacing(path) as part:
        storage = optuna.storages.RDBStorage(f"sqlite:///{part.resolve()}")
        copy = optuna.create_study(storage=storage, study_name=study.study_name, direction=study.direction)
        copy.add_trials(study.get_trials())
        storage.remove_session()
        storage.engine.dispose()


class JournalLock:
    """Lock of an Optuna journal that ends with its process; a line that a killed process left half-written is removed.

    Optuna's own locks are files, which stay behind for 30 s, and half a line makes the journal unreadable.
    """

    def __init__(self, path):
        self._path, self._held = Path(path), None

    def acquire(self):
        self._held = contextlib.ExitStack()
        self._held.enter_context(store.claim(f"{self._path}.lock", wait=True))
        with open(self._path, "rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        return True

    def release(self):
        self._held.close()


def journal(path):
    """The Optuna storage in ``path``, which several processes may share."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path), JournalLock(path)))
