"""How far each case is: what its stage last said in ``runs/status``, and what DVC has up to date."""

import os
import time
from itertools import product

from tabulate import tabulate

from camelsight.pipeline import cli, launch, paths, store

STATES = ("running", "waiting", "failed", "lost", "done")
SILENT_SECONDS = 600  # after which, or after SILENT_ITEMS times what one item took, a stage elsewhere counts as lost
SILENT_ITEMS = 5


def rows(loaded, pending):
    """A dict for each suite and case; ``pending`` are the stages that are out of date.

    suite, case, state (of ``STATES``), stage (the one that runs or comes next, or was the last), done and total of its
    items (unit), best (lowest validation loss so far), seconds_left of the stage, node, job, reason, log. None where
    nothing is known.
    """
    heard = [record for record in map(_read, paths.STATUS.glob("*.json")) if record.get("profile") == loaded.profile]
    chains = dict(launch.chains(loaded, pending))
    places = product(loaded.suites, loaded.cases)
    return [_row(suite, case, chains.get(f"{suite}-{case}", ()), heard) for suite, case in places]


def _row(suite, case, pending, heard):
    heard = [one for one in heard if (one.get("suite"), one.get("case", "original")) == (suite, case)]
    said = max(heard, key=lambda one: one["time"], default={})
    state = _state(said) if pending else "done"
    told = said if state in ("running", "failed", "lost") else {}
    return {
        "suite": suite,
        "case": case,
        "state": state,
        "stage": told.get("stage") or (launch.kind(pending[0]) if pending else None),
        **{key: told.get(key) for key in ("done", "total", "unit")},
        "best": _best(suite, case) if state == "done" else told.get("best"),
        "seconds_left": told.get("seconds_left") if state == "running" else None,
        "node": said.get("node"),
        "job": said.get("job"),
        "reason": told.get("reason") if state == "failed" else None,
        "log": str(paths.log(f"{suite}-{case}")) if state in ("failed", "lost") else None,
    }


def _state(said):
    """Of a case that is not done, by what its last stage said."""
    if said.get("state") == "failed":
        return "failed"
    if said.get("state") != "running":
        return "waiting"
    if said["node"] == cli.node():
        return "running" if os.path.exists(f"/proc/{said['pid']}") else "lost"
    silence = max(SILENT_SECONDS, SILENT_ITEMS * said.get("per_item", 0))
    return "lost" if time.time() - said["time"] > silence else "running"


def _best(suite, case):
    history = paths.history(suite, case)
    return min(record["valid"] for record in store.read_json(history)["epochs"]) if history.exists() else None


def _read(path):
    try:
        return store.read_json(path)
    except (OSError, ValueError):  # it has just gone
        return {}


def table(rows):
    """``rows`` for a person, and how many there are of each state."""
    shown = [
        {
            **{key: row[key] for key in ("suite", "case", "state", "stage")},
            "epoch": f"{row['done']}/{row['total']} {row['unit']}" if row["done"] is not None else None,
            "best loss": None if row["best"] is None else f"{row['best']:.3f}",
            "time left": None if row["seconds_left"] is None else duration(row["seconds_left"]),
            "node": row["node"],
        }
        for row in rows
    ]
    failed = [f"{row['suite']}-{row['case']}: {row['reason']} (see {row['log']})" for row in rows if row["reason"]]
    count = {state: sum(row["state"] == state for row in rows) for state in STATES}
    counts = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    return "\n".join([tabulate(shown, headers="keys", disable_numparse=True), *failed, counts])


def duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
