"""Training and prediction.

Maps are scaled ``(N, C, n, n)`` float32 tensors, targets normalised ``(N, P)`` ones, on the network's device. Maps that
do not fit there stay on the host, and their batches are streamed.
"""

import contextlib
import copy
import math
import os
import sys

import torch

from camelsight.ground import seeding
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
    patience=0,
    deterministic=False,
    state=None,
    on_epoch=None,
):
    """Train ``network`` in place and load the weights of the epoch with the best validation loss.

    ``train`` and ``valid`` are pairs (maps, targets); each map is turned by one of ``symmetries``, drawn anew in every
    epoch. ``on_epoch(state)`` is called after each epoch; ``state`` refers to live tensors, so save or copy it at once.
    Every epoch draws its order, symmetries and dropout from (``seed``, epoch): a run that continues from a saved
    ``state`` equals one that was never cut off. Training ends early after ``patience`` epochs without a better one,
    unless that is 0. ``deterministic`` algorithms make a GPU repeat itself bit for bit, as a CPU always does. Returns
    the history, a list of dicts with epoch, train and valid (losses in the released convention), and lr. Raises
    ``DivergenceError``, whose epoch is the one that was not finished.
    """
    maps, targets = train
    device = targets.device
    table = scaling.symmetry_table(maps.shape[-1], device)[list(symmetries)]
    steps = math.ceil(len(maps) / batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=max_lr, betas=BETAS, weight_decay=weight_decay, fused=True)
    scheduler = _scheduler(optimiser, schedule, max_lr, epochs * steps)
    parts = {"network": network, "optimiser": optimiser, "scheduler": scheduler}
    history, best = [], None
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        history, best = list(state["history"]), state["best"]
    with _algorithms(device, deterministic):
        forward = _compiled(network, maps[:batch].to(device), precision)
    for epoch in range(len(history), epochs):
        if patience and _since_best(history) >= patience:
            break
        lr = optimiser.param_groups[0]["lr"]
        with _seeded(seeding.entropy(seed, "epoch", epoch), device), _algorithms(device, deterministic):
            network.train()
            moments, sizes = _train_epoch(forward, maps, targets, table, optimiser, scheduler, batch, precision)
            valid_loss = evaluate(network, *valid, precision=precision)
        losses = [loss.from_moments(_averaged(moments, sizes)).item(), valid_loss]
        if not all(map(math.isfinite, losses)):
            bad, seen = _first_bad(moments), len(moments)
            at = _learning_rate(schedule, max_lr, epochs * steps, epoch * seen + bad)
            raise _divergence(losses, epoch, f"step {bad + 1} of {seen}", at, precision)
        history.append({"epoch": epoch + 1, "train": losses[0], "valid": losses[1], "lr": lr})
        if losses[1] <= min(record["valid"] for record in history):
            best = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if on_epoch is not None:
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
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for chunk in maps.split(PREDICT_BATCH):
            parts.append(_forward(network, chunk.to(device), precision))
    return torch.cat(parts).chunk(2, dim=1)


def evaluate(network, maps, targets, *, precision="float32"):
    """The loss on ``maps`` as they are, without symmetries."""
    mean, sigma = predict(network, maps, precision=precision)
    return loss.moment_loss(mean, sigma, targets).item()


def _train_epoch(network, maps, targets, table, optimiser, scheduler, batch, precision):
    """The moments of each step, ``(S, 2, P)`` on the device of the targets, and its number of maps, ``(S,)``.

    Nothing is read from the device: that would wait for it at every step.
    """
    device = targets.device
    order = torch.randperm(len(maps), device=device)[: _seen(len(maps), batch)]
    group = torch.randint(len(table), (len(maps),), device=device)[: len(order)]
    batches = _gathered(maps, order, batch) if _resident(maps, device) else _streamed(maps, order, batch)
    steps, sizes = [], []
    for chosen, symmetry, images in zip(order.split(batch), group.split(batch), batches, strict=True):
        mean, sigma = _forward(network, scaling.transform(images, symmetry, table), precision).chunk(2, dim=1)
        moments = loss.moments(mean, sigma, targets[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.from_moments(moments).backward()
        optimiser.step()
        scheduler.step()
        steps.append(moments.detach())
        sizes.append(len(chosen))
    return torch.stack(steps), torch.tensor(sizes, dtype=torch.float32)


def _averaged(moments, sizes):
    """The mean of ``moments`` over the maps of an epoch, of which each step saw one of ``sizes``; ``(2, P)``."""
    return (moments * (sizes / sizes.sum()).to(moments)[:, None, None]).sum(0)


def _divergence(losses, epoch, step, learning_rate, precision):
    return DivergenceError(
        f"expected a finite loss, got train {losses[0]:g} and valid {losses[1]:g} in epoch {epoch + 1}, "
        f"from {step} on, at learning rate {learning_rate:.2g}; "
        "try a smaller max_lr" + (", or precision float32" if precision != "float32" else ""),
        epoch + 1,
    )


def _seen(count, batch):
    """How many of ``count`` maps an epoch sees: BatchNorm at one pixel needs two in a batch."""
    return count - (count % batch == 1)


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


def _resident(maps, device):
    return maps.device == device


def _gathered(maps, order, batch):
    return (maps[chosen] for chosen in order.split(batch))


def _streamed(maps, order, batch):
    """Batches of host ``maps`` on the device of ``order``. Two pinned buffers take turns.

    While the device computes on a batch, the host gathers the next one and a stream of its own copies it.
    """
    device, cuda = order.device, order.device.type == "cuda"
    shape = (min(batch, len(order)), *maps.shape[1:])
    buffers = [torch.empty(shape, dtype=maps.dtype, pin_memory=cuda) for _ in range(2)]
    copied = [torch.cuda.Event() if cuda else None for _ in buffers]
    stream = torch.cuda.Stream(device) if cuda else None
    for number, chosen in enumerate(order.cpu().split(batch)):
        buffer, event = buffers[number % 2][: len(chosen)], copied[number % 2]
        if not cuda:
            yield torch.index_select(maps, 0, chosen, out=buffer)
            continue
        event.synchronize()  # with the copy of two batches ago; it returns at once where there was none
        torch.index_select(maps, 0, chosen, out=buffer)
        with torch.cuda.stream(stream):
            images = buffer.to(device, non_blocking=True)
            event.record(stream)
        torch.cuda.current_stream(device).wait_stream(stream)
        images.record_stream(torch.cuda.current_stream(device))
        yield images


def _since_best(history):
    """Epochs since the one with the best validation loss."""
    losses = [record["valid"] for record in history]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def _compiled(network, maps, precision):
    """``network`` fused by torch.compile on a GPU for batches as large as ``maps``; others go through it as it is.

    So do all where that fails, and on CPU, where every process would wait. A trial on ``maps`` shows whether it works;
    it leaves the network as it was.
    """
    device = maps.device
    if device.type != "cuda":
        return network
    state = copy.deepcopy(network.state_dict())
    try:
        torch._dynamo.reset()  # else the networks before this one count, and after eight it compiles no more
        with torch.random.fork_rng(devices=[device]):
            compiled = torch.compile(network.train(), dynamic=False)
            _forward(compiled, maps, precision).sum().backward()
        return lambda images: (compiled if len(images) == len(maps) else network)(images)
    except Exception as error:  # Triton, its compiler and the driver raise what they like
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"torch.compile is of no use here, training goes on without: {reason}", file=sys.stderr)
        return network
    finally:
        network.load_state_dict(state)
        network.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _algorithms(device, deterministic):
    """On a GPU, a scope with ``deterministic`` algorithms, or else with the fastest; a CPU has the former alone."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _forward(network, maps, precision):
    with torch.autocast(maps.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        return network(maps)


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
