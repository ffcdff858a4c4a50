"""What a GPU must give: the same as a CPU, and itself again. Where none is, CAMELSIGHT_TEST_DEVICE=cpu tries the tests.

Run as a program, `test_gpu.py FOLDER`, this file is a training that is killed.
"""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from camelsight.analysis import dataset
from camelsight.ground import cmd
from camelsight.inference import loss, network, training
from camelsight.interpretation import attribution
from camelsight.pipeline import checkpoints, cli, store
from camelsight.universe import camels
from camelsight.universe import mesh as grids

DEVICE = torch.device(os.environ.get("CAMELSIGHT_TEST_DEVICE", "cuda"))
SIZE, EPOCHS = 32, 6
SUITES = ("IllustrisTNG", "Nbody_IllustrisTNG")
# How far a gradient is from that of the CPU in float32, relative to its length: float32 adds 10^4 terms of 6e-8 in
# another order; bfloat16 rounds every number of ten layers at 4e-3, 0.18 in all on a CPU. A wrong one is off by 1.
GRADIENT_BOUNDS = {"float32": 1e-4, "bfloat16": 0.3}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a GPU, here is none"),
]


@pytest.fixture(autouse=True)
def device():
    """The device, set up as every stage has it."""
    assert cli.device().type == DEVICE.type or DEVICE.type == "cpu"
    return DEVICE


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(dropout=0.1):
    return network.build(4, dropout, size=SIZE, generator=torch.Generator().manual_seed(1))


def fit(device, net=None, resident=True, deterministic=True, **changes):
    """A small training on noise, with a last batch that is smaller: the network, and its history."""
    net = (net or build()).to(device)
    maps, targets = draw(104, 1, SIZE, SIZE), torch.rand(104, 6, generator=torch.Generator().manual_seed(2)).to(device)
    maps = maps.to(device) if resident else maps
    settings = {"batch": 32, "max_lr": 3e-3, "weight_decay": 1e-4, "seed": 3, "schedule": "onecycle"} | changes
    parts = (maps, targets), (maps[:32], targets[:32])
    return net, training.fit(net, *parts, epochs=EPOCHS, deterministic=deterministic, **settings)


def same(one, two):
    """Whether two networks and histories are equal bit for bit."""
    tensors = (net.state_dict().values() for net in (one[0], two[0]))
    return one[1] == two[1] and all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


def test_initial_conditions_are_those_of_the_cpu(device):
    for seed in (0, 829):
        ours, theirs = (camels.white_noise(seed, 32, where) for where in (device, "cpu"))
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-9, atol=1e-9)


def test_maps_are_those_of_the_cpu_to_rounding(device):
    """Particles move by rounding and cross cells; the mass of a map, and nearly every pixel, stay."""
    settings = {"particles": 32, "mesh": 64, "steps": 8, "pixels": 32}
    ours, theirs = (camels.maps(SUITES, 0, device=where, **settings) for where in (device, "cpu"))
    for suite in SUITES:
        one, two = (torch.from_numpy(maps[suite]["Mtot"]).double() for maps in (ours, theirs))
        torch.testing.assert_close(one.sum((1, 2)), two.sum((1, 2)), rtol=1e-5, atol=0)
        assert ((one - two).norm() / two.norm()).item() < 1e-3


@pytest.mark.parametrize("mesh", [5, 112, 224, 448, 512, 896])
def test_places_at_the_edges_of_the_box_are_cells_of_the_mesh(device, mesh):
    """Just below an image of the box, a quotient that is rounded up would leave a negative cell."""
    edges = torch.arange(-3, 4.0) * cmd.BOX
    places = torch.cat([edges, *(torch.nextafter(edges, edges + side) for side in (-1.0, 1.0))])
    places = torch.cat([places, torch.linspace(0.99 * cmd.BOX, cmd.BOX, 10_000)]).to(device)
    cells = grids.cells_of(places.expand(3, -1), mesh, cmd.BOX)
    assert cells.min() >= 0 and cells.max() < mesh


@pytest.mark.parametrize("precision", GRADIENT_BOUNDS)
def test_a_step_of_training_agrees_with_the_cpu_in_float32(device, precision):
    maps, targets = draw(32, 1, SIZE, SIZE), torch.rand(32, 6, generator=torch.Generator().manual_seed(2))
    gradients = []
    for where, how in (("cpu", "float32"), (device, precision)):
        net, images = build(dropout=0.0).to(where).train(), maps.to(where)
        forward = training._compiled(net, images, how)
        mean, sigma = training._forward(forward, images, how).chunk(2, dim=1)
        loss.from_moments(loss.moments(mean, sigma, targets.to(where))).backward()
        gradients.append(torch.cat([one.grad.flatten().cpu() for one in net.parameters() if one.grad is not None]))
    expected, got = gradients
    assert expected.norm() > 0 and (got - expected).norm() / expected.norm() < GRADIENT_BOUNDS[precision]


@pytest.mark.parametrize("precision", GRADIENT_BOUNDS)
def test_deterministic_training_repeats_itself(device, precision):
    one, two, other = (fit(device, precision=precision, seed=seed) for seed in (3, 3, 4))
    assert same(one, two) and not same(one, other)


def test_fast_training_learns_what_deterministic_training_does(device):
    """Algorithms differ, so bits may; not by more than the first epochs' losses show."""
    fast, slow = (fit(device, deterministic=deterministic)[1] for deterministic in (False, True))
    assert fast[0]["train"] == pytest.approx(slow[0]["train"], rel=1e-2)


def test_a_training_goes_on_from_its_state(device):
    states = []
    whole = fit(device, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    assert same(fit(device, state=states[2]), whole)


def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    def start(folder):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([sys.executable, __file__, folder])

    killed = start(tmp_path / "killed")
    while not (tmp_path / "killed/train.pt").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert 0 < len(checkpoints.read(tmp_path / "killed/train.pt", "cpu")["history"]) < EPOCHS
    assert [start(tmp_path / name).wait() for name in ("killed", "whole")] == [0, 0]
    results = {store.file_digest(tmp_path / name / "result.json") for name in ("killed", "whole")}
    assert len(results) == 1


def train(folder):
    with checkpoints.Checkpoint(folder / "train.pt", DEVICE, 0) as checkpoint:

        def keep(state):
            checkpoint.keep(state)
            time.sleep(0.2)  # in which it is killed

        cli.device()
        net, history = fit(DEVICE, state=checkpoint.state, on_epoch=keep)
    store.write_json(folder / "result.json", [store.tensor_digest(net.state_dict()), history])


def test_maps_that_are_streamed_from_the_host_give_the_same_bits(device, monkeypatch):
    resident = fit(device)
    monkeypatch.setattr(training, "_resident", lambda maps, device: False)
    assert same(fit(device, resident=False), resident)


def test_maps_that_do_not_fit_stay_on_the_host(device, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "DEVICE_SHARE", 0.0)
    maps = draw(4, 1, SIZE, SIZE)
    placed = dataset.place(maps, device)
    assert placed.device.type == "cpu" and (device.type == "cpu" or "are streamed" in capsys.readouterr().err)


def test_attributions_are_those_of_the_cpu(device, monkeypatch):
    monkeypatch.setattr(attribution, "SHAP_NOISE", 0.0)  # which the device's own generator draws; NumPy draws the rest
    net = build()
    net(draw(32, 1, SIZE, SIZE))
    net, scaled = attribution.fold(net.eval()), draw(1, SIZE, SIZE, seed=3)
    found = {}
    for where in ("cpu", device):
        maps = (scaled.to(where), torch.zeros_like(scaled).to(where), draw(4, 1, SIZE, SIZE, seed=4).to(where))
        found[str(where)], _ = attribution.attribute(
            net.to(where), maps[0], (0, 1), start=maps[1], references=maps[2], ig_steps=32, shap_samples=8, seed=1
        )
    for method, expected in found["cpu"].items():
        error = (found[str(device)][method].cpu() - expected).abs().max() / expected.abs().max()
        assert error < 1e-3, method


def test_float32_is_float32(device):
    """TF32 keeps ten bits: 1 + 2^-12 would become 1."""
    number = 1 + 2**-12
    ones = torch.full((64, 64), number, device=device)
    assert torch.equal(ones @ torch.eye(64, device=device), ones)
    kernel = torch.ones(8, 8, 1, 1, device=device) * torch.eye(8, device=device)[:, :, None, None]
    maps = torch.full((4, 8, 16, 16), number, device=device)
    assert torch.equal(torch.nn.functional.conv2d(maps, kernel), maps)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]))
