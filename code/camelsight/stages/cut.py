"""Apply the cuts of a case to every map once and record what came out: fraction cut, statistics, digests, samples."""

import numpy as np

from camelsight.analysis import dataset
from camelsight.ground import split
from camelsight.pipeline import cli, paths, store

SAMPLES = 4  # maps kept for the figures, the first of as many test simulations, beside those that the paper shows


def main(params, suite, case):
    sampled = dataset.splits(params)["test"][:SAMPLES].tolist()
    shown = [split.SHOWN[name] // dataset.PER_SIMULATION for name in ("scales", "densities")]
    sampled += [number for number in shown if number in dataset.numbers(params) and number not in sampled]
    with cli.progress(params.maps.simulations, f"cut {suite} {case}", "sim") as bar:
        record, samples = dataset.survey(params, suite, case, keep=sampled, on_simulation=bar.update)
    store.write_arrays(
        paths.cut_samples(suite, case),
        maps=np.stack([samples[simulation] for simulation in sampled]),
        index=np.array(sampled) * dataset.PER_SIMULATION,
        parameters=dataset.open_suite(params, suite).truth(sampled),
    )
    store.write_json(paths.cut(suite, case), record)


if __name__ == "__main__":
    cli.run_stage(main)
