"""Checkpoints and predictions from elsewhere, as the command that evaluates them takes them."""

import json

import numpy as np
import pytest
import torch

from camelsight.ground import cmd, split
from camelsight.inference import network
from camelsight.pipeline import paths, text_tables
from camelsight.stages import evaluate
from camelsight.universe import camels

END = "all_steps_500_500_o3"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"weights_IllustrisTNG_Mtot_31_{END}.pt", ("IllustrisTNG", ("Mtot",), None)),
        (f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt", ("SIMBA", ("Mtot",), "2")),
        (f"weights_Nbody_Mtot_0_{END}.pt", ("Nbody", ("Mtot",), None)),
        (f"weights_Nbody_IllustrisTNG_Mtot_0_{END}.pt", ("Nbody_IllustrisTNG", ("Mtot",), None)),
        (f"weights_IllustrisTNG_Mgas_Mstar_12_{END}.pt", ("IllustrisTNG", ("Mgas", "Mstar"), None)),
        (f"weights_IllustrisTNG_Mtot_{END}.pt", None),
        ("weights_10.pt", None),
    ],
)
def test_the_names_of_published_weights_are_read(name, said):
    assert cmd.published(name) == said


@pytest.mark.parametrize(
    ("name", "asked", "taken"),
    [
        (f"weights_SIMBA_Mtot_3_{END}.pt", (None, None), ("SIMBA", ("Mtot",), "original")),
        (f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt", (None, None), ("SIMBA", ("Mtot",), "smooth_2")),
        (
            f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt",
            ("IllustrisTNG", "original"),
            ("IllustrisTNG", ("Mtot",), "original"),
        ),
        (f"weights_Nbody_Mtot_3_{END}.pt", ("Nbody_SIMBA", None), ("Nbody_SIMBA", ("Mtot",), "original")),
        (f"weights_SIMBA_HI_0_{END}.pt", (None, None), ("SIMBA", ("HI",), "original")),
        (f"weights_SIMBA_Mgas_Mstar_0_{END}.pt", (None, "kmax_1"), ("SIMBA", ("Mgas", "Mstar"), "kmax_1")),
        ("weights_10.pt", ("IllustrisTNG", "kmax_1"), ("IllustrisTNG", (), "kmax_1")),
    ],
)
def test_suite_fields_and_smoothing_are_those_of_the_name_unless_others_are_asked_for(name, asked, taken, capsys):
    assert evaluate._named(name, *asked) == taken
    assert ("by its name" in capsys.readouterr().err) == (name != "weights_10.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "weights_10.pt",
            r"a suite among .* \(make evaluate SUITE=name\), got none in the name weights_10\.pt",
        ),
        (f"weights_Nbody_Mtot_0_{END}.pt", "expected a suite among .*, got Nbody in the name weights_Nbody_Mtot"),
        (f"weights_EAGLE_Mtot_0_{END}.pt", "expected a suite among .*, got EAGLE in the name weights_EAGLE"),
        (
            f"weights_SIMBA_Mbh_0_{END}.pt",
            "expected fields among Mgas, .*, Mtot, got Mbh by the name weights_SIMBA_Mbh",
        ),
    ],
)
def test_a_name_that_does_not_say_enough_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        evaluate._named(name, None, None)


def test_a_network_of_means_alone_is_called_that(tmp_path, monkeypatch):
    """It was refused as one of three parameters."""
    monkeypatch.chdir(tmp_path)
    paths.PARAMS.write_bytes((paths.PACKAGE.parents[1] / "profiles/smoke.yaml").read_bytes())
    net = network.build(2, 0.0, size=16, parameters=3)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"expected 12 outputs, .* got 6 in weights\.pt: a network of means alone"):
        evaluate.evaluate_checkpoint("weights.pt", suite="IllustrisTNG")


def test_the_simulations_of_predictions_are_found_from_the_truth(tmp_path, capsys):
    """As published for gravity-only networks: 50 simulations, 15 maps, 8 views, and nothing in the other columns."""
    test = split.by_simulation(1000)["test"]
    truth = np.zeros((6000, 6))
    truth[:, :2] = np.round(camels.parameters("IllustrisTNG")[np.repeat(test, 120), :2], 4)
    mean, sigma = truth.copy(), np.zeros_like(truth)
    mean[:, :2] += 0.01
    text_tables.write_predictions(tmp_path / "results.txt", truth, mean, sigma)
    evaluate.evaluate_file(str(tmp_path / "results.txt"), json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["simulations"] == {"IllustrisTNG": sorted(map(int, test))} and "15 maps × 8 views" in found["mapping"]
    assert found["mapping"].endswith("the released test split of IllustrisTNG")
    scatter = truth[:, :2].var(0)
    expected = [1 - 1e-4 / variance for variance in scatter]
    assert [found["metrics"]["r2"][name][0] for name in ("omega_m", "sigma_8")] == pytest.approx(expected)
    assert found["metrics"]["chi2"]["omega_m"][0] is None and found["metrics"]["chi2"]["A_SN1"][0] == 0
    assert found["metrics"]["relative_error"]["A_SN1"][0] == 0 and found["metrics"]["r2"]["A_SN1"][0] is None


def test_simulations_that_are_nobodys_are_not_named(tmp_path, capsys):
    truth = np.random.default_rng(1).uniform(0.61, 0.99, (30, 2))
    text_tables.write_predictions(tmp_path / "results.txt", truth, truth + 0.01, truth * 0 + 0.01)
    evaluate.evaluate_file(str(tmp_path / "results.txt"), json=True)
    assert "simulations" not in json.loads(capsys.readouterr().out)
