"""What an assistant may change, start and read, without a run."""

import subprocess
from pathlib import Path

import pytest

from camelsight.commands import mcp
from camelsight.pipeline import paths, store

ROOT = Path(__file__).parent.parent
SMOKE = (ROOT / "profiles/smoke.yaml").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write_text(paths.PARAMS, SMOKE)
    return tmp_path


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml")))
def test_a_change_touches_its_own_line_and_keeps_every_comment(profile):
    text = (ROOT / f"profiles/{profile}.yaml").read_text(encoding="utf-8")
    after = mcp.changed(text, {"train.epochs": 7})
    other = [pair for pair in zip(text.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(other) == 1 and "epochs: 7" in other[0][1]
    assert mcp.changed(text, {}) == text


def test_a_change_is_shown_as_a_diff_and_a_list_can_be_set(folder):
    said = mcp.Tools().change_parameters(
        {"cases": ["original", "kmax_2", "max_1e12_random"], "evaluate.resamples": 300}
    )
    assert "-  - kmax_1\n" in said and "+  - kmax_2\n" in said and "+  resamples: 300\n" in said
    assert "resamples: 300\n" in paths.PARAMS.read_text(encoding="utf-8")
    assert mcp.Tools().change_parameters({"evaluate.resamples": 300}) == "nothing changed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate.resamples": 300, "train.epochs": "two"}, "train.epochs: expected an integer, got 'two'"),
        ({"train.epoch": 3}, "expected a name in params.yaml such as train.epochs, got 'train.epoch'"),
        ({"train.epochs.more": 3}, "expected a name in params.yaml .* got 'train.epochs.more'"),
        ({"cases": ["original", "kmax_ten", "max_1e12_random"]}, "kmax_ten"),
        ({"maps.folder": "/etc"}, "expected nothing outside this folder, got maps.folder"),
        ({"maps": {"folder": "/etc"}}, "expected nothing outside this folder, got maps"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        mcp.Tools().change_parameters(changes)
    assert paths.PARAMS.read_text(encoding="utf-8") == SMOKE


def test_nothing_runs_without_a_plan_of_these_parameters(folder, monkeypatch):
    asked, started = [], []
    monkeypatch.setattr(mcp, "_ask", lambda *command, **_: asked.append(command) or {"stages": []})
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command[-2:]) or _Process())
    tools = mcp.Tools()
    with pytest.raises(ValueError, match=r"expected a plan of params.yaml as it is, got none: call plan"):
        tools.run()
    tools.plan()
    tools.change_parameters({"train.epochs": 3})
    with pytest.raises(ValueError, match="expected a plan"):
        tools.run()
    tools.plan()
    assert not started and tools.run()["process"] == 7 and started == [["camelsight", "paper"]]
    with pytest.raises(ValueError, match="expected a plan"):
        tools.run()
    assert tools.status()["run"] == "ended with 0" and asked[-1] == ("camelsight", "status", "--json")


class _Process:
    pid = 7

    def poll(self):
        return 0


def test_nothing_is_changed_or_started_beside_a_run(folder, monkeypatch):
    monkeypatch.setattr(mcp, "_ask", lambda *_, **__: {})
    tools = mcp.Tools()
    tools.plan()
    with store.claim(paths.RUN_LOCK):
        with pytest.raises(ValueError, match="expected no run at work, got one"):
            tools.change_parameters({"train.epochs": 3})
        with pytest.raises(ValueError, match=r"expected no run at work in .*, got one: see status"):
            tools.run()


def test_tables_and_figures_are_read_by_name_and_nothing_else(folder):
    assert mcp.Tools().read() == "there is none yet: run first"
    store.write_text(paths.TABLES / "r2.csv", "suite,r2\nA,0.9\n")
    store.write_text(folder / "secret.csv", "secret")
    store.write_bytes(paths.FIGURES / "r2_kmax.png", b"picture")
    outside = folder.parent / "outside.csv"
    outside.write_text("secret", encoding="utf-8")
    (paths.TABLES / "linked.csv").symlink_to(outside)
    tools = mcp.Tools()
    assert tools.read() == "r2_kmax.png\nr2.csv" and tools.read("r2.csv") == "suite,r2\nA,0.9\n"
    assert tools.read("r2_kmax.png").to_image_content().mime_type == "image/png"
    for name in ("../secret.csv", "secret.csv", "linked.csv", "/etc/passwd", str(outside)):
        with pytest.raises(ValueError, match=r"expected one of r2_kmax.png, r2.csv, got"):
            tools.read(name)


def test_a_command_that_fails_gives_its_reason(folder):
    paths.PARAMS.write_text("profile: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^plan: params.yaml: "):
        mcp.Tools().plan()
    with pytest.raises(ValueError, match="expected tier 0 or 1, got 3"):
        mcp.Tools().verify(3)
