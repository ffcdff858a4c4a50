import pytest
import torch

from camelsight import cli, dataset


@pytest.mark.parametrize(("free", "fits"), [(2, True), (1.9, False)])
def test_maps_too_large_for_a_device_stay_on_the_host_and_a_line_says_so(free, fits, monkeypatch, capsys):
    maps, device = torch.zeros(10, 16, 16), torch.device("meta")
    monkeypatch.setattr(cli, "free_bytes", lambda device: free * maps.nbytes)
    placed = dataset.place(maps, device)
    assert placed.device == (device if fits else maps.device)
    assert capsys.readouterr().err.startswith("" if fits else "10 maps stay on the host and are streamed: they take")
    assert dataset.place(maps, maps.device) is maps
