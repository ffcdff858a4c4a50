"""What training costs at least, and what a device can do at most: the two sides of "which share of the limit"."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

PASSES = 3  # forward, and backward to the input and to the weights: each as much arithmetic and traffic as the first
SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices that are multiplied
COPIED = {"cuda": 1 << 30, "cpu": 1 << 27}  # bytes
ROUNDS = 5


def of_training(network, batch, itemsize):
    """Floating-point operations, and bytes to and from memory, of training ``network`` on one map of a ``batch``.

    Traffic is that of convolutions alone, each reading its input and weights and writing its output of ``itemsize``
    bytes a number: what a device moves that fuses all else into them. Weights are read once a batch.
    """
    numbers = []

    def count(layer, given, made):
        numbers.append(given[0].numel() + made.numel() + sum(weight.numel() for weight in layer.parameters()) / batch)

    maps = torch.zeros(1, network.channels, network.size, network.size)
    hooks = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network.eval()(maps)
    finally:
        for hook in hooks:
            hook.remove()
    return PASSES * counter.get_total_flops(), PASSES * sum(numbers) * itemsize


def limits(device, precision):
    """Operations and bytes a second of ``device``, as measured by a product of large matrices and a copy."""
    side, dtype = SIDE[device.type], getattr(torch, precision)
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    source = torch.zeros(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    arithmetic = 2 * side**3 / _seconds(lambda: matrix @ matrix, device)
    return arithmetic, 2 * len(source) / _seconds(lambda: target.copy_(source), device)


def _seconds(action, device):
    """The shortest of several rounds; the first are for the device to wake up."""
    taken = []
    for _ in range(ROUNDS):
        _wait(device)
        start = time.perf_counter()
        action()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
