"""A network by itself: on weights of which the answer is known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import camelsight
from camelsight.commands import loading
from camelsight.ground import theta
from camelsight.inference import network
from camelsight.pipeline import paths, store

ROOT = Path(__file__).parent.parent
SUITE, PIXELS = "IllustrisTNG", 16
MIDDLE = {name: (low + high) / 2 for name, low, high in zip(theta.NAMES, *theta.ranges(SUITE), strict=True)}


@pytest.fixture
def run(tmp_path):
    """The folder of a run of smoke with a network that says 0.5 ± 0.3 of every parameter, whatever the map."""
    store.write_bytes(tmp_path / paths.PARAMS, (ROOT / "profiles/smoke.yaml").read_bytes())
    net = network.build(2, 0.0, size=PIXELS)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and name.endswith(("weight", "bias")):
            tensor.zero_()
    last = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.bias.data = torch.tensor([0.5] * 6 + [0.3**0.5] * 6)
    store.write_weights(tmp_path / paths.weights(SUITE, "original"), net)
    chosen = {"max_lr": 1e-3, "weight_decay": 1e-8, "hidden": 2, "dropout": 0.0}
    store.write_json(tmp_path / paths.hyperparameters(SUITE, "original"), {"hyperparameters": chosen})
    known = {"statistics_train": [11.0, 0.5], "statistics_all": [10.0, 0.25], "log10_range": [9.0, 14.0], "unit": 1.0}
    store.write_json(tmp_path / paths.cut(SUITE, "original"), {"fields": {"Mtot": known}})
    return tmp_path


def test_raw_maps_are_scaled_by_the_statistics_of_the_training_maps(run):
    one = camelsight.load(SUITE, run=run)
    scaled = one.scale(np.full((2, PIXELS, PIXELS), 1e12))
    assert scaled.shape == (2, 1, PIXELS, PIXELS) and scaled.dtype == torch.float32
    torch.testing.assert_close(scaled, torch.full_like(scaled, (12 - 11.0) / 0.5))
    with_all = dataclasses.replace(
        one, params=dataclasses.replace(one.params, train=dataclasses.replace(one.params.train, normalisation="all"))
    )
    torch.testing.assert_close(with_all.scale(np.full((PIXELS, PIXELS), 1e12))[0], torch.full_like(scaled[0], 8.0))


def test_a_prediction_is_in_physical_units(run):
    got = camelsight.load(SUITE, run=run).predict(np.full((PIXELS, PIXELS), 1e11))
    low, high = theta.ranges(SUITE)
    for column, name in enumerate(theta.NAMES):
        mean, sigma = got[name]
        assert mean == pytest.approx([MIDDLE[name]]) and sigma == pytest.approx([0.3 * (high - low)[column]], rel=1e-5)


def test_the_cut_of_a_case_comes_before_the_scaling(run):
    one = dataclasses.replace(camelsight.load(SUITE, run=run), case="max_1e12_clamp")
    map_ = np.full((PIXELS, PIXELS), 1e11)
    map_[0, 0] = 1e14
    assert one.scale(map_)[0, 0, 0, 0].item() == pytest.approx(2.0) and one.scale(map_)[0, 0, 1, 1].item() == 0.0


def test_a_pixel_that_the_network_does_not_see_gets_no_attribution(run):
    maps = np.full((PIXELS, PIXELS), 1e11)
    found = camelsight.load(SUITE, run=run).attribute(maps)
    assert set(found) == {"saliency", "integrated_gradients", "gradient_shap"}
    for by_parameter in found.values():
        assert set(by_parameter) == {"omega_m", "sigma_8"}
        assert all(values.shape == maps.shape and not values.any() for values in by_parameter.values())


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.ones((8, 8)), r"expected maps of 16 x 16 pixels, got an array \(8, 8\)"),
        (np.ones(16), r"got an array \(16,\)"),
        (np.full((16, 16), 11.5) - 12, "all above 0, got others; take no log"),
        (np.full((16, 16), np.nan), "all above 0, got others"),
    ],
)
def test_what_is_no_map_is_refused(run, maps, message):
    with pytest.raises(ValueError, match=message):
        camelsight.load(SUITE, run=run).scale(maps)


def test_what_is_not_there_is_named_with_what_brings_it(run, tmp_path):
    with pytest.raises(ValueError, match="expected one of IllustrisTNG, Nbody_IllustrisTNG, got 'SIMBA'"):
        camelsight.load("SIMBA", run=run)
    with pytest.raises(ValueError, match=r"got .*nowhere, which is neither"):
        loading.load(SUITE, run=tmp_path / "nowhere")
    store.write_text(run / paths.DVC, "stages: {}\n")
    (run / ".dvc").mkdir()
    with pytest.raises(ValueError, match=r"expected runs/Nbody_IllustrisTNG/original/weights.safetensors in .*paper"):
        camelsight.load("Nbody_IllustrisTNG", run=run)
    (run / paths.PARAMS).write_text("profile: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"params\.yaml: "):
        camelsight.load(SUITE, run=run)
