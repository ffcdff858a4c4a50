"""Maps and parameters of every suite, in CMD's own format: simulated here, or checked and taken from a folder."""

import sys

from camelsight.analysis import simulation
from camelsight.pipeline import cli, params, paths, release


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


if __name__ == "__main__":
    cli.run_stage(main, examine)
