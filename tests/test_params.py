import dataclasses
import json
import re
from pathlib import Path

import dvc.utils.serialize
import pytest
import yaml

from camelsight.commands import everything
from camelsight.ground import cases
from camelsight.pipeline import params, paths
from camelsight.report import costs
from conftest import refused

PROFILES = sorted((Path(__file__).parent.parent / "profiles").glob("*.yaml"))
MINI = yaml.safe_load((PROFILES[0].parent / "mini.yaml").read_text())
OF_TOTAL_MATTER = params.EXPERIMENTS | {
    "transfer": tuple(name for name in params.EXPERIMENTS["transfer"] if name != "fields")
}


def load(tmp_path, **changes):
    """Params of the mini profile with ``changes`` such as ``train__epochs=3``."""
    raw = yaml.safe_load(yaml.safe_dump(MINI))
    for key, value in changes.items():
        *parents, last = key.split("__")
        block = raw
        for parent in parents:
            block = block[parent]
        block[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(raw))
    return params.load(path)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_profile_loads_under_its_own_name(path):
    assert params.load(path).profile == path.stem


def test_numbers_in_quotes_are_numbers(tmp_path):
    assert load(tmp_path, tune__max_lr=["1e-3", "2e-2"]).tune.max_lr == (1e-3, 2e-2)
    assert load(tmp_path, train__epochs="3").train.epochs == 3
    assert load(tmp_path, seed=2**60 + 1).seed == 2**60 + 1
    assert isinstance(load(tmp_path, split__fractions=[0.5, 0.25, 0.25]).split.fractions[0], float)


def test_params_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.load(PROFILES[0]).seed = 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train__epoch": 3}, "unknown key train.epoch; did you mean train.epochs?"),
        ({"train__epochs": "many"}, "train.epochs: expected an integer, got 'many'"),
        ({"train__epochs": 2.5}, "train.epochs: expected an integer, got 2.5"),
        ({"train__epochs": True}, "train.epochs: expected an integer, got True"),
        ({"train__epochs": 0}, "train.epochs: expected at least 1, got 0"),
        ({"train__epochs": None}, "train.epochs: expected an integer, got None"),
        ({"train": 3}, "train: expected a mapping of keys to values, got 3"),
        ({"maps__pixels": 100}, "maps.pixels: expected a power of two from 16 to 512, got 100"),
        ({"maps__folder": "data/maps/CMD"}, "maps.folder: expected a folder outside data/maps, which a run empties"),
        ({"maps__bases": ["users.example.org"]}, "maps.bases: expected URLs, got 'users.example.org'"),
        ({"maps__mesh": 32}, "maps.mesh: expected at least maps.particles = 64, got 32"),
        ({"tune__max_lr": [1e-2, 1e-3]}, "tune.max_lr: expected two positive numbers, the lower first"),
        ({"tune__max_lr": [1e-3]}, "tune.max_lr: expected 2 values"),
        ({"tune__start__original__dropout": 1.5}, "hyperparameters.dropout: expected from 0 to below 1, got 1.5"),
        (
            {"profile": "x/../../name"},
            "profile: expected a name of at most 64 letters, digits, _ and -, got 'x/../../name'",
        ),
        ({"profile": ".."}, "profile: expected a name of at most 64 letters, digits, _ and -, got '..'"),
        ({"profile": ""}, "profile: expected a name of at most 64 letters, digits, _ and -, got ''"),
        ({"profile": "mini\n"}, r"profile: expected a name of at most 64 letters, digits, _ and -, got 'mini\n'"),
        ({"profile": "a" * 65}, "profile: expected a name of at most 64 letters, digits, _ and -, got 'aaa"),
        ({"maps__folder": ""}, "maps.folder: expected a folder, got ''"),
        ({"maps__folder": "a\0b"}, r"maps.folder: expected a folder, got 'a\x00b'"),
        ({"checkpoint": 10**400}, "checkpoint: expected a number, got 1000"),
        ({"train__epochs": "9" * 10**5}, "train.epochs: expected an integer, got '9999"),
        ({"cases": ["original", "max_2e11_clamp", "kmax_" + "1" * 300]}, "expected a case of at most 80 characters"),
        ({"robustness__cuts": ["kmax_" + "1" * 300]}, "expected a case of at most 80 characters, got one of 305"),
        ({"robustness__smoothing": [1.0000001]}, "robustness.smoothing: expected at most six digits, got 1.0000001"),
        ({"tune__start__" + "k" * 300: 3}, "tune.start.kkkk"),
        ({"tune__start__original__hidden": 65}, "hyperparameters.hidden: expected an integer from 1 to 64, got 65"),
        ({"tune__hidden": [4, 65]}, "tune.hidden: expected numbers up to 64, got [4, 65]"),
        ({"split__fractions": [0.9, 0.2, 0.1]}, "split.fractions: expected three positive numbers that add up to 1"),
        ({"train__precision": "float16"}, "train.precision: expected auto, float32 or bfloat16, got 'float16'"),
        ({"suites": ["TNG"]}, "expected a suite among"),
        ({"suites": "IllustrisTNG"}, "suites: expected a list, got 'IllustrisTNG'"),
        ({"cases": ["original", "kmax_x"]}, "got 'kmax_x'"),
        ({"cases": ["kmax_1"]}, "cases: expected original among them"),
        ({"cases": ["original", "original"]}, "cases: expected a list without repetition"),
        ({"cases": ["original", "kmax_5", "kmax_5.0"]}, "cases: expected cases that differ"),
        ({"tune__dropout": [0.0, 1.5]}, "tune.dropout: expected two numbers from 0 to below 1, the lower"),
        ({"tune__dropout": [-0.1, 0.5]}, "tune.dropout: expected two numbers from 0 to below 1"),
        ({"tune__start__original__hidden": 40}, "tune.start.original.hidden: expected a value within tune.hidden"),
        ({"tune__start": {}}, "tune.start: expected an entry original"),
        ({"tune__start__kmax": MINI["tune"]["start"]["original"]}, "got 'kmax'"),
        ({"tune__start": [1]}, "tune.start: expected a mapping, got [1]"),
        ({"attribute__cases": ["original", "kmax_7"]}, "attribute.cases: expected some of original, kmax_1"),
        ({"attribute__cases": ["kmax_1"]}, "original among them, got ['kmax_1']"),
        ({"attribute__parameters": ["omega_m"]}, "with omega_m and sigma_8 among them, got ['omega_m']"),
        ({"attribute__baseline": "black"}, "attribute.baseline: expected one of mean, blank, uniform, noise, shuffled"),
        ({"attribute__views": 8}, "attribute.views: expected 1 or mean8, got '8'"),
        ({"sanity__seeds": -1}, "sanity.seeds: expected at least 0, got -1"),
        ({"split__seed": -1}, "split.seed: expected from 0 to 2^32 - 1, got -1"),
        ({"seconds__trian": 1}, "unknown key seconds.trian; did you mean seconds.train?"),
        ({"maps__simulations": float("nan")}, "maps.simulations: expected an integer, got nan"),
        ({"maps__simulations": 1001}, "maps.simulations: expected at most the 1000 of CAMELS, got 1001"),
        ({"maps__particles": 63}, "maps.particles: expected an even number from 8, got 63"),
        ({"maps__source": "mock"}, "expected twin or camels; write twin where you had mock, which it replaces, got"),
    ],
)
def test_a_mistake_gets_one_line_with_the_key_and_what_came(tmp_path, change, message):
    with refused(r"params\.yaml") as caught:
        load(tmp_path, **change)
    assert message in str(caught.value)


BOMB = ", ".join(f"&{chr(98 + n)} [{', '.join(10 * ['*' + chr(97 + n)])}]" for n in range(9))


def test_a_missing_key_is_named():
    with refused("evaluate: expected a value"):
        params.parse(yaml.safe_dump({key: value for key, value in MINI.items() if key != "evaluate"}), "params.yaml")


@pytest.mark.parametrize("read", [lambda text: params.parse(text, "params.yaml"), everything.switched_on])
@pytest.mark.parametrize("text", ["", "[1, 2]", "seed: [1", "just words", "[" * 5000])
def test_a_file_that_is_no_mapping_gets_one_line(read, text):
    """make plan FULL=1 ended in a traceback of YAML."""
    with refused(r"params\.yaml"):
        read(text)


def test_a_case_starts_from_its_own_hyperparameters_or_those_of_the_uncut_maps(tmp_path):
    own = MINI["tune"]["start"]["original"] | {"dropout": 0.01}
    tune = load(tmp_path, tune__start__kmax_1=own).tune
    assert tune.start_of("kmax_1").dropout == 0.01 and tune.start_of("kmax_3") == tune.start["original"]


PUBLISHED_BEST = {  # max_lr, weight decay, dropout, hidden
    "original": (4.87835e-3, 2.44190e-4, 0.20897, 7),
    "kmax_1": (4.6934e-3, 1.4667e-5, 0.21625, 6),
    "kmax_5": (4.8964e-3, 4.8761e-5, 0.34956, 7),
    "kmax_10": (2.2935e-3, 2.1830e-6, 0.16278, 11),
    "kmax_20": (3.8674e-3, 1.2738e-3, 0.04305, 11),
    "kmax_30": (2.9060e-3, 1.4429e-2, 0.10639, 10),
    "kmax_40": (2.1602e-3, 3.6375e-5, 0.01097, 11),
    "kmax_50": (2.6805e-3, 2.0103e-5, 0.13817, 10),
}
KMAX, MAX = (1, 5, 10, 20, 30, 40, 50), ("5e10", "1e11", "2e11", "5e11", "1e12")
MIN = ("1e11", "2e11", "4e11", "6e11", "8e11", "1e12", "2e12")


def test_a_case_takes_its_own_search_or_its_own_start_or_the_uncut_search():
    tune = params.load(PROFILES[0].parent / "mini.yaml").tune
    own = dataclasses.replace(tune, cases=("original", "kmax_1"), start=tune.start | {"kmax_3": tune.start["original"]})
    found = [own.search_of(case) for case in ("original", "kmax_1", "kmax_3", "kmax_5")]
    assert found == ["original", "kmax_1", None, "original"]
    assert dataclasses.replace(own, cases=("kmax_1",)).search_of("kmax_5") is None


@pytest.mark.parametrize("name", ["camels", "twin", "mini"])
def test_every_profile_of_results_has_cuts_of_scales_and_of_densities_in_one_case(name):
    profile = params.load(PROFILES[0].parent / f"{name}.yaml")
    assert costs.together(profile.cases)


@pytest.mark.parametrize("path", PROFILES)
def test_rivals_are_set_beside_the_networks_under_every_k_max_of_a_profile(path):
    profile = params.load(path)
    alone = list(cases.single(profile.cases, "kmax"))
    assert list(profile.rivals.cuts) == alone


@pytest.mark.parametrize("name", ["camels", "twin"])
def test_profiles_at_paper_scale_hold_every_published_case_and_setting(name):
    profile = params.load(PROFILES[0].parent / f"{name}.yaml")
    published = {"original", *(f"kmax_{k}" for k in KMAX), *(f"max_{t}_random" for t in MAX)}
    published |= {f"max_{t}_clamp" for t in MAX} | {f"min_{t}_{fill}" for t in MIN for fill in ("clamp", "random")}
    ours = {"kmax_20__max_2e11_random"}  # both at once, thresholds of our own
    assert set(profile.cases) == published | ours and {"IllustrisTNG", "Nbody_IllustrisTNG"} <= set(profile.suites)
    assert (profile.maps.simulations, profile.maps.pixels) == (1000, 256)
    assert (profile.split.seed, profile.split.fractions) == (1, (0.9, 0.05, 0.05))
    assert (profile.train.epochs, profile.train.batch, profile.train.schedule) == (200, 128, "cyclic")
    assert profile.tune.trials == 0 and {f"kmax_{k}" for k in KMAX} < set(profile.tune.start)
    for case, values in PUBLISHED_BEST.items():
        assert profile.tune.start_of(case) == params.Hyperparameters(*values), case
    assert profile.tune.start_of("min_1e12_clamp") == params.Hyperparameters(*PUBLISHED_BEST["original"])
    ranges = ((1e-5, 5e-3), (1e-8, 1e-1), (0.0, 0.9), (6, 12))
    assert tuple(getattr(profile.tune, key) for key in ("max_lr", "weight_decay", "dropout", "hidden")) == ranges


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("robustness", {"smoothing": (1e-5,)}, "robustness.smoothing: expected a case"),
        ("robustness", {"smoothing": (1.0, 1.0)}, "robustness.smoothing: expected widths that differ"),
        ("robustness", {"cuts": ("kmax_1", "kmax_1.0")}, "robustness.cuts: expected cases that differ"),
        ("robustness", {"cuts": ("original",)}, "original not among them"),
        ("rivals", {"walkers": 8194}, "rivals.walkers: expected an even number from 24 to 8192"),
        ("rivals", {"cuts": ["kmax_1", "kmax_3__max_1e12_clamp"]}, "rivals.cuts: expected cases of one k_max"),
        ("rivals", {"cuts": ["original"]}, "rivals.cuts: expected cases of one k_max"),
        ("rivals", {"cuts": ["max_1e12_clamp"]}, "rivals.cuts: expected cases of one k_max"),
        ("rivals", {"cuts": ["kmax_1", "kmax_1"]}, "rivals.cuts: expected cases of one k_max"),
        ("rivals", {"cuts": ["kmax_1", "kmax_1.0"]}, "rivals.cuts: expected cases of one k_max"),
    ],
)
def test_experiments_that_cannot_be_run_are_refused(section, change, message):
    with refused(message):
        dataclasses.replace(getattr(params.load(PROFILES[0]), section), **change)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_everything_switches_all_experiments_on_and_changes_nothing_else(path, tmp_path):
    text = path.read_text()
    assert everything.switched_on(everything.switched_on(text)) == everything.switched_on(text) != text
    (tmp_path / "params.yaml").write_text(everything.switched_on(text))
    before, after = params.load(path), params.load(tmp_path / "params.yaml")
    assert not before.robustness.transfer and not before.robustness.baseline and not before.robustness.suites
    assert {stage: getattr(after.robustness, stage) for stage in params.EXPERIMENTS} == OF_TOTAL_MATTER
    assert "SIMBA" in after.suites + after.robustness.suites
    assert dataclasses.replace(after, robustness=before.robustness) == before


def parsed(value, key="seed", **changes):
    """Params of the mini profile with ``key: value`` as somebody typed it."""
    text = yaml.safe_dump({name: item for name, item in MINI.items() if name != key} | changes)
    return params.parse(f"{text}\n{key}: {value}\n", "params.yaml")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("012", 12), ("010", 10), ("1_000", 1000), ("0x1f", 31), ("0o12", 10), ("1e3", 1000), ("+1", 1), ("-0", 0)],
)
def test_a_number_means_what_dvc_records(typed, meant):
    """PyYAML took 012 for 10, which ran, while dvc.lock had 12."""
    assert parsed(typed).seed == meant == dvc.utils.serialize.parse_yaml(f"seed: {typed}", "params.yaml")["seed"]


@pytest.mark.parametrize(
    ("typed", "came"),
    [("1:30", "'1:30'"), ("on", "'on'"), ("yes", "'yes'"), ("true", "True"), (".5", "0.5"), ("1e-3", "0.001"),
     ("1e400", "inf"), ("1e30", "1e+30"), ("[1, 2, 3]", "[1, 2, 3]"), ("2026-11-27", "datetime.date")],
)  # fmt: skip
def test_what_is_no_integer_to_dvc_is_none_here(typed, came):
    """PyYAML took 1:30 for 90, and 1e30 ran as another number than it says."""
    with refused(re.escape(f"params.yaml: seed: expected an integer, got {came}")):
        parsed(typed)


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "params.yaml").write_bytes("seed: 1 # für".encode("latin-1"))
    with refused(r"params\.yaml: 'utf-8' codec can't decode byte 0xfc in position 11"):
        params.load(tmp_path / "params.yaml")


def test_words_that_yaml_had_for_true_are_words():
    assert parsed("on", key="profile").profile == "on"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("1\nseed: 2", "expected every key once, got 'seed' in lines {0} and {1}; remove one of them"),
        ("{a: 1, a: 2}", "expected every key once, got 'a' in lines {0} and {0}; remove one of them"),
        ("{[a]: 1}", "expected a word or a number as key, got a list, a mapping or an alias in line {0}"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor for the tag"),
        ("!!int x", "invalid literal for int"),
        ("*nowhere", "found undefined alias in line {0}, column 7"),
        ("\n\t- 1", "character that cannot start any token in line {1}, column 1; indent with spaces, not with tabs"),
        ("\n  - a\n -b", "; a list has a space after each '-'"),
        ("1\n---\nseed: 2", "but found another document in line {1}"),
        ("\x1b[2J", "unacceptable character #x001b"),
        (
            "&a0 {x: 1}" + "".join(f"\nb{n}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}" for n in range(8)),
            "expected aliases that stand for at most 1,000,000 values, got more",
        ),
        (f"[&a [x, x], {BOMB}]", "expected aliases that stand for at most 1,000,000 values, got more"),
        ("&a [*a]", "seed: expected an integer, got "),
        ("9" * 5000, "integer string conversion"),
        ("[" * 10**6, "expected a few levels of keys and lists, got hundreds"),
    ],
    ids=["key", "flow key", "list as key", "python", "tag", "alias", "tab", "dash", "documents", "escape", "merges",
         "aliases", "itself", "digits", "deep"],
)  # fmt: skip
def test_yaml_that_dvc_refuses_or_that_grows_is_refused_in_one_line(typed, message):
    last = yaml.safe_dump({name: item for name, item in MINI.items() if name != "seed"}).count("\n") + 2
    with refused(r"^params\.yaml: ") as caught:
        parsed(typed)
    assert message.format(last, last + 1) in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("mini", "\tmini", 1),
        lambda text: text.replace("train:", "train: &t", 1).replace("evaluate:", "evaluate: # &t", 1),
        lambda text: json.dumps(yaml.safe_load(text)),
    ],
    ids=["BOM", "CRLF", "tab", "anchor", "JSON"],
)
def test_other_ways_to_write_the_same_file_are_read(change, tmp_path):
    text = PROFILES[0].with_name("mini.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_bytes(change(text).encode())
    assert params.load(tmp_path / "params.yaml") == params.parse(text, "mini")


def test_a_mapping_may_be_merged_into_another():
    emulator = MINI["rivals"]["emulator"]
    text = yaml.safe_dump({key: item for key, item in MINI.items() if key != "rivals"})
    rest = yaml.safe_dump({"rivals": MINI["rivals"] | {"emulator": None}}).replace(
        "emulator: null", f"emulator: {{<<: {json.dumps(emulator | {'epochs': 1})}, epochs: 7}}"
    )
    assert params.parse(text + rest, "mini").rivals.emulator == params.Emulator(**emulator | {"epochs": 7})


def test_the_folder_of_the_maps_may_name_home_and_variables(tmp_path, monkeypatch):
    """A folder called ~ was made, and 3.9 GB would have been fetched into it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", f"{tmp_path}/Käse und Brot")
    places = {"~/CMD": tmp_path / "CMD", "$SCRATCH/CMD": tmp_path / "Käse und Brot/CMD", "data/my maps": "data/my maps"}
    places |= {"${SCRATCH}": tmp_path / "Käse und Brot", "a$": "a$", "~": tmp_path}
    for folder, meant in places.items():
        maps = load(tmp_path, maps__folder=folder).maps
        assert (maps.folder, maps.files) == (folder, Path(meant))
    for folder in ("$NOWHERE_AT_ALL/CMD", "${NOWHERE_AT_ALL}/CMD", "~nobody-at-all/CMD"):
        maps = load(tmp_path, maps__folder=folder).maps  # a run from elsewhere can be read without its maps
        with refused(r"maps.folder: expected a folder whose ~ and \$VARIABLES this") as caught:
            maps.files  # noqa: B018
        assert folder in str(caught.value)
    monkeypatch.setenv("SCRATCH", str(paths.MAPS))
    with refused(r"maps\.folder: expected a folder outside data/maps"):
        load(tmp_path, maps__folder="$SCRATCH/CMD")


def styled(raw):
    """The same parameters in the styles that people's editors and programs give them."""
    robustness_first = {"robustness": raw["robustness"]} | raw
    indented = re.sub(r"(?m)^( +)", r"\1\1", yaml.safe_dump(raw, sort_keys=False, default_flow_style=False))
    return {
        "block": yaml.safe_dump(raw, default_flow_style=False),
        "indented": indented,
        "flow": yaml.safe_dump(raw, default_flow_style=True),
        "at the top": yaml.safe_dump(robustness_first, sort_keys=False, default_flow_style=None),
        "JSON": json.dumps(raw),
        "JSON lines": json.dumps(raw, indent=1),
        "BOM": "\ufeff" + yaml.safe_dump(raw),
    }


@pytest.mark.parametrize("style", styled(MINI))
@pytest.mark.parametrize("asked", [[], ["probes"], ["seeds", "suites"]])
def test_everything_is_switched_on_whatever_the_style_of_the_file(style, asked):
    """With lists as blocks one experiment of each stayed, without a word; flow style ended in substring not found."""
    raw = MINI | {"robustness": MINI["robustness"] | {"transfer": asked, "baseline": [], "suites": ["Astrid"]}}
    before = params.parse(styled(raw)[style], "mini")
    text = everything.switched_on(styled(raw)[style])
    after = params.parse(text, "mini")
    assert {stage: set(getattr(after.robustness, stage)) for stage in params.EXPERIMENTS} == {
        stage: set(names) for stage, names in OF_TOTAL_MATTER.items()
    }
    assert after.robustness.suites == ("Astrid", "SIMBA")
    lists = {key: getattr(before.robustness, key) for key in (*params.EXPERIMENTS, "suites")}
    assert dataclasses.replace(after, robustness=dataclasses.replace(after.robustness, **lists)) == before
    assert everything.switched_on(text) == text
    if style.startswith("JSON"):
        json.loads(text)


def test_everything_of_several_fields_is_what_is_not_about_one():
    raw = MINI | {"fields": ["Mtot", "Mgas"], "suites": ["IllustrisTNG"]}
    after = params.parse(everything.switched_on(styled(raw)["block"]), "mini").robustness
    assert set(after.transfer) == set(params.EXPERIMENTS["transfer"]) - {"probes"} and after.baseline == ()
    assert after.suites == ("SIMBA",)


def test_everything_keeps_comments_and_the_lines_it_has_no_use_for():
    text = PROFILES[0].with_name("mini.yaml").read_text(encoding="utf-8")
    block = text.replace("  transfer: [] #", "  transfer:\n    - seeds # mine\n    #")
    for before in (text, block):
        after = everything.switched_on(before)
        assert all(line.partition("#")[2] in after for line in before.splitlines())
        changed = set(before.splitlines()) ^ set(after.splitlines())
        assert all(re.match(r"  (transfer|baseline|suites):|    (-|#)", line) for line in changed)


def test_everything_is_refused_where_lists_are_shared():
    shared = yaml.safe_dump(MINI | {"robustness": None}).replace(
        "robustness: null", f"robustness: {json.dumps(MINI['robustness'])}"
    )
    shared = shared.replace('"transfer": []', '"transfer": &none []').replace('"baseline": []', '"baseline": *none')
    with refused("expected lists of their own under robustness, got ones that other keys"):
        everything.switched_on(shared)
