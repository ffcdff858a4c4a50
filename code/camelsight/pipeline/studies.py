"""Optuna studies: journals, which several processes may share, and SQLite files, in which others publish theirs."""

import contextlib
import functools
import json
import sqlite3
import tempfile
import time
import warnings
from pathlib import Path

import optuna

from camelsight.pipeline import store

# A published file is data from a stranger: it is read as plain tables, never changed, and within these limits.
FILE_BYTES = 1 << 28  # Optuna takes about 50 bytes an epoch: 10,000 trials of 200 epochs are 100 MB
ROWS = 200_000  # of a table: 50,000 trials with four hyperparameters
CELL_BYTES = 1 << 20  # of a row; Optuna's longest, a list of choices, had 2048 at most until version 3
TEXT_BYTES = 1 << 26  # of a column of text: a damaged file can give the same page again and again
NAME_LENGTH = 512  # Optuna's own limit on names
SECONDS = 30  # for the whole file
STEPS = 10_000  # of SQLite between two looks at the clock
INFINITE = 3.4028e38  # Optuna before 3.0 stored infinity as the largest number of float32
WAL = b"\2\2"  # bytes 18 and 19 of a file whose latest changes may stand in a second one, https://sqlite.org/wal.html
TRANSIENT = {
    sqlite3.SQLITE_BUSY: "another process is writing to it; wait for that to end, or take a copy made before",
    sqlite3.SQLITE_READONLY: "a change to it was broken off; copy it with its -journal to where you may write, and run "
    "there sqlite3 study.db .tables",
}
NO_TIME = "1970-01-01T00:00:00+00:00"  # as Optuna writes it

NUMBER = int | float
COLUMNS = {
    "studies": {"study_id": int, "study_name": str, "direction": str},
    "study_directions": {"study_id": int, "objective": int, "direction": str},
    "trials": {"trial_id": int, "study_id": int, "number": int | None, "state": str, "value": NUMBER | None},
    "trial_values": {"trial_id": int, "objective": int, "value": NUMBER | None},
    "trial_params": {"trial_id": int, "param_name": str, "param_value": NUMBER, "distribution_json": str},
}
MISSING_BEFORE = {  # the version of Optuna that brought them
    "trials.number": "1.3", "study_directions": "2.4", "trial_values.objective": "2.4",
}  # fmt: skip
MISSING_SINCE = {"studies.direction": "2.4", "trials.value": "2.4"}


def read(path):
    """The studies of an Optuna SQLite file of any age, or of its URL. The file is left as it is, schema and all.

    Returns a list of dicts: name, direction (MINIMIZE, MAXIMIZE, NOT_SET; several joined by a plus sign) and trials,
    dicts of number, state, value (None where there is no finite one) and params. ValueError if it is no such file.
    """
    scheme, separator, rest = str(path).partition("://")
    if separator and scheme != "sqlite":
        copy = "optuna.copy_study(from_study_name=..., from_storage=URL, to_storage='sqlite:///study.db')"
        got = f"expected an Optuna study in SQLite, got a URL of {scheme}"
        raise ValueError(f"{got}: copy the study into a file first, with {copy}")
    path = rest.removeprefix("/") if separator else path
    try:
        with _opened(path) as database:
            _check_schema(database)
            tables = {name: _rows(database, name) for name in COLUMNS}
        return _assemble(tables)
    except (sqlite3.Error, ValueError) as error:
        # SQLite quotes the file as it is
        known = TRANSIENT.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        reason = known or (_shown(str(error), 200) if isinstance(error, sqlite3.Error) else error)
        raise ValueError(f"expected an Optuna study in SQLite, got {path}: {reason}") from None


@contextlib.contextmanager
def _opened(path):
    """A connection that writes nothing, not even the files beside a database that SQLite makes to read it."""
    path = Path(path)
    if not path.is_file():
        raise ValueError("it is no file" if path.exists() else "there is no such file")
    if not path.stat().st_size:
        raise ValueError("it is empty: 0 bytes")
    if path.stat().st_size > FILE_BYTES:
        raise ValueError(f"expected at most {FILE_BYTES:,} bytes, got {path.stat().st_size:,}")
    with open(path, "rb") as file:
        header = file.read(20)
    if not header.startswith(b"SQLite format 3\0"):
        raise ValueError("its first bytes are not those of SQLite")
    log = path.with_name(f"{path.name}-wal")
    if header[18:] == WAL and log.exists() and log.stat().st_size:
        merge = f"sqlite3 {path.name} 'PRAGMA journal_mode=delete'"
        copy = f"copy both to where you may write, and run there {merge}"
        raise ValueError(f"its latest changes are still in {log.name}; {copy}")
    mode = "immutable=1" if header[18:] == WAL else "mode=ro"
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)) as database:
        end = time.monotonic() + SECONDS
        database.set_progress_handler(lambda: time.monotonic() > end, STEPS)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, CELL_BYTES)
        try:
            yield database
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise ValueError(f"expected to read it within {SECONDS} s, got no end") from None
            raise


def _check_schema(database):
    """Views, virtual tables, triggers and computed columns would run what somebody else has written."""
    for name, sql in database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"):
        if not str(sql).startswith(("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")):
            raise ValueError(f"expected tables and indexes alone, got {str(sql)[:40]!r} for {str(name)[:40]!r}")
    for table in COLUMNS:
        for _, column, *_, hidden in database.execute(f"PRAGMA table_xinfo({table})"):
            if hidden:
                raise ValueError(f"expected stored columns alone, got {column[:40]!r} of {table}, which is computed")


def _rows(database, table):
    """The rows of a table as dicts of the columns that COLUMNS names and the file has."""
    there = {column for _, column, *_ in database.execute(f"PRAGMA table_xinfo({table})")}
    if not there and table in MISSING_BEFORE:
        return []
    columns = COLUMNS[table]
    for column in [column for column in columns if column not in there]:
        if f"{table}.{column}" not in MISSING_BEFORE | MISSING_SINCE:
            raise ValueError(f"no column {column} in a table {table}")
    columns = {column: kind for column, kind in columns.items() if column in there}
    rows, length = [], 0
    for values in database.execute(f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED LIMIT {ROWS + 1}"):
        row = dict(zip(columns, values, strict=True))
        for column, kind in columns.items():
            if not isinstance(row[column], kind):
                raise ValueError(f"row {len(rows)} of {table}: {column} is {_shown(row[column])}")
        names = [value for column, value in row.items() if columns[column] is str and column != "distribution_json"]
        for name in names:
            if len(name) > NAME_LENGTH or not name.isprintable():
                raise ValueError(f"row {len(rows)} of {table}: expected a name, got {_shown(name)}")
        length += len(row.get("distribution_json", ""))
        rows.append(row)
        if len(rows) > ROWS or length > TEXT_BYTES:
            raise ValueError(f"expected at most {ROWS:,} rows and {TEXT_BYTES:,} bytes in {table}, got more")
    return rows


def _assemble(tables):
    studies = {}
    for row in sorted(tables["studies"], key=lambda row: row["study_id"]):
        directions = [row["direction"]] if "direction" in row else []
        _add(studies, row["study_id"], {"name": row["study_name"], "direction": directions, "trials": []})
    for row in sorted(tables["study_directions"], key=lambda row: row["objective"]):
        if row["study_id"] in studies:
            studies[row["study_id"]]["direction"].append(row["direction"])
    trials = {}
    for row in sorted(tables["trials"], key=lambda row: row["trial_id"]):
        if row["study_id"] in studies:
            others = studies[row["study_id"]]["trials"]
            number = len(others) if row.get("number") is None else row["number"]
            trial = {"number": number, "state": row["state"], "value": _finite(row.get("value")), "params": {}}
            _add(trials, row["trial_id"], trial)
            others.append(trial)
    for row in tables["trial_values"]:
        if row.get("objective") == 0 and row["trial_id"] in trials:  # before Optuna 2.4: intermediate values
            trials[row["trial_id"]]["value"] = _finite(row["value"])
    decode = functools.cache(_distribution)
    for row in tables["trial_params"]:
        if trial := trials.get(row["trial_id"]):
            try:
                value = _value(decode(row["distribution_json"]), row["param_value"])
            except ValueError as error:
                raise ValueError(f"trial {trial['number']}, {row['param_name']}: {error}") from None
            _add(trial["params"], row["param_name"], value)
    return [study | {"direction": "+".join(study["direction"]) or "NOT_SET"} for study in studies.values()]


def _add(entries, key, value):
    if key in entries:
        raise ValueError(f"expected one entry {_shown(key)}, got two")
    entries[key] = value


def _finite(value):
    return None if value is None or abs(value) >= INFINITE else value


def _distribution(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the distributions' old names, and choices that Optuna does not like
            return optuna.distributions.json_to_distribution(text)
    except Exception as error:  # Optuna raises whatever the text makes it raise
        raise ValueError(f"expected a distribution of Optuna, got {_shown(text)} ({type(error).__name__})") from None


def _value(distribution, value):
    """What a stored number stands for."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        if not (0 <= value < len(distribution.choices) and value == int(value)):
            raise ValueError(f"expected the number of one of {len(distribution.choices)} choices, got {value!r}")
        choice = distribution.choices[int(value)]
        if not isinstance(choice, NUMBER | str | None):
            raise ValueError(f"expected a choice that is a number or text, got {_shown(choice)}")
        return choice
    meant = distribution.to_external_repr(value) if abs(value) < INFINITE else None
    if meant != value:
        raise ValueError(f"expected a value of {type(distribution).__name__}, got {value!r}")
    return meant


def _shown(value, length=60):
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


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


def timeless(path):
    """The search in the journal ``path`` as a journal that the same search gives again, killed on its way or not.

    Its bytes: a line a trial, without times, and without who worked on it and how often.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy, source = Path(folder, "study.log"), journal(path)
        for study in source.get_all_studies():
            optuna.copy_study(from_study_name=study.study_name, from_storage=source, to_storage=journal(copy))
        lines = [json.loads(line) for line in copy.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["worker_id"] = "search"
        line |= {key: NO_TIME for key in line if key.startswith("datetime_")}
    return "".join(json.dumps(line, separators=(",", ":"), sort_keys=True) + "\n" for line in lines).encode()


def gather(journals):
    """A storage in memory with the studies of ``journals``, name -> paths, of which the last that holds one counts.

    ValueError where none of them holds a study.
    """
    gathered = optuna.storages.InMemoryStorage()
    for name, places in journals.items():
        if held := [path for path in places if Path(path).exists() and Path(path).stat().st_size]:
            source = journal(held[-1])
            study = optuna.load_study(study_name=None, storage=source).study_name
            optuna.copy_study(from_study_name=study, from_storage=source, to_storage=gathered, to_study_name=name)
    if not gathered.get_all_studies():
        raise ValueError("expected a search that has begun, got none: run make paper with tune.trials above 0")
    return gathered
