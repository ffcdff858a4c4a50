"""What is judged is data: files that would leave a mark if they were run or believed, and no mark."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from camelsight.pipeline import environment, params, paths, references, rerun, store
from camelsight.referee import comparison, explain, verification, verify
from conftest import refused
from smoke import git

ROOT = Path(__file__).parent.parent
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git, which the image has not")
MARK = "import pathlib; pathlib.Path({mark!r}).touch(); raise SystemExit(3)"


@pytest.fixture
def mark(tmp_path):
    """A file that only comes into being if something runs that must not."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "what was judged ran a command"


@pytest.fixture
def given(tmp_path, monkeypatch):
    """The folder of somebody's run, in which nothing but the parameters is there."""
    folder = tmp_path / "given"
    folder.mkdir()
    shutil.copy(ROOT / "profiles/smoke.yaml", folder / paths.PARAMS)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A checkout that judges, with no run of its own."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("benchmarks", "code", "profiles", "paper", "dvc.yaml", "requirements.lock"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.setattr(environment, "ROOT", folder)
    return folder


def with_git(folder, mark):
    """A repository in ``folder`` whose configuration has Git run a program."""
    program = folder / ".git" / "program"
    git(folder, "init")
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "diff.external", "filter.x.clean"):
        git(folder, "config", key, program)
    (folder / ".gitattributes").write_text("* filter=x\n")


@needs_git
def test_git_is_not_asked_about_the_folder_that_is_judged(given, mark, monkeypatch):
    with_git(given, mark)
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, str(given / ".git"))
    here = environment.read()
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert here == environment.read()


@needs_git
def test_git_runs_nothing_that_the_configuration_of_a_checkout_names(home, mark):
    with_git(home, mark)
    git(home, "-c", "core.fsmonitor=false", "-c", "filter.x.clean=cat", "add", "--all")
    git(home, "-c", "core.fsmonitor=false", "commit", "-m", "one")
    mark.unlink(missing_ok=True)
    git(home, "config", "--unset", "filter.x.clean")
    here = environment.read()
    assert len(here["commit"]) == 40 and here["dirty"] is False


@needs_git
def test_the_commit_of_a_repository_around_this_one_is_not_ours(home, tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    assert environment.read()["commit"] == "unknown"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_checkout_of_another_user_is_said_to_be_one(home):
    git(home, "init")
    git(home, "commit", "--allow-empty", "-m", "one")
    assert environment.refusal() == "" and len(environment.read()["commit"]) == 40
    for path in (home, home / ".git"):
        os.chown(path, 12345, 12345)
    assert "dubious ownership" in environment.refusal() and environment.read()["commit"] == "unknown"


@pytest.mark.parametrize("name", ["tqdm.py", "json.py", "camelsight.py", "sitecustomize.py"])
def test_stages_that_run_once_more_take_no_module_from_their_folder(tmp_path, mark, name):
    folder = tmp_path / "again"
    store.write_text(folder / name, MARK.format(mark=str(mark)))
    with refused(r"IllustrisTNG-original failed: .*params.yaml"):
        rerun.everywhere([(folder, ("cut",), "IllustrisTNG", "original")], 1, "again")


def test_what_runs_once_more_begins_in_an_empty_folder_that_nobody_foresees(given):
    store.write_text(given / "runs/again/new-/tqdm.py", "planted")
    with rerun.empty() as first, rerun.empty() as second:
        assert first != second and not any(first.iterdir()) and not any(second.iterdir())
    assert not first.exists() and not second.exists()


@pytest.mark.parametrize("tier", [1, 2])
def test_no_finished_work_is_taken_for_work_done_now(given, monkeypatch, tier):
    loaded, seen = params.load(), []
    keys = [("IllustrisTNG", "original"), ("Nbody_IllustrisTNG", "kmax_1")]
    for suite, case in keys:
        store.write_bytes(paths.maps(suite, "Mtot"), b"")
        for path in (paths.weights, paths.hyperparameters, paths.history, paths.metrics):
            store.write_json(path(suite, case), {})
        for folder in ("", "runs/again/T2-0123", "runs/again/new-"):
            store.write_bytes(Path(folder, paths.finished_training("0123")), b"planted")
            store.write_bytes(Path(folder, paths.unfinished_training("0123")), b"planted")

    def look(queue, *_):
        found = [path for path in Path(queue[0][0]).rglob("*") if path.is_symlink() or not path.is_dir()]
        seen.extend((path.name, path.is_symlink()) for path in found)
        raise KeyboardInterrupt

    monkeypatch.setattr(rerun, "everywhere", look)
    with pytest.raises(KeyboardInterrupt):
        verify._TIER_ROWS[tier](loaded, *keys[0], False)
    of_runs = {"weights.safetensors", "history.json", *(f"{case}.json" for _, case in keys)}
    links = {"tuning.json", "maps"} | (of_runs if tier == 1 else set())
    assert set(seen) == {(name, True) for name in links} | {("params.yaml", False)}, "tuning.json is that of benchmarks"


def test_a_folder_is_judged_by_this_checkout_and_not_by_itself(given, home):
    lie = {"profile": "smoke", "settings": references.settings(params.load()), "r2": {}}
    store.write_json(given / paths.reference("smoke"), lie)
    store.write_text(given / paths.EXPECTED, "[]")
    store.write_text(given / paths.DVC, "stages: {}")
    store.write_text(given / "code/camelsight/cli.py", "planted")
    store.write_text(given / paths.parameters("IllustrisTNG"), "planted")
    store.write_text(given / paths.TEXTS[0], "planted")
    with verify._judged(given, verify._home()) as rows:
        here = Path.cwd()
        assert here.parent == home / paths.AGAIN
        for name in (paths.EXPECTED, paths.DVC, paths.TEXTS[0], paths.PROFILES, "code"):
            assert Path(name).resolve() == (ROOT / name).resolve()
        assert not paths.reference("smoke").exists() and not paths.MAPS.exists()
        assert {row["id"]: row["verdict"] for row in rows}["pack.dvc.yaml"] == "WARN"
        assert comparison.beside_reference(params.load(), {}, 0)[0]["verdict"] == "NOT RUN"
    assert not here.exists() and Path.cwd() == given


def test_a_folder_that_is_not_that_of_the_code_is_judged_as_somebody_elses(given, home, capsys):
    with pytest.raises(SystemExit) as ended:
        verify.verify(0)
    assert ended.value.code == 2, "there is nothing to judge"
    assert (home / "report/of-given/verdict.json").exists() and not (given / paths.VERDICT).exists()
    assert "pack.dvc.yaml" in {row["id"] for row in store.read_json(home / "report/of-given/verdict.json")["rows"]}


def test_a_folder_whose_code_is_what_runs_judges_itself_and_others(given, home, monkeypatch):
    """In a container /out links to the code of the image, which nobody can write to: verify judged /out from there."""
    assert verify._home() == home
    (given / "code").symlink_to(ROOT / "code")
    assert verify._home() == given
    monkeypatch.setattr(verify, "judge", lambda *_, **options: pytest.fail(str(options["elsewhere"])))
    with pytest.raises(pytest.fail.Exception, match="False"):
        verify.verify(0)
    assert verify._report(home, given)["page"] == given / "report/of-home/index.html"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *(
            (paths.DVC_LOCK, text)
            for text in ("[", "[" * 100_000, "5", "a: &a 1\nb: *a", "stages: [maps]", "stages: 5")
        ),
        (paths.DVC_LOCK, "stages: {maps: {deps: [5]}}"),
        (paths.DVC_LOCK, "stages: {maps: {}}"),
        (paths.DVC_LOCK, "stages: {maps: {cmd: a, deps: [{path: b}]}}"),
        *(
            (paths.VERDICT, text)
            for text in ("[", "5", "{}", '{"rows": 5}', '{"rows": [{}]}', '{"rows": [{"id": [1]}, 5]}')
        ),
        *((paths.metrics("IllustrisTNG", "original"), text) for text in ("5", "{}", '{"metrics": {"r2": 5}}')),
        (paths.record("IllustrisTNG", "original"), "["),
        (paths.EXPECTED, "[5]"),
    ],
)
def test_a_number_is_followed_through_no_damaged_file(given, path, text):
    """Each ended verify --explain in a traceback, and a hundred thousand brackets ended the process."""
    store.write_text(paths.EXPECTED, "[]")
    store.write_json(
        paths.metrics("IllustrisTNG", "original"), {"metrics": {}, "weights": "", "maps": "", "versions": {}}
    )
    for tex in paths.TEXTS:
        store.write_text(tex, "")
    store.write_text(path, text)
    with refused(str(path)) as caught:
        explain.explain("r2.IllustrisTNG.original.omega_m")
    assert "\n" not in store.one_line(caught.value)


def test_arrays_that_unpack_to_more_than_they_hold_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", zeros=np.zeros(1 << 20))
    with refused(r"expected whole arrays in .*bomb.npz, got .*arrays that are compressed, such as zeros.npy"):
        store.read_arrays(tmp_path / "bomb.npz")


def test_what_came_with_a_run_does_not_steer_the_terminal():
    row = verification.row("a", "integrity", "FAIL", "\x1b]0;owned\x07\x1b[2J", got="\x9b31m")
    assert row["why"] == "?]0;owned??[2J" and row["got"] == "?31m"
