"""The maps of a suite that only transfer@suites asks for, and what a network must know of them."""

import dataclasses

from camelsight.analysis import dataset, simulation
from camelsight.pipeline import cli, paths, release, store


def main(params, suite):
    folder, none = paths.FURTHER, dataclasses.replace(params.robustness, suites=())
    alone = dataclasses.replace(params, suites=(suite,), robustness=none)
    if params.maps.source == "twin":
        simulation.simulate(alone, folder)
    else:
        release.adopt(alone, folder)
    with cli.progress(params.maps.simulations, f"read {suite}", "sim") as bar:
        record, _ = dataset.survey(params, suite, "original", folder=folder, on_simulation=bar.update)
    store.write_json(paths.robustness_input(suite, "original"), record)


if __name__ == "__main__":
    cli.run_stage(main)
