"""A rehearsal of a profile as small as can be, and the forecasts from made-up measurements, worked out by hand."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from camelsight.commands import forecast, rehearse
from camelsight.inference import cost, network
from camelsight.pipeline import launch, params, paths, rehearsal, store

ROOT = Path(__file__).parent.parent
MINI, TWIN, CAMELS = (params.load(ROOT / f"profiles/{name}.yaml") for name in ("mini", "twin", "camels"))


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """A folder in which a profile was rehearsed, and what that printed."""
    folder = tmp_path_factory.mktemp("rehearsed")
    for name in (paths.DIGITISED, paths.TUNING_RECORD, Path("dvc.yaml"), Path("figures")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    tiny = yaml.safe_load((ROOT / "profiles/smoke.yaml").read_text(encoding="utf-8"))
    tiny["profile"], tiny["maps"]["steps"] = "tiny", 8
    tiny["cases"] = tiny["attribute"]["cases"] = ["original", "kmax_1"]
    tiny["tune"]["start"]["kmax_1"] = tiny["tune"]["start"]["original"] | {"hidden": 3}
    (folder / "profiles").mkdir()
    (folder / "profiles/tiny.yaml").write_text(json.dumps(tiny), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "camelsight.commands.rehearse", "--profile", "tiny", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "code")}
    before = listing(folder)
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder, json.loads(run.stdout), listing(folder) - before


def listing(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_every_stage_is_rehearsed_but_the_pdf(rehearsed):
    _, record, _ = rehearsed
    measured = {one["stage"] for one in record["stages"] if one["measured"] is not None}
    assert measured == {"maps", "universe", *launch.CHAIN, "choose", "attribute", "sanity", "tabulate", "figures"}
    assert {one["stage"] for one in record["stages"]} - measured == {"paper"}
    assert all(one["host_bytes"] > 1e7 for one in record["stages"] if one["measured"])
    assert [one["hidden"] for one in record["training"]] == [2, 3]
    for one in record["training"]:
        assert one["precision"] == "float32" and one["maps_per_second"] > 0
        assert one["share_of_arithmetic"] > 0 and one["share_of_bandwidth"] > 0


def test_it_leaves_its_record_alone_and_text_says_the_same(rehearsed):
    folder, record, left = rehearsed
    assert left == {"runs/rehearsals/tiny.json"}
    assert store.read_json(folder / "runs/rehearsals/tiny.json")["forecast"] == record["forecast"]
    said = rehearse.text(record)
    assert "hidden 3" in said and "everything fits" in said and "the profile's own guess" in said


def test_a_stage_that_fails_leaves_its_log_and_what_was_measured_before(tmp_path, monkeypatch):
    """On a GPU, minutes of measuring were lost to a package that was not there, and the log with its folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")

    def stage(folder, stage, place):
        name = "-".join([stage, *place])
        code = "import sys; sys.exit('train: no such package')" if stage == "train" else ""
        command = [sys.executable, "-c", code]
        launch.processes([(name, command, folder / paths.log(name), {})], 1, name)
        return {"process": 2.0}

    monkeypatch.setattr(rehearse, "_stage", stage)
    monkeypatch.setattr(rehearse, "_repeat", lambda *_: None)
    with pytest.raises(ValueError, match="no such package") as caught:
        rehearse.rehearse("smoke")
    said = str(caught.value)
    assert said.endswith("measured before: maps 2 s, universe 4 s, cut 4 s, tune 2 s, choose 4 s")
    log = Path(said.partition("(see ")[2].partition(")")[0])
    assert "no such package" in log.read_text() and not list(paths.AGAIN.iterdir())


def test_forecasts_use_it_on_this_machine_and_for_this_profile_alone(rehearsed, monkeypatch):
    folder, record, _ = rehearsed
    monkeypatch.chdir(folder)
    loaded = params.load(paths.profile("tiny"))
    target = "train@IllustrisTNG-kmax_1"
    assert launch.seconds_of(loaded, target) == launch.START_SECONDS + record["forecast"][target]
    other = dataclasses.replace(loaded, seconds=dataclasses.replace(loaded.seconds, train=77))
    assert rehearsal.seconds(other, target) == record["forecast"][target]
    longer = dataclasses.replace(other, train=dataclasses.replace(loaded.train, epochs=200))
    assert launch.seconds_of(longer, target) == launch.START_SECONDS + 77
    monkeypatch.setattr(rehearsal, "_devices", lambda: {"hardware": "another", "cpu": "another"})
    assert launch.seconds_of(other, target) == launch.START_SECONDS + 77


@pytest.mark.parametrize("loaded", [MINI, TWIN, CAMELS])
def test_shapes_stay_and_counts_shrink(loaded):
    small = rehearse.reduced(loaded)
    for spec, kept in ((("maps"), ("pixels", "particles", "mesh", "steps")), ("train", ("batch", "precision"))):
        assert all(getattr(getattr(small, spec), name) == getattr(getattr(loaded, spec), name) for name in kept)
    assert small.maps.simulations <= 50 and small.train.epochs == 3 and small.tune.start == loaded.tune.start
    trained = small.maps.simulations * 15 * loaded.split.fractions[0]
    assert trained >= rehearse.BATCHES * loaded.train.batch * 0.95
    widths = {loaded.tune.start_of(case).hidden for case in loaded.cases}
    assert max(small.tune.start_of(case).hidden for case in small.cases) == max(widths)


def measured(**took):
    small = dataclasses.replace(
        rehearse.reduced(MINI),
        maps=dataclasses.replace(MINI.maps, simulations=16),
        attribute=dataclasses.replace(MINI.attribute, cases=("original",), maps=2),
    )
    return forecast.Rehearsal(MINI, small, took, workers=2)


def test_what_grows_with_simulations_grows_ten_times_and_what_does_not_stays():
    training = {"hidden": 4, "epochs": [5.0, 2.0, 2.0]}  # 3 s before the first
    found = measured(
        maps=[{"seconds": 12.0, "items": [4.0, 4.0, 6.0, 6.0]}],  # two at a time, 2 s the pair
        universe=[{"seconds": 5.0, "steps": 2}, {"seconds": 6.0, "steps": 4}],
        cut=[{"seconds": 1.0, "case": "original"}, {"seconds": 2.0, "case": "kmax_1"}],
        train=[{"seconds": 11.0, "reading": 1.0, "trainings": [training]}],
        attribute=[{"seconds": 5.0, "reading": 1.0}],
    )
    seconds = forecast.of_stages(found)
    assert seconds["maps"] == 8 + 160  # two suites, one universe
    assert seconds["universe"] == 5 + 0.5 * (48 - 2)
    assert [seconds[f"cut@IllustrisTNG-{case}"] for case in ("original", "kmax_1", "kmax_3")] == [10, 20, 20]
    assert seconds["train@IllustrisTNG-original"] == 1 + 10 + 3 + 20 * 2 * 10
    assert seconds["attribute@IllustrisTNG-original"] == 10 + 4 * 40 / 2
    assert seconds["paper"] == MINI.seconds.paper
    assert forecast.in_all({"maps": 7, "cut@A-x": 9, "cut@B-x": 9}, 2) == 7 + 9 + 2 * launch.START_SECONDS


def test_widths_between_two_that_were_trained_are_between():
    def trained(hidden, seconds):
        return {"trainings": [{"hidden": hidden, "epochs": [9.0, seconds, seconds]}]}

    found = measured(train=[trained(4, 1.0), trained(8, 3.0)])
    assert [forecast.epoch(found, hidden)[0] for hidden in (2, 4, 5, 8, 9)] == [1, 1, 1.5, 3, 3]


def test_what_does_not_fit_is_named(monkeypatch):
    found = measured(**{stage: [{"host_bytes": 10e9}] for stage in ("maps", "train", "tune", "sanity")})
    cpu = torch.device("cpu")
    monkeypatch.setattr(rehearse.machine, "memory", lambda: 64e9)
    assert rehearse.misfits(found, 2, cpu) == []
    monkeypatch.setattr(rehearse.machine, "memory", lambda: 16e9)
    assert [line.partition(":")[0] for line in rehearse.misfits(found, 2, cpu)] == ["train", "tune", "sanity", "maps"]


def test_the_arithmetic_of_a_network_is_that_of_its_layers():
    """o3 at 16 pixels: two blocks, three convolutions each, a last one and two dense layers, counted by hand."""
    hidden, size = 2, 16
    net = network.build(hidden, 0.0, size=size)
    layers = [  # input channels, output channels, kernel, pixels of a side
        (1, 4, 3, 18), (4, 4, 3, 16), (4, 4, 2, 8), (4, 8, 3, 8), (8, 8, 3, 8), (8, 8, 2, 4), (8, 16, 4, 1),
        (16, 8, 1, 1), (8, 12, 1, 1),
    ]  # fmt: skip
    expected = sum(2 * given * made * kernel**2 * side**2 for given, made, kernel, side in layers)
    operations, traffic = cost.of_training(net, batch=32, itemsize=4)
    assert operations == cost.PASSES * expected
    assert cost.of_training(net, batch=32, itemsize=2)[1] == traffic / 2


def test_the_limits_of_a_device_are_beyond_what_a_training_reaches():
    arithmetic, bandwidth = cost.limits(torch.device("cpu"), "float32")
    assert arithmetic > 1e9 and bandwidth > 1e8
