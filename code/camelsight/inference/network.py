"""The network "o3" of arXiv:2109.10360: convolutions down to one pixel, then two dense layers.

Module names (C01 ... C61, B02 ... B61, FC1, FC2) are those of the released checkpoints.
"""

import math

import torch
from torch import nn
from torch.nn import functional

ACTIVATION_SLOPE = 0.2


class _CircularPad(torch.autograd.Function):
    """Periodic padding by ``width`` pixels; several times faster on CPU than ``padding_mode="circular"``."""

    @staticmethod
    def forward(ctx, x, width):
        ctx.width = width
        b, c, h, w = x.shape
        out = torch.empty(
            (b, c, h + 2 * width, w + 2 * width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
        )
        out[:, :, width:-width, width:-width] = x
        out[:, :, :width, width:-width] = x[:, :, -width:]
        out[:, :, -width:, width:-width] = x[:, :, :width]
        out[:, :, :, :width] = out[:, :, :, -2 * width : -width]
        out[:, :, :, -width:] = out[:, :, :, width : 2 * width]
        return out

    @staticmethod
    def backward(ctx, gradient):
        width = ctx.width
        columns = gradient[:, :, :, width:-width].clone()
        columns[:, :, :, -width:] += gradient[:, :, :, :width]
        columns[:, :, :, :width] += gradient[:, :, :, -width:]
        rows = columns[:, :, width:-width].clone()
        rows[:, :, -width:] += columns[:, :, :width]
        rows[:, :, :width] += columns[:, :, -width:]
        return rows, None


class Network(nn.Module):
    """``(B, channels, size, size)`` scaled maps -> ``(B, 2 * parameters)``: means, then standard deviations >= 0.

    Both refer to normalised parameters. ``hidden`` sets all widths: the blocks have 2, 4, 8, ... times ``hidden``
    channels, one block for each halving of ``size`` down to 4 pixels.
    """

    def __init__(self, hidden, dropout, *, size=256, parameters=6, channels=1):
        super().__init__()
        self.size, self.hidden, self.n_parameters, self.channels = size, hidden, parameters, channels
        self.n_blocks = int(math.log2(size)) - 2
        width = channels
        for block in range(self.n_blocks):
            previous, width = width, 2 ** (block + 1) * hidden
            self._add_convolution(f"{block}1", previous, width, 3, 1)
            self._add_convolution(f"{block}2", width, width, 3, 1)
            self._add_convolution(f"{block}3", width, width, 2, 2)
        self._add_convolution(f"{self.n_blocks}1", width, 2 * width, 4, 1)
        self.FC1 = nn.Linear(2 * width, width)
        self.FC2 = nn.Linear(width, 2 * parameters)
        self.dropout = nn.Dropout(dropout)

    def _add_convolution(self, name, previous, width, kernel, stride):
        self.add_module(f"C{name}", nn.Conv2d(previous, width, kernel, stride))
        self.add_module(f"B{name}", nn.BatchNorm2d(width))

    def _convolve(self, name, x):
        x = getattr(self, f"C{name}")(x)
        if name != "01":  # the released network defines and saves B01 but never calls it
            x = getattr(self, f"B{name}")(x)
        return functional.leaky_relu(x, ACTIVATION_SLOPE)

    def forward(self, maps):
        x = maps.contiguous(memory_format=torch.channels_last)
        for block in range(self.n_blocks):
            if block == 0:
                # nothing is normalised between the first two convolutions, so one padding serves both
                x = self._convolve("02", self._convolve("01", _CircularPad.apply(x, 2)))
            else:
                x = self._convolve(f"{block}1", _CircularPad.apply(x, 1))
                x = self._convolve(f"{block}2", _CircularPad.apply(x, 1))
            x = self._convolve(f"{block}3", x)
        x = self.dropout(self._convolve(f"{self.n_blocks}1", x).flatten(1))
        x = self.dropout(functional.leaky_relu(self.FC1(x), ACTIVATION_SLOPE))
        x = self.FC2(x).float()
        return torch.cat([x[:, : self.n_parameters], x[:, self.n_parameters :].square()], dim=1)


def build(hidden, dropout, *, size=256, parameters=6, architecture="o3", channels=1, generator=None):
    """A freshly initialised ``Network``: Kaiming-normal convolutions and dense layers, BatchNorm 1 and 0.

    ``generator`` seeds the weights; without one they are drawn from torch's current state, which is left as it was.
    """
    if architecture != "o3":
        raise ValueError(f"expected architecture 'o3', got {architecture!r}")
    if size < 16 or size & (size - 1):
        raise ValueError(f"expected maps of 16, 32, 64, 128, 256 or 512 pixels a side, got {size}")
    with torch.random.fork_rng(devices=[]):
        if generator is not None:
            torch.manual_seed(generator.initial_seed())
        network = Network(hidden, dropout, size=size, parameters=parameters, channels=channels)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return network.to(memory_format=torch.channels_last)


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def describe(network):
    """``[(name, channels, size, kind), ...]`` from input to output; kind is input, conv, dense or output."""
    layers = [("input", network.channels, network.size, "input")]
    for block in range(network.n_blocks):
        layers.append((f"block {block + 1}", 2 ** (block + 1) * network.hidden, network.size >> (block + 1), "conv"))
    features = 2 ** (network.n_blocks + 1) * network.hidden
    return [
        *layers,
        ("4×4 conv", features, 1, "conv"),
        ("FC1", features // 2, 1, "dense"),
        ("output", 2 * network.n_parameters, 1, "output"),
    ]
