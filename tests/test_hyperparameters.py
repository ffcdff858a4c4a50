import json

import pytest

from camelsight.analysis import networks
from camelsight.ground import hyperparameters
from camelsight.pipeline import paths
from conftest import refused

GOOD = {"max_lr": 4.6934e-3, "weight_decay": 0, "dropout": 0.0, "hidden": 6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": float("nan")}, "hidden: expected an integer from 1 to 64, got nan"),
        ({"hidden": 6.0}, "hidden: expected an integer from 1 to 64, got 6.0"),
        ({"hidden": True}, "hidden: expected an integer from 1 to 64, got True"),
        ({"hidden": 10**9}, "hidden: expected an integer from 1 to 64, got 1000000000"),
        ({"max_lr": "1e-3"}, "max_lr: expected a finite number, got '1e-3'"),
        ({"max_lr": float("inf")}, "max_lr: expected a finite number, got inf"),
        ({"max_lr": 0}, "max_lr: expected above 0, got 0"),
        ({"weight_decay": None}, "weight_decay: expected a finite number, got None"),
        ({"weight_decay": -1e-9}, "weight_decay: expected at least 0, got -1e-09"),
        ({"dropout": [0.1]}, r"dropout: expected a finite number, got \[0.1\]"),
        ({"more": 1}, "expected hyperparameters max_lr, weight_decay, dropout, hidden, got .*, more"),
    ],
)
def test_hyperparameters_from_elsewhere_are_used_as_they_are_or_refused(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = paths.hyperparameters("SIMBA", "original")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"hyperparameters": GOOD}), encoding="utf-8")
    assert networks.chosen("SIMBA", "original") == GOOD
    path.write_text(json.dumps({"hyperparameters": GOOD | change}), encoding="utf-8")
    with refused(rf"results/hyperparameters/SIMBA/original\.json: .*{message}"):
        networks.chosen("SIMBA", "original")


@pytest.mark.parametrize("values", [None, [1], "hidden", {}])
def test_what_is_no_mapping_of_hyperparameters_is_refused(values):
    with refused("trial 3: expected hyperparameters max_lr, weight_decay, dropout, hidden, got"):
        hyperparameters.checked(values, "trial 3")
