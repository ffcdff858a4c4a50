"""Do the networks carry over? Other suites, blurred maps, maps without structure, and what makes them fail."""

from camelsight import cli, paths, store

RUN = {}  # experiment: function of params that returns a record and a dict of arrays


def main(params, experiment):
    record, arrays = RUN[experiment](params)
    store.write_json(paths.experiment("transfer", experiment), record)
    store.write_arrays(paths.experiment_arrays("transfer", experiment), **arrays)


if __name__ == "__main__":
    cli.run_stage(main)
