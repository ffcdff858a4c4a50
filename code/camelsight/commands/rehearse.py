"""How long a profile will take here, and whether it fits: every stage at its true shapes, on few simulations and maps.

Nothing is left but the record in runs/rehearsals, from which ``make plan`` and later runs forecast.
"""

import argparse
import dataclasses
import math
import shutil
import time

import numpy as np
import torch
from tabulate import tabulate

from camelsight.analysis import dataset, networks, simulation
from camelsight.commands import forecast
from camelsight.ground import cmd, theta
from camelsight.inference import cost, network
from camelsight.pipeline import cli, launch, machine, params, paths, rehearsal, rerun, store
from camelsight.universe import camels

BATCHES = 4  # of an epoch, and EPOCHS of a training, of which the first is left out
EPOCHS = 3
TESTED = 2  # simulations, at least: an interval needs more than one
STEPS = (2, 4)  # of gravity in the two runs of the stage universe
MAPS = 2  # that are attributed
PARTICLES = {"particles": 64, "mesh": 112, "steps": 16}  # of the maps that stand for real ones
NEEDED = "original"


def rehearse(profile):
    """Run every stage in a folder of its own; the record that ``--json`` prints."""
    loaded = params.load(paths.profile(profile) if profile else paths.PARAMS)
    device = cli.device()
    worker_bytes = simulation.WORKER_BYTES + simulation.MESH_BYTES * loaded.maps.mesh**3
    workers = 1 if device.type == "cuda" else cli.processes(loaded.threads, worker_bytes)
    small = reduced(loaded)
    start = time.monotonic()
    took = {}
    with rerun.empty() as folder:
        try:
            _run(folder, loaded, small, workers, took)
        except ValueError as error:
            before = ", ".join(f"{stage} {_measured(times):.0f} s" for stage, times in took.items())
            raise ValueError(f"{error}; measured before: {before or 'nothing'}") from None
    found = forecast.Rehearsal(loaded, small, took, workers)
    seconds, jobs = forecast.of_stages(found), launch.default_jobs(loaded)
    record = {
        "profile": loaded.profile,
        "identity": rehearsal.identity(loaded),
        "took": round(time.monotonic() - start, 1),
        "jobs": jobs,
        "seconds": round(forecast.in_all(seconds, jobs)),
        "stages": _stages(found, seconds),
        "training": _trainings(found, device),
        "misfits": misfits(found, jobs, device),
        "forecast": {target: round(value, 2) for target, value in seconds.items()},
    }
    store.write_json(paths.rehearsal(loaded.profile), record)
    return record


def reduced(loaded):
    """The params that are rehearsed: shapes as in ``loaded``; one suite, two cases and few of all that is counted."""
    fractions, most = loaded.split.fractions, loaded.maps.simulations
    wanted = (BATCHES * loaded.train.batch / (cmd.MAPS_PER_SIMULATION * fractions[0]), TESTED / fractions[2], 8)
    widest = max(loaded.cases, key=lambda case: (loaded.tune.start_of(case).hidden, case != NEEDED))
    some, tune, sanity, rest = dataclasses.replace, loaded.tune, loaded.sanity, loaded.robustness
    return some(
        loaded,
        suites=loaded.suites[:1],
        cases=(NEEDED, widest) if widest != NEEDED else (NEEDED,),
        maps=some(loaded.maps, simulations=min(most, math.ceil(max(wanted)))),
        tune=some(tune, cases=(NEEDED,), trials=min(1, tune.trials), epochs=min(2, tune.epochs), workers=1),
        train=some(loaded.train, epochs=min(EPOCHS, loaded.train.epochs), patience=0),
        attribute=some(loaded.attribute, cases=(NEEDED,), maps=min(MAPS, loaded.attribute.maps)),
        sanity=some(
            sanity,
            maps=min(MAPS, sanity.maps),
            seeds=min(1, sanity.seeds),
            seed_epochs=1,
            shuffled_epochs=0 if sanity.seeds else min(1, sanity.shuffled_epochs),
        ),
        robustness=some(rest, transfer=(), baseline=(), suites=()),
    )


def _run(folder, loaded, small, workers, took):
    """Put into ``took`` {stage: [what it took, each time]}."""
    suite = small.suites[0]

    def run(stage, spec, *place, **more):
        rerun.prepare(folder, spec, (paths.DIGITISED,))
        taken = _stage(folder, stage, place) | dict(zip(("suite", "case"), place, strict=False)) | more
        took.setdefault(stage, []).append(taken)

    made = _simulated(loaded, small, workers)
    run("maps", made)
    _repeat(folder, small)
    if loaded.maps.source != "twin":
        del took["maps"]  # files that are fetched
    for steps in STEPS:
        run("universe", dataclasses.replace(small, maps=dataclasses.replace(small.maps, steps=steps)), steps=steps)
    for stage in ("cut", "tune", "choose", "train", "evaluate"):
        for case in small.tune.cases if stage == "tune" else small.cases:
            run(stage, small, suite, case)
    run("attribute", small, suite, NEEDED)
    run("sanity", small, suite)
    for stage in ("tabulate", "figures"):
        run(stage, small)


def _simulated(loaded, small, workers):
    """The params of the maps that are simulated: of all suites that share the universe of the first."""
    universe = theta.hydro_suite(loaded.suites[0])
    suites = tuple(suite for suite in loaded.suites if theta.hydro_suite(suite) == universe)
    few = min(small.maps.simulations, max(3, 2 * workers))
    maps = dataclasses.replace(small.maps, simulations=few)
    if loaded.maps.source != "twin":
        maps = dataclasses.replace(maps, source="twin", **PARTICLES)
    return dataclasses.replace(small, suites=suites, maps=maps)


def _repeat(folder, small):
    """The maps that were made in ``folder``, over and over, as those of all simulations of ``small``."""
    for suite in small.suites:
        for path in (folder / paths.maps(suite, field) for field in small.fields):
            maps = np.load(path)
            np.save(path, np.resize(maps, (small.maps.simulations * cmd.MAPS_PER_SIMULATION, *maps.shape[1:])))
        table = camels.parameters(theta.hydro_suite(suite))[dataset.numbers(small)]
        store.write_text(folder / paths.parameters(suite), camels.text(table))


def _stage(folder, stage, place):
    """Run a stage in a process of its own; what ``rehearse_stage`` writes of it, and the seconds of the process."""
    name = "-".join([stage, *place])
    process = rerun.in_folder(folder, name, "camelsight.commands.rehearse_stage", stage, *place)
    start = time.monotonic()
    launch.processes([process], 1, f"rehearse {name}")
    return store.read_json(folder / paths.REHEARSED) | {"process": time.monotonic() - start}


def _measured(times):
    return sum(one["process"] for one in times)


def _stages(found, seconds):
    """A record a stage: how often it runs, seconds measured and forecast, the rule, peak memory of a process."""
    of_stage, records = {}, []
    for target, value in seconds.items():
        of_stage.setdefault(launch.kind(target), []).append(value)
    for stage, forecasts in of_stage.items():
        took = found.took.get(stage, [])
        record = {"stage": stage, "count": len(forecasts), "measured": round(_measured(took), 1) if took else None}
        record["forecast"] = round(sum(forecasts), 1)
        record["rule"] = forecast.RULES[stage] if took else forecast.NOT_REHEARSED
        record |= {key: max((one[key] for one in took), default=None) for key in ("host_bytes", "device_bytes")}
        records.append(record)
    return records


def _trainings(found, device):
    """A record for each width that was trained: precision, whether compiled, maps a second, and shares of limits."""
    precision = networks.precision(found.small, device)
    arithmetic, bandwidth = cost.limits(device, precision)
    maps = len(dataset.splits(found.small)["train"]) * cmd.MAPS_PER_SIMULATION
    compiled = found.took["train"][0]["compiled"]
    engine = {"cuda": "torch.compile" if compiled else "no", "cpu": "own operators"}[device.type]
    if device.type == "cpu" and networks.engine(device) != "compiled":
        engine = "no"
    records = []
    for hidden in sorted({one["hidden"] for record in found.took["train"] for one in record["trainings"]}):
        net = network.build(hidden, 0.0, size=found.small.maps.pixels, channels=len(found.small.fields))
        operations, traffic = cost.of_training(net, found.small.train.batch, getattr(torch, precision).itemsize)
        rate = maps / forecast.epoch(found, hidden)[0]
        records.append(
            {
                "hidden": hidden,
                "precision": precision,
                "compiled": engine,
                "maps_per_second": round(rate, 1),
                "share_of_arithmetic": round(rate * operations / arithmetic, 4),
                "share_of_bandwidth": round(rate * traffic / bandwidth, 4),
            }
        )
    return records


def misfits(found, jobs, device):
    """What of the whole profile would not fit this machine, a line each."""
    full, small, lines = found.full, found.small, []
    more = launch.suite_bytes(full) - launch.suite_bytes(small)
    held = {stage: max(one["host_bytes"] for one in found.took[stage]) for stage in ("train", "tune", "sanity")}
    for stage, needed in held.items():
        if jobs * (needed + more) > machine.memory():
            lines.append(f"{stage}: {_gb(needed + more)} of memory × {jobs} at a time, of {_gb(machine.memory())}")
    if (workers := found.workers) and "maps" in found.took:
        needed = workers * found.took["maps"][0]["host_bytes"]
        if needed > machine.memory():
            lines.append(f"maps: {_gb(needed)} of memory for {workers} processes, of {_gb(machine.memory())}")
    disk, needed = shutil.disk_usage(".").free, len(full.suites) * launch.suite_bytes(full)
    if needed > disk and not paths.MAPS.exists():
        lines.append(f"maps: {_gb(needed)} on the disk, of which {_gb(disk)} are free")
    maps = launch.suite_bytes(full)
    if device.type == "cuda" and maps > dataset.DEVICE_SHARE * cli.free_bytes(device):
        lines.append(f"train: {_gb(maps)} of maps on {device}; they would be streamed from the host")
    return lines


def _gb(value):
    return f"{value / 1e9:.1f} GB"


def text(record):
    """The record for a person."""
    rows = [
        [
            one["stage"],
            one["count"],
            *(f"{one[key]:.1f}" if one[key] is not None else "" for key in ("measured", "forecast")),
            *(_gb(one[key]) if one[key] else "" for key in ("host_bytes", "device_bytes")),
            one["rule"],
        ]
        for one in record["stages"]
    ]
    heads = ("stage", "times", "measured, s", "whole, s", "host", "device", "rule")
    lines = [f"Profile {record['profile']} on {record['identity']['hardware']}, rehearsed in {record['took']:.0f} s"]
    lines.append(tabulate(rows, heads, disable_numparse=True))
    for one in record["training"]:
        lines.append(
            f"training, hidden {one['hidden']}: {one['maps_per_second']:g} maps/s in {one['precision']}, "
            f"compiled: {one['compiled']}; {one['share_of_arithmetic']:.0%} of the arithmetic and "
            f"{one['share_of_bandwidth']:.0%} of the memory traffic that this device does"
        )
    lines += [f"would not fit: {line}" for line in record["misfits"]] or ["everything fits"]
    lines.append(f"In all roughly {record['seconds'] / 60:.0f} min, {record['jobs']} at a time.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.commands.rehearse", description=__doc__)
    parser.add_argument("--profile", help=f"of {paths.PROFILES}; default: {paths.PARAMS}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    cli.show(rehearse(arguments.profile), text, arguments.json)


if __name__ == "__main__":
    cli.guard(main, prefix="rehearse")
