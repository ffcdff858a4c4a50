"""The referee's verdict, tier by tier; no stage of dvc.yaml, because it judges the pipeline from outside.

  T0  are the files of the run those that it made, and do they agree with one another; tables, figures and PDF are made
      anew; what results exist is compared with what is published, and with the reference of the profile
  T1  the given weights are evaluated anew, and a sample of the attributions
  T2  one case is trained anew        T3  everything is made anew

What is judged is data. An archive, or the folder of somebody else, is judged by the code, the maps, the published
values and the reference of this checkout, in a new folder; whatever is run once more begins in an empty one.

Writes results/verdict.json, results/ro-crate-metadata.json and report/index.html; of an archive, all three into a
folder below report/. Exit codes: 0 nothing failed, 1 a row failed or the command was wrong, 2 nothing to judge.
"""

import argparse
import contextlib
import re
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from camelsight.pipeline import cli, environment, launch, paths, rerun, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import anew, comparison, crate, evidence, explain, files, overview, quantities, verification
from camelsight.referee import pack as archive
from camelsight.referee.page import html
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, WARN, row

JUDGES = (  # of this checkout, and of no archive
    *("benchmarks", "code", "data", "profiles", paths.DVC, paths.REQUIREMENTS),
    *(paths.EXPECTED, paths.REFERENCES, paths.DIGITISED, *paths.TEXTS),
)
SHOWN = 12  # rows of the terminal; the page has all


def verify(tier, pack=None, suite=None, case="original", as_json=False):
    """Judge this run, or the archive or folder ``pack``, up to ``tier``, and write down what came out."""
    start = time.monotonic()
    home = _home()
    if pack is None and Path.cwd() != home:
        pack = Path.cwd()
    if pack and tier == max(anew.TIERS):
        raise ValueError(f"expected TIER of at most {tier - 1} with PACK, got {tier}, which needs no archive")
    report = _report(pack, home)
    for path in report.values():  # an old verdict must not outlive what it was on
        path.unlink(missing_ok=True)
    with _judged(pack, home) as rows:
        verdict = judge(tier, suite, case, elsewhere=bool(pack), rows=rows)
        params = parameters_file.load()
        folder = paths.VERDICT.parent
        names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        described = crate.of_run(params, verdict, [name for name in names if name.name != paths.CRATE.name], folder)
        shown = html(overview.read(params, verdict["environment"], links=not pack), verdict)
    store.write_json(report["verdict"], verdict)
    store.write_json(report["crate"], described)
    store.write_text(report["page"], shown)
    cli.show(verdict, _in_short, as_json)
    said = f"{report['page'].resolve()}, {report['verdict'].resolve()}"
    print(f"{time.monotonic() - start:.0f} s; {said}", file=sys.stderr)
    sys.exit(verdict["conclusion"]["exit_code"])


def _home():
    """The checkout that judges: this folder where its code is what runs, as in a container, else that of the code."""
    same = Path("code/camelsight").resolve() == paths.PACKAGE.resolve()
    return Path.cwd() if same else environment.ROOT


def _report(pack, home):
    """Where the verdict goes: beside the results of this run, or into a folder of its own."""
    if pack is None:
        return {"verdict": paths.VERDICT, "crate": paths.CRATE, "page": paths.PAGE}
    name = re.sub(r"[^\w.-]", "_", Path(pack).resolve().name) or "run"
    folder = home / paths.PAGE.parent / f"of-{name}"
    return {key: folder / path.name for key, path in _report(None, home).items()}


@contextlib.contextmanager
def _judged(pack, home):
    """Work where the judged run is: here, or in a new folder with the data of ``pack`` and what judges from here.

    Yields rows on what the run brought with it of what judges.
    """
    if pack is None:
        yield []
        return
    pack, again = Path(pack).resolve(), home / paths.AGAIN
    again.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=again, prefix="pack-") as folder:
        archive.read(pack, folder)
        rows = []
        for name in (paths.DVC, paths.REQUIREMENTS):
            given = Path(folder, name)
            same = given.exists() and given.read_bytes() == (home / name).read_bytes()
            why = f"the {name} of the run is {'that' if same else 'not that'} of this checkout, which judges"
            rows.append(files.row(f"pack.{name}", PASS if same else WARN, why))
            given.unlink(missing_ok=True)
        for name in (paths.VERDICT, paths.CRATE, paths.PAGE):  # of whoever judged it before
            Path(folder, name).unlink(missing_ok=True)
        Path(folder, paths.ROBUSTNESS_FIGURES).mkdir(parents=True, exist_ok=True)  # which may be empty
        with contextlib.chdir(home):
            rerun.link(folder, [name for name in JUDGES if Path(name).exists()])
        with contextlib.chdir(folder):
            yield rows


def judge(tier=0, suite=None, case="original", elsewhere=False, rows=()):
    """The verdict as results/verdict.json has it; ``elsewhere``: the maps are not those of the run, but made anew."""
    params = parameters_file.load()
    suite = suite or params.suites[0]
    for key, value, known in (("SUITE", suite, params.suites), ("CASE", case, params.cases)):
        if value not in known:
            raise ValueError(f"expected {key} among {', '.join(known)}, got {value!r}")
    rows, timings = list(rows), {}
    for number in range(tier + 1):
        start = time.monotonic()
        here = environment.read()
        said = f"T{number}: {anew.TIERS[number]}; roughly {anew.forecast(number, params)}"
        print(f"{said}, on {here['cpu']}, {here['hardware']}", file=sys.stderr)
        try:
            rows += _TIER_ROWS[number](params, suite, case, elsewhere)
        except (ValueError, OSError) as error:
            if number == 0:
                raise
            rows.append(row(f"tier.{number}", anew.GROUPS[number], FAIL, store.one_line(error), tier=number))
        timings[f"T{number}"] = round(time.monotonic() - start, 1)
    done = [one["tier"] for one in rows if one["group"] in anew.GROUPS.values() and one["verdict"] != NOT_RUN]
    reached = max(done, default=0)  # without maps no tier above the lowest does anything
    rows += verification.beyond(reached, any(getattr(params.robustness, stage) for stage in launch.EXPERIMENTS))
    about = {"real": params.maps.source == "camels", "profile": params.profile, "tier": reached}
    return {
        "profile": params.profile,
        "maps": params.maps.source,
        "tier": tier,
        "conclusion": verification.conclusion(rows, elsewhere=elsewhere, **about),
        "environment": environment.read(),
        "seconds": timings,
        "error_rates": comparison.error_rates(params),
        "rows": rows,
    }


def _integrity(params, suite, case, elsewhere):
    expected = comparison.statements()
    rows = evidence.integrity(params, elsewhere)
    gone = sorted(verification.required() - {one["id"] for one in expected})
    rows += [files.row(f"expected.{name}", FAIL, f"{paths.EXPECTED} has no such row") for name in gone]
    try:
        measured = quantities.measured(params)
    except Exception as error:  # what a damaged file raises depends on where it is damaged; its own row names it
        why = f"the results cannot be read: {type(error).__name__}: {store.one_line(error)}"
        cause = next((one["id"] for one in rows if one["verdict"] == FAIL), None)
        rows.append(files.row("measured", NOT_RUN if cause else FAIL, why, cause=cause))
        measured = {}
    rows += comparison.beside_paper(params, expected, comparison.whole(params, measured) | quantities.code_facts())
    return rows + comparison.beside_reference(params, measured, 0)


_TIER_ROWS = (_integrity, anew.evaluate_again, anew.train_again, anew.everything_again)


def _in_short(verdict):
    """The verdict for a person: the rows that failed or warn, how many there are of each kind, the conclusion."""
    said, lines = verdict["conclusion"], []
    if rows := [one for mark in (FAIL, WARN) for one in verdict["rows"] if one["verdict"] == mark]:
        table = [(one["verdict"], one["id"], one["why"]) for one in rows[:SHOWN]]
        lines.append(tabulate(table, tablefmt="plain", maxcolwidths=[None, None, 90]))
        lines.append(f"and {len(rows) - SHOWN} more\n" if len(rows) > SHOWN else "")
    for group, counts in said["counts"].items():
        lines.append(f"  {group:<17} {', '.join(f'{count} {name}' for name, count in counts.items() if count)}")
    lines.append(f"{said['verdict']}: {said['text']}.")
    return "\n".join([*lines, f"{said['trust']}."] if said["trust"] else lines)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m camelsight.referee.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tier", type=int, default=0, choices=sorted(anew.TIERS))
    parser.add_argument("--pack", help="an archive of make pack, or the folder of a run, judged instead of this one")
    parser.add_argument("--suite", help="of T2; default: the first of params.yaml")
    parser.add_argument("--case", default="original", help="of T2, and of the attributions of T1")
    parser.add_argument("--explain", metavar="ID", help="follow a number such as r2.TNG.original.omega_m, or a macro")
    made = "make profiles/reference/PROFILE.json; resumable"
    parser.add_argument("--reference", type=int, metavar="SEEDS", help=made)
    parser.add_argument("--jobs", type=int, help="processes of --reference")
    parser.add_argument("--json", action="store_true", help="on standard output, for a program")
    arguments = parser.parse_args()
    if arguments.reference is not None:
        anew.make_reference(arguments.reference, arguments.jobs)
    elif arguments.explain:
        explain.explain(arguments.explain, arguments.json)
    else:
        verify(arguments.tier, arguments.pack, arguments.suite, arguments.case, arguments.json)


if __name__ == "__main__":
    cli.guard(main, prefix="verify")
