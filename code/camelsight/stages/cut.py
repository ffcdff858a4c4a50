"""Apply the cuts of a case to every map once and record what came out: fraction cut, statistics, digests, samples."""

import numpy as np

from camelsight import cases, cli, dataset, paths, store
from camelsight.maps import cuts, scaling
from camelsight.universe import cmd

SAMPLES = 4  # maps kept for the figures, the first of as many test simulations


def main(params, suite, case):
    n = params.maps.simulations
    maps = store.open_maps(suite, n, params.maps.pixels)
    raw = cmd.statistics(maps)
    cmd.check_values(raw, cmd.maps_file_name(suite))
    log10_range = [float(np.log10(raw["min"])), float(np.log10(raw["max"]))]

    parts, case_cuts = dataset.splits(params), cases.parse(case).cuts
    sampled = parts["test"][:SAMPLES]
    sums, digests, removed, samples = np.zeros((n, 3)), [], np.zeros((n, len(case_cuts))), {}
    for simulation, uncut in enumerate(maps.reshape(n, dataset.PER_SIMULATION, *maps.shape[1:])):
        cut = dataset.cut_simulation(params, suite, case, maps, simulation, log10_range)
        sums[simulation] = scaling.sums(scaling.signed_log10(cut))
        removed[simulation] = cuts.fraction_cut(uncut, case_cuts)
        digests.append(dataset.map_digest(cut))
        if simulation in sampled:
            samples[simulation] = cut[0]
    store.write_arrays(
        paths.cut_samples(suite, case),
        maps=np.stack([samples[simulation] for simulation in sampled]),
        parameters=store.read_parameters(suite, n)[sampled],
    )
    mean, std = scaling.statistics(sums[parts["train"]].sum(0))
    if not std > 0:
        raise ValueError(
            f"expected maps with some structure, got {mean:g} in every pixel after the cut {case}: loosen it"
        )
    record = {
        "suite": suite,
        "case": case,
        "fraction_cut": removed.mean(0),
        "uncut": raw,
        "log10_range": log10_range,
        "statistics_train": [mean, std],
        "statistics_all": scaling.statistics(sums.sum(0)),
        "digest": store.digest(digests),
        "digests": digests,
    }
    store.write_json(paths.cut(suite, case), record)


if __name__ == "__main__":
    cli.run_stage(main)
