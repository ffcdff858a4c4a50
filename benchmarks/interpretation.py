"""Attributions of two outputs: one forward pass for both, BatchNorm folded, against Captum called the plain way.

The peer is the same function with the same weights, written as the released code writes it: padding_mode="circular",
BatchNorm, one output at a time, Captum's defaults. Both get the same maps, baselines, steps and draws.
"""

import functools
import time

import torch
from captum import attr
from torch import nn

from camelsight.inference import network
from camelsight.interpretation import attribution
from camelsight.pipeline import cli

OUTPUTS = (0, 1)  # omega_m and sigma_8
PIXELS, HIDDEN = 256, 6
STEPS, SAMPLES = 50, 20
METHODS = ("integrated_gradients", "gradient_shap")
TOLERANCE = 1e-4  # relative, of the norm of a map's attributions


class Released(nn.Module):
    """Architecture o3 in plain modules."""

    def __init__(self, trained):
        super().__init__()
        layers, self.sigmas = [], trained.n_parameters
        for name, convolution in trained.named_children():
            if not isinstance(convolution, nn.Conv2d):
                continue
            channels, previous, kernel, _ = convolution.weight.shape
            padding = {"padding": 1, "padding_mode": "circular"} if kernel == 3 else {}
            plain = nn.Conv2d(previous, channels, kernel, convolution.stride, **padding)
            plain.load_state_dict(convolution.state_dict())
            norm = [getattr(trained, f"B{name[1:]}")] if name != "C01" else []
            layers += [plain, *norm, nn.LeakyReLU(0.2)]
        dense = [nn.Flatten(), nn.Dropout(0.2), trained.FC1, nn.LeakyReLU(0.2), nn.Dropout(0.2), trained.FC2]
        self.layers = nn.Sequential(*layers, *dense)

    def forward(self, maps):
        out = self.layers(maps)
        return torch.cat([out[:, : self.sigmas], out[:, self.sigmas :] ** 2], dim=1)


@functools.cache
def setting():
    """Our folded network and the peer's, a map, its baselines; all float64, so that folding is exact to rounding."""
    generator = torch.Generator().manual_seed(1)
    trained = network.build(HIDDEN, 0.2, size=PIXELS, generator=generator)
    maps = torch.randn(8, 1, PIXELS, PIXELS, generator=generator)
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # takes the statistics of this one batch
    with torch.no_grad():
        trained(maps)
    trained.eval().double()
    return attribution.fold(trained), Released(trained).double().eval(), maps[0], maps[1:]


def attribute_ours(dtype=torch.float32, steps=STEPS, samples=SAMPLES):
    net, _, scaled, references = (value.to(dtype) for value in setting())
    batch = attribution.batch_size(net.to(dtype), PIXELS, cli.free_bytes(torch.device("cpu")))
    attribution.NODES = steps  # one panel from end to end: the rule that Captum uses
    values, _ = attribution.attribute(
        net, scaled, OUTPUTS, start=references[0], references=references, ig_steps=steps,
        shap_samples=samples, seed=1, batch=batch, refinement=1,
    )  # fmt: skip
    return values


def attribute_peer(dtype=torch.float32, steps=STEPS, samples=SAMPLES):
    _, net, scaled, references = (value.to(dtype) for value in setting())
    x, start = scaled[None], references[:1]
    values = {method: [] for method in METHODS}
    for output in OUTPUTS:
        values["integrated_gradients"].append(
            attr.IntegratedGradients(net).attribute(x, start, target=output, n_steps=steps)
        )
        with attribution._seeded_globals(1):  # the draws that ours makes
            values["gradient_shap"].append(
                attr.GradientShap(net).attribute(
                    x, references, target=output, n_samples=samples, stdevs=attribution.SHAP_NOISE
                )
            )
    return {method: torch.cat(pieces).detach() for method, pieces in values.items()}


@functools.cache
def check():
    """The two agree, in float64: in float32 a LeakyReLU whose argument is within rounding of zero may take either side.

    With 256² pixels there is one such in every other pass, which changes a few pixels around it by more than rounding.
    """
    one, two = (action(torch.float64, 6, 3) for action in (attribute_ours, attribute_peer))
    for method in METHODS:
        error = float((one[method] - two[method]).norm() / two[method].norm())
        if not error < TOLERANCE:
            raise ValueError(f"expected equal values of {method} to {TOLERANCE:g}, got {error:.1e}")


def seconds(action):
    check()
    setting()[0].float(), setting()[1].float()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


ROWS = [
    {"name": "attribution", "unit": "s a map", "ours": lambda: seconds(attribute_ours),
     "peer": lambda: seconds(attribute_peer),
     "note": f"IG ({STEPS} steps) and GradientShap ({SAMPLES} samples) of two outputs, {PIXELS}², hidden {HIDDEN}; "
     f"values equal to {TOLERANCE:g} in float64; peer: Captum called plainly on the released layers. Target 3"},
]  # fmt: skip
