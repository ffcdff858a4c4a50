"""Training and prediction.

Maps are scaled ``(N, n, n)`` float32 tensors, targets normalised ``(N, P)`` ones, both on one device.
"""

import contextlib
import math

import torch

from camelsight import seeding
from camelsight.inference import loss
from camelsight.maps import scaling

BETAS = (0.5, 0.999)  # AdamW, released code
CYCLE_STEPS = 500  # batches up and as many down, released code
BASE_LR = 1e-9
PREDICT_BATCH = 128


class DivergenceError(FloatingPointError):
    """The loss is no longer a finite number, since ``epoch`` (from 1)."""

    def __init__(self, message, epoch=1):
        super().__init__(message)
        self.epoch = epoch


def fit(
    network,
    train,
    valid,
    *,
    epochs,
    batch,
    max_lr,
    weight_decay,
    seed,
    schedule="cyclic",
    precision="float32",
    symmetries=range(scaling.SYMMETRIES),
    state=None,
    on_epoch=None,
):
    """Train ``network`` in place and load the weights of the epoch with the best validation loss.

    ``train`` and ``valid`` are pairs (maps, targets); each map is turned by one of ``symmetries``, drawn anew in every
    epoch. ``on_epoch(state)`` is called after each epoch; ``state`` refers to live tensors, so save or copy it at once.
    Every epoch draws its order, symmetries and dropout from (``seed``, epoch): a run that continues from a saved
    ``state`` equals one that was never cut off. Returns the history, a list of dicts with epoch, train and valid
    (losses in the released convention), and lr. Raises ``DivergenceError``, whose epoch is the one that was not
    finished.
    """
    maps, targets = train
    table = scaling.symmetry_table(maps.shape[-1], maps.device)[list(symmetries)]
    steps = math.ceil(len(maps) / batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=max_lr, betas=BETAS, weight_decay=weight_decay, fused=True)
    scheduler = _scheduler(optimiser, schedule, max_lr, epochs * steps)
    history, best = [], None
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        scheduler.load_state_dict(state["scheduler"])
        history, best = list(state["history"]), state["best"]
    for epoch in range(len(history), epochs):
        lr = optimiser.param_groups[0]["lr"]
        with _seeded(seeding.entropy(seed, "epoch", epoch), maps.device):
            moments, sizes = _train_epoch(network, maps, targets, table, optimiser, scheduler, batch, precision)
        averaged = (moments * (sizes / sizes.sum()).to(moments)[:, None, None]).sum(0)
        losses = [loss.from_moments(averaged).item(), evaluate(network, *valid, precision=precision)]
        if not all(map(math.isfinite, losses)):
            step = _first_bad(moments)
            at = _learning_rate(schedule, max_lr, epochs * steps, epoch * len(moments) + step)
            raise DivergenceError(
                f"expected a finite loss, got train {losses[0]:g} and valid {losses[1]:g} in epoch {epoch + 1}, "
                f"from step {step + 1} of {len(moments)} on, at learning rate {at:.2g}; try a smaller max_lr"
                + (", or precision float32" if precision != "float32" else ""),
                epoch + 1,
            )
        history.append({"epoch": epoch + 1, "train": losses[0], "valid": losses[1], "lr": lr})
        if losses[1] <= min(record["valid"] for record in history):
            best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if on_epoch is not None:
            parts = {"network": network, "optimiser": optimiser, "scheduler": scheduler}
            states = {name: part.state_dict() for name, part in parts.items()}
            on_epoch({**states, "history": history, "best": best})
    network.load_state_dict(best)
    return history


def resolve_precision(name, device):
    """ "auto" as "bfloat16" where ``device`` computes in it and "float32" elsewhere: emulated, it is far slower."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(torch.cpu.get_capabilities().get(flag) for flag in ("avx512_bf16", "amx_bf16"))
    return "bfloat16" if native else "float32"


def predict(network, maps, *, precision="float32"):
    """Normalised posterior means and standard deviations, two ``(N, P)`` float32 tensors; dropout is off."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for chunk in maps.split(PREDICT_BATCH):
            parts.append(_forward(network, chunk, precision))
    return torch.cat(parts).chunk(2, dim=1)


def evaluate(network, maps, targets, *, precision="float32"):
    """The loss on ``maps`` as they are, without symmetries."""
    mean, sigma = predict(network, maps, precision=precision)
    return loss.moment_loss(mean, sigma, targets).item()


def _train_epoch(network, maps, targets, table, optimiser, scheduler, batch, precision):
    """The moments of each step, ``(S, 2, P)`` on the device of the maps, and its number of maps, ``(S,)``.

    Nothing is read from the device: that would wait for it at every step.
    """
    network.train()
    order = torch.randperm(len(maps), device=maps.device)
    group = torch.randint(len(table), (len(maps),), device=maps.device)
    steps, sizes = [], []
    for chosen, symmetry in zip(order.split(batch), group.split(batch), strict=True):
        if len(chosen) == 1:  # BatchNorm at one pixel needs two maps
            continue
        mean, sigma = _forward(network, scaling.transform(maps[chosen], symmetry, table), precision).chunk(2, dim=1)
        moments = loss.moments(mean, sigma, targets[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.from_moments(moments).backward()
        optimiser.step()
        scheduler.step()
        steps.append(moments.detach())
        sizes.append(len(chosen))
    return torch.stack(steps), torch.tensor(sizes, dtype=torch.float32)


def _first_bad(moments):
    """The first step, from 0, whose moments are not all finite; the last one where all are."""
    good = moments.isfinite().flatten(1).all(1).tolist()
    return good.index(False) if False in good else len(good) - 1


def _learning_rate(schedule, max_lr, total_steps, step):
    """That of ``step``, counted from 0 over all epochs."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=max_lr)
    scheduler = _scheduler(optimiser, schedule, max_lr, total_steps)
    for _ in range(step):
        optimiser.step()
        scheduler.step()
    return optimiser.param_groups[0]["lr"]


def _forward(network, maps, precision):
    with torch.autocast(maps.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        return network(maps[:, None])


def _scheduler(optimiser, schedule, max_lr, total_steps):
    if schedule == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr, total_steps=total_steps, cycle_momentum=False)
    return torch.optim.lr_scheduler.CyclicLR(
        optimiser, BASE_LR, max_lr, step_size_up=CYCLE_STEPS, step_size_down=CYCLE_STEPS, cycle_momentum=False
    )


@contextlib.contextmanager
def _seeded(seed, device):
    """A scope in which torch's generators start from ``seed``; outside they are what they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
