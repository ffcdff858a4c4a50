"""Measure every row of benchmarks/*.py, ours and its peer in turn, and print one table.

A file has ROWS, a list of dicts: name, unit, ours and peer (functions that take nothing and return a figure in that
unit; a peer may also be a number, the target), and optionally better ("less", the default, or "more"), rounds (3),
gpu (False; such rows are left out where there is no GPU) and note. `run.py NAME ...` measures only these.
"""

import importlib
import json
import statistics
import sys
from pathlib import Path

import torch
from tabulate import tabulate

from camelsight.pipeline import environment

HERE = Path(__file__).parent
LATEST = HERE / "latest.json"


def rows():
    for path in sorted(HERE.glob("*.py")):
        if path.name != Path(__file__).name:
            yield from importlib.import_module(path.stem).ROWS


def measure(row):
    """The medians of several rounds, in which ours and the peer's run in turn."""
    ours, peer = [], []
    for _ in range(row.get("rounds", 3)):
        ours.append(row["ours"]())
        peer.append(row["peer"]() if callable(row["peer"]) else row["peer"])
    ours, peer = statistics.median(ours), statistics.median(peer)
    return {
        "name": row["name"],
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer if row.get("better") == "more" else peer / ours,
        "unit": row["unit"],
        "device": torch.cuda.get_device_name() if row.get("gpu") else environment.hardware(),
        "note": row.get("note", ""),
    }


def main(names):
    known = {row["name"]: row for row in rows()}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"bench: expected rows among {', '.join(known)}, got {', '.join(unknown)}")
    results = []
    for name, row in known.items():
        if names and name not in names:
            continue
        if row.get("gpu") and not torch.cuda.is_available():
            print(f"{name}: left out, it needs a GPU", file=sys.stderr)
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(measure(row))
    LATEST.write_text(json.dumps(results, indent=1) + "\n")
    shown = ("name", "ours", "peer", "unit", "ratio", "note")
    body = [[f"{r[key]:.3g}" if isinstance(r[key], float) else r[key] for key in shown] for r in results]
    print(tabulate(body, shown, disable_numparse=True))
    print(f"ratio > 1: ours is better. {environment.hardware()}")


if __name__ == "__main__":
    main(sys.argv[1:])
