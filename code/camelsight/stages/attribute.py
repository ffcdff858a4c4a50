"""Attributions of the network of a case, on its test maps, and their statistics in the cosmic web; resumable."""

import numpy as np
import torch

from camelsight.analysis import attributions, dataset
from camelsight.ground import fields, seeding, split
from camelsight.interpretation import attribution, cosmic_web, sanity
from camelsight.pipeline import checkpoints, cli, paths, store

KEPT = 4  # maps whose attributions are stored for the figures
CHUNK = 5  # maps between two checkpoints


def main(params, suite, case):
    spec = params.attribute
    net, part, record = attributions.load(params, suite, case, spec.maps, params.repeats)
    weights = store.tensor_digest(net.state_dict())
    settings = {key: value for key, value in store.plain(spec).items() if key != "cases"}
    key = dataset.resume_key(params, suite, case, cli.device(), "attribute", settings, weights)
    checkpoint = paths.CHECKPOINTS / f"attribute-{key}.pt"
    values, records = _attributions(params, suite, case, net, part, record, checkpoint)

    kept, scales = _kept(part.index), dataset.scales(params, record)
    seen = part.maps[kept].double().numpy()
    store.write_arrays(
        paths.attributions(suite, case),
        index=part.index[kept],
        parameters=part.parameters[kept],
        density=np.stack([scale.unscale(seen[:, n]) for n, scale in enumerate(scales)], axis=1),  # cut, as it is seen
        **{method: stack[kept] for method, stack in values.items()},
    )
    store.write_json(
        paths.attribution_statistics(suite, case),
        {
            "suite": suite,
            "case": case,
            "index": part.index,
            **_statistics(params, suite, case, net, part, record, values, records),
            "settings": settings,
            "networks": 1 + len(params.repeats),
        },
    )
    checkpoints.finish(checkpoint)


def _statistics(params, suite, case, net, part, record, by_field, records):
    """What the attributions ``by_field`` and the ``records`` of their maps say, as results hold it."""
    names, overdensity = params.attribute.parameters, attributions.overdensity(params, suite, part)
    values = {method: attributions.together(stack) for method, stack in by_field.items()}
    web = {"density": cosmic_web.density_classes(overdensity), "tidal": cosmic_web.tidal_classes(overdensity)}
    centres = {"voids": cosmic_web.void_centres(overdensity), "halos": cosmic_web.halo_centres(overdensity)}
    shares, agreement = cosmic_web.compare(*web.values())
    gaps = _by_parameter(names, records, "gap")
    return {
        "fields": params.fields,
        "environment": fields.environment(params.fields),
        "field_shares": attributions.each(names, lambda m, column: attributions.shares(by_field[m][:, column])),
        "completeness_gap": gaps,
        "flagged": {
            name: part.index[gap["integrated_gradients"] > attribution.TOLERANCE] for name, gap in gaps.items()
        },
        "steps": [one["steps"] for one in records],
        "equivariance": _by_parameter(names, records, "equivariance"),
        "web": {"rows": "density", "columns": "tidal", "shares": shares, "agreement": agreement},
        "statistics": attributions.each(
            names,
            lambda m, column: _profiles(params, suite, case, values[m][:, column], overdensity, web, centres, part),
        ),
        "agreement": attributions.agreement(values, names),
        "curves": _curves(params, suite, case, net, part, values, record),
    }


def _attributions(params, suite, case, net, part, record, checkpoint):
    """``{method: (M, P, C, n, n)}`` and M records; goes on where it was cut off."""
    results = (checkpoints.read(checkpoint, "cpu") or {"results": []})["results"]
    with cli.progress(len(part.maps), f"attribute {suite} {case}", "map", len(results)) as bar:
        for row in range(len(results), len(part.maps)):
            values, one = attributions.of_map(
                params, suite, case, net, record, part.maps[row], part.index[row], params.attribute,
                symmetric=params.attribute.views == "mean8",
            )  # fmt: skip
            results.append([{method: value.cpu() for method, value in values.items()}, one])
            bar.update()
            if len(results) % CHUNK == 0 or len(results) == len(part.maps):
                checkpoints.write(checkpoint, {"results": results})
    stacks = {method: torch.stack([values[method] for values, _ in results]).numpy() for method in attribution.METHODS}
    return stacks, [one for _, one in results]


def _kept(index):
    """The rows of the first ``KEPT`` maps, the last of which gives way to the one that the paper shows under cuts."""
    rows = list(range(min(KEPT, len(index))))
    shown = np.flatnonzero(index == split.SHOWN["densities"])
    return [*rows[:-1], int(shown[0])] if len(shown) and shown[0] not in rows else rows


def _by_parameter(names, records, key):
    """{parameter: {method: (M,)}} of what the records of maps hold under ``key``; empty if they do not."""
    return {
        name: {method: np.array([float(one[key][method][column]) for one in records]) for method in records[0][key]}
        for column, name in enumerate(names)
        if key in records[0]
    }


def _profiles(params, suite, case, values, overdensity, web, centres, part):
    settings = {"generator": seeding.numpy_generator(params.seed, suite, case, "attribution bootstrap")}
    return {
        **cosmic_web.density_profile(values, overdensity, part.simulation, **settings),
        "classes": {
            name: cosmic_web.class_profile(values, classes, part.simulation, **settings)
            for name, classes in web.items()
        },
        "fourier": cosmic_web.cross_power(values, overdensity, part.simulation, **settings),
        "around": {
            name: cosmic_web.stacked_profile(values, points, part.simulation, **settings)
            for name, points in centres.items()
        },
    }


def _curves(params, suite, case, net, part, values, record):
    """{parameter: {"fractions", "deletion": {method or "random": R²}, "insertion": likewise}}.

    For sigma there is no truth; its R² is against what the network says of the whole maps.
    """
    spec, device = params.attribute, cli.device()
    starts = torch.cat(
        [
            attributions.baseline(params, suite, case, record, scaled, index, spec.baseline)
            for scaled, index in zip(part.maps, part.index, strict=True)
        ]
    )
    maps = part.maps.to(device)
    shape = len(maps), *maps.shape[-2:]
    random = seeding.numpy_generator(params.seed, suite, case, "random order").random(shape)
    curves = {}
    for column, (name, output) in enumerate(zip(spec.parameters, attributions.outputs(params), strict=True)):
        if spec.output == "mean":
            truth = part.targets[:, output].numpy()
        else:
            with torch.inference_mode():
                truth = np.concatenate([net(one[None])[:, output].cpu().numpy() for one in maps])
        orders = {method: np.abs(values[method][:, column]) for method in attribution.METHODS} | {"random": random}
        curves[name] = {"fractions": sanity.FRACTIONS}
        for kind, ends in (("deletion", (maps, starts)), ("insertion", (starts, maps))):
            curves[name][kind] = {key: sanity.curve(net, *ends, order, output, truth) for key, order in orders.items()}
    return curves


if __name__ == "__main__":
    cli.run_stage(main)
