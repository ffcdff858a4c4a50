"""Attributions of the network of a case, on its test maps, and their statistics in the cosmic web; resumable."""

import numpy as np
import torch

from camelsight import cases, cli, dataset, paths, seeding, store, theta
from camelsight.inference import network
from camelsight.interpretation import attribution, cosmic_web, sanity

KEPT = 4  # maps whose attributions are stored for the figures
CHUNK = 5  # maps between two checkpoints


def main(params, suite, case):
    spec, device = params.attribute, cli.device()
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    net = attribution.fold(store.read_weights(paths.weights(suite, case), net)).to(device)
    part = dataset.load(params, suite, case, ("test",))["test"]
    record = store.read_json(paths.cut(suite, case))
    chosen = attribution.spread(part.simulation, spec.maps)
    maps, indices, simulation = part.maps[chosen], part.index[chosen], part.simulation[chosen]
    results = _attributions(params, suite, case, net, maps, indices, record)
    values = {
        method: torch.stack([one["values"][method] for one in results]).cpu().numpy() for method in attribution.METHODS
    }  # (M, P, n, n)
    gaps = {
        name: {
            method: np.array([float(one["record"]["gap"][method][column]) for one in results])
            for method in results[0]["record"]["gap"]
        }
        for column, name in enumerate(spec.parameters)
    }
    equivariance = {
        name: {
            method: np.mean([float(one["record"]["equivariance"][method][column]) for one in results])
            for method in attribution.METHODS
        }
        for column, name in enumerate(spec.parameters)
        if "equivariance" in results[0]["record"]
    }

    suite_maps = store.open_maps(suite, params.maps.simulations, params.maps.pixels)
    density = np.stack([suite_maps[index] for index in indices])
    overdensity = density / (cases.MEAN_SURFACE_DENSITY * part.parameters[chosen, 0][:, None, None])
    web = {
        "density": cosmic_web.density_classes(overdensity),
        "tidal": cosmic_web.tidal_classes(overdensity),
    }
    table, agreement = cosmic_web.compare(*web.values())
    statistics = {
        name: {
            method: _statistics(values[method][:, column], overdensity, web, simulation, params, suite, case)
            for method in attribution.METHODS
        }
        for column, name in enumerate(spec.parameters)
    }
    mean, std = record[f"statistics_{params.train.normalisation}"]
    signed_log = maps[:KEPT].double().numpy() * std + mean
    store.write_arrays(
        paths.attributions(suite, case),
        index=indices[:KEPT],
        parameters=part.parameters[chosen][:KEPT],
        density=np.sign(signed_log) * 10 ** np.abs(signed_log),  # cut, as the network sees it
        **{f"{name}_classes": classes[:KEPT] for name, classes in web.items()},
        **{method: stack[:KEPT] for method, stack in values.items()},
    )
    store.write_json(
        paths.attribution_statistics(suite, case),
        {
            "suite": suite,
            "case": case,
            "index": indices,
            "completeness_gap": gaps,
            "flagged": {
                name: indices[gap["integrated_gradients"] > attribution.TOLERANCE] for name, gap in gaps.items()
            },
            "steps": [one["record"]["steps"] for one in results],
            "equivariance": equivariance,
            "web": {"rows": "density", "columns": "tidal", "shares": table, "agreement": agreement},
            "statistics": statistics,
            "agreement": _agreement(values, spec.parameters),
            "curves": _curves(
                params, suite, case, net, part.maps[chosen], part.targets[chosen], indices, values, record
            ),
            "settings": store.plain(spec),
        },
    )
    _checkpoint(params, suite, case, net).unlink(missing_ok=True)


def _attributions(params, suite, case, net, maps, indices, record):
    """[{"values", "record"}, ...] of ``attribution.attribute`` for each map; goes on where it was cut off."""
    spec, device = params.attribute, cli.device()
    attribute = attribution.symmetric if spec.views == "mean8" else attribution.attribute
    batch = attribution.batch_size(net, params.maps.pixels, cli.free_bytes(device))
    checkpoint = _checkpoint(params, suite, case, net)
    results = (store.read_checkpoint(checkpoint, device) or {"results": []})["results"]
    with cli.progress(len(maps), f"attribute {suite} {case}", "map", len(results)) as bar:
        for scaled, index in list(zip(maps, indices, strict=True))[len(results) :]:
            start = _baseline(params, suite, case, record, scaled, index, spec.baseline, 1)
            references = _baseline(params, suite, case, record, scaled, index, spec.shap_baseline, spec.shap_samples)
            values, one = attribute(
                net,
                scaled.to(device),
                _outputs(spec),
                start=start[0].to(device),
                references=references.to(device),
                ig_steps=spec.ig_steps,
                shap_samples=spec.shap_samples,
                seed=seeding.entropy(params.seed, suite, case, "gradient_shap", index),
                batch=batch,
            )
            results.append({"values": values, "record": one})
            bar.update()
            if len(results) % CHUNK == 0:
                store.write_checkpoint(checkpoint, {"results": results})
    return results


def _outputs(spec):
    """The indices of the network's outputs that are attributed."""
    return [theta.NAMES.index(name) + len(theta.NAMES) * (spec.output == "sigma") for name in spec.parameters]


def _baseline(params, suite, case, record, scaled, index, name, count):
    mean, std = record[f"statistics_{params.train.normalisation}"]
    return attribution.baselines(
        name,
        scaled,
        count,
        log10_range=record["log10_range"],
        train_mean=record["statistics_train"][0],
        mean=mean,
        std=std,
        generator=seeding.numpy_generator(params.seed, suite, case, "baseline", count, index),
    )


def _agreement(values, names):
    """parameter -> method -> how well its pixels' order agrees with that of the other methods."""
    measures = {"methods": sanity.rank_correlation, "methods_top": sanity.top_overlap}
    return {
        name: {
            method: {
                check: np.mean([measure(values[method][:, column], values[other][:, column])
                                for other in attribution.METHODS if other != method])
                for check, measure in measures.items()
            }
            for method in attribution.METHODS
        }
        for column, name in enumerate(names)
    }  # fmt: skip


def _curves(params, suite, case, net, maps, targets, indices, values, record):
    """parameter -> {"fractions", "deletion": {method or "random": R²}, "insertion": likewise}.

    For sigma there is no truth; its R² is against what the network says of the whole maps.
    """
    spec, device = params.attribute, cli.device()
    starts = torch.stack(
        [
            _baseline(params, suite, case, record, scaled, index, spec.baseline, 1)[0]
            for scaled, index in zip(maps, indices, strict=True)
        ]
    ).to(device)
    maps = maps.to(device)
    random = seeding.numpy_generator(params.seed, suite, case, "random order").random(maps.shape)
    curves = {}
    for column, (name, output) in enumerate(zip(spec.parameters, _outputs(spec), strict=True)):
        if spec.output == "mean":
            truth = targets[:, output].numpy()
        else:
            with torch.inference_mode():
                truth = np.concatenate([net(one[None, None])[:, output].cpu().numpy() for one in maps])
        orders = {method: np.abs(values[method][:, column]) for method in attribution.METHODS} | {"random": random}
        curves[name] = {
            "fractions": sanity.FRACTIONS,
            "deletion": {key: sanity.curve(net, maps, starts, order, output, truth) for key, order in orders.items()},
            "insertion": {key: sanity.curve(net, starts, maps, order, output, truth) for key, order in orders.items()},
        }
    return curves


def _checkpoint(params, suite, case, net):
    weights = store.tensor_digest(net.state_dict())
    key = dataset.resume_key(params, suite, case, cli.device(), "attribute", params.attribute, weights)
    return paths.CHECKPOINTS / f"attribute-{key}.pt"


def _statistics(values, overdensity, web, simulation, params, suite, case):
    settings = {"generator": seeding.numpy_generator(params.seed, suite, case, "attribution bootstrap")}
    centres = {"voids": cosmic_web.void_centres(overdensity), "halos": cosmic_web.halo_centres(overdensity)}
    return {
        **cosmic_web.density_profile(values, overdensity, simulation, **settings),
        "classes": {
            name: cosmic_web.class_profile(values, classes, simulation, **settings) for name, classes in web.items()
        },
        "fourier": cosmic_web.cross_power(values, overdensity, simulation, **settings),
        "around": {
            name: cosmic_web.stacked_profile(values, points, simulation, **settings) for name, points in centres.items()
        },
    }


if __name__ == "__main__":
    cli.run_stage(main)
