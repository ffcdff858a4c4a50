"""How good the maps are: pixels beside the published ones; and of a twin power spectra, and a map beside CAMELS'."""

from itertools import product

import numpy as np

from camelsight.ground import cmd, seeding, theta
from camelsight.ground.fields import FIELDS, TOTAL
from camelsight.pipeline import cli, compiled, map_files, paths, store
from camelsight.universe import camels, linear, nbody, particles, validation

SEEDS = 8
SUITES = ("IllustrisTNG", "SIMBA")
FINER_MESH, MORE_STEPS = 2, 4  # of the run for convergence
DECIMALS = 3  # of the map that is kept


def main(params):
    cli.keep_memory()
    compiled.load(particles)
    record = {"statistics": {suite: {} for suite in params.suites}}
    for suite, field in product(params.suites, params.fields):
        maps = map_files.open_maps(suite, field, params.maps.simulations, params.maps.pixels, paths.MAPS)
        record["statistics"][suite][field] = validation.pixel_statistics(maps, FIELDS[field].offset)
    if params.maps.source == "twin":
        record |= simulator(params) | {"twin": twin(params.maps)}
    store.write_json(paths.UNIVERSE, record)


def twin(spec):
    """log10 of map 0 of LH_0 of IllustrisTNG at the profile's resolution, and its agreement with the digitised one."""
    suites, published = ("IllustrisTNG", "Nbody_IllustrisTNG"), np.load(paths.DIGITISED).astype(np.float64)
    settings = {name: getattr(spec, name) for name in ("particles", "mesh", "steps")}
    made = camels.maps(suites, 0, pixels=len(published), device=cli.device(), **settings)
    record = {}
    for suite, maps in made.items():
        log10 = np.log10(maps[TOTAL][0], dtype=np.float64)
        k, correlation, power = validation.agreement(log10, published)
        record[suite] = {"k": k, "correlation": correlation, "power": power, "log10": log10.round(DECIMALS)}
    return record


def simulator(params):
    """Spectra at the fiducial parameters with the profile's particles, mesh and steps: gravity, and what baryons do."""
    spec, (omega_m, sigma_8) = params.maps, theta.FIDUCIAL[:2]
    seeds = [seeding.entropy(params.seed, "universe", "phases", n) for n in range(SEEDS)]
    table, particles = linear.shape_table(), spec.particles

    def evolve(seed, mesh=spec.mesh, steps=spec.steps):
        settings = {"mesh": mesh, "steps": steps, "device": cli.device(), "linear_table": table}
        return nbody.evolve(omega_m, sigma_8, seed=seed, particles=particles, **settings)

    def ratio(positions, gravity, values, suite):
        return validation.hydro_spectrum(positions, values, suite, particles)[1] / gravity

    power, fiducial, varied = [], {suite: [] for suite in SUITES}, {}
    for seed in seeds:
        positions = evolve(seed)
        k, gravity = validation.spectrum([(positions, None)], particles)
        power.append(gravity)
        for suite in SUITES:
            fiducial[suite].append(ratio(positions, gravity, theta.FIDUCIAL, suite))
            if seed == seeds[0]:
                varied[suite] = {
                    name: [ratio(positions, gravity, values, suite) for values in ends]
                    for name, ends in extremes(suite).items()
                }
    finer = evolve(seeds[0], FINER_MESH * spec.mesh, MORE_STEPS * spec.steps)
    _, converged = validation.spectrum([(finer, None)], particles)
    return {
        "gravity": {
            "k": k,
            "power": np.array(power),
            "converged": converged,
            "linear": linear.power(k, omega_m, sigma_8, table),
            "hmcode": linear.nonlinear_power(k, omega_m, sigma_8),
            "k_half_nyquist": cmd.nyquist(particles) / 2,
            "k_resolved": validation.resolved(k, power[0], converged),
        },
        "baryons": {suite: {"fiducial": np.array(fiducial[suite]), "varied": varied[suite]} for suite in SUITES},
    }


def extremes(suite):
    """Parameter -> the fiducial parameters with this one at its lowest, and at its highest; astrophysical ones."""
    names = [name for name in theta.NAMES if name not in theta.COSMOLOGICAL]
    return {
        name: [np.where(np.array(theta.NAMES) == name, limits, theta.FIDUCIAL) for limits in theta.ranges(suite)]
        for name in names
    }


if __name__ == "__main__":
    cli.run_stage(main)
