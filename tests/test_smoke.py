"""The smoke profile from an empty checkout to the PDF, as a user runs it: interrupted, finished, repeated, changed."""

import contextlib
import csv
import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from camelsight.analysis import attributions, dataset, networks
from camelsight.ground import cmd, theta
from camelsight.inference import metrics, training
from camelsight.interpretation import attribution, sanity
from camelsight.pipeline import checkpoints, environment, params, paths, store
from camelsight.referee import verification
from camelsight.stages import attribute, choose, evaluate, paper, repeat, tabulate, train, transfer, tune
from camelsight.stages import sanity as sanity_stage
from smoke import CHAIN, SUITES, camelsight, changed, dvc, finish, git, plan, planned, stage, stages_run


@pytest.fixture
def folder(project):
    return project[0]


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_it_says_what_will_run_for_how_long_and_where_the_results_are(project):
    _, output = project
    once = dict.fromkeys(("maps", "universe", "choose", "tabulate", "figures", "paper"), 1)
    possible = {stage: params.possible(experiments, ["Mtot"]) for stage, experiments in params.EXPERIMENTS.items()}
    robustness = {"further": 1} | {stage: len(experiments) for stage, experiments in possible.items()}
    chains = dict.fromkeys(CHAIN, 6) | {"tune": 2, "attribute": 4, "sanity": 2}
    assert stages_run(output) == once | chains | robustness
    assert re.search(r"Roughly \d+ min", output) and "paper/ms.pdf" in output and "simulated again" in output


def test_maps_are_in_cmd_format_and_right(folder):
    loaded = params.load(folder / "params.yaml")
    spread = {}
    for suite in SUITES:
        maps = np.load(folder / paths.maps(suite, "Mtot"), mmap_mode="r")
        parameters = np.loadtxt(folder / paths.parameters(suite))
        cmd.check_maps(cmd.Header(maps.shape, maps.dtype), loaded.maps.simulations, loaded.maps.pixels, suite)
        cmd.check_params(parameters, loaded.maps.simulations, suite, suite)
        assert maps.min() > 0
        per_axis = maps.reshape(loaded.maps.simulations, 3, -1).mean(2, dtype=np.float64)
        np.testing.assert_allclose(per_axis, np.repeat(1.3877e12 * parameters[:, :1], 3, 1), rtol=1e-3)
        spread[suite] = maps.std()
    assert spread["IllustrisTNG"] != spread["Nbody_IllustrisTNG"]


def test_the_table_has_every_suite_case_and_parameter(folder):
    rows = table(folder / "results/tables/r2.csv")
    columns = "suite case parameter r2 low high n_maps n_simulations seeds mean"
    assert list(rows[0]) == columns.split()
    expected = {
        (suite, case, name)
        for suite in SUITES
        for case in ("original", "kmax_1", "max_1e12_random")
        for name in theta.NAMES
    }
    assert {(row["suite"], row["case"], row["parameter"]) for row in rows} == expected and len(rows) == len(expected)
    assert all(float(row["low"]) <= float(row["high"]) for row in rows)
    assert {(row["n_maps"], row["n_simulations"]) for row in rows} == {("30", "2")}
    assert "| IllustrisTNG" in (folder / "results/tables/r2.md").read_text()


def test_the_pdf_holds_every_figure_without_a_loose_end(folder):
    assert (folder / "paper/ms.pdf").read_bytes().startswith(b"%PDF")
    source = (folder / "paper/ms.tex").read_text()
    figures = [path.stem for path in (folder / "figures").glob("*.pdf")]
    assert len(figures) == 18 and all(f"{{{name}}}" in source for name in figures)
    log = (folder / "paper/build/ms.log").read_text(errors="replace")
    assert "undefined" not in log.lower() and "multiply" not in log and "Overfull" not in log
    assert r"\newcommand{\IsTwin}{1}" in (folder / "results/numbers.tex").read_text()


def test_the_experiments_on_robustness_are_in_tables_figures_and_paper(folder):
    figures = [path.stem for path in (folder / "figures/robustness").glob("*.pdf")]
    source = "".join((folder / "paper" / name).read_text() for name in ("robustness.tex", "rivals.tex"))
    assert len(figures) == 9 and all(f"{{{name}}}" in source for name in figures)
    columns = {
        "transfer": "train,test,parameter,r2,low,high,relative_error,bias",
        "probes": "probe,parameter,r2,low,high",
        "generalisation": "study,setting,parameter,r2,low,high",
        "smoothing": "width,parameter,r2,low,high,relative_error",
        "rivals": "method,parameter,r2,low,high,relative_error",
        "scales": "case,method,parameter,r2,low,high,gain,gain_low,gain_high",
    }
    tables = {}
    for name, header in columns.items():
        tables[name] = table(folder / f"results/tables/{name}.csv")
        assert ",".join(tables[name][0]) == header
    suites = (*SUITES, "SIMBA")
    pairs = {(row["train"], row["test"]): row for row in tables["transfer"] if row["parameter"] == "A_SN1"}
    assert set(pairs) == set(itertools.product(suites, suites))
    meaningful = {pair for pair, row in pairs.items() if row["r2"]}
    assert meaningful == {("IllustrisTNG", "IllustrisTNG"), ("SIMBA", "SIMBA")}
    assert all(row["r2"] for row in tables["transfer"] if row["parameter"] in theta.COSMOLOGICAL)
    studies = {row["study"] for row in tables["generalisation"]}
    assert studies == {"leakage", "simulations", "normalisation", "augmentation", "seeds"}
    assert {"none", "pixels shuffled", "total mass alone", "kmax_1", "kmax_1, trained anew"} <= {
        row["probe"] for row in tables["probes"]
    }
    assert [row["method"] for row in tables["rivals"][::6]] == [
        "CNN", "P(k) network", "P(k)+mean network", "P(k)+PDF network", "P(k) MCMC"
    ]  # fmt: skip
    quoted = set(re.findall(r"\\val\{\\(\w+)\}", source))
    numbers = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", (folder / "results/numbers.tex").read_text()))
    assert quoted and all(numbers[name] != "n/a" for name in quoted)


def test_a_network_on_its_own_suite_is_what_evaluate_says(folder):

    def evaluated(suite):
        return store.read_json(folder / f"results/evaluate/{suite}/original.json")["metrics"]

    def rows(experiment):
        return store.read_json(folder / f"results/robustness/transfer/{experiment}.json")["rows"]

    for suite in SUITES:
        (own,) = (row for row in rows("suites") if row["train"] == row["test"] == suite)
        assert own["metrics"] == evaluated(suite)
    for experiment in ("smoothing", "probes", "leakage", "normalisation", "augmentation", "seeds"):
        assert rows(experiment)[0]["metrics"] == evaluated(SUITES[0]), experiment
    others = [row["metrics"]["r2"] for row in rows("suites") if row["train"] != row["test"]]
    assert evaluated(SUITES[0])["r2"] not in others


def test_no_number_of_a_result_is_typed_by_hand(folder):
    """What the paper quotes is a macro of results/numbers.tex."""
    defined = set(re.findall(r"\\newcommand\{\\(\w+)\}", (folder / "results/numbers.tex").read_text()))
    source = (folder / "paper/ms.tex").read_text()
    quoted = set(re.findall(r"\\val\{\\(\w+)\}", source))
    assert quoted <= defined and {"OrigOmegaM", "TightSigmaEight"} <= quoted
    assert verification.lint(source) == []


def test_attributions_come_with_their_completeness(folder):
    for case in ("original", "max_1e12_random"):
        record = store.read_json(folder / f"results/attribute/IllustrisTNG/{case}.json")
        for name in theta.COSMOLOGICAL:
            gaps = record["completeness_gap"][name]
            assert len(gaps["integrated_gradients"]) == len(gaps["gradient_shap"]) == 4
            flagged = [
                index for index, gap in zip(record["index"], gaps["integrated_gradients"], strict=True) if gap > 0.01
            ]
            assert record["flagged"][name] == flagged
            assert set(record["statistics"][name]) == set(attribution.METHODS)


def test_interpretation_for_programs_has_the_agreed_form(folder):
    record = store.read_json(folder / "results/interpretation.json")
    assert set(record) == {"schema", *SUITES}
    for suite in SUITES:
        assert list(record[suite]) == list(theta.COSMOLOGICAL)
        for by_method in record[suite].values():
            assert list(by_method) == list(attribution.METHODS)
            for one in by_method.values():
                assert set(one) == {"per_pixel_ratio", "void_share", "completeness_p95", "sanity"}
                for key in ("per_pixel_ratio", "void_share"):
                    value, low, high = one[key]
                    assert low <= high and value >= 0
                wanted = set(sanity.CHECKS)
                if suite != SUITES[0]:
                    wanted -= {"label_shuffled", "seeds", "seeds_top"}
                assert set(one["sanity"]) == wanted and all(isinstance(v, float) for v in one["sanity"].values())
    assert set(record["schema"]["sanity"]) == set(sanity.CHECKS)


@contextlib.contextmanager
def interrupted_at_the_first_checkpoint(monkeypatch):
    """What runs in the block is interrupted as soon as it has written a checkpoint."""
    write = checkpoints.write

    def write_once(path, state):
        write(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "write", write_once)
        yield


def test_an_attribution_that_was_killed_goes_on_to_the_same_result(folder, monkeypatch):
    monkeypatch.chdir(folder)
    loaded, result = params.load(), folder / "results/attribute/IllustrisTNG/original.json"
    before = result.read_bytes()

    monkeypatch.setattr(attribute, "CHUNK", 2)
    with interrupted_at_the_first_checkpoint(monkeypatch):
        attribute.main(loaded, "IllustrisTNG", "original")
    assert len(list((folder / "runs/checkpoints").glob("attribute-*.pt"))) == 1
    done, write = [], checkpoints.write
    monkeypatch.setattr(
        checkpoints, "write", lambda path, state: done.append(len(state["results"])) or write(path, state)
    )
    attribute.main(loaded, "IllustrisTNG", "original")
    assert done == [4] and result.read_bytes() == before
    result.unlink()  # as DVC does with outs that it has not recorded
    attribute.main(loaded, "IllustrisTNG", "original")
    assert done == [4] and result.read_bytes() == before
    checkpoints.forget_finished(paths.CHECKPOINTS)
    assert not list((folder / "runs/checkpoints").glob("attribute-*"))


@pytest.mark.parametrize(("stage", "name"), [(sanity_stage, SUITES[0]), (transfer, "seeds")])
def test_networks_of_a_stage_that_dvc_has_not_recorded_are_not_trained_again(folder, monkeypatch, stage, name):
    """DVC waits for its lock after a stage; killed then, it deletes the outs, and runs the stage again."""
    monkeypatch.chdir(folder)
    loaded = params.load()
    slow = dataclasses.replace(loaded, checkpoint=3600.0)  # so that only what ends is written
    kind = stage.__name__.rpartition(".")[2]
    result = paths.sanity(name) if kind == "sanity" else paths.experiment(kind, name)
    before = result.read_bytes()
    stage.main(slow, name)
    assert result.read_bytes() == before
    result.unlink()
    epochs, on = [], training._train_epoch
    monkeypatch.setattr(training, "_train_epoch", lambda *a, **k: epochs.append(1) or on(*a, **k))
    stage.main(slow, name)
    assert not epochs and result.read_bytes() == before
    assert list((folder / paths.CHECKPOINTS).glob(f"{kind}-*.pt"))
    checkpoints.forget_finished(paths.CHECKPOINTS)
    assert not list((folder / paths.CHECKPOINTS).glob(f"{kind}-*"))


def test_a_second_run_has_nothing_to_do(folder):
    before = (folder / "dvc.lock").read_bytes()
    output = finish(camelsight(folder, "paper"))
    assert "everything is up to date" in output
    assert "Running stage" not in dvc(folder, "repro", "--dry")
    assert not git(folder, "status", "--porcelain")
    assert (folder / "dvc.lock").read_bytes() == before


def test_after_a_run_one_page_shows_everything_before_any_verdict(project):
    folder, output = project
    text = (folder / "report/index.html").read_text()
    assert "report/index.html" in output and "Nobody has judged this run yet" in text
    assert text.count("data:image/png;base64,") >= 14 and "profile: smoke" in text and "<svg" in text
    row = table(folder / "results/tables/r2.csv")[0]
    assert "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[key]) for key in ("r2", "low", "high"))) in text
    linked = re.findall(r'href="([^"]*)"', text)
    assert linked and all((folder / "report" / place).is_file() for place in linked)


def test_the_same_seed_gives_the_same_maps_and_weights_bit_for_bit(folder):
    files = [folder / paths.maps("IllustrisTNG", "Mtot"), folder / "runs/IllustrisTNG/original/history.json"]
    before = [path.read_bytes() for path in files]
    targets = ["maps", "cut@IllustrisTNG-original", "tune@IllustrisTNG-original", "train@IllustrisTNG-original"]
    dvc(folder, "repro", "--quiet", "--force", "--no-run-cache", "--single-item", *targets)
    assert [path.read_bytes() for path in files] == before


def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(folder, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", folder)
    monkeypatch.chdir(folder)
    loaded, history = params.load(), folder / "runs/IllustrisTNG/original/history.json"
    before = history.read_bytes()

    for path in (folder / "runs/checkpoints").glob("trained-*.pt"):
        path.unlink()
    with interrupted_at_the_first_checkpoint(monkeypatch):
        train.main(loaded, "IllustrisTNG", "original")
    assert len(list((folder / "runs/checkpoints").glob("train-*.pt"))) == 1
    written, write = [], checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda path, state: written.append(path.name) or write(path, state))
    train.main(loaded, "IllustrisTNG", "original")
    assert [name.partition("-")[0] for name in written] == ["train", "trained"] and history.read_bytes() == before
    assert not list((folder / "runs/checkpoints").glob("train-*.pt"))

    history.unlink()  # as DVC does with outs that it has not recorded
    monkeypatch.setattr(training, "fit", None)
    train.main(loaded, "IllustrisTNG", "original")
    assert history.read_bytes() == before, "what was trained to the end was lost"


def test_unfinished_work_of_another_split_is_never_picked_up(folder, monkeypatch):
    """It once was, and simulations it had been trained on became its test simulations."""
    monkeypatch.chdir(folder)
    loaded, device = params.load(), torch.device("cpu")
    key = dataset.resume_key(loaded, "IllustrisTNG", "original", device, "train")
    other = dataclasses.replace(loaded, split=dataclasses.replace(loaded.split, seed=2))
    assert dataset.resume_key(loaded, "IllustrisTNG", "original", device, "train") == key
    assert dataset.resume_key(other, "IllustrisTNG", "original", device, "train") != key


def test_predictions_in_cmd_format_are_written_and_evaluated_to_the_same_numbers(folder, tmp_path):
    path = folder / "results/evaluate/IllustrisTNG/original.txt"
    ours = store.read_json(folder / "results/evaluate/IllustrisTNG/original.json")["metrics"]
    report = json.loads(stage(folder, "evaluate", "--predictions", path, "--json"))
    each = "30 rows, 2 simulations by their true values, 15 maps each"
    assert report["mapping"] == f"{each}: simulations of IllustrisTNG"
    assert report["simulations"] == {"IllustrisTNG": [264, 829]}
    for metric, by_parameter in report["metrics"].items():
        np.testing.assert_allclose(
            [by_parameter[name][0] for name in theta.NAMES], [ours[metric][name][0] for name in theta.NAMES], rtol=1e-5
        )
    columns = [column for start in (0, 6, 12) for column in (start, start + 1)]  # another code's: omega_m and sigma_8
    np.savetxt(tmp_path / "two.txt", np.loadtxt(path)[:, columns])
    two = json.loads(stage(folder, "evaluate", "--predictions", tmp_path / "two.txt", "--json"))
    assert two["metrics"]["r2"] == {name: report["metrics"]["r2"][name] for name in theta.COSMOLOGICAL}
    assert "rms_relative_error" in stage(folder, "evaluate", "--predictions", path)
    failed = stage(folder, "evaluate", "--predictions", folder / "params.yaml", code=1)
    assert failed.startswith("evaluate: expected a table of numbers") and failed.count("\n") == 1


def test_a_released_checkpoint_is_evaluated_with_the_released_normalisation_and_views(folder, tmp_path, monkeypatch):
    tensors = safetensors.torch.load_file(folder / "runs/IllustrisTNG/kmax_1/weights.safetensors")
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "weights_10.pt")
    where = ("--weights", tmp_path / "weights_10.pt", "--suite", "IllustrisTNG", "--case", "kmax_1")
    report = json.loads(stage(folder, "evaluate", *where, "--json"))
    assert report["mapping"].endswith("2 simulations by their true values, 15 maps × 8 views each")

    monkeypatch.chdir(folder)
    loaded = params.load()
    loaded = dataclasses.replace(loaded, train=dataclasses.replace(loaded.train, normalisation="all"))
    part = dataset.load(loaded, "IllustrisTNG", "kmax_1", ("test",))["test"]
    net = networks.load_published(tmp_path / "weights_10.pt")
    mean, _ = training.predict(
        net, torch.cat([torch.rot90(m, k, (-2, -1)) for k in range(4) for m in (part.maps, part.maps.mT)])
    )
    mean = theta.denormalise(mean.double().numpy(), "IllustrisTNG")
    expected = metrics.r2(np.tile(part.parameters, (8, 1)), mean)
    np.testing.assert_allclose([report["metrics"]["r2"][name][0] for name in theta.NAMES], expected, rtol=1e-4)

    text = stage(folder, "evaluate", *where)
    assert "r2" in text and "published" not in text, "simulated maps are not compared with the paper's"
    beside = evaluate.table(report["metrics"], store.read_published("IllustrisTNG", "original"), np.ones(6, bool))
    rows = [line.split() for line in beside.splitlines()]
    after = {row[0]: following for row, following in itertools.pairwise(rows)}
    assert after["r2"] == ["(published)", "0.994", "0.982", "0.607", "-0.020", "0.713", "0.085"]
    assert after["rmse"][:3] == ["(published)", "0.009", "0.016"] and after["chi2"][0] != "(published)"
    gravity = evaluate.table(report["metrics"], {}, theta.meaningful("Nbody_IllustrisTNG"))
    assert gravity.splitlines()[2].split()[-4:] == ["–"] * 4
    (tmp_path / "weights_10.pt").write_bytes(b"not weights")
    assert stage(folder, "evaluate", *where, code=1).count("\n") == 1


def test_without_trials_a_case_takes_its_own_starting_point(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    loaded = params.load()
    own = dataclasses.replace(loaded.tune.start["original"], hidden=3)
    start = loaded.tune.start | {"kmax_1": own}
    loaded = dataclasses.replace(loaded, tune=dataclasses.replace(loaded.tune, trials=0, start=start))
    monkeypatch.chdir(tmp_path)
    for suite, case in itertools.product(loaded.suites, loaded.tune.cases):
        tune.main(loaded, suite, case)
    choose.every_case(loaded)
    hidden = [networks.chosen("IllustrisTNG", case)["hidden"] for case in loaded.cases[:2]]
    assert loaded.cases[:2] == ("original", "kmax_1") and hidden == [loaded.tune.start["original"].hidden, 3]


def test_what_an_interrupted_latex_left_is_no_obstacle(folder, monkeypatch):
    monkeypatch.chdir(folder)
    auxiliary = folder / "paper/build/ms.aux"
    auxiliary.write_bytes(auxiliary.read_bytes()[:1000])
    paper.main(params.load())
    assert "undefined" not in (folder / "paper/build/ms.log").read_text(errors="replace").lower()


def test_the_plan_says_what_a_change_would_run_and_why_and_touches_nothing(folder):
    kept = [folder / "dvc.lock", folder / "results/tables/r2.csv"]
    before = [file.read_bytes() for file in kept]
    with changed(lambda text: text.replace("resamples: 200", "resamples: 300"), folder / "params.yaml"):
        other, unchanged = plan(folder), plan(folder, "--profile", "smoke", "--full")
    assert list(unchanged) == ["profile", "jobs", "seconds", "stages"] and unchanged["stages"] == []
    ran = [stage["stage"].partition("@")[0] for stage in other["stages"]]
    assert ran.count("evaluate") == 6 and ran[-3:] == ["tabulate", "figures", "paper"] and other["seconds"] > 0
    assert not {"maps", "universe", "cut", "tune", "train", "attribute"} & set(ran)
    cause = {"kind": "parameter", "name": "evaluate.resamples", "change": "200 -> 300"}
    assert all(stage["why"] == [cause] for stage in other["stages"] if stage["stage"].startswith("evaluate@"))
    assert [file.read_bytes() for file in kept] == before


PLUMBING = "pipeline/store.py", "pipeline/cli.py", "referee/page.py", "commands/status.py"
EDITS = [  # files of the code with a line more each, the kinds of stages that run, and some that do not
    (PLUMBING, set(), set()),
    (
        ("report/provenance.py",),
        {"tabulate"},
        {"maps", "universe", "cut", "tune", "train", "evaluate", "attribute", "sanity"},
    ),
    (("inference/metrics.py",), {"evaluate", "tabulate", "paper"}, {"maps", "universe", "cut", "tune", "train"}),
    (("interpretation/cosmic_web.py",), {"attribute"}, {"maps", "cut", "tune", "train", "evaluate", "sanity"}),
    (
        ("inference/loss.py",),
        {"tune", "train", "evaluate", "attribute", "sanity", "paper"},
        {"maps", "universe", "cut"},
    ),
    (("maps/cuts.py", "maps/scaling.py"), {"cut", "tune", "train"}, {"maps", "universe"}),
    (("universe/nbody.py",), {"maps", "universe", "cut", "train", "paper"}, set()),
]


@pytest.mark.parametrize(("names", "ran", "spared"), EDITS)
def test_an_edit_runs_what_it_can_change_and_nothing_else(folder, names, ran, spared):
    """A figure's label trained 18 networks anew."""
    with changed(lambda text: text + "\nEDITED = True\n", *(folder / "code/camelsight" / name for name in names)):
        stages = planned(folder)
    assert ran <= stages and not spared & stages and bool(ran) == bool(stages)


def test_docstrings_and_comments_of_any_file_run_nothing(folder):
    """A docstring in the command line ran all 83 stages of mini."""
    files = [file for file in (folder / "code/camelsight").rglob("*.py") if '"""' in file.read_text()]
    said = ('"""', '"""Said otherwise. '), ("\n\n\n", "\n\n\n# Said.\n")
    with changed(lambda text: text.replace(*said[0], 1).replace(*said[1], 1), *files):
        assert planned(folder) == set()
    assert len(files) > 100


def test_a_mistake_in_params_is_one_line_and_touches_nothing(folder):
    lock = (folder / "dvc.lock").read_bytes()
    with changed(lambda text: text.replace("epochs: 2", "epochs: two"), folder / "params.yaml"):
        output = finish(camelsight(folder, "paper"), code=1)
    assert output == "paper: params.yaml: train.epochs: expected an integer, got 'two'\n"
    assert (folder / "dvc.lock").read_bytes() == lock


def test_another_profile_keeps_own_changes_beside_it(folder):
    path = folder / "params.yaml"
    path.write_text(path.read_text() + "# of my own\n")
    output = finish(camelsight(folder, "paper", "--profile", "smoke", "--jobs", "1"))
    assert "params.yaml.bak" in output and (folder / "params.yaml.bak").read_text().endswith("# of my own\n")
    assert path.read_bytes() == (folder / "profiles/smoke.yaml").read_bytes()
    assert {path.stem for path in (folder / "results/evaluate/IllustrisTNG").glob("*")} == set(params.load(path).cases)
    robustness = folder / "results/robustness"
    assert not list(robustness.glob("transfer/*")) and not (robustness / "inputs/original/SIMBA.json").exists()
    assert not list((folder / "figures/robustness").glob("*"))
    assert not (folder / "results/tables/transfer.csv").exists()
    unknown = finish(camelsight(folder, "paper", "--profile", "paper"), code=1)
    assert unknown == "paper: expected a profile among camels, mini, smoke, twin, got 'paper'\n"


def test_a_case_is_trained_again_from_another_seed_and_from_its_own_it_is_the_same(project, tmp_path, monkeypatch):
    loaded, key = params.load(project[0] / "params.yaml"), ("IllustrisTNG", "original")
    for place in (paths.MAPS, paths.CUTS, paths.HYPERPARAMETERS):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(project[0] / place)
    monkeypatch.chdir(tmp_path)
    for seed in (loaded.train.seed, 3):
        repeat.main(dataclasses.replace(loaded, repeats=(3,)), *key, str(seed))
    first, other = (store.read_json(paths.repeat(*key, seed)) for seed in (loaded.train.seed, 3))
    run = store.read_json(project[0] / paths.metrics(*key))
    assert first["weights"] == run["weights"] != other["weights"]
    for name in theta.NAMES:
        assert first["r2"][name] == pytest.approx(run["metrics"]["r2"][name][0], rel=1e-9)
    seeds = tabulate._seeds(dataclasses.replace(loaded, repeats=(3,)), {key: run})
    assert seeds["r2.IllustrisTNG.original.omega_m"] == [run["metrics"]["r2"]["omega_m"][0], other["r2"]["omega_m"]]
    assert not list(Path("runs").rglob("weights.safetensors")), "the network of the case stays what it is"
    paths.weights(*key).symlink_to(project[0] / paths.weights(*key))
    maps = {seeds: attributions.load(loaded, *key, 2, seeds) for seeds in ((), (loaded.train.seed,), (3,))}
    seen = {seeds: net(part.maps) for seeds, (net, part, _) in maps.items()}
    torch.testing.assert_close(seen[loaded.train.seed,], seen[()])  # the mean of a network and of its copy
    alone, _ = networks.trained(loaded, *key, 3)
    torch.testing.assert_close(2 * seen[3,] - seen[()], alone.eval()(maps[()][1].maps), rtol=1e-3, atol=1e-4)
