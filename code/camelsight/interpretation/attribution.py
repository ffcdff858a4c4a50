"""Where the network looks: Saliency, Integrated Gradients and GradientShap, computed by Captum.

Attributions refer to normalised outputs and to scaled maps, pixel by pixel, and are signed. Captum sums and draws; what
is added here is a gradient that serves several outputs of the network with one forward pass, in batches that fit the
memory, and a rule for how many steps Integrated Gradients needs.
"""

import contextlib
import copy

import numpy as np
import torch
from captum import attr
from torch import nn

from camelsight.ground.choices import BASELINES
from camelsight.ground.cmd import MAPS_PER_SIMULATION
from camelsight.maps import scaling

METHODS = ("saliency", "integrated_gradients", "gradient_shap")
SHAP_NOISE = 0.05  # standard deviation of the noise added to scaled maps
NODES = 4  # of the Gauss-Legendre rule on each panel of the path
BISECTED = 4  # panels at a time
MAX_REFINEMENT = 16  # times the steps one starts with; a map that is not complete then is flagged
TOLERANCE = 0.01  # of the difference that attributions must add up to
FLOOR = 0.01  # smaller differences count as this much: 1% of the range of a parameter
MAX_BATCH = 64  # network evaluations at a time; more are no faster
MEMORY_SHARE = 0.5  # of what is free
CPU_BYTES = 2**28  # of a batch; larger ones are slower on a CPU, as the allocator hands their pages back each time


def baselines(name, scaled, count, *, log10_range, train_mean, scale, generator):
    """``count`` reference maps ``(count, n, n)`` for one ``scaled`` map ``(n, n)`` of a field.

    ``mean``: the mean of the training maps, ``train_mean`` in signed log10, everywhere; ``blank``: zero in scaled
    space, which is the same where the statistics are those of the training maps; ``uniform``: the map's own mean
    density everywhere; ``noise``: log-uniform in ``log10_range``, as in the density cuts; ``shuffled``: the map's
    pixels permuted, which keeps its one-point function. ``scale`` is the ``scaling.Scale`` by which maps are scaled.
    ValueError if there is no such baseline.
    """
    shape = (count, *scaled.shape)
    if name == "mean":
        return torch.full(shape, (train_mean - scale.mean) / scale.std)
    if name == "blank":
        return torch.zeros(shape)
    if name == "uniform":
        return torch.full(shape, float(scale.scale(scale.unscale(scaled).mean())))
    if name == "noise":
        log = generator.uniform(*log10_range, shape)
        log = log if scale.unit == 1 else log - np.log10(scale.unit)
        return torch.as_tensor((log - scale.mean) / scale.std, dtype=torch.float32)
    if name == "shuffled":
        pixels = np.tile(scaled.cpu().numpy().reshape(1, -1), (count, 1))
        return torch.as_tensor(generator.permuted(pixels, axis=1)).reshape(shape)
    raise ValueError(f"expected a baseline among {', '.join(BASELINES)}, got {name!r}")


def spread(simulation, count):
    """``count`` rows (or all), taken evenly from the simulations: their first maps first, then their second ones."""
    _, position = np.unique(simulation, return_inverse=True)
    order = np.lexsort((position, np.arange(len(simulation)) % MAPS_PER_SIMULATION))
    return order[:count]


def fold(network):
    """A copy of ``network`` in evaluation mode whose BatchNorms are part of the convolutions before them.

    The same function up to rounding, and faster. Its weights want no gradient.
    """
    folded = copy.deepcopy(network).eval()
    for name, norm in list(folded.named_children()):
        if isinstance(norm, nn.BatchNorm2d):
            if name != "B01":  # never called
                convolution = f"C{name[1:]}"
                setattr(folded, convolution, nn.utils.fuse_conv_bn_eval(getattr(folded, convolution), norm))
            setattr(folded, name, nn.Identity())
    return folded.requires_grad_(False)


class Mean(nn.Module):
    """The mean of what ``networks`` put out; its attributions are the means of theirs."""

    def __init__(self, networks):
        super().__init__()
        self.networks, self.channels = nn.ModuleList(networks), networks[0].channels

    def forward(self, x):
        return torch.stack([network(x) for network in self.networks]).mean(0)


def batch_size(network, size, free_bytes):
    """How many maps of ``size``² the network takes at a time within half of ``free_bytes``; 1 to ``MAX_BATCH``."""
    saved = 0

    def count(tensor):
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    x = next(network.parameters()).new_zeros(1, network.channels, size, size).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(x)
    limit = MEMORY_SHARE * free_bytes / 2  # the gradients need as much again
    if x.device.type == "cpu":
        limit = min(limit, CPU_BYTES)
    return int(np.clip(limit / saved, 1, MAX_BATCH))


def attribute(
    network,
    scaled,
    outputs,
    *,
    start,
    references,
    ig_steps,
    shap_samples,
    seed,
    batch=MAX_BATCH,
    refinement=MAX_REFINEMENT,
):
    """Attributions of the ``outputs`` (indices, T of them) for one ``scaled`` map ``(C, n, n)``, from the same passes.

    Returns ``{method: (T, C, n, n)}``, and ``{"gap": {method: (T,)}, "steps": int}``: how far the attributions of
    Integrated Gradients are from adding up to f(x) - f(x'), and those of GradientShap to f(x) - mean f(x'), in units of
    that difference or of ``FLOOR``, whichever is larger.

    Integrated Gradients runs from ``start`` ``(C, n, n)`` along the straight path, by Gauss-Legendre rules on panels.
    What each panel must add up to is known, so the panels that are furthest from it are bisected until the whole is
    complete to ``TOLERANCE``. It starts with ``ig_steps`` evaluations, and gives up at ``refinement`` times as many.
    GradientShap draws from ``references`` ``(K, C, n, n)``, and all its samples follow from ``seed``.
    """
    network.eval()
    outputs = list(outputs)
    x = scaled[None, None].detach().clone().requires_grad_()  # the second axis becomes that of the outputs
    start, references = start[None, None].to(x), references[:, None].to(x)
    network = _of_one_output(network)
    gradients = _gradient_function(outputs, batch)
    with torch.inference_mode():
        value, origin = network(x)[:, outputs], network(start)[:, outputs]
        expected = torch.cat([network(chunk)[:, outputs] for chunk in references.split(batch)]).mean(0)

    saliency = attr.Saliency(network)
    integrated = attr.IntegratedGradients(network)
    shap = attr.GradientShap(network)
    for engine in (saliency, integrated, shap):
        engine.gradient_func = gradients
    values = {"saliency": saliency.attribute(x, abs=False)[0]}
    values["integrated_gradients"], steps = _integrate(
        integrated, network, outputs, x.detach(), start, (value - origin)[0], ig_steps, refinement, batch
    )
    with _seeded_globals(seed):  # Captum draws GradientShap's samples from the global generators
        values["gradient_shap"] = shap.attribute(x, references, n_samples=shap_samples, stdevs=SHAP_NOISE)[0]
    differences = {"integrated_gradients": (value - origin)[0], "gradient_shap": value[0] - expected}
    gaps = {
        method: (values[method].sum((1, 2, 3)) - difference).abs() / _at_least(difference)
        for method, difference in differences.items()
    }
    values = {method: tensor.detach().float() for method, tensor in values.items()}
    return values, {"gap": {method: gap.detach().float() for method, gap in gaps.items()}, "steps": steps}


def symmetric(network, scaled, outputs, *, start, references, **settings):
    """``attribute`` averaged over the eight symmetries of the square, with ``equivariance`` in its record.

    That is, of each method ``(T,)``, the rms deviation of the eight attributions, turned back, from their mean, over
    the rms of the mean: zero for a network that does not mind how a map is held.
    """
    size = scaled.shape[-1]
    table = scaling.symmetry_table(size, scaled.device)
    views, records = [], []
    for row in table:
        turned, back = (lambda maps, row=row: maps.flatten(-2)[..., row].view_as(maps)), torch.argsort(row)
        values, record = attribute(
            network, turned(scaled), outputs, start=turned(start), references=turned(references), **settings
        )
        views.append({name: value.flatten(2)[..., back].view_as(value) for name, value in values.items()})
        records.append(record)
    stacks = {name: torch.stack([view[name] for view in views]) for name in METHODS}  # (8, T, C, n, n)
    means = {name: stack.mean(0) for name, stack in stacks.items()}
    errors = {}
    for name, stack in stacks.items():
        spread = (stack - means[name]).square().mean((0, 2, 3, 4)).sqrt()
        errors[name] = spread / means[name].square().mean((1, 2, 3)).sqrt().clamp_min(torch.finfo(spread.dtype).tiny)
    return means, {
        "gap": {name: torch.stack([r["gap"][name] for r in records]).amax(0) for name in records[0]["gap"]},
        "steps": sum(record["steps"] for record in records),
        "equivariance": errors,
    }


def _of_one_output(network):
    """``network`` for maps ``(B, 1, C, n, n)``, whose gradients are then ``(B, T, C, n, n)``."""
    return lambda maps: network(maps.flatten(0, 1))


def _gradient_function(outputs, batch):
    """What Captum calls for gradients ``(B, T, C, n, n)`` of all ``outputs``, ``batch`` maps of graph at a time."""

    def gradients(forward_fn, inputs, target_ind=None, additional_forward_args=None):
        pieces = []
        with torch.enable_grad():
            for chunk in inputs[0].detach().split(batch):
                leaf = chunk.requires_grad_()
                values = forward_fn(leaf)
                slopes = [
                    torch.autograd.grad(values[:, output].sum(), leaf, retain_graph=output != outputs[-1])[0]
                    for output in outputs
                ]
                pieces.append(torch.cat(slopes, dim=1))
        return (torch.cat(pieces),)

    return gradients


def _integrate(engine, network, outputs, x, start, difference, steps, refinement, batch):
    """``(T, C, n, n)`` and the number of evaluations; the path is cut into panels, the worst of which are bisected."""
    allowed = TOLERANCE * _at_least(difference)

    def panels(low, high):
        ends = [start + at[:, None, None, None, None] * (x - start) for at in (low, high)]
        pieces = [
            engine.attribute(end, begin, n_steps=NODES, method="gausslegendre")
            for begin, end in zip(*(end.split(max(1, batch // NODES)) for end in ends), strict=True)
        ]
        with torch.inference_mode():
            at_low, at_high = (torch.cat([network(chunk)[:, outputs] for chunk in end.split(batch)]) for end in ends)
        values = torch.cat(pieces)
        return values, values.sum((2, 3, 4)) - (at_high - at_low)

    edges = torch.linspace(0, 1, max(1, steps // NODES) + 1, device=x.device)
    low, high = edges[:-1], edges[1:]
    values, gaps = panels(low, high)
    total, used = values.sum(0), len(low) * NODES
    while (gaps.sum(0).abs() > allowed).any() and used < refinement * steps:
        worst = (gaps.abs() / allowed).amax(1).topk(min(BISECTED, len(low))).indices
        middle = (low[worst] + high[worst]) / 2
        new_low, new_high = torch.cat([low[worst], middle]), torch.cat([middle, high[worst]])
        new_values, new_gaps = panels(new_low, new_high)
        kept = torch.ones(len(low), dtype=torch.bool, device=x.device)
        kept[worst] = False
        total = total - values[worst].sum(0) + new_values.sum(0)
        low, high = torch.cat([low[kept], new_low]), torch.cat([high[kept], new_high])
        values, gaps = torch.cat([values[kept], new_values]), torch.cat([gaps[kept], new_gaps])
        used += len(new_low) * NODES
    return total, used


def _at_least(difference):
    return difference.abs().clamp_min(FLOOR)


@contextlib.contextmanager
def _seeded_globals(seed):
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
