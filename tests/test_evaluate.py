"""Checkpoints and predictions from elsewhere, as the command that evaluates them takes them."""

import pytest
import torch

from camelsight.ground import cmd
from camelsight.inference import network
from camelsight.pipeline import paths
from camelsight.stages import evaluate

END = "all_steps_500_500_o3"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"weights_IllustrisTNG_Mtot_31_{END}.pt", ("IllustrisTNG", "Mtot", None)),
        (f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt", ("SIMBA", "Mtot", "2")),
        (f"weights_Nbody_Mtot_0_{END}.pt", ("Nbody", "Mtot", None)),
        (f"weights_Nbody_IllustrisTNG_Mtot_0_{END}.pt", ("Nbody_IllustrisTNG", "Mtot", None)),
        (f"weights_IllustrisTNG_Mgas_Mstar_12_{END}.pt", ("IllustrisTNG", "Mgas_Mstar", None)),
        (f"weights_IllustrisTNG_Mtot_{END}.pt", None),
        ("weights_10.pt", None),
    ],
)
def test_the_names_of_published_weights_are_read(name, said):
    assert cmd.published_weights(name) == said


@pytest.mark.parametrize(
    ("name", "asked", "taken"),
    [
        (f"weights_SIMBA_Mtot_3_{END}.pt", (None, None), ("SIMBA", "original")),
        (f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt", (None, None), ("SIMBA", "smooth_2")),
        (f"weights_SIMBA_Mtot_3_{END}_smoothing_2.pt", ("IllustrisTNG", "original"), ("IllustrisTNG", "original")),
        (f"weights_Nbody_Mtot_3_{END}.pt", ("Nbody_SIMBA", None), ("Nbody_SIMBA", "original")),
        ("weights_10.pt", ("IllustrisTNG", "kmax_1"), ("IllustrisTNG", "kmax_1")),
    ],
)
def test_suite_and_smoothing_are_those_of_the_name_unless_others_are_asked_for(name, asked, taken, capsys):
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
            f"weights_SIMBA_HI_0_{END}.pt",
            "expected a network of the field Mtot, got one of HI by the name weights_",
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
