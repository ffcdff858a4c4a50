"""Choose what each case trains with: what its own search found, or its tune.start, or the search of the uncut maps."""

from itertools import product

from camelsight.pipeline import cli, paths, store


def main(params, suite, case):
    """Write the hyperparameters of one case, and where they come from."""
    searched = params.tune.search_of(case)
    best = store.read_json(paths.trials(suite, searched))["best"] if searched else None
    start = {"hyperparameters": params.tune.start_of(case), "value": None, "trial": None, "complete": 0}
    store.write_json(paths.hyperparameters(suite, case), (best or start) | {"search": searched if best else None})


def every_case(params):
    for suite, case in product(params.suites, params.cases):
        main(params, suite, case)


if __name__ == "__main__":
    cli.run_stage(every_case)
