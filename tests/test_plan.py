from types import SimpleNamespace

from camelsight.commands import plan
from camelsight.pipeline import paths, source
from conftest import refused


class Dependency(SimpleNamespace):
    def __str__(self):
        return self.name


def stage(name, *entries, deps=(), outs=(), locked=True):
    """As much of a stage of DVC as the plan asks for."""
    known = Dependency(name="code/a.py", hash_info="md5")
    deps = [known, *deps] if locked else []
    return SimpleNamespace(
        name=name, addressing=name, deps=deps, outs=outs, cmd="run", status=lambda: {name: list(entries)}
    )


def test_a_changed_parameter_is_named_with_its_values():
    params = Dependency(
        name="params.yaml",
        hash_info=SimpleNamespace(value={"train": {"epochs": 20, "batch": 32}, "seed": 1}),
        read_params=lambda: {"train": {"epochs": 10, "batch": 32}, "seed": 1},
    )
    changed = {"changed deps": {"params.yaml": {"train": "modified"}}}
    assert plan._reasons(stage("train", changed, deps=[params]), []) == [
        {"kind": "parameter", "name": "train.epochs", "change": "20 -> 10"}
    ]


def test_what_is_made_upstream_is_no_cause_of_its_own():
    upstream = stage("evaluate@A-x", outs=["results/evaluate/A/x.json"])
    changed = {"changed deps": {"results/evaluate": "deleted", "results/universe.json": "deleted"}}
    reasons = plan._reasons(stage("tabulate", changed), [upstream])
    assert [(reason["kind"], reason["name"], reason["change"]) for reason in reasons] == [
        ("upstream", "evaluate@A-x", "runs before"),
        ("file", "results/universe.json", "missing"),
    ]


def test_missing_outputs_are_a_cause_where_there_is_no_other():
    missing = {"changed outs": {"results/a.json": "not in cache"}}
    assert plan._reasons(stage("a", missing), [])[0] == {
        "kind": "output",
        "name": "results/a.json",
        "change": "missing",
    }
    changed = {"changed deps": {"code/a.py": "modified"}}
    assert [reason["kind"] for reason in plan._reasons(stage("a", changed, missing), [])] == ["file"]
    assert plan._reasons(stage("a", "changed command"), [])[0]["kind"] == "command"
    assert plan._reasons(stage("a", changed, locked=False), [])[0]["change"] == "never run"


def test_a_fresh_clone_has_no_run_and_not_dozens_of_modified_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    upstream = [stage("code"), stage("maps")]
    reasons = plan._reasons(stage("cut@A-x", {"changed outs": {"results/a.json": "not in cache"}}), upstream)
    assert [(reason["kind"], reason["change"]) for reason in reasons] == [
        ("upstream", "runs before"),
        ("stage", "no run is on record here"),
    ]
    paths.code("cut").parent.mkdir(parents=True)
    paths.code("cut").write_text(source.listing("cut").replace("cuts.py", "other.py"))
    assert {reason["name"] for reason in plan._reasons(stage("cut@A-x"), upstream[:1])} == {
        "maps/cuts.py",
        "maps/other.py",
    }


def test_stages_that_run_for_the_same_reasons_share_a_line():
    def why(key):
        return [
            {"kind": "upstream", "name": f"cut@{key}", "change": "runs before"},
            *({"kind": "file", "name": f"r/{key.replace('-', '/')}/{i}", "change": "missing"} for i in range(5)),
        ]

    stages = [{"stage": f"tune@{key}", "seconds": 60, "why": why(key)} for key in ("A-x", "B-max_1e12_clamp")]
    lines = plan.text({"profile": "mini", "jobs": 2, "seconds": 60, "stages": stages}).splitlines()
    assert lines[1] == (
        "  2 × tune, 2 min: after cut; r/SUITE/CASE/0 missing; r/SUITE/CASE/1 missing; r/SUITE/CASE/2 missing; "
        "and 2 more (JSON=1 lists them)"
    )
    assert lines[2] == "Roughly 60 s in all. Nothing was run."
    assert "up to date" in plan.text({"profile": "mini", "jobs": 2, "seconds": 0, "stages": []})


def test_another_profile_is_planned_without_touching_the_active_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    (tmp_path / "profiles").mkdir()
    paths.PARAMS.write_text("mine")
    paths.Path("profiles/other.yaml").write_text("other")
    with plan._in_place_of_params("other", full=False):
        assert paths.PARAMS.read_text() == "other" and paths.Path.cwd() != tmp_path
    assert paths.PARAMS.read_text() == "mine" and paths.Path.cwd() == tmp_path
    assert "DVC_SITE_CACHE_DIR" not in plan.os.environ
    with refused("expected a profile among other"), plan._in_place_of_params("none", full=False):
        pass
