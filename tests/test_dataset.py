import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from camelsight.analysis import dataset
from camelsight.pipeline import cli, params

ROOT = Path(__file__).parent.parent


def test_maps_of_the_other_byte_order_are_what_they_are():
    maps = np.random.default_rng(0).lognormal(27, 1, (45, 8, 8)).astype(np.float32)
    numbers = np.array([3, 7, 9])
    ours, theirs = (dataset.Suite(numbers, (one, -one), np.ones((3, 6))) for one in (maps, maps.astype(">f4")))
    for read in (lambda given: given.simulation(7), lambda given: given.densities([141, 50])):
        assert read(theirs).dtype.isnative and np.array_equal(read(theirs), read(ours))


@pytest.mark.parametrize(("free", "fits"), [(2, True), (1.9, False)])
def test_maps_too_large_for_a_device_stay_on_the_host_and_a_line_says_so(free, fits, monkeypatch, capsys):
    maps, device = torch.zeros(10, 1, 16, 16), torch.device("meta")
    monkeypatch.setattr(cli, "free_bytes", lambda device: free * maps.nbytes)
    placed = dataset.place(maps, device)
    assert placed.device == (device if fits else maps.device)
    assert capsys.readouterr().err.startswith("" if fits else "10 maps stay on the host and are streamed: they take")
    assert dataset.place(maps, maps.device) is maps


def test_hardware_of_another_instruction_set_has_another_name(monkeypatch):
    found = []
    for name in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        found.append(cli.hardware(torch.device("cpu")))
    assert found == ["AVX2", "AVX512"]


def test_float32_means_the_same_on_a_gpu(monkeypatch):
    """TF32 has ten bits of mantissa, and convolutions take it unless told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    cli.device()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_maps_and_parameters_are_asked_for_by_the_numbers_of_camels():
    maps = np.arange(45, dtype=np.float32).reshape(45, 1, 1)
    given = dataset.Suite(np.array([5, 264, 829]), (maps, -maps), np.arange(18.0).reshape(3, 6))
    assert given.simulation(264)[:, 0].ravel().tolist() == list(range(15, 30))
    assert given.densities([829 * 15 + 14, 5 * 15])[:, 0].ravel().tolist() == [44, 0]
    for read in (given.simulation(264), given.densities([829 * 15 + 14, 5 * 15])):
        assert read.shape[1:] == (2, 1, 1) and np.array_equal(read[:, 1], -read[:, 0])
    assert given.truth([829, 5])[:, 0].tolist() == [12, 0]


def test_a_twin_has_the_numbers_of_camels_and_other_sets_their_own():
    smoke = params.load(ROOT / "profiles" / "smoke.yaml")
    assert dataset.splits(smoke)["test"].tolist() == [264, 829] and 0 in dataset.numbers(smoke)
    rows = dataset.rows(smoke)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(8))
    np.testing.assert_array_equal(dataset.numbers(smoke)[rows["test"]], [264, 829])
    real = dataclasses.replace(smoke, maps=dataclasses.replace(smoke.maps, source="camels"))
    assert dataset.numbers(real).tolist() == list(range(8))
