"""What the referee says of a finished run, of one that was tampered with, and of networks trained anew."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from camelsight.analysis import prediction
from camelsight.ground import cmd
from camelsight.pipeline import environment, params, paths, rerun, store, text_tables
from camelsight.referee import anew, evidence, explain, locked, verification, verify
from camelsight.stages import paper
from smoke import CHAIN

TNG, GRAVITY = "IllustrisTNG", "Nbody_IllustrisTNG"
METRICS, ATTRIBUTION = paths.metrics(TNG, "kmax_1"), paths.attribution_statistics(TNG, "original")
PREDICTIONS, PREDICTIONS_TEXT = paths.predictions(TNG, "kmax_1"), paths.predictions_text(TNG, "kmax_1")


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


def without_line(path, holding):
    edit(path, lambda text: "".join(line for line in text.splitlines(keepends=True) if holding not in line))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def forge(path, *keys, by=1.001):
    """Make the number at these keys of a record larger by a factor."""
    inner = record = store.read_json(path)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] *= by
    store.write_json(path, record)


def forge_maps(change):
    """Put other maps in the place of these, in a file of its own: the one that is there may be a link."""
    path = paths.maps(TNG, "Mtot")
    maps = change(np.load(path))
    path.unlink()
    np.save(path, maps)


def brighter(maps):
    maps[3 * cmd.MAPS_PER_SIMULATION + 4, 5, 6] *= 1.001
    return maps


def forge_weights():
    path = paths.weights(GRAVITY, "original")
    tensors = safetensors.torch.load_file(path)
    tensors["C11.weight"][0, 0, 0, 0] += 1e-6
    store.write_bytes(path, safetensors.torch.save(tensors))


CANARIES = {
    "result": lambda: forge(METRICS, "metrics", "r2", "omega_m", 0),
    "error": lambda: forge(METRICS, "metrics", "rmse", "sigma_8", 0),
    "result gone": paths.metrics(TNG, "max_1e12_random").unlink,
    "weights": forge_weights,
    "weights cut short": lambda: cut_short(paths.weights(GRAVITY, "original")),
    "archive": lambda: cut_short(PREDICTIONS),
    "shape": lambda: forge_maps(lambda maps: maps[:-1]),
    "pixel": lambda: forge_maps(brighter),
    "PDF": lambda: paths.PDF.write_bytes(b"%PDF-1.5"),
    "digit": lambda: edit(paths.TABLES / "r2.tex", lambda text: text.replace("^{+", "1^{+", 1)),
    "macro": lambda: edit(paths.NUMBERS, lambda text: re.sub(r"(PerPixelRatioOmegaM\}\{)", r"\g<1>1", text)),
    "typed": lambda: edit(Path("paper/ms.tex"), lambda text: text.replace(r"\val{\TightOmegaM}", "0.314", 1)),
    "row": lambda: without_line(paths.TABLES / "r2.csv", "Nbody_IllustrisTNG,kmax_1,sigma_8"),
    "expected": lambda: without_line(paths.EXPECTED, "r2_table.Nbody_IllustrisTNG.kmax_20.sigma_8}"),
}


@pytest.mark.parametrize(
    ("canary", "name", "why"),
    [
        ("result", "r2.IllustrisTNG.kmax_1.omega_m", "the predictions give"),
        ("error", "r2.IllustrisTNG.kmax_1.sigma_8", "the predictions give rmse"),
        ("result gone", "r2.IllustrisTNG.max_1e12_random.omega_m", "max_1e12_random.json is missing"),
        ("weights", "weights.Nbody_IllustrisTNG.original", "are not those evaluated"),
        ("weights cut short", "weights.Nbody_IllustrisTNG.original", "original/weights.safetensors cannot be read"),
        ("archive", "file.evaluate/IllustrisTNG/kmax_1.npz", "BadZipFile"),
        ("shape", "data.IllustrisTNG", "Maps_Mtot_IllustrisTNG"),
        ("pixel", "data.IllustrisTNG", "simulation 418 of data/maps"),
        ("PDF", "stage.paper", "paper/ms.pdf"),
        ("digit", "file.tables/r2.tex", "results/tables/r2.tex: line 5, 'IllustrisTNG & original"),
        ("macro", "file.numbers.tex", "PerPixelRatioOmegaM"),
        ("typed", "lint.ms.tex", "0.314 is typed by hand"),
        ("row", "r2.Nbody_IllustrisTNG.kmax_1.sigma_8", "r2.csv has no such row"),
        ("expected", "expected.r2_table.Nbody_IllustrisTNG.kmax_20.sigma_8", "has no such row"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # NumPy leaves a broken archive open
def test_every_canary_turns_the_verdict_and_names_its_row(run, monkeypatch, canary, name, why):
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    CANARIES[canary]()
    verdict = verify.judge()
    assert verdict["conclusion"]["exit_code"] == 1
    failed = {row["id"]: row["why"] for row in verdict["rows"] if row["verdict"] == "FAIL"}
    assert why in failed.get(name, ""), failed


def forge_predictions(place, change):
    """Predictions and their text, which agree with one another; returns what was written."""
    arrays = store.read_arrays(paths.predictions(*place))
    change(arrays)
    store.write_arrays(paths.predictions(*place), **arrays)
    columns = (arrays[key] for key in ("truth", "mean", "sigma"))
    text_tables.write_predictions(paths.predictions_text(*place), *columns)
    return arrays


def forge_truth():
    forge_predictions((TNG, "kmax_1"), lambda arrays: arrays["truth"].__setitem__((0, 0), 1.01 * arrays["truth"][0, 0]))


def forge_skill():
    """R² of .97 in predictions, their text and their measures, which agree with one another."""
    place, noise = (TNG, "original"), np.random.default_rng(0)

    def better(arrays):
        truth = arrays["truth"]
        arrays["mean"] = truth + noise.normal(size=truth.shape) * truth.std(0) * 0.17

    loaded, record = params.load(), store.read_json(paths.metrics(*place))
    arrays = forge_predictions(place, better)
    measured = prediction.measure(arrays, prediction.bootstrap(loaded, *place), loaded)
    store.write_json(paths.metrics(*place), record | {"metrics": measured})


def forge_sanity():
    record = store.read_json(paths.sanity(TNG))
    record["cascade"] = json.loads(re.sub(r"\d\.\d+", "0.5", json.dumps(record["cascade"]), count=1))
    store.write_json(paths.sanity(TNG), record)


def forge_outs():
    """One output less in the lock, changed."""
    edit(PREDICTIONS_TEXT, lambda text: text.replace("e", "E", 1))
    lock = store.parse_yaml(paths.DVC_LOCK.read_bytes())
    entry = lock["stages"]["evaluate@IllustrisTNG-kmax_1"]
    entry["outs"] = [one for one in entry["outs"] if not one["path"].endswith(".txt")]
    store.write_text(paths.DVC_LOCK, json.dumps(lock))


def lock_again():
    """Write the digests that a forger would: of what is there now."""
    lock = store.parse_yaml(paths.DVC_LOCK.read_bytes())
    for entry in lock["stages"].values():
        for one in [*entry.get("outs", []), *entry.get("deps", [])]:
            if Path(one["path"]).exists():
                one["md5"] = locked._md5(Path(one["path"]))
    store.write_text(paths.DVC_LOCK, json.dumps(lock))


FORGERIES = {
    "interval": lambda: forge(METRICS, "metrics", "r2", "omega_m", 1),
    "text": lambda: edit(PREDICTIONS_TEXT, lambda text: "1" + text[1:]),
    "truth": forge_truth,
    "pixels": lambda: forge(paths.UNIVERSE, "statistics", TNG, "Mtot", "mean"),
    "pipeline": lambda: edit(paths.DVC, lambda text: text[: text.index("\n  attribute:")] + "\n"),
    "lock": lambda: store.write_text(paths.DVC_LOCK, "schema: '2.0'\nstages: {}\n"),
    "outs": forge_outs,
    "predictions": forge_skill,
    "attribution": lambda: forge(ATTRIBUTION, "statistics", "omega_m", "integrated_gradients", "ratio", 0, by=1.1),
}


@pytest.mark.parametrize(
    ("forgery", "tier", "name", "why"),
    [
        ("interval", 0, "r2.IllustrisTNG.kmax_1.omega_m", "the predictions give r2 low"),
        ("text", 0, "predictions.IllustrisTNG.kmax_1", "kmax_1.txt is not what kmax_1.npz holds: line 1"),
        ("truth", 0, "predictions.IllustrisTNG.kmax_1", "not those of the test maps of IllustrisTNG: truth"),
        ("pixels", 0, "statistics.IllustrisTNG", "mean of the maps"),
        ("pipeline", 0, "stage.attribute@IllustrisTNG-original", "dvc.yaml has no such stage"),
        ("lock", 0, "stage.train@IllustrisTNG-original", "is there, but dvc.lock has no run that made it"),
        ("outs", 0, "stage.evaluate@IllustrisTNG-kmax_1", "kmax_1.txt, which dvc.lock leaves out"),
        ("predictions", 1, "r2.IllustrisTNG.original.omega_m", "the given weights, on the same maps"),
        ("attribution", 1, "file.attribute/IllustrisTNG/original.json", "integrated_gradients.ratio: expected"),
    ],
)
def test_a_forgery_whose_digests_were_made_anew_is_noticed(run, monkeypatch, forgery, tier, name, why):
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
    monkeypatch.setattr(rerun, "everywhere", in_this_process)
    FORGERIES[forgery]()
    if forgery not in ("pipeline", "lock", "outs"):
        rerun.here(run, params.load(), "tabulate")
    if forgery not in ("lock", "outs"):
        lock_again()
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
    lock_again()
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
    forge_sanity()
    rerun.here(run, params.load(), "tabulate")
    lock_again()
    verdict = verify.judge()
    rows = {row["id"]: row for row in verdict["rows"] if row["group"] == verification.BEYOND}
    assert list(rows) == [name for name, _, _ in verification.TRUSTED] and verdict["conclusion"]["exit_code"] == 0
    assert {row["verdict"] for row in rows.values()} == {"NOT RUN"} and rows["sanity"]["tier"] == 3
    assert "a forger could still have invented predictions" in verdict["conclusion"]["trust"]


def test_the_highest_tier_compares_everything_that_came_out_with_what_was_given(run, project, monkeypatch):
    forge_sanity()
    forge(paths.UNIVERSE, "gravity", "power", 0, 0, by=2)
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
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
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
    monkeypatch.setattr(evidence, "REMADE", ("tabulate",))
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
