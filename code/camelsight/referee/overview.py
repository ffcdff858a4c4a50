"""What the page of a run shows, read from the folder in which it is; no stage, so that nothing depends on it."""

import base64
import csv

from camelsight.pipeline import environment, paths, store
from camelsight.referee import page
from camelsight.report import provenance

COLUMNS = ("suite", "case", "parameter", "r2", "low", "high")
LINKED = {  # what a reader looks for first
    "PDF": paths.PDF,
    "table of R²": paths.TABLES / "r2.csv",
    "what the attributions say": paths.INTERPRETATION,
    "metrics": paths.METRICS,
    "parameters": paths.PARAMS,
    "digests of every input and output": paths.DVC_LOCK,
}


def write(params):
    """Write the page of the run in this folder, before any verdict; its path."""
    store.write_text(paths.PAGE, page.html(read(params, environment.read(), links=True)))
    return paths.PAGE


def read(params, environment, links=False):
    """What ``page.html`` shows of the run in this folder, as a dict; ``links`` to its files want these to stay."""
    stages = store.parse_yaml(paths.DVC.read_text(encoding="utf-8"))["stages"] if paths.DVC.exists() else {}
    pictures = sorted(paths.FIGURES.rglob("*.png"))
    return {
        "profile": params.profile,
        "maps": params.maps.source,
        "environment": environment,
        "r2": _r2(),
        "figures": {path.stem: base64.b64encode(path.read_bytes()).decode() for path in pictures},
        "made_by": provenance.MADE_BY,
        "parameters": paths.PARAMS.read_text(encoding="utf-8"),
        "stages": stages,
        "timings": [store.read_json(path) for path in sorted(paths.TIMINGS.glob("*.json"))],
        "files": {name: f"../{path}" for name, path in LINKED.items() if path.exists()} if links else {},
    }


def _r2():
    """The rows of the table of R²; none where it is not there, or not such a table."""
    try:
        with open(paths.TABLES / "r2.csv", newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if all(row.get(column) is not None for column in COLUMNS)]
    except (OSError, ValueError, csv.Error):  # the verdict has a row on it
        return []
