"""Fields of CMD: names, checks, cuts, scaling, channels, other sets, what a set tells, the names of the benchmark."""

import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import smoke
from camelsight.analysis import attributions, dataset, networks, prediction, sets
from camelsight.commands import everything
from camelsight.ground import cases, cmd, fields, split
from camelsight.inference import information, network
from camelsight.maps import cuts, scaling
from camelsight.pipeline import params, paths, release, store
from camelsight.referee import evidence
from camelsight.report import selection
from camelsight.stages import evaluate, maps, tune
from camelsight.universe import camels
from conftest import ran, refused
from test_network import Released

ROOT = Path(__file__).parent.parent
SUITE, SIMULATIONS, PIXELS = "IllustrisTNG", 8, 16


def profile(**changes):
    """The profile smoke, of one suite, with ``changes`` such as ``attribute__baseline``."""
    raw = yaml.safe_load((ROOT / "profiles/smoke.yaml").read_text())
    raw |= {"suites": [SUITE], "cases": ["original", "kmax_1"]}
    raw["robustness"]["cuts"] = ["kmax_1"]
    raw["attribute"] |= {"cases": ["original"], "baseline": "mean"}
    for key, value in changes.items():
        *parents, last = key.split("__")
        block = raw
        for parent in parents:
            block = block[parent]
        block[last] = value
    return params.parse(yaml.safe_dump(raw), "params.yaml")


def made(field, seed=0, simulations=SIMULATIONS):
    """Maps of a field as CMD might have them: of many decades, with empty pixels, or of either sign."""
    draws, known = np.random.default_rng([seed, list(fields.FIELDS).index(field)]), fields.FIELDS[field]
    shape = (simulations * cmd.MAPS_PER_SIMULATION, PIXELS, PIXELS)
    if known.least == "any":
        return draws.normal(0, 200, shape).astype(np.float32)
    values = draws.lognormal(27 if known.is_mass else -5, 1.5, shape)
    if not known.is_positive:
        values[draws.random(shape) < 0.3] = 0
    return values.astype(np.float32)


@pytest.fixture
def real(tmp_path, monkeypatch):
    """``real(names, **changes)``: params of "real" maps of these fields, in data/CMD of an empty project."""
    monkeypatch.chdir(tmp_path)

    def make(names, **changes):
        loaded = profile(fields=list(names), maps__source="camels", **changes)
        folder = Path(loaded.maps.folder)
        folder.mkdir(parents=True)
        table = camels.parameters(SUITE)[:SIMULATIONS]
        for field in names:
            values = made(field)
            if field == fields.TOTAL:  # which is held to omega_m
                values /= np.repeat(values.reshape(SIMULATIONS, -1).mean(1) / table[:, 0], 15)[:, None, None]
                values *= np.float32(cases.MEAN_SURFACE_DENSITY)
            np.save(folder / cmd.maps_file_name(SUITE, field), values)
        np.savetxt(folder / cmd.params_file_name(SUITE), table, fmt="%.5f")
        return loaded

    return make


def test_thirteen_fields_of_which_a_suite_has_some():
    assert len(fields.FIELDS) == 13 and len(fields.of_suite("IllustrisTNG")) == 13
    assert len(fields.of_suite("SIMBA")) == len(fields.of_suite("Astrid")) == 12
    assert fields.of_suite("Nbody_SIMBA") == ("Mtot",)
    assert cmd.maps_file_name("SIMBA", "T") == "Maps_T_SIMBA_LH_z=0.00.npy"
    assert [name for name in fields.FIELDS if fields.FIELDS[name].is_mass] == ["Mgas", "HI", "Mcdm", "Mstar", "Mtot"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fields": ["Mdark"]}, "fields: expected fields among Mgas, Vgas,"),
        ({"fields": ["B"], "suites": ["SIMBA"], "maps__source": "camels"}, "fields that SIMBA has (Mgas, Vgas,"),
        ({"fields": ["Mgas"], "suites": [SUITE, f"Nbody_{SUITE}"]}, f"Nbody_{SUITE} has (Mtot), got Mgas; leave"),
        ({"fields": ["T"]}, "fields: expected some of Mtot, Mcdm, Mgas, Mstar, which the twin knows"),
        ({"fields": ["Mgas", "Mgas"]}, "fields: expected a list without repetition"),
        ({"fields": []}, "fields: expected a list without repetition"),
        (
            {"fields": ["Mtot", "T"], "maps__source": "camels", "cases": ["original", "max_1e12_clamp"]},
            "fields: expected cuts of density for densities of mass alone, got max_1e12_clamp and T",
        ),
        (
            {"fields": ["Mstar"], "robustness__cuts": ["min_1e12_random"]},
            "fields: expected random fill for fields without pixels of 0, got min_1e12_random and Mstar",
        ),
        ({"fields": ["Mstar"], "attribute__shap_baseline": "noise"}, "attribute.shap_baseline: expected another"),
        ({"fields": ["Mgas", "Mcdm"], "robustness__baseline": ["network"]}, "robustness.baseline: expected no network"),
        ({"fields": ["Mgas", "Mcdm"], "robustness__transfer": ["probes"]}, "robustness.transfer: expected no probes"),
        ({"fields": ["Mgas"], "robustness__transfer": ["fields"]}, "robustness.transfer: expected no fields"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_the_fields_is_refused_in_one_line(changes, message):
    with refused(re.escape(message)) as caught:
        profile(**changes)
    assert str(caught.value).startswith("params.yaml: ")


def test_a_cut_of_scales_goes_with_every_field():
    loaded = profile(fields=["T", "Vcdm", "Mstar"], maps__source="camels", cases=["original", "kmax_1", "smooth_2"])
    assert loaded.fields == ("T", "Vcdm", "Mstar")


def test_everything_is_everything_that_the_fields_allow():
    one = (ROOT / "profiles/mini.yaml").read_text()
    two = one.replace("fields: [Mtot]", "fields: [Mgas, Mcdm]")
    two = two.replace("suites: [IllustrisTNG, Nbody_IllustrisTNG]", "suites: [IllustrisTNG]")
    asked = [params.parse(everything.switched_on(text), "text").robustness for text in (one, two)]
    assert "fields" not in asked[0].transfer and "probes" in asked[0].transfer and "scales" in asked[0].baseline
    assert "fields" in asked[1].transfer and "probes" not in asked[1].transfer and not asked[1].baseline


@pytest.mark.parametrize("simulation", [0, 264])
def test_the_fields_of_the_twin_add_up_to_its_total_matter(simulation):
    size = {"particles": 16, "mesh": 32, "steps": 6, "pixels": PIXELS}
    made = camels.maps([SUITE], simulation, fields=fields.SIMULATED, **size)[SUITE]
    total = sum(made[name].astype(np.float64) for name in ("Mcdm", "Mgas", "Mstar"))
    np.testing.assert_allclose(total, made["Mtot"], rtol=2e-4)
    omega_m = camels.parameters(SUITE)[simulation, 0]
    baryons = (made["Mgas"].mean(dtype=np.float64) + made["Mstar"].mean(dtype=np.float64)) / cases.MEAN_SURFACE_DENSITY
    assert baryons == pytest.approx(0.049, rel=1e-4), "Omega_b of CAMELS, whatever omega_m"
    assert made["Mcdm"].mean(dtype=np.float64) == pytest.approx(
        (omega_m - 0.049) * cases.MEAN_SURFACE_DENSITY, rel=1e-4
    )
    assert made["Mgas"].min() > 0 and made["Mstar"].min() >= 0
    alone = camels.maps([SUITE], simulation, **size)[SUITE]
    assert list(alone) == ["Mtot"] and np.array_equal(alone["Mtot"], made["Mtot"])


def test_gas_is_smoother_than_dark_matter_where_feedback_throws_it_out():
    size = {"particles": 32, "mesh": 64, "steps": 8, "pixels": 32}
    made = camels.maps(["SIMBA"], 1, fields=("Mgas", "Mcdm"), **size)["SIMBA"]
    spread = {name: (maps / maps.mean()).std() for name, maps in made.items()}
    assert spread["Mgas"] < spread["Mcdm"]


@pytest.mark.parametrize("field", fields.FIELDS)
def test_every_field_is_scaled_to_mean_zero_and_spread_one_and_comes_back(field, real):
    loaded = real([field])
    maps.main(loaded)
    record, _ = dataset.survey(loaded, SUITE, "original")
    parts = dataset.load(loaded, SUITE, "original", ("train", "valid", "test"), record=record)
    train = parts["train"].maps.double()
    assert train.shape[1:] == (1, PIXELS, PIXELS) and train.isfinite().all()
    assert train.mean().abs() < 1e-5 and abs(train.std() - 1) < 1e-4
    given = dataset.open_suite(loaded, SUITE).densities(parts["test"].index)
    (scale,) = dataset.scales(loaded, record)
    back = scale.unscale(parts["test"].maps.double().numpy())
    if fields.FIELDS[field].least == "any":  # the released logarithm says nothing of pixels below 1
        back, given = (np.where(np.abs(given) > 1.01, one, 0) for one in (back, given))
    np.testing.assert_allclose(back, given, rtol=1e-4, atol=1e-6 * np.abs(given).max())


def test_a_field_of_small_numbers_keeps_the_sign_of_its_ringing(real):
    """Z is below 1 everywhere: its plain signed logarithm would take what rings below zero for the densest pixels."""
    loaded = real(["Z"])
    maps.main(loaded)
    record, kept = dataset.survey(loaded, SUITE, "kmax_1", keep=[int(dataset.numbers(loaded)[0])])
    (cut,) = next(iter(kept.values()))
    (scale,) = dataset.scales(loaded, record)
    assert record["fields"]["Z"]["unit"] == record["fields"]["Z"]["uncut"]["min"] < 1
    seen = scale.log(cut)
    assert (cut < 0).any() and seen[cut < -scale.unit].max() < 0 < seen[cut > scale.unit].min()


def test_signed_fields_take_the_signed_logarithm_of_the_released_code():
    values = np.array([-300, -10, 10, 1000], dtype=np.float32)
    np.testing.assert_allclose(scaling.Scale(0, 1).log(values), [-np.log10(300), -1, 1, 3], rtol=1e-6)
    empty = scaling.Scale(0, 1, fields.FIELDS["Mstar"].offset)
    np.testing.assert_allclose(empty.log(np.array([0, 9, 1e12], dtype=np.float32)), [0, 1, 12], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("T", 0, "expected finite values above zero, got 0 NaN or infinite and 1 zero or negative pixels"),
        ("Vgas", np.nan, "expected finite values above zero, got 1 NaN"),
        ("Mstar", -1, "expected surface densities of at least zero, got -1"),
        ("Mgas", -1, "expected finite surface densities above zero"),
    ],
)
def test_a_file_of_a_field_is_held_to_what_the_field_can_be(field, value, message, real):
    loaded = real([field])
    path = Path(loaded.maps.folder, cmd.maps_file_name(SUITE, field))
    changed = np.load(path)
    changed[17, 3, 5] = value
    np.save(path, changed)
    with refused(message):
        maps.main(loaded)
    (line,) = [line for one in release.check(loaded) for line in one["wrong"]]
    assert line.startswith(message)


def test_each_field_is_cut_by_itself_and_filled_with_noise_of_its_own(real):
    names = ("Mgas", "Mcdm")
    case = "max_1e12_random"
    loaded = real(names, cases=["original", case])
    maps.main(loaded)
    record, _ = dataset.survey(loaded, SUITE, case)
    number = int(dataset.numbers(loaded)[3])
    original = dataset.open_suite(loaded, SUITE).simulation(number)
    both = dataset.cut_simulation(loaded, SUITE, case, original, number, dataset.log10_ranges(loaded, record))
    for channel, name in enumerate(names):
        alone = dataclasses.replace(loaded, fields=(name,))
        one = original[:, [channel]]
        ranges = dataset.log10_ranges(alone, record)
        assert np.array_equal(dataset.cut_simulation(alone, SUITE, case, one, number, ranges), both[:, [channel]])
        expected = np.log10([made(name).min(), made(name).max()], dtype=np.float64)
        np.testing.assert_allclose(ranges, [expected], rtol=1e-6)
        assert np.array_equal(both[:, channel] != original[:, channel], original[:, channel] > 1e12)
    filled = original > 1e12
    places = np.argwhere(filled[:, 0] & filled[:, 1])
    assert len(places) > 20
    uniform = [
        (np.log10(both[:, n][tuple(places.T)]) - low) / (high - low)
        for n, (low, high) in enumerate(dataset.log10_ranges(loaded, record))
    ]
    assert abs(np.corrcoef(uniform)[0, 1]) < 0.5, "noise of one field is not that of the other"


def test_total_matter_draws_the_noise_that_it_drew_before_there_were_fields():
    loaded = profile(fields=["Mtot"], cases=["original", "max_1e12_random"])
    maps_ = made("Mtot", simulations=1)[:, None]
    got = dataset.cut_maps(loaded, SUITE, "max_1e12_random", maps_, np.arange(15), [(10.0, 13.0)])
    from camelsight.ground import seeding

    expected = cuts.apply(
        maps_[:, 0],
        cases.parse("max_1e12_random").cuts,
        log10_range=(10.0, 13.0),
        generator=seeding.numpy_generator(loaded.seed, SUITE, "max_1e12_random", "fill"),
        indices=np.arange(15),
    )
    assert np.array_equal(got[:, 0], expected)


def test_a_released_checkpoint_of_two_fields_is_evaluated_on_the_maps_of_its_name(real, capsys):
    loaded = real(("Mgas", "Mcdm"))
    shutil.copytree(ROOT / "profiles", "profiles", dirs_exist_ok=True)
    text = (ROOT / "profiles/smoke.yaml").read_text().replace("source: twin", "source: camels")
    text = text.replace("suites: [IllustrisTNG, Nbody_IllustrisTNG]", "suites: [IllustrisTNG]")
    Path("params.yaml").write_text(text)
    plain = Released(3, blocks=2, channels=2).eval()
    state = {f"module.{name}": value for name, value in plain.state_dict().items()}
    name = "weights_IllustrisTNG_Mgas_Mcdm_7_all_steps_500_500_o3.pt"
    torch.save(state, name)
    maps.main(loaded)
    evaluate.evaluate_checkpoint(name, json=True)
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert "suite IllustrisTNG, fields Mgas, Mcdm, smoothing none by its name" in captured.err
    released = dataclasses.replace(
        loaded, split=evaluate.RELEASED_SPLIT, train=dataclasses.replace(loaded.train, normalisation="all")
    )
    record, _ = dataset.survey(released, SUITE, "original", folder=Path(loaded.maps.folder))
    part = dataset.load(released, SUITE, "original", ("test",), record=record, folder=Path(loaded.maps.folder))["test"]
    views = torch.cat([torch.rot90(one, k, (-2, -1)) for one in (part.maps, part.maps.mT) for k in range(4)])
    with torch.inference_mode():
        mean = plain(views)[:, 0].reshape(8, -1).double().numpy()
    truth = part.targets[:, 0].double().numpy()
    assert said["metrics"]["rmse"]["omega_m"][0] == pytest.approx(0.4 * np.sqrt(np.mean((mean - truth) ** 2)), rel=1e-3)


def test_a_network_of_other_channels_than_the_profile_is_refused(real):
    real(("Mgas", "Mcdm"))
    shutil.copytree(ROOT / "profiles", "profiles", dirs_exist_ok=True)
    shutil.copy("profiles/smoke.yaml", "params.yaml")
    torch.save(Released(3, blocks=2).state_dict(), "weights_IllustrisTNG_Mgas_Mcdm_7_all_steps_500_500_o3.pt")
    with refused(r"16 pixels, 2 channel\(s\) \(Mgas, Mcdm\) and 6 parameters, got one for 16, 1"):
        evaluate.evaluate_checkpoint("weights_IllustrisTNG_Mgas_Mcdm_7_all_steps_500_500_o3.pt")


@pytest.mark.parametrize(
    ("case", "study", "weights"),
    [
        ("original", "SIMBA_o3_Mgas_Mcdm_all_steps_500_500_o3.db", "weights_SIMBA_Mgas_Mcdm_3_all_steps_500_500_o3.pt"),
        (
            "smooth_2",
            "SIMBA_o3_Mgas_Mcdm_all_steps_500_500_o3_smoothing_2.db",
            "weights_SIMBA_Mgas_Mcdm_3_all_steps_500_500_o3_smoothing_2.pt",
        ),
    ],
)
def test_names_of_the_benchmark_are_written_and_read(case, study, weights):
    names = ("Mgas", "Mcdm")
    assert cmd.benchmark_names("SIMBA", names, case, 3) == (study, weights)
    for name in (study, weights):
        assert cmd.published(name) == ("SIMBA", names, None if case == "original" else "2")
    with refused("expected original or smooth_<pixels>"):
        cmd.benchmark_names("SIMBA", names, "kmax_1", 0)


def test_a_study_of_several_fields_is_imported_and_exported_as_the_benchmark_calls_it(tmp_path, monkeypatch, capsys):
    import optuna

    from camelsight.pipeline import studies

    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "profiles/smoke.yaml", "params.yaml")
    study = optuna.create_study(study_name=cmd.STUDY, direction="minimize")
    values = {"max_lr": 1e-3, "wd": 1e-4, "dr": 0.2, "hidden": 6}
    ranges = {
        "max_lr": optuna.distributions.FloatDistribution(1e-5, 5e-3, log=True),
        "wd": optuna.distributions.FloatDistribution(1e-8, 1e-1, log=True),
        "dr": optuna.distributions.FloatDistribution(0, 0.9),
        "hidden": optuna.distributions.IntDistribution(6, 12),
    }
    study.add_trial(optuna.trial.create_trial(params=values, distributions=ranges, value=-12.0))
    name = "IllustrisTNG_o3_Mgas_Mcdm_all_steps_500_500_o3.db"
    studies.write(name, study)
    tune.import_study(name, suite=SUITE, case="original")
    assert "a study of CMD's benchmark, of IllustrisTNG, Mgas, Mcdm, smoothing none" in capsys.readouterr().err
    assert store.read_json(paths.hyperparameters(SUITE, "original"))["hyperparameters"]["hidden"] == 6

    journal = optuna.create_study(study_name="one", storage=studies.journal(paths.study(SUITE, "original")))
    journal.add_trials(study.get_trials())
    Path("out").mkdir()
    tune.export_study("out", suite=SUITE, case="original")
    (found,) = studies.read("out/IllustrisTNG_o3_Mtot_all_steps_500_500_o3.db")
    assert found["name"] == "wd_dr_hidden_lr_o3" and found["trials"][0]["params"]["wd"] == 1e-4


@pytest.mark.parametrize(("name", "columns"), [("CV", 6), ("EX", 6), ("SB28", 28)])
def test_a_network_is_evaluated_on_another_set_in_its_own_units(name, columns, real):
    """The network of the LH set sees maps of the other set as the LH set's statistics have them."""
    names = ("Mgas", "Mcdm")
    loaded = real(names)
    maps.main(loaded)
    record, _ = dataset.survey(loaded, SUITE, "kmax_1")
    folder, count = Path(loaded.maps.folder), cmd.SET_SIMULATIONS.get(name, 5)
    for field in names:
        np.save(folder / cmd.maps_file_name(SUITE, field, name), made(field, seed=1, simulations=count))
    table = np.random.default_rng(0).uniform(0.2, 0.4, (count, columns))
    np.savetxt(folder / cmd.params_file_name(SUITE, name), table)
    net = network.build(2, 0.0, size=PIXELS, channels=2, generator=torch.Generator().manual_seed(0)).eval()
    found = sets.predict(loaded, net, SUITE, "kmax_1", record, name, "1")
    known = 6 if columns == 6 else 2
    assert found["truth"].shape == found["mean"].shape == found["sigma"].shape == (15 * count, known)
    np.testing.assert_allclose(found["truth"], np.repeat(table[:, :known], 15, axis=0))
    one = np.stack([made(field, seed=1, simulations=count)[-15:] for field in names], axis=1)
    cut = np.stack([cuts.kmax(one[:, n], 1.0) for n in range(2)], axis=1)
    with torch.inference_mode():
        expected = net(torch.from_numpy(dataset.scaled(cut, dataset.scales(loaded, record))))[:, 0].double().numpy()
    np.testing.assert_allclose((found["mean"][-15:, 0] - 0.1) / 0.4, expected, rtol=1e-4, atol=1e-5)


def test_the_truth_of_predictions_on_real_maps_is_that_of_their_table(real):
    loaded = real(("Mgas",))
    maps.main(loaded)
    index = split.map_indices(dataset.splits(loaded)["test"])
    simulation = index // 15
    arrays = {"index": index, "simulation": simulation, "truth": np.loadtxt(paths.parameters(SUITE))[simulation]}
    assert evidence._other_maps(loaded, SUITE, arrays) is None
    arrays["truth"][0, 1] += 0.01
    assert "truth" in evidence._other_maps(loaded, SUITE, arrays)


def test_a_set_that_is_not_whole_or_not_there_is_refused(real):
    loaded = real(("Mgas",))
    folder = Path(loaded.maps.folder)
    net, record = None, {}
    with refused(r"expected params_CV_IllustrisTNG.txt of CMD in .*, got no such file"):
        sets.predict(loaded, net, SUITE, "original", record, "CV", "1")
    with refused("expected a set among LH, CV, 1P, EX, BE, SB"):
        sets.predict(loaded, net, SUITE, "original", record, "XY", "1")
    np.savetxt(folder / "params_CV_IllustrisTNG.txt", np.full((26, 6), 0.3))
    np.save(folder / "Maps_Mgas_IllustrisTNG_CV_z=0.00.npy", made("Mgas", simulations=27))
    with refused(r"expected 27 rows of at least 6 parameters in .*, got 26 of 6"):
        sets.predict(loaded, net, SUITE, "original", record, "CV", "1")
    np.savetxt(folder / "params_CV_IllustrisTNG.txt", np.full((27, 6), 0.3))
    np.save(folder / "Maps_Mgas_IllustrisTNG_CV_z=0.00.npy", made("Mgas", simulations=26))
    with refused(r"expected \(405, 16, 16\) float32, got \(390, 16, 16\)"):
        sets.predict(loaded, net, SUITE, "original", record, "CV", "1")


def test_a_set_is_fetched_where_there_is_an_address_and_a_damaged_pixel_is_refused(real, monkeypatch):
    names = ("Mgas", "Mcdm")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Path("server/IllustrisTNG").absolute()
    server.mkdir(parents=True)
    for field in names:
        np.save(server / cmd.maps_file_name(SUITE, field, "EX"), made(field, seed=1, simulations=4))
    np.savetxt(server / cmd.params_file_name(SUITE, "EX"), np.tile([0.3, 0.8, 0, 0, 100, 1], (4, 1)))
    with smoke.served(server.parent) as (url, _):
        loaded = real(names, maps__bases=[url])
        opened, values = sets.open_set(loaded, SUITE, "EX")
    assert [one.shape for one in opened] == [(60, PIXELS, PIXELS)] * 2 and values.shape == (4, 6)
    assert Path(loaded.maps.folder, "Maps_Mgas_IllustrisTNG_EX_z=0.00.npy").exists()
    path = Path(loaded.maps.folder, cmd.maps_file_name(SUITE, "Mcdm", "EX"))
    changed = np.load(path)
    changed[3, 2, 1] = np.inf
    np.save(path, changed)
    with refused("above zero, got 1 NaN or infinite"):
        sets.open_set(loaded, SUITE, "EX")


def test_a_table_of_one_universe_shows_no_r2():
    truth = np.full((30, 2), 0.3)
    mean = truth + np.random.default_rng(0).normal(0, 0.01, truth.shape)
    measured = prediction.measure(
        {"truth": truth, "mean": mean, "sigma": np.full((30, 2), 0.01), "simulation": np.arange(30) // 15}
    )
    rows = evaluate.table(measured, {}, np.ones(6, dtype=bool)).splitlines()
    r2, rmse = (next(row for row in rows if row.startswith(name)) for name in ("r2", "rmse"))
    assert r2.split() == ["r2", "–", "–"] and "0.0" in rmse


def test_fields_share_the_magnitude_of_an_attribution_and_one_field_alone_keeps_its_sign():
    signed = np.array([[[[1.0, -1.0]], [[-3.0, 3.0]]], [[[0.0, 0.0]], [[2.0, 2.0]]]])  # of two maps and two fields
    np.testing.assert_allclose(attributions.shares(signed), [[0.25, 0.75], [0, 1]])
    np.testing.assert_array_equal(attributions.together(signed), [[[4, 4]], [[2, 2]]])
    np.testing.assert_array_equal(attributions.together(signed[:, 1:]), signed[:, 1])


def test_the_environment_is_that_of_total_matter_or_what_is_next_to_it(real):
    assert [fields.environment(names) for names in (("Mgas", "Mtot"), ("Mgas", "Mcdm"), ("T", "Mgas"), ("T", "Z"))] == [
        "Mtot", "Mcdm", "Mgas", "T"
    ]  # fmt: skip
    loaded = real(("Mgas", "Mcdm"))
    maps.main(loaded)
    record, _ = dataset.survey(loaded, SUITE, "original")
    part = dataset.load(loaded, SUITE, "original", ("test",), record=record)["test"]
    over = attributions.overdensity(loaded, SUITE, part)
    for simulation in np.unique(part.simulation):
        assert over[part.simulation == simulation].mean() == pytest.approx(1, rel=1e-5)
    channel = dataset.open_suite(loaded, SUITE).densities(part.index)[:, 1]
    assert np.corrcoef(over.ravel(), channel.ravel())[0, 1] > 0.99


def test_information_is_that_of_gaussian_errors():
    """Of two Gaussian variables with correlation rho, by the textbook: -ln(1 - rho^2) / 2."""
    assert information.information(0.0) == 0 and information.information(0.75) == pytest.approx(np.log(2))
    assert information.information(np.array([0.5, -1.0])) == pytest.approx([0.34657, -0.34657], abs=1e-5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=200_000)
    y = 0.8 * x + 0.6 * rng.normal(size=x.size)
    bins = np.linspace(-4, 4, 81)
    joint, *_ = np.histogram2d(x, y, bins=bins)
    p = joint / joint.sum()
    product = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    measured = (p[p > 0] * np.log(p[p > 0] / product[p > 0])).sum()
    assert information.information(0.64) == pytest.approx(measured, rel=0.05)


def test_selection_grows_by_what_helps_most_and_stops_where_enough_is_held():
    alone = {"a": 1.0, "b": 3.0, "c": 2.0}

    def measure(names):  # c knows nothing that b does not
        return sum(alone[name] for name in names if not (name == "c" and "b" in names))

    path = information.forward(("a", "b", "c"), measure)
    assert path == [("b",), ("a", "b"), ("a", "b", "c")]
    values = {names: measure(names) for names in path} | {("c",): 2.0}
    assert information.smallest(path, values, 0.75) == ("b",) and information.smallest(path, values, 0.9) == ("a", "b")
    assert information.smallest(path, dict.fromkeys(path, -1.0), 0.9) is None
    values[("a", "c")] = 10.0  # off the path: the best set itself, where no set of the path holds as much
    assert information.smallest(path, values, 0.9) == ("a", "c")


def test_the_table_of_challenges_says_what_each_set_loses_and_which_is_enough():
    def metrics(error):
        return {
            key: {name: [error, error, error] for name in ("omega_m", "sigma_8")}
            for key in ("rmse", "relative_error", "r2")
        }

    record = {
        "suite": SUITE,
        "suites": [SUITE, "SIMBA"],
        "sets": [
            {"fields": ["Mgas"], "information": 1.9, "loss": -2.0,
             "tests": [{"test": SUITE, "metrics": metrics(0.02)}, {"test": "SIMBA", "metrics": metrics(0.04)}]},
            {"fields": ["Mgas", "Mcdm"], "information": 2.0, "loss": -2.5,
             "tests": [{"test": SUITE, "metrics": metrics(0.01)}, {"test": "SIMBA", "metrics": metrics(0.03)}]},
        ],
        "order": ["Mgas", "Mcdm"],
        "smallest": {"90": ["Mgas"], "95": ["Mgas"]},
    }  # fmt: skip
    text = selection.text(record)
    rows = [line for line in text.splitlines() if line.startswith("Mgas")]
    assert rows[0].split()[:6] == ["Mgas", "+", "Mcdm", "0.00", "2.00", "100%"] and "0.0300" in rows[0]
    assert rows[1].split()[:4] == ["Mgas", "0.50", "1.90", "95%"]
    assert "90% of the best network's information, on the test maps: Mgas." in text
    by = {(row["fields"], row["test"], row["parameter"]): row for row in selection.rows(record)}
    assert by["Mgas", "SIMBA", "sigma_8"]["rmse"] == 0.04 and by["Mgas", SUITE, "omega_m"]["loss_above_best"] == 0.5
    assert selection.numbers(record)["FieldsForNinetyFive"] == "Mgas" and selection.numbers(None)["FieldsBest"]


def test_challenges_need_two_fields(tmp_path):
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    text = (ROOT / "profiles/smoke.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    done = ran(sys.executable, "-m", "camelsight", "challenges", folder=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("challenges: params.yaml: fields: expected two or more to choose from, got Mtot;")
    assert (tmp_path / "params.yaml").read_text() == text


def test_a_network_of_fields_is_loaded_and_asked_about_raw_maps(real):
    from camelsight.commands import loading

    names = ("Mgas", "Mcdm")
    loaded = real(names)
    maps.main(loaded)
    record, _ = dataset.survey(loaded, SUITE, "original")
    net = networks.build(loaded, {"hidden": 2, "dropout": 0.0}, torch.Generator().manual_seed(0)).eval()
    one = loading.Trained(SUITE, "original", net, record, loaded)
    index = split.map_indices([int(dataset.numbers(loaded)[0])])
    raw = dataset.open_suite(loaded, SUITE).densities(index)
    part = dataset.load(loaded, SUITE, "original", ("train", "valid", "test"), record=record)
    seen = next(one.maps[one.index == index[0]] for one in part.values() if index[0] in one.index)
    torch.testing.assert_close(one.scale(raw)[:1], seen)
    assert one.attribute(raw[0])["saliency"]["omega_m"].shape == (2, PIXELS, PIXELS)
    with refused(r"expected maps of 16 x 16 pixels of Mgas, Mcdm, got an array \(15, 16, 16\)"):
        one.scale(raw[:, 0])
