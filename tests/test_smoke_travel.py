"""A finished run elsewhere: pulled, loaded, packed, driven by an assistant; files of a release, studies of others."""

import csv
import json
import os
import shutil
import sys

import anyio
import numpy as np
import pytest
from mcp import Client, StdioServerParameters

import camelsight as camelsight_package
from camelsight.analysis import dataset
from camelsight.ground import cmd, theta
from camelsight.interpretation import attribution
from camelsight.pipeline import environment, params, paths, store
from camelsight.referee import evidence, locked, pack, verify
from smoke import ROOT, SUITES, camelsight, check_out, commit, dvc, finish, git, planned, served, stage, stages_run


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
    with served(remote) as (url, _):
        dvc(folder, "remote", "add", "--local", "--default", "web", url)
        dvc(folder, "pull")
        yield folder


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
    name = paths.weights("IllustrisTNG", "original").with_name("note.txt")
    notes = [folder / name for folder in (project[0], pulled)]
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
    record = store.read_json(pulled / paths.metrics(SUITES[0], "kmax_1"))["metrics"]
    assert shown[SUITES[0]]["kmax_1"]["r2"]["omega_m"] == record["r2"]["omega_m"][0]
    assert set(shown[SUITES[1]]["original"]) == {"r2", "coverage_68", "coverage_95", "loss"}
    plots = json.loads(dvc(pulled, "plots", "show", "--json"))["data"]
    for name in ("r2_kmax/IllustrisTNG.csv", "truth_prediction/IllustrisTNG_omega_m.csv"):
        assert f"results/plots/{name}" in plots
    assert "results/curves/IllustrisTNG/original.json" in plots

    dvc(pulled, "exp", "run", "--temp", "-S", "profile=another", "tabulate")
    dvc(pulled, "plots", "diff", "HEAD~1")
    assert not git(pulled, "status", "--porcelain")
    experiments = list(csv.DictReader(dvc(pulled, "exp", "show", "--csv").splitlines()))
    assert "another" in {one["profile"] for one in experiments}


def test_studies_travel_both_ways(project, tmp_path):
    folder, _ = project
    stage(folder, "tune", "--export", tmp_path / "study.db", "--suite", "IllustrisTNG", "--case", "original")
    before = store.read_json(folder / paths.hyperparameters("IllustrisTNG", "original"))
    where = ("--import", tmp_path / "study.db", "--suite", "SIMBA", "--case", "original")
    record = json.loads(stage(folder, "tune", *where, "--json"))
    same = ("value", "trial", "complete", "hyperparameters")
    assert list(record) == ["study", *same] and [record[key] for key in same] == [before[key] for key in same]
    assert store.read_json(folder / paths.hyperparameters("SIMBA", "original")) == record
    assert "tune.start" in stage(folder, "tune", *where)
    shutil.rmtree(folder / "results/hyperparameters/SIMBA")
    half = stage(folder, "tune", *where[:4], code=1)
    assert "both --suite and --case" in half and half.count("\n") == 1
    assert "expected a suite among" in stage(folder, "tune", *where[:2], "--suite", "Foo", "--case", "original", code=1)
    (tmp_path / "empty.db").touch()
    failed = stage(folder, "tune", "--import", tmp_path / "empty.db", "--json", code=1)
    assert failed.startswith("tune: expected an Optuna study") and failed.count("\n") == 1


def test_a_finished_run_travels_in_one_archive(project, tmp_path, monkeypatch):
    folder, _ = project
    monkeypatch.chdir(folder)
    names = pack.write(tmp_path / "one.tar", params.load())
    assert {"SHA256SUMS", "data"}.isdisjoint(names) and {"results/numbers.tex", "dvc.lock"} < set(names)
    assert pack.read(tmp_path / "one.tar", tmp_path / "other") == names
    assert all((tmp_path / "other" / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_files_of_a_release_are_adopted_and_bad_ones_refused(project, tmp_path):
    """The door of the real maps, on files of their format: good ones are linked, and what is wrong is named."""
    folder, _ = project
    other = tmp_path / "other"
    other.mkdir()
    for name in ("code", ".venv"):
        (other / name).symlink_to(folder / name)
    text = (folder / "params.yaml").read_text().replace("source: twin", "source: camels")
    (other / "params.yaml").write_text(text.replace("data/CMD", str(tmp_path)))
    for suite in SUITES:
        shutil.copy(folder / paths.parameters(suite), tmp_path)
        shutil.copy(folder / paths.maps(suite, "Mtot"), tmp_path)

    path = tmp_path / cmd.maps_file_name("IllustrisTNG")
    maps = np.load(path)
    maps[17, 3, 5] = np.nan
    path.unlink()
    np.save(path, maps)
    failed = stage(other, "maps", code=1)
    assert not (other / "data/maps").exists()
    assert failed.startswith("maps: expected finite surface densities above zero, got 1 NaN")
    assert failed.count("\n") == 1

    maps[17, 3, 5] = 1e11
    np.save(path, maps)
    stage(other, "maps")
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
            without = {f"robustness.{name}": [] for name in ("transfer", "baseline", "suites")}
            changes = {"cases": ["original", "kmax_1.5", "max_1e12_random"]} | without
            _, diff, _ = await ask("change_parameters", changes=changes)
            assert "-  - kmax_1\n" in diff and "+  - kmax_1.5\n" in diff
            refused, why, _ = await ask("run")
            assert refused and "call plan" in why
            _, _, plan = await ask("plan")
            ran = [stage["stage"].partition("@")[0] for stage in plan["stages"]]
            assert {name: ran.count(name) for name in ran} == wanted
            assert (await ask("run"))[2]["started"]
            while (said := (await ask("status"))[2])["run"] == "at work":
                await anyio.sleep(5)
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
