"""Training: a plain loop that behaves as the published one, against the package; the same maps, network and steps.

Each figure comes from a process of its own, with threads and allocator as `make paper` has them.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from camelsight.inference import fused, network, training
from camelsight.pipeline import cli, compiled

CORES = len(os.sched_getaffinity(0))
EPOCHS = 3  # that are timed


class Published(nn.Module):
    """The network "o3" out of plain modules: ``padding_mode="circular"``, contiguous, in float32."""

    def __init__(self, hidden, size, dropout=0.1):
        super().__init__()
        layers, width = [], 1
        for block in range(int(math.log2(size)) - 2):
            following = 2 ** (block + 1) * hidden
            for kernel, stride in ((3, 1), (3, 1), (2, 2)):
                padding = kernel // 3
                layers.append(nn.Conv2d(width, following, kernel, stride, padding, padding_mode="circular"))
                layers += [nn.BatchNorm2d(following)] * (len(layers) > 1) + [nn.LeakyReLU(0.2)]
                width = following
        layers += [nn.Conv2d(width, 2 * width, 4), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2), nn.Flatten()]
        layers += [nn.Dropout(dropout), nn.Linear(2 * width, width), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 12))

    def forward(self, x):
        x = self.layers(x)
        return x[:, :6], x[:, 6:].square()


class Rotated(torch.utils.data.Dataset):
    """Each map is turned and mirrored at random as it is asked for."""

    def __init__(self, maps, targets):
        self.maps, self.targets = maps, targets

    def __len__(self):
        return len(self.maps)

    def __getitem__(self, index):
        one = torch.rot90(self.maps[index], int(np.random.choice(4)), (1, 2))  # noqa: NPY002
        if np.random.choice(2):  # noqa: NPY002
            one = torch.flip(one, (1,))
        return one, self.targets[index]


def published_epoch(net, loader, optimiser, scheduler, device):
    net.train()
    totals = torch.zeros(2, 6)
    for maps, targets in loader:
        maps, targets = maps.to(device), targets.to(device)
        mean, sigma = net(maps)
        first = (mean - targets).square().mean(0)
        second = ((mean - targets).square() - sigma.square()).square().mean(0)
        loss = (torch.log(first) + torch.log(second)).mean()
        totals += torch.stack([first, second]).detach().cpu() * len(maps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
    return (torch.log(totals / len(loader.dataset))).sum(0).mean()


def peer(size, hidden, batch, steps, device):
    """Maps a second of the plain loop, epochs of ``steps`` batches."""
    maps, targets = data(size, batch * steps)
    net = Published(hidden, size).to(device)
    loader = torch.utils.data.DataLoader(Rotated(maps, targets), batch_size=batch, shuffle=True)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.5, 0.999), weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimiser, 1e-9, 1e-3, 500, 500, cycle_momentum=False)
    ends = []
    for _ in range(1 + EPOCHS):
        published_epoch(net, loader, optimiser, scheduler, device)
        ends.append(now(device))
    return rate(ends, batch * steps)


def ours(size, hidden, batch, steps, device):
    cli.keep_memory()
    compiled.load(fused)
    maps, targets = (tensor.to(device) for tensor in data(size, batch * steps))
    net = network.build(hidden, 0.1, size=size, generator=torch.Generator().manual_seed(1)).to(device)
    settings = {"batch": batch, "max_lr": 1e-3, "weight_decay": 1e-4, "seed": 1}
    precision, ends = training.resolve_precision("auto", device), []
    both = (maps, targets), (maps[:2], targets[:2])
    training.fit(
        net, *both, epochs=1 + EPOCHS, precision=precision, on_epoch=lambda _: ends.append(now(device)), **settings
    )
    return rate(ends, batch * steps)


def data(size, count):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, size, size, generator=generator), torch.rand(count, 6, generator=generator)


def now(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rate(ends, maps):
    """Maps a second of the median epoch, from the ``ends`` of all; the first one is not counted, which compiles."""
    return maps / statistics.median(end - start for start, end in pairwise(ends))


def apart(what, size, hidden, batch, steps, device="cpu", threads=CORES):
    """The figure that ``what`` prints in a process of its own."""
    command = [sys.executable, __file__, what, *map(str, (size, hidden, batch, steps)), device, str(threads)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def row(name, note, *arguments, **more):
    both = {which: lambda which=which: apart(which, *arguments) for which in ("ours", "peer")}
    return {"name": name, "unit": "maps/s", "better": "more", "note": note, **both, **more}


ROWS = [
    row("train-256-cpu", "256², hidden 6, batch 32, all cores; peer: a loop as published", 256, 6, 32, 4),
    row("train-64-cpu", "64², hidden 4, batch 32, all cores; peer: a loop as published", 64, 4, 32, 40),
    row("train-64-core", "the same on one core, as mini's cases run", 64, 4, 32, 40, "cpu", 1),
    row("train-256-gpu", "256², hidden 11, batch 128; peer: a loop as published", 256, 11, 128, 20, "cuda", gpu=True),
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("ours", "peer"))
    for option in ("size", "hidden", "batch", "steps"):
        parser.add_argument(option, type=int)
    parser.add_argument("device", type=torch.device)
    parser.add_argument("threads", type=int)
    arguments = vars(parser.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    print({"ours": ours, "peer": peer}[arguments.pop("what")](**arguments))
