"""The power spectrum and the one-point function as rivals of the network: what is in them, on the same split.

The first suite's uncut maps; in the experiment ``scales`` also those under each k_max of ``rivals.cuts``. The spectrum
is that of the density, as the network sees it, in units of the mean density at the fiducial omega_m. The mean of a map
has no part in it: its amplitude goes with the square of the mean density, but with the power of the overdensity as
well, so that omega_m and sigma_8 are degenerate in it.
"""

import dataclasses

import numpy as np
import optuna
import torch

from camelsight.analysis import dataset, prediction
from camelsight.ground import cases, cmd, seeding, split, theta
from camelsight.ground.choices import PRIOR
from camelsight.inference import training, tuning
from camelsight.maps import cuts, spectrum
from camelsight.pipeline import cli, paths, store
from camelsight.rivals import emulator, spectrum_network

UNIT = cases.MEAN_SURFACE_DENSITY * theta.FIDUCIAL[0]  # (Msun/h)/(Mpc/h)^2
SHOWN = 3  # test maps whose contours are drawn
PREDICTED = ("index", "simulation", "truth", "mean", "sigma")
RANGES = ("layers", "hidden", "max_lr", "weight_decay", "dropout")


def main(params, experiment):
    record, arrays = RUN[experiment](params, params.suites[0])
    store.write_json(paths.experiment("baseline", experiment), record)
    store.write_arrays(paths.experiment_arrays("baseline", experiment), **arrays)


def network(params, suite):
    """A moment network on log P(k)."""
    _, log_power = summaries(params, suite)
    return _moments(params, suite, "network", log_power)


def with_mean(params, suite):
    """A moment network on log P(k) and the logarithm of the mean density."""
    _, log_power, mass = summaries(params, suite, _log_mean)
    return _moments(params, suite, "mean", np.concatenate([log_power, mass], axis=-1))


def histogram(params, suite):
    """A moment network on log P(k) and the histogram of the log density."""
    _, log_power, shares = summaries(params, suite, spectrum.histogram)
    return _moments(params, suite, "histogram", np.concatenate([log_power, shares], axis=-1))


def likelihood(params, suite):
    """An emulator of log P(k), its covariance, and the posterior of some maps of each test simulation."""
    return _likelihood(params, suite, *summaries(params, suite))


def scales(params, suite):
    """Under each k_max, and uncut: networks on P(k), and on P(k) with the histogram; and the likelihood of P(k).

    Both kinds of network are searched for on the uncut maps, and trained with what was found there on all others. Of
    a cut map P(k) has the shells that begin below k_max, and pixels below zero count in the histogram's lowest bin. The
    posterior is sampled for one map of each test simulation: what is uncertain is the choice of simulations.
    """
    one_map = dataclasses.replace(params, rivals=dataclasses.replace(params.rivals, maps=1))
    found, rows, arrays = {}, [], {}
    for case in ("original", *params.rivals.cuts):
        k, log_power, shares = summaries(params, suite, _shares, case=case)
        features = {"network": log_power, "histogram": np.concatenate([log_power, shares], axis=-1)}
        made = {}
        for name, values in features.items():
            if case == "original":
                record, made[name] = _moments(params, suite, name, values)
                found[name] = record["tuning"]["hyperparameters"]
            else:
                made[name] = _fitted(params, suite, name, values, case, found[name])
        _, made["likelihood"] = _likelihood(one_map, suite, k, log_power)
        rows.append(
            {"case": case, "bins": len(k)}
            | {"metrics": {name: _record(params, suite, one)["metrics"] for name, one in made.items()}}
        )
        arrays |= {f"{case}.{name}.{key}": one[key] for name, one in made.items() for key in PREDICTED}
    return {"suite": suite, "rows": rows, "hyperparameters": found}, arrays


def _likelihood(params, suite, k, log_power):
    parts, device = dataset.rows(params), cli.device()
    given = dataset.open_suite(params, suite)
    physical = given.parameters
    unit = theta.to_prior(physical, suite)
    net, losses = emulator.fit(
        *(_on(device, unit[parts[part]], log_power[parts[part]].mean(1)) for part in ("train", "valid")),
        **store.plain(params.rivals.emulator),
        batch=params.train.batch,
        seed=seeding.entropy(params.seed, suite, "baseline", "emulator"),
    )
    known, fitted = log_power[parts["train"]], _emulate(net, unit[parts["train"]]).cpu().numpy()
    covariance = emulator.covariance(known, fitted)
    hartlap = emulator.hartlap(known[..., 0].size, len(k))
    precision = torch.from_numpy(hartlap * np.linalg.inv(covariance)).to(device)
    tests = parts["test"]
    expected, measured = _emulate(net, unit[tests]), torch.from_numpy(log_power[tests]).to(device)
    misfit = torch.stack([emulator.log_likelihoods(expected, maps, precision) for maps in measured.unbind(1)])
    predictions, chains, contours = _posteriors(params, suite, given, net, log_power, precision)
    record = _record(params, suite, predictions) | {
        "best_epoch": int(np.argmin([valid for _, valid in losses])) + 1,
        "losses": losses,
        "bins": len(k),
        "hartlap": hartlap,
        "chi2_per_bin": float(-2 * misfit.mean() / len(k)),
        "growth": {
            name: emulator.growth(known, fitted, physical[parts["train"], theta.NAMES.index(name)])
            for name in theta.COSMOLOGICAL
        },
        "shown": len(contours["shown"]),
        "chains": {name: [chain[name] for chain in chains] for name in chains[0]},
    }
    arrays = predictions | contours | {
        "k": k,
        "errors": emulator.errors(expected.cpu().numpy(), log_power[tests].mean(1)),
        "scatter": np.sqrt(np.diag(covariance)),
    }  # fmt: skip
    return record, arrays


def _posteriors(params, suite, given, net, log_power, precision):
    """Predictions of ``rivals.maps`` maps of each test simulation, the record of each chain, and some contours."""
    spec, tests = params.rivals, dataset.splits(params)["test"]
    generator = seeding.numpy_generator(params.seed, suite, "baseline", "prior")
    prior = generator.random((PRIOR, len(theta.NAMES)))
    emulated = _emulate(net, prior)
    slabs = np.linspace(0, dataset.PER_SIMULATION - 1, spec.maps).round().astype(int)
    index = (tests[:, None] * dataset.PER_SIMULATION + slabs).reshape(-1)
    shown = np.arange(min(SHOWN, len(tests))) * spec.maps
    low, high = (limits[:2] for limits in theta.ranges(suite))
    means, sigmas, chains, contours = [], [], [], []
    with cli.progress(len(index), f"posterior {suite}", "map") as bar:
        for position, one in enumerate(index):
            data = log_power[given.rows(one // dataset.PER_SIMULATION), one % dataset.PER_SIMULATION]
            points, chain = emulator.posterior(
                net,
                prior,
                emulated,
                torch.from_numpy(data).to(emulated.device),
                precision,
                walkers=spec.walkers,
                steps=spec.steps,
                lengths=spec.lengths,
                seed=seeding.entropy(params.seed, suite, "baseline", "chain", one),
            )
            points = theta.from_prior(points, suite)
            means.append(points.mean(0))
            sigmas.append(points.std(0))
            chains.append(chain)
            if position in shown:
                contours.append(emulator.density(points[:, :2], low, high))
            bar.update()
    stacked = {f"contour_{name}": np.array([contour[name] for contour in contours]) for name in contours[0]}
    return _predictions(given, index, means, sigmas), chains, stacked | {"shown": shown}


def _emulate(net, unit):
    with torch.inference_mode():
        (points,) = _on(net.mean.device, unit)
        return torch.cat([net(chunk) for chunk in points.split(training.PREDICT_BATCH)]).double()


RUN = {"network": network, "mean": with_mean, "histogram": histogram, "likelihood": likelihood, "scales": scales}


def summaries(params, suite, *others, case="original"):
    """k ``(K,)`` and log P ``(S, 15, K)`` of the complete shells, of all simulations; then ``(S, 15, ...)`` of each of
    ``others``, called with the maps of a simulation. A ``case`` has a k_max, above which no shell begins, or no cut.
    """
    given, cut = dataset.open_suite(params, suite), cases.parse(case).only
    bins, powers, more = spectrum.complete(params.maps.pixels), [], [[] for _ in others]
    if cut:
        bins = min(bins, int(np.ceil(cut.threshold * cmd.BOX / (2 * np.pi))) - 1)
    for simulation in given.numbers:
        density = given.simulation(simulation)[:, 0]
        if cut:
            density = cuts.kmax(density, cut.threshold)
        k, power = spectrum.power(density / UNIT)
        powers.append(np.log(power[:, :bins]))
        for found, other in zip(more, others, strict=True):
            found.append(other(density))
    return k[:bins], np.array(powers), *map(np.array, more)


def _log_mean(density):
    return np.log(density.mean((1, 2), dtype=np.float64))[:, None]


def _shares(density):
    return spectrum.histogram(np.maximum(density, 1))  # a cut map has pixels below zero


def _moments(params, suite, name, features):
    """The best of ``rivals.trials`` networks on features ``(S, 15, F)``, and its predictions of the test maps."""
    spec, fitted = params.rivals, {}
    train, valid, tests = _scaled(params, suite, features)
    with cli.progress(spec.trials, f"{name} {suite}", "trial") as bar:

        def objective(hyperparameters, number, _report):
            fitted[number] = spectrum_network.fit_moments(
                train,
                valid,
                **hyperparameters,
                epochs=spec.epochs,
                batch=params.train.batch,
                seed=seeding.entropy(params.seed, suite, "baseline", name, number),
            )
            bar.update()
            return min(loss for _, loss in fitted[number][1])

        study = tuning.search(
            objective,
            trials=spec.trials,
            ranges={key: getattr(spec, key) for key in RANGES},
            first={key: _centre(key, *getattr(spec, key)) for key in RANGES},
            storage=optuna.storages.InMemoryStorage(),
            seed=seeding.entropy(params.seed, suite, "baseline", name),
        )
    best = tuning.best(study)
    net, losses = fitted[best["trial"]]
    predictions = _predicted(params, suite, net, tests)
    return _record(params, suite, predictions) | {"tuning": best, "losses": losses}, predictions


def _fitted(params, suite, name, features, case, hyperparameters):
    """The predictions of one network on ``features``, as in ``_moments``, with these hyperparameters."""
    train, valid, tests = _scaled(params, suite, features)
    net, _ = spectrum_network.fit_moments(
        train,
        valid,
        **hyperparameters,
        epochs=params.rivals.epochs,
        batch=params.train.batch,
        seed=seeding.entropy(params.seed, suite, case, "baseline", "scales", name),
    )
    return _predicted(params, suite, net, tests)


def _scaled(params, suite, features):
    """(features, targets) of the training and the validation maps, and the features of the test maps, on the device."""
    parts, given = dataset.rows(params), dataset.open_suite(params, suite)
    known = features[parts["train"]]
    std = known.std((0, 1))
    scaled = (features - known.mean((0, 1))) / np.where(std > 0, std, 1)  # some bins may always be empty
    targets = np.repeat(theta.normalise(given.parameters, suite)[:, None], dataset.PER_SIMULATION, axis=1)
    train, valid, (tests,) = (
        _on(cli.device(), *(values[parts[part]].reshape(-1, values.shape[-1]) for values in arrays))
        for part, arrays in (("train", (scaled, targets)), ("valid", (scaled, targets)), ("test", (scaled,)))
    )
    return train, valid, tests


def _predicted(params, suite, net, tests):
    given = dataset.open_suite(params, suite)
    mean, sigma = (values.double().cpu().numpy() for values in training.predict(net, tests))
    index = split.map_indices(given.numbers[dataset.rows(params)["test"]])
    return _predictions(given, index, theta.denormalise(mean, suite), theta.denormalise_sigma(sigma, suite))


def _centre(name, low, high):
    """The middle of a range, on the scale that ``tuning.search`` draws from."""
    if isinstance(low, int):
        return (low + high) // 2
    return float(np.sqrt(low * high)) if name in tuning.LOG_SCALE else (low + high) / 2


def _on(device, *arrays):
    return [torch.as_tensor(array, dtype=torch.float32).to(device) for array in arrays]


def _predictions(given, index, mean, sigma):
    simulation = index // dataset.PER_SIMULATION
    truth = given.truth(simulation)
    return {"index": index, "simulation": simulation, "truth": truth, "mean": np.array(mean), "sigma": np.array(sigma)}


def _record(params, suite, predictions):
    generator = prediction.bootstrap(params, suite, "original")
    return {
        "suite": suite,
        "n_maps": len(predictions["index"]),
        "n_simulations": len(np.unique(predictions["simulation"])),
        "metrics": prediction.measure(predictions, generator, params),
    }


if __name__ == "__main__":
    cli.run_stage(main)
