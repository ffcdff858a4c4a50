"""A moment network on summaries of the maps, fully connected; and the training of small dense networks.

Features are ``(N, F)`` tensors, standardised; targets ``(N, P)``, normalised.
"""

import itertools
import math

import torch
from torch import nn

from camelsight.inference import loss, training
from camelsight.inference.network import ACTIVATION_SLOPE


class MomentNetwork(nn.Module):
    """``(B, F)`` features, of any shape, -> ``(B, 2 * parameters)``: means, then standard deviations >= 0."""

    def __init__(self, features, parameters, *, layers, hidden, dropout):
        super().__init__()
        widths = [features, *[hidden] * layers]
        blocks = [
            (nn.Linear(before, after), nn.LeakyReLU(ACTIVATION_SLOPE), nn.Dropout(dropout))
            for before, after in itertools.pairwise(widths)
        ]
        self.layers = nn.Sequential(
            nn.Flatten(), *(module for block in blocks for module in block), nn.Linear(widths[-1], 2 * parameters)
        )

    def forward(self, features):
        mean, sigma = self.layers(features).chunk(2, dim=1)
        return torch.cat([mean, sigma.square()], dim=1)


def fit(build, objective, train, valid, *, epochs, batch, max_lr, optimiser, seed):
    """Train the network that ``build()`` returns; it keeps the weights of the epoch with the best validation loss.

    ``objective(network, features, targets)`` is the loss; ``train`` and ``valid`` are pairs (features, targets) on one
    device, ``optimiser`` a class of torch's, called with the weights and ``lr``. The learning rate rises to ``max_lr``
    and falls once (OneCycleLR). Initial weights, order and dropout are drawn from ``seed``; torch's own generators are
    left alone. Returns the network, in evaluation mode, and the losses ``[(train, valid), ...]``. Raises
    ``training.DivergenceError``.
    """
    features, targets = train
    device = features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = build().to(device)
        optimiser = optimiser(network.parameters(), lr=max_lr)
        steps = epochs * math.ceil(len(features) / batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr, total_steps=steps, cycle_momentum=False)
        history, best = [], None
        for epoch in range(epochs):
            total = 0.0
            network.train()
            for chosen in torch.randperm(len(features)).to(device).split(batch):
                value = objective(network, features[chosen], targets[chosen])
                optimiser.zero_grad()
                value.backward()
                optimiser.step()
                schedule.step()
                total += value.detach() * len(chosen) / len(features)
            network.eval()
            with torch.no_grad():
                history.append((float(total), objective(network, *valid).item()))
            if not all(map(math.isfinite, history[-1])):
                raise training.DivergenceError(
                    f"expected a finite loss, got train {history[-1][0]:g} and valid {history[-1][1]:g} in epoch "
                    f"{epoch + 1}; try a smaller max_lr than {max_lr:.2g}"
                )
            if history[-1][1] <= min(valid_loss for _, valid_loss in history):
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(best)
    return network, history


def fit_moments(train, valid, *, layers, hidden, dropout, max_lr, weight_decay, epochs, batch, seed):
    """A ``MomentNetwork`` trained by the loss of the networks on maps, with their optimiser; and the losses."""
    return fit(
        lambda: MomentNetwork(train[0].shape[1], train[1].shape[1], layers=layers, hidden=hidden, dropout=dropout),
        lambda network, features, targets: loss.moment_loss(*network(features).chunk(2, dim=1), targets),
        train,
        valid,
        epochs=epochs,
        batch=batch,
        max_lr=max_lr,
        optimiser=lambda weights, lr: torch.optim.AdamW(
            weights, lr=lr, betas=training.BETAS, weight_decay=weight_decay
        ),
        seed=seed,
    )
