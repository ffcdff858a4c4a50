"""Choose what each case trains with: what its own search found, or its tune.start, or the search of the uncut maps."""

from itertools import product

from camelsight.pipeline import cli, paths, store


def main(params, *place):
    """Write them for every suite and case, or for one."""
    for suite, case in [place] if place else product(params.suites, params.cases):
        store.write_json(paths.hyperparameters(suite, case), _chosen(params.tune, suite, case))


def _chosen(spec, suite, case):
    searched = spec.search_of(case)
    best = store.read_json(paths.trials(suite, searched))["best"] if searched else None
    start = {"hyperparameters": spec.start_of(case), "value": None, "trial": None, "complete": 0}
    return (best or start) | {"search": searched if best else None}


if __name__ == "__main__":
    cli.run_stage(main)
