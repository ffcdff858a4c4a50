"""Maps and parameters of every suite, in CMD's own format: simulated here, or checked and taken from a folder."""

import sys

from camelsight.analysis import simulation
from camelsight.pipeline import cli, conversion, params, paths, release


def main(params):
    if params.maps.source == "twin":
        simulation.simulate(params)
    else:
        release.adopt(params)


def examine(check=False, *, folder=None, json=False):
    """Say all about the files of params.yaml, or of a folder: exit code 0 if they are as they should be, 1 if not."""
    records = release.check(params.load(paths.PARAMS), folder)
    good = not any(record["wrong"] for record in records)
    if json:
        cli.print_json({"good": good, "files": records})
    else:
        print(*map(release.describe, records), sep="\n")
        print("Everything is as it should be." if good else "Something is WRONG; see above.")
    sys.exit(0 if good else 1)


def convert(convert):
    """Write maps that are packed, float64, or column by column into a file that a run can map into memory."""
    target, rounded = conversion.convert(convert)
    print(f"{target}: {rounded:,} pixels were rounded to float32" if rounded else f"{target}: the same numbers")


if __name__ == "__main__":
    cli.run_stage(main, examine, convert)
