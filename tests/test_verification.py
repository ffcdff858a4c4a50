import dataclasses
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from camelsight.analysis import networks
from camelsight.ground import theta
from camelsight.pipeline import cli, environment, paths, source, store
from camelsight.pipeline import params as parameters_file
from camelsight.referee import anew, comparison, evidence, locked, page, quantities, verification, verify
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, WARN
from camelsight.report import provenance

ROOT = Path(__file__).parent.parent
MANUSCRIPT = (ROOT / "paper" / "ms.tex").read_text()
EXPECTED = yaml.safe_load((ROOT / "paper" / "expected.yaml").read_text())
ROW = {
    "id": "rmse.A.original.omega_m", "value": 0.01, "class": "seed-statistical", "tolerance": "25%", "reason": "why",
    "profile": "camels", "tier": 3, "source": "paper",
}  # fmt: skip


def judged(measured, undecided=None, **changes):
    known = {ROW["id"]: measured} if measured is not None else {}
    (row,) = verification.published([ROW | changes], known, undecided or {})
    return row["verdict"]


def test_a_statistical_number_is_judged_by_equivalence():
    assert judged((0.011, 0.0105, 0.0115)) == PASS
    assert judged((0.011, 0.009, 0.014)) == WARN, "a wide interval that holds the value proves nothing"
    assert judged((0.02, 0.018, 0.022)) == judged((0.004, 0.003, 0.005)) == FAIL, "too good is not the same, either"
    assert judged(0.0124) == PASS and judged(0.0126) == FAIL
    assert judged(float("nan")) == FAIL


def test_exact_numbers_are_exact_and_statements_have_limits():
    assert judged(11, value=11, **{"class": "exact"}) == PASS and judged(12, value=11, **{"class": "exact"}) == FAIL
    assert judged(12, value=11, uncertain=True, **{"class": "exact"}) == WARN
    statement = {"class": "qualitative", "value": "more per pixel", "tolerance": {"above": 1}}
    assert judged((1.5, 1.2, 1.8), **statement) == PASS
    assert judged((1.5, 0.9, 1.8), **statement) == WARN
    assert judged((0.5, 0.4, 0.6), **statement) == FAIL


def test_what_was_not_run_or_not_found_or_simulated_is_never_passed(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert judged(None) == judged((0.01, 0.01, 0.01), value="not available") == NOT_RUN
    twin = comparison._undecided(parameters_file.load(ROOT / "profiles/mini.yaml"))
    (row,) = verification.published([ROW], {ROW["id"]: 0.01}, twin)
    assert row["verdict"] == NOT_RUN and row["holds"] is True and "a twin decides nothing about the real" in row["why"]
    assert judged(11, twin, value=11, profile="any", **{"class": "exact"}) == PASS


def test_each_kind_of_maps_decides_its_own_rows(monkeypatch):
    monkeypatch.chdir(ROOT)
    load = lambda name: parameters_file.load(ROOT / f"profiles/{name}.yaml")  # noqa: E731
    undecided = {name: set(comparison._undecided(load(name))) for name in ("camels", "twin", "mini")}
    assert undecided == {
        "camels": {"twin", "twin-maps"},
        "twin": {"camels", "camels-2023"},
        "mini": {"camels", "camels-2023", "twin"},
    }
    statement = {"class": "qualitative", "tolerance": {"above": 0.9}, "profile": "twin-maps"}
    assert judged(0.99, {"twin": "why"}, **statement) == PASS


def test_other_settings_than_the_papers_decide_nothing_of_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    camels = parameters_file.load(ROOT / "profiles/camels.yaml")
    change = lambda block, **more: dataclasses.replace(getattr(camels, block), **more)  # noqa: E731
    same = dataclasses.replace(camels, maps=change("maps", folder="elsewhere"), train=change("train", seed=7))
    other = dataclasses.replace(camels, seed=2, train=change("train", epochs=1))
    assert [comparison._differs(one, "camels") for one in (camels, same, other)] == ["", "", "seed, train"]
    why = comparison._undecided(other)["camels"]
    (row,) = verification.published([ROW], {ROW["id"]: 0.01}, {"camels": why})
    assert row["verdict"] == NOT_RUN and row["holds"] is True and row["why"].startswith("settings differ: seed, train")


def test_a_number_that_two_tiers_judge_counts_once_and_is_reproduced_if_both_say_so():
    rows = [verification.row("a", "paper", PASS), verification.row("a", "trained anew", WARN, profile="camels")]
    said = verification.conclusion(rows, real=True, profile="camels")
    assert said["text"].startswith("0 of the 1 published numbers")


def test_results_of_the_same_weights_differ_by_rounding_alone():
    values = {"r2": 0.9, "rmse": 0.05, "bias": 1e-9, "bias_slope": 1e-3, "chi2": 1.0, "coverage_68": 0.7}
    given = {name: [value, value - 0.1, value + 0.09] for name, value in values.items()}
    close = {name: [value * (1 + 1e-6) for value in values] for name, values in given.items()}
    assert evidence.differences(given, close, rounding=1e-4, rows=100) == []
    assert [line.split(":")[0] for line in evidence.differences(given, close, rounding=1e-9)] == [
        f"{name}{end}" for name in given for end in ("", " low", " high") if (name, end) != ("bias", "")
    ]
    for name in given:
        for place, end in enumerate(("", " low", " high")):
            other = given | {name: [value + 0.03 * (at == place) for at, value in enumerate(given[name])]}
            (line,) = evidence.differences(given, other, rounding=1e-4, rows=100)
            assert line.startswith(f"{name}{end}: ")
    nothing = {"r2": [float("nan")] * 3, "rmse": [0.1] * 3}
    assert evidence.differences(nothing, nothing, rounding=0.0) == []


def test_a_mean_over_cases_needs_all_of_them(clone):
    loaded = parameters_file.load()
    names = ("consistency.Nbody_IllustrisTNG.all.omega_m", "r2.x")
    files = [paths.predictions(suite, case) for suite in loaded.suites for case in loaded.cases]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(comparison.whole(loaded, dict.fromkeys(names, 0.0))) == list(names)
    files[-1].unlink()
    assert list(comparison.whole(loaded, dict.fromkeys(names, 0.0))) == ["r2.x"]


def test_an_old_verdict_does_not_outlive_an_attempt_that_broke_off(clone, monkeypatch):
    for path in (paths.VERDICT, paths.PAGE):
        store.write_text(path, "PASS")

    def broken(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr(verify, "judge", broken)
    monkeypatch.setattr(environment, "ROOT", Path.cwd())
    with pytest.raises(RuntimeError):
        verify.verify(0)
    assert not paths.VERDICT.exists() and not paths.PAGE.exists()


@pytest.mark.parametrize("then", [{}, {"dirty": True}, {"cpu": "another"}, {"commit": "unknown"}, {"engine": "torch"}])
def test_the_same_machine_and_commit_must_give_the_same_bits(tmp_path, monkeypatch, then):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "engine", lambda device: "compiled")
    here = environment.read() | {"commit": "abc", "dirty": False}
    here |= {"commit": "unknown"} if "commit" in then else {}
    monkeypatch.setattr(environment, "read", lambda: here)
    monkeypatch.setattr(cli, "device", lambda: torch.device("cpu"))
    place = ("IllustrisTNG", "original")
    for folder, value in ((Path(), 0.0), (Path("again"), 1.0)):
        store.write_bytes(folder / paths.weights(*place), safetensors.torch.save({"a": torch.tensor([value])}))
    store.write_json(paths.history(*place), {"engine": then.get("engine", "compiled")})
    store.write_json(paths.record(*place), here | then)
    (row,) = anew._bits(Path("again"), [place], 2)
    assert row["verdict"] == (NOT_RUN if then else FAIL)


def test_an_archive_is_not_made_anew_and_a_stage_is_that_of_dvc_yaml(clone):
    with pytest.raises(ValueError, match="expected TIER of at most 2 with PACK, got 3"):
        verify.verify(3, pack="some.tar")
    stages = dict(locked._expanded())
    train = stages["train@IllustrisTNG-original"]
    assert train["cmd"] == "code/stage train --suite IllustrisTNG --case original"
    assert "results/hyperparameters/IllustrisTNG/original.json" in train["deps"]
    assert not any("$" in path for path in train["deps"])


def conclude(*rows, real=False):
    made = [verification.row(f"row{n}", group, verdict) for n, (group, verdict) in enumerate(rows)]
    return verification.conclusion(made, real=real, profile="mini")


def test_a_twin_can_only_reproduce_its_own_reference():
    said = conclude(("integrity", PASS), ("reference", PASS), ("paper", NOT_RUN))
    assert said["verdict"] == PASS and said["exit_code"] == 0
    assert said["text"].startswith("the pipeline reproduces its own reference")
    assert said["text"].endswith("only the real maps can decide the paper's numbers")
    assert "1 of 2 statements hold" in conclude(("twin", PASS), ("twin", WARN), ("twin", NOT_RUN))["text"]
    assert "reproduces" not in conclude(("integrity", PASS))["text"]
    assert "1 of the 2 published numbers" in conclude(("paper", PASS), ("paper", WARN), real=True)["text"]


def test_exit_codes_are_those_documented():
    assert conclude(("integrity", NOT_RUN), ("paper", NOT_RUN))["exit_code"] == 2
    failed = conclude(("integrity", PASS), ("reference", FAIL))
    assert failed["exit_code"] == 1 and "row1" in failed["text"]
    code_alone = [verification.row("n_weights", "definitions", PASS)]
    assert verification.conclusion(code_alone, real=False, profile="mini")["exit_code"] == 2


def test_what_was_not_checked_of_a_run_is_at_best_a_warning():
    rows = [verification.row(name, "integrity", verdict) for name, verdict in (("a", PASS), ("b", NOT_RUN))]
    said = verification.conclusion(rows, real=False, profile="mini")
    assert (said["verdict"], said["exit_code"]) == (WARN, 0) and "Not checked: b." in said["text"]
    assert verification.conclusion(rows, real=False, profile="mini", elsewhere=True)["verdict"] == PASS


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A checkout in which nothing was made."""
    for name in ("benchmarks", "code", "profiles", "dvc.yaml", "dvc.lock", "requirements.lock", "params.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in (*paths.TEXTS, paths.EXPECTED):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).symlink_to(ROOT / path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_run_there_is_nothing_to_judge(clone):
    verdict = verify.judge()
    assert verdict["conclusion"]["exit_code"] == 2 and verdict["conclusion"]["verdict"] == NOT_RUN


def test_every_known_number_is_whole_and_none_is_missing():
    verification.check_expected(EXPECTED)
    assert verification.required() <= {row["id"] for row in EXPECTED}
    table = [row for row in EXPECTED if row["id"].startswith("r2_table.")]
    assert len(table) == 94 and {row["value"] for row in table} == {"not available"}, "nobody has found the table"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason": None}, "expected reason in rmse.A.original.omega_m"),
        ({"class": "guess"}, "expected a class among exact"),
        ({"tolerance": "small"}, "expected a tolerance such as 0.01 or 20%"),
        ({"tolerance": "1e400%"}, "expected a tolerance such as 0.01 or 20%, got '1e400%'"),
        ({"class": ["exact"]}, r"expected a class among exact, .*, got \['exact'\]"),
        (
            {"profile": "camel"},
            "expected a profile among any, camels, camels-2023, twin, twin-maps, got 'camel' in rmse",
        ),
        ({"tier": 7}, "expected a tier among 0, 1, 2, 3, got 7"),
        ({"value": "nine"}, "expected a number or not available, got 'nine'"),
        ({"value": 10**400}, "expected a number or not available, got 1000"),
        ({"class": "qualitative"}, "expected above or below and a number, got '25%'"),
        (
            {"class": "qualitative", "tolerance": {"over": 1}},
            r"expected above or below and a number, got \{'over': 1\}",
        ),
        ({"id": "a\x1b[2J"}, "expected plain text as id in row 1"),
        ({"uncertian": True}, "expected id, value, .* or uncertain in rmse.*, got the key 'uncertian'"),
        ({"id": ["a"]}, "expected plain text as id in row 1"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(change, message):
    """A profile with a typing error was judged on any maps; other values ended in tracebacks when they were judged."""
    with pytest.raises(ValueError, match=message):
        verification.check_expected([ROW | change])
    with pytest.raises(ValueError, match="once"):
        verification.check_expected([ROW, ROW])
    for rows in ("rows", {"id": 1}, [ROW, "row"], [None]):
        with pytest.raises(ValueError, match=r"expected a list of rows|in row \d of expected.yaml, got"):
            verification.check_expected(rows)


def test_the_code_alone_has_what_is_published_of_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = verification.published(EXPECTED, quantities.code_facts(), {})
    decided = [row for row in rows if row["group"] == "definitions"]
    assert len(decided) > 80 and {row["id"]: row["why"] for row in decided if row["verdict"] != PASS} == {}


def test_the_records_of_experiments_give_what_the_companion_published(tmp_path, monkeypatch):
    """Every published number of an experiment for the suites that were run, with its interval."""
    params, triples = parameters_file.load(ROOT / "profiles" / "mini.yaml"), {}
    monkeypatch.chdir(tmp_path)
    assert not quantities.measured(params)
    for metric in ("r2", "relative_error", "bias"):
        triples[metric] = {name: [0.5, 0.25, 0.75] for name in theta.NAMES}
    suites = (*params.suites, "SIMBA")
    rows = {
        "suites": [{"train": a, "test": b, "metrics": triples} for a in suites for b in suites],
        "smoothing": [{"width": width, "metrics": triples} for width in (0.0, *params.robustness.smoothing)],
        "probes": [{"probe": probe, "metrics": triples} for probe in ("none", *quantities.PROBES)],
    }
    for name, some in rows.items():
        store.write_json(paths.experiment("transfer", name), {"rows": some})
    store.write_json(paths.experiment("baseline", "network"), {"metrics": triples})
    found = quantities.measured(params)
    kinds = "r2_transfer", "relative_error_transfer", "r2_probe", "relative_error_smoothed", "relative_error_baseline"
    wanted = [row["id"] for row in EXPECTED if row["id"].startswith(kinds)]
    assert len(wanted) >= 24 and not [name for name in wanted if name not in found]
    assert set(found.values()) == {(0.5, 0.25, 0.75)}
    assert "r2_transfer.SIMBA.IllustrisTNG.A_SN1" not in found and "r2_transfer.SIMBA.SIMBA.A_SN1" in found
    assert "relative_error_smoothed.IllustrisTNG.smooth_0.omega_m" not in found


def test_no_result_is_typed_into_the_manuscript():
    assert not [(path, *found) for path in paths.TEXTS for found in verification.lint((ROOT / path).read_text())]


@pytest.mark.parametrize(
    ("macro", "typed"),
    [
        (r"$R^2=\val{\OrigOmegaM}$", "$R^2=0.953$"),
        (r"\val{\TightOmegaM}", "0.41"),
        (r"\UnderdenseArea\%", r"71\%"),
        (r"\VoidShareOmegaM\%", r"8\%"),
        (r"\NTestSims\ test simulations", "20 test simulations"),
        (r"\val{\SuppressionTNG}", "12"),
    ],
)
def test_a_typed_number_is_refused_with_its_line(macro, typed):
    at = MANUSCRIPT.index(macro)
    line = MANUSCRIPT[:at].count("\n") + 1
    source = MANUSCRIPT[:at] + typed + MANUSCRIPT[at + len(macro) :]
    ((found, number, advice),) = verification.lint(source, {"OrigOmegaM": "0.953"})
    assert found == line and number.startswith(re.search(r"[\d.]+", typed.removeprefix("$R^2"))[0])
    assert advice == r"write \OrigOmegaM" if "0.953" in typed else "macro of results/numbers.tex" in advice


def test_a_published_number_may_be_typed_where_it_says_so():
    assert not verification.lint(r"\begin{document} they found \published{3.4\%} \end{document}")
    assert verification.lint(r"\begin{document} they found 3.4\% \end{document}")


def test_every_figure_and_table_says_which_stage_made_it():
    text = "".join((ROOT / path).read_text() for path in paths.TEXTS)
    labels = set(re.findall(r"\\(?:widefigure|made)\{(\w+)\}", text))
    tables = re.findall(r"\\begin\{table\*?\}.*?\\label\{(\w+)\}.*?\\end\{table\*?\}", text, re.DOTALL)
    assert set(tables) <= labels, "add \\made{label} to the caption of each table"
    assert labels <= set(provenance.MADE_BY), "add the label and its stage to provenance.MADE_BY"


def test_the_page_is_one_file_without_a_network_and_escapes_what_it_shows():
    row = verification.row("r2.A", "reference", FAIL, "expected <0.9>", got=0.5, low=0.8, high=1.0)
    run = {
        "profile": "mini", "maps": "twin", "figures": {"r2": "AAAA"}, "made_by": provenance.MADE_BY,
        "timings": [{"stage": "train", "seconds": 2.0}], "parameters": "seed: <1>", "files": {"PDF": "../paper/ms.pdf"},
        "environment": {"commit": "abc", "dirty": True, "cpu": "x", "hardware": "y", "versions": {"torch": "2"}},
        "r2": [{"suite": "<A>", "case": "original", "parameter": "omega_m", "r2": ".9512", "low": ".9", "high": ".97"}],
    }  # fmt: skip
    verdict = {
        "profile": "mini", "maps": "twin", "tier": 0, "rows": [row], "error_rates": None, "seconds": {"T0": 1.0},
        "conclusion": verification.conclusion([row], real=False, profile="mini"),
    }  # fmt: skip
    run["stages"] = stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    judged, unjudged = page.html(run, verdict), page.html(run)
    for text in (judged, unjudged):
        assert "data:image/png;base64,AAAA" in text and "0.95 [0.90, 0.97]" in text and "&lt;A&gt;" in text
        assert not re.findall(r"(?:src|href)=\"(?!data:|\.\./paper)|https?://|@import|<script|<link|<A>|<1>", text)
    assert "&lt;0.9&gt;" in judged and "<0.9>" not in judged and page.UNJUDGED not in judged
    assert page.UNJUDGED in unjudged and "Verdict" not in unjudged
    assert "<b>bad</b>" not in page.html(run | {"r2": [run["r2"][0] | {"r2": "<b>bad</b>"}]})
    links = page.edges(stages)
    assert {("maps", "cut"), ("train", "evaluate"), ("baseline", "tabulate"), ("figures", "paper")} <= links
    assert ("maps", "train") not in links, "cut implies it"


def test_a_reference_goes_on_after_a_change_that_no_network_depends_on():
    files = {str(path) for stage in (*anew.SEARCH, *anew.AGAIN[2]) for path in source.files(stage)}
    assert {"inference/fused.cpp", "stages/tune.py"} <= files
    assert not any("plotting" in one or "reference" in one for one in files)


@pytest.mark.parametrize("cut", [300, 20001, "text", "[1, 2]", "- id: a", ""])
def test_a_damaged_file_of_published_numbers_is_one_line(tmp_path, monkeypatch, cut):
    whole = (ROOT / paths.EXPECTED).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    store.write_text(paths.EXPECTED, whole[:cut] if isinstance(cut, int) else cut)
    with pytest.raises(ValueError, match=r"expected\.yaml") as error:
        comparison.statements()
    assert "\n" not in store.one_line(error.value) and len(store.one_line(error.value)) < 400


def test_what_only_follows_from_a_failure_names_it_and_the_first_cause_counts_them():
    """One changed pixel failed 42 rows."""

    def one(name, verdict=FAIL, accuses=(), stands_on=()):
        more = {"accuses": [Path(path) for path in accuses], "stands_on": [Path(path) for path in stands_on]}
        return verification.row(name, "integrity", verdict, f"{name} is wrong", **more)

    rows = verification.causes(
        [
            one("data", accuses=["maps/one.npy"]),
            one("statistics", accuses=["universe.json"], stands_on=["maps/one.npy"]),
            one("whole", PASS, accuses=["r2.csv"]),
            one("weights", accuses=["runs/a.safetensors"]),
            one("train", accuses=["maps", "runs/a.safetensors"]),
            one("table", accuses=["r2.csv"]),
            one("figures", accuses=["universe.json"]),  # what a row that only follows accuses is no cause
            one("mixed", accuses=["maps", "other.json"]),  # one of its files has no cause yet
            one("nobody"),
        ]
    )
    assert {row["id"]: row["cause"] for row in rows if row["cause"]} == {"statistics": "data", "train": "data"}
    verdicts = {"statistics": NOT_RUN, "train": NOT_RUN, "whole": PASS}
    assert all(row["verdict"] == verdicts.get(row["id"], FAIL) for row in rows)
    why = {row["id"]: row["why"] for row in rows}
    assert why["data"] == "data is wrong; 2 more rows only follow from it"
    assert why["train"] == "follows from data: train is wrong"
    assert why["weights"] == "weights is wrong" and not {"accuses", "stands_on"} & set().union(*rows)
