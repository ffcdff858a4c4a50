"""A server of the Model Context Protocol on standard input and output, by which an assistant drives the package.

Its tools are thin over the commands. They work in this folder alone, and none takes a command of the assistant's own.
"""

import argparse
import difflib
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from camelsight.commands import everything
from camelsight.pipeline import cli, leftovers, params, paths, store

PLACES = ("maps", "maps.folder", "maps.bases")  # parameters that name places outside this folder
LOG = paths.log("assistant")
LINES = 20  # of that log, which status shows
PYTHON = [sys.executable, "-P", "-m"]
MOST = 200_000  # characters of a table
HOW = (
    "Reproduces arXiv:2504.17839. Change parameters, show the person the plan, and run only what they approve. Then "
    "follow status, call verify, and explain numbers by ids such as r2.IllustrisTNG.original.omega_m."
)


class Tools:
    """The tools of one conversation in the working folder."""

    def __init__(self):
        self.planned, self.process = None, None  # what params.yaml was when a plan was shown; the run that was started

    def doctor(self) -> dict[str, Any]:
        """Whether this machine has what a run needs, and how to mend what it lacks."""
        return _ask("camelsight.commands.doctor", "--json", good=(0, 1))

    def plan(self) -> dict[str, Any]:
        """What a run would do with params.yaml as it is, why, and for how many seconds. Nothing is run."""
        before = store.file_digest(paths.PARAMS)
        record = _ask("camelsight.commands.plan", "--json")
        self.planned = before
        return record

    def change_parameters(self, changes: dict[str, Any]) -> str:
        """Set values in params.yaml, such as {"train.epochs": 3, "cases": ["original", "kmax_2"]}; returns the diff.

        Nothing is changed if any value is impossible.
        """
        with store.claim(paths.RUN_LOCK) as mine:
            if not mine:
                raise ValueError("expected no run at work, got one: wait for it, or end it, then change parameters")
            before = paths.PARAMS.read_text(encoding="utf-8")
            after = changed(before, changes)
            store.write_text(paths.PARAMS, after)
        lines, name = (text.splitlines(keepends=True) for text in (before, after)), str(paths.PARAMS)
        return "".join(difflib.unified_diff(*lines, name, name)) or "nothing changed"

    def run(self) -> dict[str, Any]:
        """Start what the plan said, in the background: make paper. It goes on if this conversation ends."""
        if self.planned != store.file_digest(paths.PARAMS):
            raise ValueError(f"expected a plan of {paths.PARAMS} as it is, got none: call plan, and show it first")
        with store.claim(paths.RUN_LOCK) as mine:
            if not mine or leftovers.at_work():
                raise ValueError(f"expected no run at work in {Path.cwd()}, got one: see status")
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with open(LOG, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*PYTHON, "camelsight", "paper"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.planned = None
        return {"started": True, "process": self.process.pid, "log": str(LOG)}

    def status(self) -> dict[str, Any]:
        """How far each case is, whether the run that was started here still works, and its last lines."""
        code = self.process and self.process.poll()
        state = "none was started here" if self.process is None else "at work" if code is None else f"ended with {code}"
        said = LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else ""
        lines = said.replace("\r", "\n").splitlines()[-LINES:]
        return {"run": state, "last lines": lines} | _ask("camelsight", "status", "--json")

    def verify(self, tier: int = 0) -> dict[str, Any]:
        """The referee's verdict on the run: 0 files and numbers, 1 the given weights, evaluated anew.

        Returns the conclusion and the rows that failed or warn; results/verdict.json has all of them.
        """
        if tier not in (0, 1):
            raise ValueError(f"expected tier 0 or 1, got {tier}: higher ones train anew, with make verify TIER={tier}")
        verdict = _ask("camelsight.referee.verify", "--json", "--tier", str(tier), good=(0, 1, 2))
        rows = [{key: row[key] for key in ("id", "verdict", "why")} for row in verdict["rows"]]
        shown = [row for row in rows if row["verdict"] in ("FAIL", "WARN")]
        return {"conclusion": verdict["conclusion"], "rows": shown, "page": str(paths.PAGE)}

    def explain(self, number: str) -> dict[str, Any]:
        """Where a number comes from: an id such as r2.IllustrisTNG.original.omega_m, or a macro of the PDF."""
        return _ask("camelsight.referee.verify", f"--explain={number}", "--json")

    def read(self, name: str = ""):
        """A table or a figure by its file name, such as r2.csv or r2_kmax.png; without one, their names."""
        from mcp.server.mcpserver import Image

        found = readable()
        if not name:
            return "\n".join(found) or "there is none yet: run first"
        if name not in found:
            raise ValueError(f"expected one of {', '.join(found) or 'none, before a run'}, got {name!r:.60}")
        path = found[name]
        return Image(path=path) if path.suffix == ".png" else path.read_text(encoding="utf-8")[:MOST]


def readable():
    """Name -> path of the tables and figures of the run; a link to elsewhere is none of them."""
    found = [*paths.TABLES.glob("*.csv"), *paths.FIGURES.rglob("*.png")]
    inside = (path for path in found if path.resolve().is_relative_to(Path.cwd()))
    return {path.name: path for path in sorted(inside)}


def changed(text, changes):
    """``text`` of params.yaml with the values of ``changes``, dotted names -> values; ValueError if one cannot be."""
    yaml = everything.editor()
    content = yaml.load(text)
    for name, value in changes.items():
        if name in PLACES:
            raise ValueError(f"expected nothing outside this folder, got {name}: edit {paths.PARAMS} by hand")
        *parents, last = name.split(".")
        block = content
        for parent in parents:
            block = block.get(parent) if isinstance(block, dict) else None
        if not isinstance(block, dict) or last not in block:
            raise ValueError(f"expected a name in {paths.PARAMS} such as train.epochs, got {name!r:.60}")
        block[last] = value
    new = everything.written(yaml, content)
    params.parse(new, str(paths.PARAMS))
    return new


def _ask(*command, good=(0,)):
    """What a command of the package prints as JSON; ValueError with its last line if it fails."""
    done = subprocess.run(
        [*PYTHON, *command], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode not in good or not done.stdout:
        raise ValueError((done.stderr.splitlines() or [f"{command[0]} ended with {done.returncode}"])[-1])
    return json.loads(done.stdout)


def server():
    """The server with its tools; ValueError where the package ``mcp`` is not installed."""
    try:
        from mcp.server import MCPServer
    except ImportError:
        raise ValueError("expected the Python package mcp, got none: run make setup") from None
    made, tools = MCPServer("camelsight", instructions=HOW, log_level="WARNING"), Tools()
    records = (tools.doctor, tools.plan, tools.change_parameters, tools.run, tools.status, tools.verify, tools.explain)
    for tool in records:
        made.add_tool(_told(tool))
    made.add_tool(_told(tools.read), structured_output=False)
    return made


def _told(tool):
    """``tool``, of which the assistant is told why it failed."""
    from mcp.server.mcpserver.exceptions import ToolError

    @functools.wraps(tool)
    def told(*arguments, **options):
        try:
            return tool(*arguments, **options)
        except (ValueError, OSError) as error:
            raise ToolError(store.one_line(error)) from None

    return told


def main():
    argparse.ArgumentParser(prog="python -m camelsight.commands.mcp", description=__doc__).parse_args()
    server().run("stdio")


if __name__ == "__main__":
    cli.guard(main, prefix="mcp")
