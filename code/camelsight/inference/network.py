"""The networks: "o3" of arXiv:2109.10360, and the "strided" one with which the authors warmed up on Gaussian fields.

Module names (C01 ... C61, B01 ... B61, FC1, FC2) are those of the released checkpoints.
"""

import math
import re

import torch
from torch import nn
from torch.nn import functional

from camelsight.inference import fused

ACTIVATION_SLOPE = 0.2
CHANNELS_TOGETHER = 8  # of bfloat16, in a tensor core
SIZES = (16, 32, 64, 128, 256, 512)
STATE = "a state dict of the released network (C01.weight, B02.weight, ... FC1.weight)"
WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model|network|net|backbone)\.)*")  # what they put before names
WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)  # the last counts batches


class _CircularPad(torch.autograd.Function):
    """Periodic padding by ``width`` pixels; several times faster on CPU than ``padding_mode="circular"``."""

    @staticmethod
    def forward(ctx, x, width):
        ctx.width = width
        if _compiles(x):
            rows, columns = (torch.arange(-width, n + width, device=x.device).remainder(n) for n in x.shape[2:])
            return x[:, :, rows[:, None], columns].contiguous(memory_format=torch.channels_last)
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
        if _compiles(gradient):
            for axis in (2, 3):
                gradient = _folded(gradient, width, axis)
            return gradient, None
        columns = gradient[:, :, :, width:-width].clone()
        columns[:, :, :, -width:] += gradient[:, :, :, :width]
        columns[:, :, :, :width] += gradient[:, :, :, -width:]
        rows = columns[:, :, width:-width].clone()
        rows[:, :, -width:] += columns[:, :, :width]
        rows[:, :, :width] += columns[:, :, -width:]
        return rows, None


def _compiles(x):
    """Whether torch.compile serves ``x``, as on a GPU: it fuses expressions, and assignments it does not."""
    return x.is_cuda


def _folded(padded, width, axis):
    """``padded`` without its margins along ``axis``, each added to the edge that it is a copy of."""
    size = padded.shape[axis] - 2 * width
    before, inner, after = padded.split([width, size, width], axis)
    at_start, at_end = [0] * 2 * (3 - axis) + [0, size - width], [0] * 2 * (3 - axis) + [size - width, 0]
    return inner + functional.pad(after, at_start) + functional.pad(before, at_end)


class _Convolution(nn.Conv2d):
    """A convolution that pads its channels with zeros to what a GPU multiplies in bfloat16.

    cuDNN would do the same in passes of their own, in which a third of a step was spent.
    """

    def forward(self, x):
        if not (_compiles(x) and torch.is_autocast_enabled(x.device.type)):
            return super().forward(x)
        more = -self.in_channels % CHANNELS_TOGETHER, -self.out_channels % CHANNELS_TOGETHER
        weight = functional.pad(self.weight, (0, 0, 0, 0, 0, more[0], 0, more[1]))
        bias = functional.pad(self.bias, (0, more[1]))
        x = functional.pad(x, (0, 0, 0, 0, 0, more[0])).contiguous(memory_format=torch.channels_last)
        return _FirstChannels.apply(functional.conv2d(x, weight, bias, self.stride, self.padding), more[1])


class _FirstChannels(torch.autograd.Function):
    """All channels but the last ``others``; the gradient of a plain slice would no longer lie in channels_last."""

    @staticmethod
    def forward(ctx, x, others):
        ctx.others = others
        return x[:, : x.shape[1] - others]

    @staticmethod
    def backward(ctx, gradient):
        return functional.pad(gradient, (0, 0, 0, 0, 0, ctx.others)), None


class _LastConvolution(nn.Conv2d):
    """A convolution as large as its input, as the matrix product that it is: ten times as fast on CPU."""

    def forward(self, x):
        flat = (tensor.movedim(1, 3).flatten(1) for tensor in (x, self.weight))  # no copies in channels_last
        return functional.linear(*flat, self.bias)[:, :, None, None]


class Network(nn.Module):
    """``(B, channels, size, size)`` scaled maps -> ``(B, 2 * parameters)``: means, then standard deviations >= 0.

    Both refer to normalised parameters. ``hidden`` sets all widths: the blocks have 2, 4, 8, ... times ``hidden``
    channels, one block for each halving of ``size`` down to ``last_size`` pixels.
    """

    def __init__(self, hidden, dropout, *, size, parameters, channels):
        super().__init__()
        self.size, self.hidden, self.n_parameters, self.channels = size, hidden, parameters, channels
        self.n_blocks = int(math.log2(size // self.last_size))
        self._add_layers()
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps):
        x = self._output(maps.contiguous(memory_format=torch.channels_last)).float()
        return torch.cat([x[:, : self.n_parameters], x[:, self.n_parameters :].square()], dim=1)

    @property
    def widths(self):
        """Channels after each block."""
        return [2 ** (block + 1) * self.hidden for block in range(self.n_blocks)]


class O3(Network):
    """Blocks of two 3x3 convolutions and a 2x2 one with stride 2, then 4x4 to one pixel and two dense layers."""

    last_size = 4

    def _add_layers(self):
        width = self.channels
        for block, following in enumerate(self.widths):
            self._add_convolution(f"{block}1", width, following, 3, 1)
            self._add_convolution(f"{block}2", following, following, 3, 1)
            self._add_convolution(f"{block}3", following, following, 2, 2)
            width = following
        self._add_convolution(f"{self.n_blocks}1", width, 2 * width, 4, 1, _LastConvolution)
        self.FC1 = nn.Linear(2 * width, width)
        self.FC2 = nn.Linear(width, 2 * self.n_parameters)

    def _add_convolution(self, name, previous, width, kernel, stride, kind=_Convolution):
        self.add_module(f"C{name}", kind(previous, width, kernel, stride))
        self.add_module(f"B{name}", nn.BatchNorm2d(width))

    def _convolve(self, name, x, pad=0):
        """Convolution ``name`` and what follows it; ``pad`` is what the next convolution asks for."""
        x = getattr(self, f"C{name}")(x)
        norm = getattr(self, f"B{name}")
        if name == "01":  # the released network defines and saves B01 but never calls it
            return functional.leaky_relu(x, ACTIVATION_SLOPE)
        if self.training and fused.serves(x):
            return fused.norm_activate_pad(x, norm, ACTIVATION_SLOPE, pad)
        x = functional.leaky_relu(norm(x), ACTIVATION_SLOPE)
        return _CircularPad.apply(x, pad) if pad else x

    def _output(self, x):
        x = _CircularPad.apply(x, 2)
        for block in range(self.n_blocks):
            x = self._convolve(
                f"{block}1", x, pad=int(block > 0)
            )  # one padding serves the first two, nothing is normalised
            x = self._convolve(f"{block}2", x)
            x = self._convolve(f"{block}3", x, pad=int(block < self.n_blocks - 1))
        x = self.dropout(self._convolve(f"{self.n_blocks}1", x).flatten(1))
        return self.FC2(self.dropout(functional.leaky_relu(self.FC1(x), ACTIVATION_SLOPE)))

    def describe(self):
        """``[(name, channels, size, kind), ...]`` from input to output; kind is input, conv, dense or output."""
        features = 2 * self.widths[-1]
        dense = [("4×4 conv", features, 1, "conv"), ("FC1", features // 2, 1, "dense")]
        return _describe_blocks(self) + dense + [("output", 2 * self.n_parameters, 1, "output")]


class Strided(Network):
    """4x4 convolutions with stride 2 and zeros beyond the edge down to two pixels, then one dense layer."""

    last_size = 2

    def _add_layers(self):
        width = self.channels
        for block, following in enumerate(self.widths, start=1):
            self.add_module(f"C{block:02}", nn.Conv2d(width, following, 4, 2, 1))
            if block > 1:
                self.add_module(f"B{block:02}", nn.BatchNorm2d(following))
            width = following
        self.FC1 = nn.Linear(width * self.last_size**2, 2 * self.n_parameters)

    def _output(self, x):
        for block in range(1, self.n_blocks + 1):
            x = getattr(self, f"C{block:02}")(x)
            if block > 1:
                x = getattr(self, f"B{block:02}")(x)
            x = functional.leaky_relu(x, ACTIVATION_SLOPE)
        return self.FC1(self.dropout(x.flatten(1)))

    def describe(self):
        """As ``O3.describe``."""
        return [*_describe_blocks(self), ("output", 2 * self.n_parameters, 1, "output")]


ARCHITECTURES = {"o3": O3, "strided": Strided}


def _describe_blocks(network):
    blocks = [(f"block {n + 1}", width, network.size >> (n + 1), "conv") for n, width in enumerate(network.widths)]
    return [("input", network.channels, network.size, "input"), *blocks]


def build(hidden, dropout, *, size=256, parameters=6, architecture="o3", channels=1, generator=None):
    """A freshly initialised ``Network``: Kaiming-normal convolutions and dense layers, BatchNorm 1 and 0.

    ``size`` is a power of two from 16 to 512. The weights follow from the seed of ``generator``, and torch's own one is
    left as it was; without a ``generator`` they are drawn from that.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"expected an architecture among {', '.join(ARCHITECTURES)}, got {architecture!r}")
    if size not in SIZES:
        raise ValueError(f"expected maps of {', '.join(map(str, SIZES))} pixels a side, got {size}")
    if hidden < 1 or parameters < 1 or channels < 1 or not 0 <= dropout < 1:
        raise ValueError(
            f"expected hidden, parameters and channels of at least 1 and a dropout from 0 to below 1, "
            f"got {hidden}, {parameters}, {channels} and {dropout}"
        )
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.default_generator.manual_seed(generator.initial_seed())
        network = ARCHITECTURES[architecture](hidden, dropout, size=size, parameters=parameters, channels=channels)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return network.to(memory_format=torch.channels_last)


def unwrapped(saved, name):
    """The state dict of the network in what was ``saved``, and in words what was taken off it, a list.

    Training scripts put a state dict beside other things, and wrappers of networks put prefixes before its names.
    ValueError that calls the file ``name`` where there is none, or more than one.
    """
    if not isinstance(saved, dict):
        raise ValueError(f"expected {STATE} in {name}, got a {type(saved).__name__}")
    keys = f"the keys {', '.join(map(str, list(saved)[:4])):.200}"
    if all(isinstance(value, torch.Tensor) for value in saved.values()):
        state, done = saved, []
    else:
        states = {key: value for key, value in saved.items() if _holds_network(value)}
        if len(states) != 1:
            more = f"{len(states)} of them: {', '.join(map(str, states)):.200}; save one of them alone"
            raise ValueError(f"expected {STATE} in {name}, got {more if states else f'a dict with {keys}'}")
        ((key, state),) = states.items()
        done = [f"took {key!r:.60} from {keys}"]
    if not all(isinstance(key, str) and key.isprintable() for key in state):
        raise ValueError(f"expected {STATE} in {name}, got names that are no text")
    named = {key: _short(key) for key in state if _short(key) != "n_averaged"}
    if len(set(named.values())) < len(named):
        raise ValueError(f"expected {STATE} in {name}, got the same name twice, with a prefix and without")
    prefixes = sorted({key.removesuffix(short) for key, short in named.items()} - {""})
    done += [f"removed the prefix {prefix}" for prefix in prefixes]
    if len(named) < len(state):
        done.append("left out n_averaged, the count of an average of weights")
    return {short: state[key] for key, short in named.items()}, done


def _short(key):
    """``key`` without the prefixes of wrappers."""
    return key[WRAPPERS.match(key).end() :]


def _holds_network(value):
    tensors = isinstance(value, dict) and value and all(isinstance(one, torch.Tensor) for one in value.values())
    return tensors and any(_short(str(key)) == "C01.weight" for key in value)


def from_state(state, name):
    """The network of a released state dict, ``unwrapped``, in evaluation mode.

    Architecture, hidden, size, parameters and channels follow from the tensors. ValueError that calls it ``name`` if
    these do not fit one, or if one of them is anything but a plain array of finite real numbers.
    """
    for key, value in state.items():
        if kind := _kind(value):
            raise ValueError(f"expected plain arrays of real numbers in {name}, got {key}, which is {kind}")
    if broken := [key for key, value in state.items() if not value.float().isfinite().all()]:
        raise ValueError(f"expected finite weights in {name}, got NaN or infinity in {', '.join(broken[:3])}")
    try:
        found = _infer(state)
        with torch.device("meta"):  # takes no memory, whatever the shapes ask for
            expected = build(dropout=0.0, **found).state_dict()
        _compare(state, expected)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        found = f"{len(state)} tensors ({', '.join(list(state)[:2]):.100}, ...)"
        raise ValueError(f"expected {STATE} in {name}, got {found} that do not fit one: {reason}") from None
    network = build(dropout=0.0, **found)
    network.load_state_dict(state)
    return network.eval()


def _kind(tensor):
    """What makes ``tensor`` no plain array of real numbers on the CPU; empty if nothing does."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.dtype not in WEIGHT_TYPES:
        return f"of the type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device}"
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return f"of the shape {tuple(tensor.shape)} without as many numbers"
    return ""


def _compare(state, expected):
    """ValueError that names the first tensor that is missing, unknown, of another shape, or no number of its kind."""
    for key in expected | state:
        if key not in state and key.endswith("num_batches_tracked"):  # torch before 0.4.1 has none, and it is not used
            continue
        if key not in state or key not in expected:
            raise ValueError(f"{key} is {'missing' if key not in state else 'unknown'}")
        given, wanted = state[key], expected[key]
        if given.shape != wanted.shape or given.is_floating_point() < wanted.is_floating_point():
            shapes = [f"{tuple(one.shape)} {str(one.dtype).removeprefix('torch.')}" for one in (wanted, given)]
            raise ValueError(f"{key} should be {shapes[0]} and is {shapes[1]}")
        if key.endswith("running_var") and (given < 0).any():
            raise ValueError(f"{key} holds a variance of {given.min():g}")


def _infer(state):
    first = state["C01.weight"]
    architecture = "strided" if first.shape[-1] == 4 else "o3"
    last_dense = state["FC1.weight" if architecture == "strided" else "FC2.weight"]
    last_of_block = "" if architecture == "strided" else "3"
    n_blocks = sum(key.startswith("C") and key.endswith(f"{last_of_block}.weight") for key in state)
    return {
        "hidden": first.shape[0] // 2,
        "size": ARCHITECTURES[architecture].last_size << n_blocks,
        "parameters": last_dense.shape[0] // 2,
        "architecture": architecture,
        "channels": first.shape[1],
    }


def count_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())
