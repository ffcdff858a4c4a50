"""The smoke profile from an empty checkout to the PDF, as a user runs it: interrupted, finished, repeated, changed."""

import contextlib
import csv
import dataclasses
import functools
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import numpy as np
import pytest
import safetensors.torch
import torch
from mcp import Client, StdioServerParameters

import camelsight as camelsight_package
from camelsight.analysis import attributions, dataset, networks, prediction
from camelsight.commands import everything
from camelsight.ground import cmd, theta
from camelsight.inference import metrics, training
from camelsight.interpretation import attribution, sanity
from camelsight.pipeline import checkpoints, environment, params, paths, rerun, store, text_tables
from camelsight.referee import anew, evidence, explain, locked, pack, verification, verify
from camelsight.stages import attribute, choose, evaluate, paper, repeat, tabulate, train, transfer, tune
from camelsight.stages import sanity as sanity_stage

ROOT = Path(__file__).parent.parent
COPIED = (
    "code", "paper", "profiles", "figures", "benchmarks/tuning.json", "dvc.yaml", ".dvc/config", ".dvc/.gitignore",
    ".dvcignore", ".gitignore", "requirements.lock",
)  # fmt: skip
SUITES = ("IllustrisTNG", "Nbody_IllustrisTNG")
CHAIN = ("cut", "tune", "train", "evaluate")
GENERATED = shutil.ignore_patterns("build", "ms.pdf", "*.png", "*.pdf", "__pycache__", "*.egg-info")


def camelsight(project, *arguments, **options):
    """Run ``python -m camelsight`` in ``project``, on its own copy of the code."""
    return subprocess.Popen(
        [".venv/bin/python", "-m", "camelsight", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "code")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process, code=0):
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


def stages_run(output):
    """The stages that the announcement counts, such as {"cut": 1, "paper": 1}."""
    announced = re.search(r"To run: (.*)", output)[1].split(", ")
    return {item.split(" × ")[-1]: int(item.split(" × ")[0]) if " × " in item else 1 for item in announced}


def check_out(folder):
    for name in COPIED:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=GENERATED)
        else:
            shutil.copy(source, target)
    (folder / ".venv").symlink_to(sys.prefix)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout in which the smoke profile with the experiments on robustness was interrupted, and ran to its end."""
    folder = tmp_path_factory.mktemp("smoke")
    check_out(folder)
    (folder / "params.yaml").write_text(everything.switched_on((folder / "profiles/smoke.yaml").read_text()))
    git(folder, "init", "--quiet")
    commit(folder, "Begin")

    first = camelsight(folder, "paper", "--jobs", "2")
    deadline = time.monotonic() + 300
    while not simulated(folder) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGINT)
    output, _ = first.communicate()
    assert first.returncode == 130, output
    assert "interrupted; the same command goes on from here" in output and "Traceback" not in output, output
    assert not (folder / "data" / "maps").exists()
    kept = simulated(folder)
    assert kept > 0

    output = finish(camelsight(folder, "paper", "--jobs", "2"))
    assert f"{kept}/8" in output, "the interrupted simulations were not kept"
    assert git(folder, "status", "--porcelain").split() == ["??", "dvc.lock"]
    commit(folder, "A run")
    return folder, output


def git(folder, *arguments):
    author = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    run = subprocess.run(["git", *author, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return run.stdout


def commit(folder, message):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def dvc(folder, *arguments):
    run = subprocess.run(
        [".venv/bin/python", "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pulled(project, tmp_path_factory):
    """A clone of the finished run; what DVC pushed to a folder it has pulled over HTTP, where nobody can write."""
    remote, folder = tmp_path_factory.mktemp("remote"), tmp_path_factory.mktemp("pulled") / "clone"
    dvc(project[0], "remote", "add", "--local", "--default", "--force", "folder", str(remote))
    dvc(project[0], "push")
    git(project[0].parent, "clone", "--quiet", str(project[0]), str(folder))
    (folder / ".venv").symlink_to(sys.prefix)
    for library in (ROOT / "code").rglob("*.so"):
        shutil.copy(library, folder / library.relative_to(ROOT))
    handler = functools.partial(Quiet, directory=str(remote))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dvc(folder, "remote", "add", "--local", "--default", "web", f"http://127.0.0.1:{server.server_port}")
        dvc(folder, "pull")
        yield folder
        server.shutdown()


def simulated(folder):
    """How many simulations of an unfinished set are on disk."""
    flags = list((folder / "data" / "partial").glob("*/done.npy"))
    return int(np.load(flags[0]).sum()) if flags else 0


def test_it_says_what_will_run_for_how_long_and_where_the_results_are(project):
    _, output = project
    once = dict.fromkeys(("maps", "universe", "choose", "tabulate", "figures", "paper"), 1)
    possible = {stage: params.possible(experiments, ["Mtot"]) for stage, experiments in params.EXPERIMENTS.items()}
    robustness = {"further": 1} | {stage: len(experiments) for stage, experiments in possible.items()}
    chains = dict.fromkeys(CHAIN, 6) | {"tune": 2, "attribute": 4, "sanity": 2}
    assert stages_run(output) == once | chains | robustness
    assert re.search(r"Roughly \d+ min", output) and "paper/ms.pdf" in output and "simulated again" in output


def test_maps_are_in_cmd_format_and_right(project):
    folder, _ = project
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


def test_the_table_has_every_suite_case_and_parameter(project):
    folder, _ = project
    with open(folder / "results/tables/r2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
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


def test_the_pdf_holds_every_figure_without_a_loose_end(project):
    folder, _ = project
    assert (folder / "paper/ms.pdf").read_bytes().startswith(b"%PDF")
    source = (folder / "paper/ms.tex").read_text()
    figures = [path.stem for path in (folder / "figures").glob("*.pdf")]
    assert len(figures) == 18 and all(f"{{{name}}}" in source for name in figures)
    log = (folder / "paper/build/ms.log").read_text(errors="replace")
    assert "undefined" not in log.lower() and "multiply" not in log and "Overfull" not in log
    assert r"\newcommand{\IsTwin}{1}" in (folder / "results/numbers.tex").read_text()


def test_the_experiments_on_robustness_are_in_tables_figures_and_paper(project):
    folder, _ = project
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
        with open(folder / f"results/tables/{name}.csv", newline="") as file:
            tables[name] = list(csv.DictReader(file))
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


def test_a_network_on_its_own_suite_is_what_evaluate_says(project):
    folder, _ = project

    def evaluated(suite):
        return json.loads((folder / f"results/evaluate/{suite}/original.json").read_text())["metrics"]

    def rows(experiment):
        return json.loads((folder / f"results/robustness/transfer/{experiment}.json").read_text())["rows"]

    for suite in SUITES:
        (own,) = (row for row in rows("suites") if row["train"] == row["test"] == suite)
        assert own["metrics"] == evaluated(suite)
    for experiment in ("smoothing", "probes", "leakage", "normalisation", "augmentation", "seeds"):
        assert rows(experiment)[0]["metrics"] == evaluated(SUITES[0]), experiment
    others = [row["metrics"]["r2"] for row in rows("suites") if row["train"] != row["test"]]
    assert evaluated(SUITES[0])["r2"] not in others


def test_no_number_of_a_result_is_typed_by_hand(project):
    """What the paper quotes is a macro of results/numbers.tex."""
    folder, _ = project
    defined = set(re.findall(r"\\newcommand\{\\(\w+)\}", (folder / "results/numbers.tex").read_text()))
    source = (folder / "paper/ms.tex").read_text()
    quoted = set(re.findall(r"\\val\{\\(\w+)\}", source))
    assert quoted <= defined and {"OrigOmegaM", "TightSigmaEight"} <= quoted
    assert verification.lint(source) == []


def test_attributions_come_with_their_completeness(project):
    folder, _ = project
    for case in ("original", "max_1e12_random"):
        record = json.loads((folder / f"results/attribute/IllustrisTNG/{case}.json").read_text())
        for name in theta.COSMOLOGICAL:
            gaps = record["completeness_gap"][name]
            assert len(gaps["integrated_gradients"]) == len(gaps["gradient_shap"]) == 4
            flagged = [
                index for index, gap in zip(record["index"], gaps["integrated_gradients"], strict=True) if gap > 0.01
            ]
            assert record["flagged"][name] == flagged
            assert set(record["statistics"][name]) == set(attribution.METHODS)


def test_interpretation_for_programs_has_the_agreed_form(project):
    folder, _ = project
    record = json.loads((folder / "results/interpretation.json").read_text())
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


def test_an_attribution_that_was_killed_goes_on_to_the_same_result(project, monkeypatch):
    folder, _ = project
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
def test_networks_of_a_stage_that_dvc_has_not_recorded_are_not_trained_again(project, monkeypatch, stage, name):
    """DVC waits for its lock after a stage; killed then, it deletes the outs, and runs the stage again."""
    folder, _ = project
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


def test_a_second_run_has_nothing_to_do(project):
    folder, _ = project
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
    with open(folder / "results/tables/r2.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[key]) for key in ("r2", "low", "high"))) in text
    linked = re.findall(r'href="([^"]*)"', text)
    assert linked and all((folder / "report" / place).is_file() for place in linked)


def judge_in(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(environment, "ROOT", folder)
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    return verify.judge()


def test_a_run_that_was_pulled_is_judged_and_what_it_lacks_is_named(pulled, monkeypatch):
    """79 rows failed for want of maps."""
    said = judge_in(pulled, monkeypatch)
    rows = {row["id"]: row for row in said["rows"]}
    assert said["conclusion"]["verdict"] == "WARN" and not git(pulled, "status", "--porcelain")
    assert rows["weights.IllustrisTNG.original"]["verdict"] == rows["stage.tabulate"]["verdict"] == "PASS"
    for name in ("data.IllustrisTNG", "stage.maps", "stage.train@IllustrisTNG-original"):
        assert rows[name]["verdict"] == "NOT RUN" and rows[name]["why"].endswith("is not there: make maps"), rows[name]
    assert "rows want: make maps" in said["conclusion"]["text"]


def test_of_a_pulled_run_what_is_wrong_or_missing_is_one_row(pulled, monkeypatch):
    path = pulled / paths.weights("IllustrisTNG", "original")
    whole, aside = path.read_bytes(), path.with_suffix(".aside")
    os.replace(path, aside)
    lost = {row["id"]: row for row in judge_in(pulled, monkeypatch)["rows"]}
    store.write_bytes(path, whole[:-1] + bytes([whole[-1] ^ 1]))
    said = judge_in(pulled, monkeypatch)
    path.unlink()
    os.replace(aside, path)
    assert "FAIL" not in {row["verdict"] for row in lost.values()}
    why = lost["stage.train@IllustrisTNG-original"]["why"]
    assert why == f"{paths.weights('IllustrisTNG', 'original')} is not there: dvc pull, or make paper"
    (failed,) = (row for row in said["rows"] if row["verdict"] == "FAIL")
    follows = {row["id"] for row in said["rows"] if row["cause"] == failed["id"]}
    assert failed["id"] == "weights.IllustrisTNG.original" and "stage.evaluate@IllustrisTNG-original" in follows
    assert f"; {len(follows)} more rows only follow from it" in failed["why"]


def test_a_note_among_what_stages_wrote_changes_nothing(project, pulled, monkeypatch):
    """Attributions depend on the folder of a case; what an older version had left there failed for whoever pulled."""
    notes = [
        folder / paths.weights("IllustrisTNG", "original").with_name("note.txt") for folder in (project[0], pulled)
    ]
    for note in notes:
        note.write_text("seen")
    try:
        said, stages = judge_in(pulled, monkeypatch), planned(project[0])
    finally:
        for note in notes:
            note.unlink()
    assert "FAIL" not in {row["verdict"] for row in said["rows"]} and stages == set()


def test_maps_made_anew_are_judged_bit_for_bit_or_by_their_statistics(project, pulled, monkeypatch):
    """A pulled run has no record of the processor. Other bits in every map are another processor, in one a forger."""
    shutil.copytree(project[0] / paths.MAPS, pulled / paths.MAPS)
    try:
        same = judge_in(pulled, monkeypatch)
        for suite in SUITES:
            maps = np.load(pulled / paths.maps(suite, "Mtot"), mmap_mode="r+")
            maps *= np.float32(1 + 2e-7)
        rounded = judge_in(pulled, monkeypatch)
        shutil.rmtree(pulled / paths.MAPS)
        shutil.copytree(project[0] / paths.MAPS, pulled / paths.MAPS)
        np.load(pulled / paths.maps(SUITES[0], "Mtot"), mmap_mode="r+")[0, 0, 0] *= 1.001
        forged = judge_in(pulled, monkeypatch)
    finally:
        shutil.rmtree(pulled / paths.MAPS)
    rows = [{row["id"]: row for row in said["rows"]} for said in (same, rounded, forged)]
    assert [by_id[f"data.{SUITES[0]}"]["verdict"] for by_id in rows] == ["PASS", "WARN", "FAIL"]
    assert [by_id[f"statistics.{SUITES[0]}"]["verdict"] for by_id in rows[:2]] == ["PASS", "PASS"]
    assert not [row["id"] for said in (same, rounded) for row in said["rows"] if row["verdict"] == "FAIL"]
    assert [row["id"] for row in forged["rows"] if row["verdict"] == "FAIL"] == [f"data.{SUITES[0]}"]


def test_files_of_another_commit_are_said_to_be(pulled, monkeypatch):
    text = (pulled / "dvc.lock").read_text()
    digest = locked._md5(pulled / paths.metrics("IllustrisTNG", "original"))
    store.write_text(pulled / "dvc.lock", text.replace(digest, "0" * 32))
    commit(pulled, "Another run")
    try:
        said = judge_in(pulled, monkeypatch)
    finally:
        git(pulled, "reset", "--quiet", "--hard", "HEAD~1")
    (failed,) = (row for row in said["rows"] if row["verdict"] == "FAIL")
    assert failed["id"] == "dvc.lock"
    assert f"those of commit {git(pulled, 'rev-parse', 'HEAD')[:12]}" in failed["why"]


def test_a_network_is_loaded_by_itself_from_a_folder_a_cache_and_an_archive(project, tmp_path, monkeypatch):
    """With what the stages made of the same maps."""
    folder, cached = project[0], tmp_path / "cached"
    monkeypatch.chdir(folder)
    given = dataset.open_suite(params.load(), "IllustrisTNG")
    pack.write(tmp_path / "one.tar", params.load())
    git(tmp_path, "clone", "--quiet", str(folder), str(cached))
    dvc(folder, "cache", "dir", "--local", str((folder / ".dvc/cache").resolve()))
    shutil.copy(folder / ".dvc/config.local", cached / ".dvc/config.local")
    monkeypatch.chdir(tmp_path)
    for case, run in (("original", folder), ("max_1e12_random", folder), ("kmax_1", "one.tar"), ("original", cached)):
        one = camelsight_package.load("IllustrisTNG", case, run=run)
        made = store.read_arrays(folder / paths.predictions("IllustrisTNG", case))
        index = made["index"][:15]
        got = one.predict(given.densities(index), index=index[0])
        for column, name in enumerate(theta.NAMES):
            for values, expected in zip(got[name], (made["mean"], made["sigma"]), strict=True):
                np.testing.assert_allclose(values, expected[:15, column], rtol=1e-4, atol=1e-5)
    made = store.read_arrays(folder / paths.attributions("IllustrisTNG", "original"))
    index = int(made["index"][0])
    ((map_,),) = given.densities([index])
    got = one.attribute(map_, index=index)
    for method in attribution.METHODS:
        np.testing.assert_allclose(got[method]["omega_m"], made[method][0, 0, 0], rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match=r"expected maps of 16 x 16 pixels, got an array \(8, 8\)"):
        one.predict(map_[:8, :8])
    with pytest.raises(ValueError, match="take no log"):
        one.predict(-map_)
    with pytest.raises(ValueError, match="expected one of original, kmax_1, max_1e12_random, got 'kmax_2'"):
        camelsight_package.load("IllustrisTNG", "kmax_2", run=folder)


def test_dvc_shows_what_a_change_did_and_runs_experiments_beside_it(pulled):
    """``exp run --temp`` works in a copy of the checkout, without a .venv, and leaves this one as it is."""
    shown = json.loads(dvc(pulled, "metrics", "show", "--json"))[""]["data"]["results/metrics.json"]["data"]
    record = json.loads((pulled / paths.metrics(SUITES[0], "kmax_1")).read_text())["metrics"]
    assert shown[SUITES[0]]["kmax_1"]["r2"]["omega_m"] == record["r2"]["omega_m"][0]
    assert set(shown[SUITES[1]]["original"]) == {"r2", "coverage_68", "coverage_95", "loss"}
    plots = json.loads(dvc(pulled, "plots", "show", "--json"))["data"]
    for name in ("r2_kmax/IllustrisTNG.csv", "truth_prediction/IllustrisTNG_omega_m.csv"):
        assert f"results/plots/{name}" in plots
    assert "results/curves/IllustrisTNG/original.json" in plots

    dvc(pulled, "exp", "run", "--temp", "-S", "evaluate.resamples=210")
    dvc(pulled, "plots", "diff", "HEAD~1")
    assert not git(pulled, "status", "--porcelain")
    experiments = list(csv.DictReader(dvc(pulled, "exp", "show", "--csv").splitlines()))
    assert "210" in {one["evaluate.resamples"] for one in experiments}


@pytest.fixture
def run(project, tmp_path, monkeypatch):
    """A copy of the finished run, to be judged or tampered with."""
    folder = tmp_path / "run"
    left_out = shutil.ignore_patterns("cache", "tmp", "__pycache__", "build", "checkpoints", ".git")
    shutil.copytree(project[0], folder, symlinks=True, ignore=left_out)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(environment, "ROOT", folder)
    return folder


def edit(path, change):
    text = path.read_text()
    assert change(text) != text
    store.write_text(path, change(text))


def without_line(holding):
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if holding not in line)


def canary_result(folder):
    path = folder / paths.metrics("IllustrisTNG", "kmax_1")
    record = store.read_json(path)
    record["metrics"]["r2"]["omega_m"][0] += 1e-3
    store.write_json(path, record)


def canary_weights(folder):
    path = folder / paths.weights("Nbody_IllustrisTNG", "original")
    tensors = safetensors.torch.load_file(path)
    tensors["C11.weight"][0, 0, 0, 0] += 1e-6
    store.write_bytes(path, safetensors.torch.save(tensors))


def canary_truncated(folder):
    path = folder / paths.weights("Nbody_IllustrisTNG", "original")
    path.write_bytes(path.read_bytes()[:-100])


def canary_archive(folder):
    path = folder / paths.predictions("IllustrisTNG", "kmax_1")
    path.write_bytes(path.read_bytes()[:-100])


def canary_shape(folder):
    path = folder / paths.maps("IllustrisTNG", "Mtot")
    maps = np.load(path)
    path.unlink()
    np.save(path, maps[:-1])


def canary_error(folder):
    path = folder / paths.metrics("IllustrisTNG", "kmax_1")
    record = store.read_json(path)
    record["metrics"]["rmse"]["sigma_8"][0] *= 1.001
    store.write_json(path, record)


def canary_pdf(folder):
    (folder / paths.PDF).write_bytes(b"%PDF-1.5")


def canary_map(folder):
    path = folder / paths.maps("IllustrisTNG", "Mtot")
    maps = np.load(path)
    maps[3 * cmd.MAPS_PER_SIMULATION + 4, 5, 6] *= 1.001
    path.unlink()
    np.save(path, maps)


def canary_digit(folder):
    edit(folder / "results/tables/r2.tex", lambda text: text.replace("^{+", "1^{+", 1))


def canary_macro(folder):
    change = lambda text: re.sub(r"(PerPixelRatioOmegaM\}\{)", r"\g<1>1", text)  # noqa: E731
    edit(folder / "results/numbers.tex", change)


def canary_typed(folder):
    edit(folder / "paper/ms.tex", lambda text: text.replace(r"\val{\TightOmegaM}", "0.314", 1))


def canary_row(folder):
    edit(folder / "results/tables/r2.csv", without_line("Nbody_IllustrisTNG,kmax_1,sigma_8"))


def canary_result_gone(folder):
    (folder / paths.metrics("IllustrisTNG", "max_1e12_random")).unlink()


def canary_expected(folder):
    edit(folder / "paper/expected.yaml", without_line("r2_table.Nbody_IllustrisTNG.kmax_20.sigma_8}"))


@pytest.mark.parametrize(
    ("canary", "name", "why"),
    [
        (canary_result, "r2.IllustrisTNG.kmax_1.omega_m", "the predictions give"),
        (canary_weights, "weights.Nbody_IllustrisTNG.original", "are not those evaluated"),
        (canary_truncated, "weights.Nbody_IllustrisTNG.original", "original/weights.safetensors cannot be read"),
        (canary_archive, "file.evaluate/IllustrisTNG/kmax_1.npz", "BadZipFile"),
        (canary_shape, "data.IllustrisTNG", "Maps_Mtot_IllustrisTNG"),
        (canary_error, "r2.IllustrisTNG.kmax_1.sigma_8", "the predictions give rmse"),
        (canary_pdf, "stage.paper", "paper/ms.pdf"),
        (canary_map, "data.IllustrisTNG", "simulation 418 of data/maps"),
        (canary_digit, "file.tables/r2.tex", "results/tables/r2.tex: line 5, 'IllustrisTNG & original"),
        (canary_macro, "file.numbers.tex", "PerPixelRatioOmegaM"),
        (canary_typed, "lint.ms.tex", "0.314 is typed by hand"),
        (canary_row, "r2.Nbody_IllustrisTNG.kmax_1.sigma_8", "r2.csv has no such row"),
        (canary_result_gone, "r2.IllustrisTNG.max_1e12_random.omega_m", "max_1e12_random.json is missing"),
        (canary_expected, "expected.r2_table.Nbody_IllustrisTNG.kmax_20.sigma_8", "has no such row"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves a broken archive open
def test_every_canary_turns_the_verdict_and_names_its_row(run, monkeypatch, canary, name, why):
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    canary(run)
    verdict = verify.judge()
    assert verdict["conclusion"]["exit_code"] == 1
    failed = {row["id"]: row["why"] for row in verdict["rows"] if row["verdict"] == "FAIL"}
    assert why in failed.get(name, ""), failed


def forge(path, change):
    record = store.read_json(path)
    change(record)
    store.write_json(path, record)


def forge_interval(_):
    forge(
        paths.metrics("IllustrisTNG", "kmax_1"), lambda record: record["metrics"]["r2"]["omega_m"].__setitem__(1, 0.9)
    )


def forge_predictions(_):
    """R² of .97 in predictions, their text and their measures, which agree with one another."""
    place, loaded = ("IllustrisTNG", "original"), params.load()
    arrays = store.read_arrays(paths.predictions(*place))
    noise = np.random.default_rng(0).normal(size=arrays["truth"].shape) * arrays["truth"].std(0) * 0.17
    arrays["mean"] = arrays["truth"] + noise
    store.write_arrays(paths.predictions(*place), **arrays)
    columns = (arrays[key] for key in ("truth", "mean", "sigma"))
    text_tables.write_predictions(paths.predictions_text(*place), *columns)
    measured = prediction.measure(arrays, prediction.bootstrap(loaded, *place), loaded)
    forge(paths.metrics(*place), lambda record: record.update(metrics=measured))


def forge_text(_):
    edit(paths.predictions_text("IllustrisTNG", "kmax_1"), lambda text: "1" + text[1:])


def forge_truth(_):
    path = paths.predictions("IllustrisTNG", "kmax_1")
    arrays = store.read_arrays(path)
    arrays["truth"][0, 0] *= 1.01
    store.write_arrays(path, **arrays)
    columns = (arrays[key] for key in ("truth", "mean", "sigma"))
    text_tables.write_predictions(paths.predictions_text("IllustrisTNG", "kmax_1"), *columns)


def forge_pixels(_):
    forge(paths.UNIVERSE, lambda record: record["statistics"]["IllustrisTNG"]["Mtot"].update(mean=4e11))


def forge_attribution(_):
    def change(record):
        record["statistics"]["omega_m"]["integrated_gradients"]["ratio"][0] *= 1.1

    forge(paths.attribution_statistics("IllustrisTNG", "original"), change)


def forge_sanity(_):
    def change(record):
        record["cascade"] = json.loads(re.sub(r"\d\.\d+", "0.5", json.dumps(record["cascade"]), count=1))

    forge(paths.sanity("IllustrisTNG"), change)


def forge_pipeline(folder):
    edit(folder / paths.DVC, lambda text: text[: text.index("\n  attribute:")] + "\n")


def forge_lock(folder):
    store.write_text(folder / paths.DVC_LOCK, "schema: '2.0'\nstages: {}\n")


def forge_outs(folder):
    """One output less in the lock, changed."""
    edit(folder / paths.predictions_text("IllustrisTNG", "kmax_1"), lambda text: text.replace("e", "E", 1))
    lock = store.parse_yaml((folder / paths.DVC_LOCK).read_bytes())
    entry = lock["stages"]["evaluate@IllustrisTNG-kmax_1"]
    entry["outs"] = [one for one in entry["outs"] if not one["path"].endswith(".txt")]
    store.write_text(folder / paths.DVC_LOCK, json.dumps(lock))


def lock_again(folder):
    """Write the digests that a forger would: of what is there now."""
    lock = store.parse_yaml((folder / paths.DVC_LOCK).read_bytes())
    for entry in lock["stages"].values():
        for one in [*entry.get("outs", []), *entry.get("deps", [])]:
            if (folder / one["path"]).exists():
                one["md5"] = locked._md5(folder / one["path"])
    store.write_text(folder / paths.DVC_LOCK, json.dumps(lock))


@pytest.mark.parametrize(
    ("forgery", "tier", "name", "why"),
    [
        (forge_interval, 0, "r2.IllustrisTNG.kmax_1.omega_m", "the predictions give r2 low"),
        (forge_text, 0, "predictions.IllustrisTNG.kmax_1", "kmax_1.txt is not what kmax_1.npz holds: line 1"),
        (forge_truth, 0, "predictions.IllustrisTNG.kmax_1", "not those of the test maps of IllustrisTNG: truth"),
        (forge_pixels, 0, "statistics.IllustrisTNG", "mean of the maps"),
        (forge_pipeline, 0, "stage.attribute@IllustrisTNG-original", "dvc.yaml has no such stage"),
        (forge_lock, 0, "stage.train@IllustrisTNG-original", "is there, but dvc.lock has no run that made it"),
        (forge_outs, 0, "stage.evaluate@IllustrisTNG-kmax_1", "kmax_1.txt, which dvc.lock leaves out"),
        (forge_predictions, 1, "r2.IllustrisTNG.original.omega_m", "the given weights, on the same maps"),
        (forge_attribution, 1, "file.attribute/IllustrisTNG/original.json", "integrated_gradients.ratio: expected"),
    ],
)
def test_a_forgery_whose_digests_were_made_anew_is_noticed(run, monkeypatch, forgery, tier, name, why):
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    monkeypatch.setattr(rerun, "everywhere", in_this_process)
    forgery(run)
    if forgery not in (forge_pipeline, forge_lock, forge_outs):
        rerun.here(run, params.load(), "tabulate")
    if forgery not in (forge_lock, forge_outs):
        lock_again(run)
    verdict = verify.judge(tier)
    rows = {(row["id"], row["tier"]): row for row in verdict["rows"]}
    assert rows[name, tier]["verdict"] == "FAIL" and why in rows[name, tier]["why"], rows[name, tier]
    assert verdict["conclusion"]["exit_code"] == 1
    earlier = [row for row in verdict["rows"] if row["tier"] is not None and row["tier"] < tier]
    assert "FAIL" not in {row["verdict"] for row in earlier}, "it is noticed at a lower tier already"


def test_figures_and_a_pdf_that_were_swapped_are_noticed_whatever_their_digests(run):
    for ending in ("pdf", "png"):
        shutil.copy(run / f"figures/r2_kmax.{ending}", run / f"figures/r2_density.{ending}")
        shutil.copy(run / f"figures/r2_kmax.{ending}", run / f"figures/more.{ending}")
    numbers = (run / paths.NUMBERS).read_text()
    edit(run / paths.NUMBERS, lambda text: re.sub(r"(OrigOmegaM\}\{)[^}]*", r"\g<1>0.97", text))
    paper.main(params.load())
    store.write_text(run / paths.NUMBERS, numbers)
    lock_again(run)
    failed = {row["id"]: row["why"] for row in verify.judge()["rows"] if row["verdict"] == "FAIL"}
    assert sorted(failed) == [
        *(f"file.figures/{name}.{ending}" for name in ("more", "r2_density") for ending in ("pdf", "png")),
        "file.paper/ms.pdf",
    ]
    assert failed["file.figures/r2_density.pdf"].endswith("is another")
    assert "pixels" in failed["file.figures/r2_density.png"]
    assert failed["file.figures/more.png"] == "no stage makes it of these results"
    assert failed["file.paper/ms.pdf"] == "not what the text, the tables and the figures give"


def test_what_a_tier_cannot_recompute_is_not_passed_and_the_verdict_says_what_it_trusts(run, monkeypatch):
    """Sanity checks, which only the highest tier makes anew."""
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    forge_sanity(run)
    rerun.here(run, params.load(), "tabulate")
    lock_again(run)
    verdict = verify.judge()
    rows = {row["id"]: row for row in verdict["rows"] if row["group"] == verification.BEYOND}
    assert list(rows) == [name for name, _, _ in verification.TRUSTED] and verdict["conclusion"]["exit_code"] == 0
    assert {row["verdict"] for row in rows.values()} == {"NOT RUN"} and rows["sanity"]["tier"] == 3
    assert "a forger could still have invented predictions" in verdict["conclusion"]["trust"]


def test_the_highest_tier_compares_everything_that_came_out_with_what_was_given(run, project, monkeypatch):
    forge_sanity(run)
    forge(paths.UNIVERSE, lambda record: record["gravity"]["power"][0].__setitem__(0, 1.0))
    rows = {row["id"]: row for row in anew._everything_recorded(project[0], [verification.row("w", "", "PASS")])}
    assert {name for name, row in rows.items() if row["verdict"] != "PASS"} == {
        "file.universe.json", "file.sanity/IllustrisTNG.json"
    }  # fmt: skip
    assert all(row["verdict"] == "FAIL" for row in rows.values() if row["verdict"] != "PASS") and len(rows) > 40
    rows = {row["id"]: row for row in anew._everything_recorded(project[0], [verification.row("w", "", "NOT RUN")])}
    assert rows["file.sanity/IllustrisTNG.json"]["verdict"] == "NOT RUN", "other networks have other checks"
    assert rows["file.universe.json"]["verdict"] == "FAIL"


def in_this_process(queue, jobs, what):
    for folder, stages, suite, case in queue:
        rerun.here(folder, params.load(Path(folder) / paths.PARAMS), *stages, place=(suite, case))


def test_the_verdict_on_a_run_goes_from_its_files_to_networks_trained_anew(run, monkeypatch, capsys):
    monkeypatch.setattr(rerun, "everywhere", in_this_process)
    with pytest.raises(SystemExit) as ended:
        verify.verify(2, as_json=True)
    assert ended.value.code == 0
    said = capsys.readouterr()
    verdict = json.loads(said.out)
    assert [line[:3] for line in said.err.splitlines() if line.startswith("T")] == ["T0:", "T1:", "T2:"]
    groups = {}
    for row in verdict["rows"]:
        groups.setdefault((row["group"], row["tier"]), []).append(row)
    other = {row["id"]: row["why"] for row in groups["integrity", 0] if row["verdict"] not in ("PASS", "NOT RUN")}
    assert all(name == "environment.training" and "the commit is unknown" in why for name, why in other.items())
    again = groups["evaluated anew", 1]
    assert sum(row["id"].startswith("r2.") for row in again) == 3 * 6 + 3 * 2
    sampled = [row["id"] for row in again if row["id"].startswith("file.attribute") and row["verdict"] == "PASS"]
    assert len(sampled) == 2 * 2, "the uncut case of either suite"
    assert {row["verdict"] for row in again if "max_1e12_random" not in row["id"]} == {"PASS"}
    trained = next(row for row in groups["trained anew", 2] if row["id"] == "weights.IllustrisTNG.original")
    assert trained["verdict"] == "PASS" and "bit for bit" in trained["why"]
    assert "only the real maps can decide the paper's numbers" in verdict["conclusion"]["text"]
    claims = [row for row in verdict["rows"] if row["id"].startswith(("per_pixel_ratio", "void_share", "inferred"))]
    assert claims and all(row["verdict"] == "NOT RUN" and row["holds"] is not None for row in claims)
    page = (run / "report/index.html").read_text()
    assert page.count("data:image/png;base64,") >= 14 and "<svg" in page
    crate = json.loads((run / "results/ro-crate-metadata.json").read_text())["@graph"]
    values = {one["propertyID"]: one["value"] for one in crate if one["@type"] == "PropertyValue"}
    assert values["weights:IllustrisTNG/original"] == trained["got"] and "lock:dvc.lock" in values

    explain.explain("r2.TNG.original.omega_m", as_json=True)
    chain = json.loads(capsys.readouterr().out)
    assert chain["paper"]["macro"] == r"\OrigOmegaM" and chain["paper"]["lines of paper/ms.tex"]
    assert chain["result"]["weights"] == trained["got"]
    cut, *searched, train_, evaluate_ = (f"{name}@IllustrisTNG-original" for name in CHAIN)
    steps = ["maps", cut, *searched, "choose", train_, evaluate_, "tabulate", "paper"]
    assert list(chain["stages"]) == steps
    inputs = chain["stages"]["train@IllustrisTNG-original"]["inputs"]
    chosen = paths.hyperparameters("IllustrisTNG", "original")
    assert inputs[str(chosen)] == locked._md5(chosen)
    assert [row["id"] for row in chain["published"]] == [
        f"{m}.IllustrisTNG.original.omega_m" for m in ("r2", "r2_table")
    ]
    assert {"integrity", "paper", "evaluated anew"} <= {row["group"] for row in chain["verdict"]}
    with pytest.raises(ValueError, match="expected an id such as"):
        explain.explain("r2.TNG.nothing.omega_m")


def test_one_case_trained_anew_on_real_maps_is_judged_by_the_paper_and_leaves_nothing(run, monkeypatch):
    smoke = params.load()
    real = dataclasses.replace(smoke, maps=dataclasses.replace(smoke.maps, source="camels"))  # as far as verify sees
    place = ("IllustrisTNG", "original")

    def interrupted(queue, *more):
        in_this_process([(folder, ("cut",), *one) for folder, _, *one in queue], *more)
        raise KeyboardInterrupt

    monkeypatch.setattr(rerun, "everywhere", interrupted)
    with pytest.raises(KeyboardInterrupt):
        anew.train_again(real, *place)
    assert not any((run / "runs/again").iterdir())
    monkeypatch.setattr(rerun, "everywhere", in_this_process)
    rows = anew.train_again(real, *place)
    assert not any((run / "runs/again").iterdir())
    paper = {row["id"]: row for row in rows if row["profile"] == "camels"}
    assert {"r2.IllustrisTNG.original.omega_m", "valid_loss.IllustrisTNG.original.all"} <= set(paper)
    assert {(row["verdict"], row["group"], row["tier"]) for row in paper.values()} == {("NOT RUN", "trained anew", 2)}
    assert all("settings differ: maps, split, train, tune" in row["why"] for row in paper.values())


def test_a_reference_is_made_of_several_seeds_resumes_and_judges(run, monkeypatch):
    """In short: two cases of one suite, no search."""
    text = (run / "params.yaml").read_text()
    for long, short in ((", Nbody_IllustrisTNG]", "]"), ("trials: 2", "trials: 0"), (", max_1e12_random]", "]")):
        text = text.replace(long, short, 1)
    store.write_text(run / "params.yaml", text.replace("  - max_1e12_random\n", ""))
    trained = []

    def counted(queue, *more):
        trained.extend(one for one in queue if "train" in one[1])
        in_this_process(queue, *more)

    monkeypatch.setattr(rerun, "everywhere", counted)
    with pytest.raises(ValueError, match="SEEDS of at least 4, got 3"):
        anew.make_reference(3)
    anew.make_reference(4)
    path = run / paths.reference("smoke")
    record = store.read_json(path)
    assert len(trained) == 8 and record["seeds"] == [0, 1, 2, 3] and len(record["r2"]) == 2 * 6
    values = record["r2"]["r2.IllustrisTNG.original.omega_m"]["values"]
    assert len(set(values)) == 4, "each seed trains another network"
    folder = next((run / "runs/again").glob("reference-*"))
    (folder / "seed_2" / paths.metrics("IllustrisTNG", "kmax_1")).unlink()
    trained.clear()
    anew.make_reference(4)
    assert len(trained) == 1 and store.read_json(path)["r2"] == record["r2"]

    def rows(group):
        return {row["id"]: row for row in verify.judge(2)["rows"] if row["group"] == group}

    judged = rows("trained anew")
    assert judged["r2.IllustrisTNG.original.omega_m"]["tolerance"] and judged["r2.IllustrisTNG.original.omega_m"]["low"]
    assert "r2.IllustrisTNG.kmax_1.omega_m" not in judged, "it was not trained"
    del record["r2"]["r2.IllustrisTNG.kmax_1.A_SN1"]
    store.write_json(path, record)
    assert rows("reference")["r2.IllustrisTNG.kmax_1.A_SN1"]["verdict"] == "FAIL"
    edit(run / "params.yaml", lambda text: text.replace("batch: 16", "batch: 8"))
    (row,) = rows("reference").values()
    assert row["verdict"] == "NOT RUN" and "made with other train in params.yaml" in row["why"]


def test_the_same_seed_gives_the_same_maps_and_weights_bit_for_bit(project):
    folder, _ = project
    files = [
        folder / paths.maps("IllustrisTNG", "Mtot"),
        folder / "runs/IllustrisTNG/original/history.json",
    ]
    before = [path.read_bytes() for path in files]
    targets = ["maps", "cut@IllustrisTNG-original", "tune@IllustrisTNG-original", "train@IllustrisTNG-original"]
    subprocess.run(
        [".venv/bin/python", "-m", "dvc", "repro", "--quiet", "--force", "--no-run-cache", "--single-item", *targets],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "code")},
        check=True,
        capture_output=True,
    )
    assert [path.read_bytes() for path in files] == before


def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(project, monkeypatch):
    folder, _ = project
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


def test_unfinished_work_of_another_split_is_never_picked_up(project, monkeypatch):
    """It once was, and simulations it had been trained on became its test simulations."""
    folder, _ = project
    monkeypatch.chdir(folder)
    loaded, device = params.load(), torch.device("cpu")
    key = dataset.resume_key(loaded, "IllustrisTNG", "original", device, "train")
    other = dataclasses.replace(loaded, split=dataclasses.replace(loaded.split, seed=2))
    assert dataset.resume_key(loaded, "IllustrisTNG", "original", device, "train") == key
    assert dataset.resume_key(other, "IllustrisTNG", "original", device, "train") != key


def stage(project, name, *arguments, code=0):
    """Run a stage's module by hand; its standard output, or its standard error where it is to fail."""
    run = subprocess.run(
        [".venv/bin/python", "-m", f"camelsight.stages.{name}", *map(str, arguments)],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "code")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stderr
    return run.stderr if code else run.stdout


def test_predictions_in_cmd_format_are_written_and_evaluated_to_the_same_numbers(project, tmp_path):
    folder, _ = project
    path = folder / "results/evaluate/IllustrisTNG/original.txt"
    ours = json.loads((folder / "results/evaluate/IllustrisTNG/original.json").read_text())["metrics"]
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


def test_a_released_checkpoint_is_evaluated_with_the_released_normalisation_and_views(project, tmp_path, monkeypatch):
    folder, _ = project
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


def test_studies_travel_both_ways(project, tmp_path):
    folder, _ = project
    stage(folder, "tune", "--export", tmp_path / "study.db", "--suite", "IllustrisTNG", "--case", "original")
    before = json.loads((folder / "results/hyperparameters/IllustrisTNG/original.json").read_text())
    where = ("--import", tmp_path / "study.db", "--suite", "SIMBA", "--case", "original")
    record = json.loads(stage(folder, "tune", *where, "--json"))
    assert list(record) == ["study", "value", "trial", "complete", "hyperparameters"]
    assert {key: record[key] for key in ("value", "trial", "complete", "hyperparameters")} == {
        key: before[key] for key in ("value", "trial", "complete", "hyperparameters")
    }
    assert json.loads((folder / "results/hyperparameters/SIMBA/original.json").read_text()) == record
    assert "tune.start" in stage(folder, "tune", *where)
    shutil.rmtree(folder / "results/hyperparameters/SIMBA")
    half = stage(folder, "tune", *where[:4], code=1)
    assert "both --suite and --case" in half and half.count("\n") == 1
    assert "expected a suite among" in stage(folder, "tune", *where[:2], "--suite", "Foo", "--case", "original", code=1)
    (tmp_path / "empty.db").touch()
    failed = stage(folder, "tune", "--import", tmp_path / "empty.db", "--json", code=1)
    assert failed.startswith("tune: expected an Optuna study") and failed.count("\n") == 1


def test_without_trials_a_case_takes_its_own_starting_point(project, monkeypatch, tmp_path):
    folder, _ = project
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


def test_what_an_interrupted_latex_left_is_no_obstacle(project, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(folder)
    auxiliary = folder / "paper/build/ms.aux"
    auxiliary.write_bytes(auxiliary.read_bytes()[:1000])
    paper.main(params.load())
    assert "undefined" not in (folder / "paper/build/ms.log").read_text(errors="replace").lower()


def test_the_plan_says_what_a_change_would_run_and_why_and_touches_nothing(project):
    folder, _ = project
    path, kept = folder / "params.yaml", [folder / "dvc.lock", folder / "results/tables/r2.csv"]
    text, before = path.read_text(), [file.read_bytes() for file in kept]

    def plan(*arguments):
        command = [".venv/bin/python", "-m", "camelsight.commands.plan", "--json", *arguments]
        environment = os.environ | {"PYTHONPATH": str(folder / "code")}
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return json.loads(run.stdout)

    path.write_text(text.replace("resamples: 200", "resamples: 300"))
    try:
        changed, unchanged = plan(), plan("--profile", "smoke", "--full")
    finally:
        path.write_text(text)
    assert list(unchanged) == ["profile", "jobs", "seconds", "stages"] and unchanged["stages"] == []
    ran = [stage["stage"].partition("@")[0] for stage in changed["stages"]]
    assert ran.count("evaluate") == 6 and ran[-3:] == ["tabulate", "figures", "paper"] and changed["seconds"] > 0
    assert not {"maps", "universe", "cut", "tune", "train", "attribute"} & set(ran)
    cause = {"kind": "parameter", "name": "evaluate.resamples", "change": "200 -> 300"}
    assert all(stage["why"] == [cause] for stage in changed["stages"] if stage["stage"].startswith("evaluate@"))
    assert [file.read_bytes() for file in kept] == before


EDITS = [  # files of the code with a line more each, the kinds of stages that run, and some that do not
    (("pipeline/store.py", "pipeline/cli.py", "referee/page.py", "commands/status.py"), set(), set()),
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
def test_an_edit_runs_what_it_can_change_and_nothing_else(project, names, ran, spared):
    """A docstring in the command line ran all 83 stages of mini, and a figure's label trained 18 networks anew."""
    folder, _ = project
    files = [folder / "code/camelsight" / name for name in names]
    before = [file.read_text() for file in files]
    try:
        for file, text in zip(files, before, strict=True):
            file.write_text(text.replace('"""', '"""Said otherwise. ', 1).replace("\n\n\n", "\n\n\n# Said.\n", 1))
        assert planned(folder) == set()
        for file, text in zip(files, before, strict=True):
            file.write_text(text + "\nEDITED = True\n")
        stages = planned(folder)
    finally:
        for file, text in zip(files, before, strict=True):
            file.write_text(text)
    assert ran <= stages and not spared & stages and bool(ran) == bool(stages)


def planned(folder):
    """The kinds of stages that ``make plan`` says would run."""
    command = [".venv/bin/python", "-m", "camelsight.commands.plan", "--json"]
    surroundings = os.environ | {"PYTHONPATH": str(folder / "code")}
    said = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=True)
    return {one["stage"].partition("@")[0] for one in json.loads(said.stdout)["stages"]}


def test_a_finished_run_travels_in_one_archive(project, tmp_path, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(folder)
    names = pack.write(tmp_path / "one.tar", params.load())
    assert {"SHA256SUMS", "data"}.isdisjoint(names) and {"results/numbers.tex", "dvc.lock"} < set(names)
    assert pack.read(tmp_path / "one.tar", tmp_path / "other") == names
    assert all((tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_a_mistake_in_params_is_one_line_and_touches_nothing(project):
    folder, _ = project
    path = folder / "params.yaml"
    text = path.read_text()
    lock = (folder / "dvc.lock").read_bytes()
    path.write_text(text.replace("epochs: 2", "epochs: two"))
    try:
        output = finish(camelsight(folder, "paper"), code=1)
    finally:
        path.write_text(text)
    assert output == "paper: params.yaml: train.epochs: expected an integer, got 'two'\n"
    assert (folder / "dvc.lock").read_bytes() == lock


def test_files_of_a_release_are_adopted_and_bad_ones_refused(project, tmp_path):
    """The door of the real maps, on files of their format: good ones are linked, and what is wrong is named."""
    folder, _ = project
    other = tmp_path / "other"
    other.mkdir()
    for name in ("code", ".venv"):
        (other / name).symlink_to(folder / name)
    text = (folder / "params.yaml").read_text()
    (other / "params.yaml").write_text(
        text.replace("source: twin", "source: camels").replace("data/CMD", str(tmp_path))
    )
    for suite in SUITES:
        shutil.copy(folder / paths.parameters(suite), tmp_path)
        shutil.copy(folder / paths.maps(suite, "Mtot"), tmp_path)

    def run():
        return subprocess.run(
            [".venv/bin/python", "-m", "camelsight.stages.maps"],
            cwd=other,
            env=os.environ | {"PYTHONPATH": str(folder / "code")},
            capture_output=True,
            text=True,
            check=False,
        )

    path = tmp_path / cmd.maps_file_name("IllustrisTNG")
    maps = np.load(path)
    maps[17, 3, 5] = np.nan
    path.unlink()
    np.save(path, maps)
    failed = run()
    assert failed.returncode == 1 and not (other / "data/maps").exists()
    assert failed.stderr.startswith("maps: expected finite surface densities above zero, got 1 NaN")
    assert failed.stderr.count("\n") == 1

    maps[17, 3, 5] = 1e11
    np.save(path, maps)
    assert run().returncode == 0
    np.testing.assert_array_equal(np.load(other / paths.maps("IllustrisTNG", "Mtot")), maps)


def test_real_maps_are_adopted_once_and_one_that_was_replaced_is_noticed(project, tmp_path):
    """data/maps links to the files; a link that is hard keeps the old one, which DVC alone would go on with."""
    folder, other, real = project[0], tmp_path / "other", tmp_path / "CMD"
    check_out(other)
    shutil.copytree(folder / "data/maps", real)
    text = (ROOT / "profiles/smoke.yaml").read_text()
    text = text.replace("profile: smoke", "profile: real").replace("source: twin", "source: camels")
    (other / "profiles/real.yaml").write_text(text.replace("data/CMD", str(real)))
    name = cmd.maps_file_name("IllustrisTNG")

    finish(camelsight(other, "maps", "--profile", "real"))
    assert (other / paths.maps("IllustrisTNG", "Mtot")).samefile(real / "IllustrisTNG" / name)
    assert name in (other / "profiles/real.sha256").read_text()
    assert "the maps are up to date" in finish(camelsight(other, "maps"))

    file = real / "IllustrisTNG" / name
    maps = np.load(file)
    maps[0, 0, 0] *= 1.01
    file.unlink()
    np.save(file, maps)
    output = finish(camelsight(other, "maps"), code=1)
    assert f"{paths.maps('IllustrisTNG', 'Mtot')} is not the one in {real};" in output
    assert f"maps: expected the {name} used before, sha256" in output and "Traceback" not in output


def test_an_assistant_changes_a_cut_in_one_conversation_and_its_own_chain_runs_and_nothing_else(project):
    """By the SDK's own client: a cut is changed, planned, run, followed, judged, and one of its numbers explained."""
    folder, _ = project
    surroundings = os.environ | {"PYTHONPATH": str(folder / "code")}
    wanted = dict.fromkeys(("choose", "tabulate", "figures", "paper"), 1)
    wanted |= dict.fromkeys(("cut", "train", "evaluate"), 2)
    wanted |= {"baseline": len(params.EXPERIMENTS["baseline"])}  # one of which has every k_max
    python = [".venv/bin/python", "-P", "-m", "camelsight.commands.mcp"]
    server = StdioServerParameters(command=python[0], args=python[1:], cwd=folder, env=surroundings)

    async def talk():
        async with Client(server) as client:

            async def ask(tool, /, **arguments):
                answer = await client.call_tool(tool, arguments)
                return answer.is_error, answer.content[0].text, answer.structured_content or answer.content

            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"doctor", "plan", "change_parameters", "run", "status", "verify", "explain", "read"}
            refused, why, _ = await ask("change_parameters", changes={"cases": ["original", "kmax_ten"]})
            assert refused and "kmax_ten" in why
            _, diff, _ = await ask("change_parameters", changes={"cases": ["original", "kmax_1.5", "max_1e12_random"]})
            assert "-  - kmax_1\n" in diff and "+  - kmax_1.5\n" in diff
            refused, why, _ = await ask("run")
            assert refused and "call plan" in why
            _, _, plan = await ask("plan")
            ran = [stage["stage"].partition("@")[0] for stage in plan["stages"]]
            assert {name: ran.count(name) for name in ran} == wanted
            assert (await ask("run"))[2]["started"]
            while (said := (await ask("status"))[2])["run"] == "at work":
                await anyio.sleep(2)
            assert said["run"] == "ended with 0" and {row["state"] for row in said["rows"]} == {"done"}, said
            _, _, verdict = await ask("verify")
            assert not [row for row in verdict["rows"] if row["verdict"] == "FAIL"]
            _, _, chain = await ask("explain", number="r2.IllustrisTNG.kmax_1.5.omega_m")
            record = store.read_json(folder / paths.metrics("IllustrisTNG", "kmax_1.5"))
            assert chain["result"]["value, low, high"] == record["metrics"]["r2"]["omega_m"]
            assert next(row["verdict"] for row in chain["verdict"] if row["group"] == "integrity") == "PASS"
            assert "kmax_1.5" in (await ask("read", name="r2.csv"))[1]
            picture = await client.call_tool("read", {"name": "r2_kmax.png"})
            assert picture.content[0].mime_type == "image/png"

    anyio.run(talk)
    output = (folder / "runs/logs/assistant.log").read_text()
    assert stages_run(output) == wanted
    assert "kmax_1.5" in (folder / "results/tables/r2.csv").read_text()


def test_another_profile_keeps_own_changes_beside_it(project):
    folder, _ = project
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
