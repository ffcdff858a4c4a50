"""The power spectrum and the one-point function as rivals of the network."""

from camelsight import cli, paths, store

RUN = {}  # experiment: function of params that returns a record and a dict of arrays


def main(params, experiment):
    record, arrays = RUN[experiment](params)
    store.write_json(paths.experiment("baseline", experiment), record)
    store.write_arrays(paths.experiment_arrays("baseline", experiment), **arrays)


if __name__ == "__main__":
    cli.run_stage(main)
