"""params.yaml as frozen dataclasses: unknown keys, wrong types and impossible values are refused in one line."""

import os
import re
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated

from camelsight.ground import cases, cmd, fields, theta
from camelsight.ground.choices import BASELINES, PRIOR
from camelsight.ground.hyperparameters import HIDDEN_LIMIT, Hyperparameters
from camelsight.pipeline import paths, store
from camelsight.pipeline.typed import at_least, build, check, one_of, positive_range

EXPERIMENTS = {  # of the stages on robustness; make paper FULL=1 runs them all
    "transfer": (
        "fields", "suites", "smoothing", "probes", "leakage", "simulations", "normalisation", "augmentation", "seeds"
    ),
    "baseline": ("network", "mean", "histogram", "likelihood", "scales"),
}  # fmt: skip
OF_ONE_FIELD = {"probes", *EXPERIMENTS["baseline"]}  # experiments about a single density of mass
OF_SEVERAL_FIELDS = {"fields"}
NAME = re.compile("[A-Za-z0-9_-]{1,64}")  # of a profile: names of files are made of it
ABOVE_0 = Annotated[float, "above 0", lambda value: value > 0]
DROPOUT = Annotated[
    tuple[float, float], "two numbers from 0 to below 1, the lower first", lambda ends: 0 <= ends[0] <= ends[1] < 1
]
BASELINE = Annotated[str, f"one of {', '.join(BASELINES)}", lambda value: value in BASELINES]


@dataclass(frozen=True)
class Maps:
    source: str  # "twin": CAMELS' universes, simulated again; "camels": files of the CMD release in `folder`
    folder: str
    bases: tuple[str, ...]  # URLs of CMD's folder 2D_maps/data, from which missing files are fetched
    simulations: at_least(3)
    pixels: int
    particles: int  # per side, twin only, as are mesh and steps
    mesh: int
    steps: at_least(2)

    @property
    def files(self):
        """``folder`` as a Path, with the values of ~ and $VARIABLES; ValueError where this machine has none."""
        folder = _expanded(self.folder)
        known = not re.search(r"^~|\$(\w|{)", folder)
        check(known, "maps.folder", "a folder whose ~ and $VARIABLES this machine knows", self.folder)
        return Path(folder)

    def __post_init__(self):
        replaced = "; write twin where you had mock, which it replaces" if self.source == "mock" else ""
        check(self.source in ("twin", "camels"), "maps.source", f"twin or camels{replaced}", self.source)
        check(self.folder and "\0" not in self.folder, "maps.folder", "a folder", self.folder)
        inside = Path(_expanded(self.folder)).resolve().is_relative_to(paths.MAPS.resolve())
        check(not inside, "maps.folder", f"a folder outside {paths.MAPS}, which a run empties", self.folder)
        for base in self.bases:
            check(base.startswith(("https://", "http://")), "maps.bases", "URLs", base)
        power_of_two = self.pixels >= 16 and self.pixels & (self.pixels - 1) == 0
        check(power_of_two and self.pixels <= 512, "maps.pixels", "a power of two from 16 to 512", self.pixels)
        few = self.source == "camels" or self.simulations <= cmd.SIMULATIONS
        check(few, "maps.simulations", f"at most the {cmd.SIMULATIONS} of CAMELS", self.simulations)
        good = self.particles >= 8 and self.particles % 2 == 0
        check(good, "maps.particles", "an even number from 8", self.particles)
        check(self.mesh >= self.particles, "maps.mesh", f"at least maps.particles = {self.particles}", self.mesh)


@dataclass(frozen=True)
class Split:
    seed: int
    fractions: tuple[float, float, float]  # train, valid, test

    def __post_init__(self):
        check(0 <= self.seed < 2**32, "split.seed", "from 0 to 2^32 - 1", self.seed)
        good = min(self.fractions) > 0 and abs(sum(self.fractions) - 1) < 1e-9
        check(good, "split.fractions", "three positive numbers that add up to 1", self.fractions)


@dataclass(frozen=True)
class Tune:
    cases: tuple[str, ...]  # that are searched; another one takes what `search_of` says
    trials: at_least(0)  # 0: no search, `start` is what the networks are trained with
    epochs: at_least(1)
    pruner: one_of("halving", "none")  # "halving": stop early what is behind others after as many epochs
    workers: at_least(1)  # processes that share the search; more than one give other trials from run to run
    start: dict[str, Hyperparameters]  # by case; the first trial, the others are drawn by TPE from the ranges
    max_lr: positive_range(float)
    weight_decay: positive_range(float)
    dropout: DROPOUT
    hidden: positive_range(int)

    def __post_init__(self):
        check(self.hidden[1] <= HIDDEN_LIMIT, "tune.hidden", f"numbers up to {HIDDEN_LIMIT}", list(self.hidden))
        differ = self.cases and len(set(self.cases)) == len(self.cases)
        check(differ, "tune.cases", "cases that differ", list(self.cases))
        check("original" in self.start, "tune.start", "an entry original, for cases without one", list(self.start))
        for name in ("max_lr", "weight_decay", "dropout", "hidden"):
            low, high = getattr(self, name)
            for case, values in self.start.items():
                cases.parse(case)
                value, within = getattr(values, name), f"a value within tune.{name} = {[low, high]}"
                check(low <= value <= high, f"tune.start.{case}.{name}", within, value)

    def start_of(self, case):
        """The starting ``Hyperparameters`` of ``case``: its own, or those of the uncut maps."""
        return self.start.get(case, self.start["original"])

    def search_of(self, case):
        """The case whose search settles the hyperparameters of ``case``; None where ``start`` does."""
        if case in self.cases:
            return case
        return "original" if "original" in self.cases and case not in self.start else None


@dataclass(frozen=True)
class Train:
    # Of weights, order, symmetries and dropout, beside the run's seed: other networks on the same maps.
    seed: at_least(0)
    epochs: at_least(1)
    batch: at_least(2)
    schedule: one_of("cyclic", "onecycle")  # "cyclic" as published: 500 steps up, 500 down
    precision: one_of("auto", "float32", "bfloat16")  # "auto": bfloat16 where the hardware has it
    normalisation: one_of("train", "all")  # statistics of the training maps, or of all as in the released code
    patience: at_least(0)  # epochs without a better one after which training ends; 0: never, as published
    deterministic: bool  # a GPU repeats itself bit for bit, and is slower; a CPU always does


@dataclass(frozen=True)
class Evaluate:
    views: one_of("1", "8", "mean8")  # the map; the eight symmetries as rows, as published; their average
    resamples: at_least(100)


@dataclass(frozen=True)
class Attribute:
    cases: tuple[str, ...]  # whose networks are asked
    parameters: tuple[str, ...]
    output: one_of("mean", "sigma")  # the posterior mean of a parameter, or its standard deviation
    maps: at_least(1)  # test maps, spread over the test simulations
    baseline: BASELINE  # Integrated Gradients starts from it
    shap_baseline: BASELINE  # GradientShap draws from it
    ig_steps: at_least(1)  # to begin with; more are taken where a map needs them to be complete
    shap_samples: at_least(1)
    views: one_of("1", "mean8")  # the map; the average over its eight symmetries

    def __post_init__(self):
        known = len(set(self.parameters)) == len(self.parameters) and set(self.parameters) <= set(theta.NAMES)
        good = known and set(theta.COSMOLOGICAL) <= set(self.parameters)
        what = f"some of {', '.join(theta.NAMES)}, each once, with {' and '.join(theta.COSMOLOGICAL)} among them"
        check(good, "attribute.parameters", what, list(self.parameters))


@dataclass(frozen=True)
class Sanity:
    maps: at_least(1)  # test maps
    ig_steps: at_least(1)
    shap_samples: at_least(1)
    seeds: at_least(0)  # other networks trained for the first suite; 0: none
    seed_epochs: at_least(1)
    shuffled_epochs: at_least(0)  # of the network trained on shuffled labels, for the first suite; 0: none


@dataclass(frozen=True)
class Robustness:
    transfer: tuple[str, ...]  # experiments of the stage that are run
    baseline: tuple[str, ...]
    suites: tuple[str, ...]  # made for transfer@suites alone, uncut
    smoothing: tuple[float, ...]  # widths in pixels
    cuts: tuple[str, ...]  # cases that the probes show to the network of the uncut maps
    seeds: at_least(1)  # networks trained from other seeds
    curve_epochs: at_least(1)  # of the learning curves, each counted in as many maps as the training set has

    def __post_init__(self):
        for stage, known in EXPERIMENTS.items():
            asked = getattr(self, stage)
            good = len(set(asked)) == len(asked) and set(asked) <= set(known)
            check(good, f"robustness.{stage}", f"some of {', '.join(known)}, each once", list(asked))
        for suite in self.suites:
            theta.hydro_suite(suite)
        cuts = [cases.parse(case).cuts for case in self.cuts]
        good = all(cuts) and len(set(cuts)) == len(cuts)
        check(good, "robustness.cuts", "cases that differ, original not among them", list(self.cuts))
        for width in self.smoothing:
            check(width > 0, "robustness.smoothing", "widths above 0 pixels", width)
            check(float(f"{width:g}") == width, "robustness.smoothing", "at most six digits", width)
            try:
                cases.parse(f"smooth_{width:g}")
            except ValueError as error:
                raise ValueError(f"robustness.smoothing: {error}") from None
        names = [f"{width:g}" for width in self.smoothing]
        check(len(set(names)) == len(names), "robustness.smoothing", "widths that differ", list(self.smoothing))


@dataclass(frozen=True)
class Emulator:
    epochs: at_least(1)
    max_lr: ABOVE_0
    weight_decay: at_least(0, float)


@dataclass(frozen=True)
class Rivals:
    trials: at_least(1)  # of the networks on the spectrum; the first is in the middle of the ranges
    epochs: at_least(1)
    layers: positive_range(int)
    hidden: positive_range(int)
    max_lr: positive_range(float)
    weight_decay: positive_range(float)
    dropout: DROPOUT
    emulator: Emulator
    maps: int  # of each test simulation whose posterior is sampled
    walkers: int
    steps: at_least(1)  # at most
    lengths: at_least(1)  # autocorrelation times after which a chain ends
    cuts: tuple[str, ...]  # cases of one k_max, of the experiment scales

    def __post_init__(self):
        differ = set(cases.single(self.cuts, "kmax").values())
        check(len(differ) == len(self.cuts), "rivals.cuts", "cases of one k_max that differ", list(self.cuts))
        check(1 <= self.maps <= cmd.MAPS_PER_SIMULATION, "rivals.maps", "from 1 to 15", self.maps)
        good = 4 * len(theta.NAMES) <= self.walkers <= PRIOR and self.walkers % 2 == 0
        check(good, "rivals.walkers", f"an even number from {4 * len(theta.NAMES)} to {PRIOR}", self.walkers)


# What one item of each stage took where the profile was measured; for the forecast alone.
STAGES = (
    "maps", "universe", "cut", "tune", "choose", "train", "repeat", "evaluate", "attribute", "sanity", "further",
    "transfer", "baseline", "tabulate", "figures", "paper",
)  # fmt: skip
Seconds = make_dataclass("Seconds", [(stage, float) for stage in STAGES], frozen=True)
Seconds.__module__ = __name__  # where pickle looks for it, for the processes that simulate


@dataclass(frozen=True)
class Params:
    profile: str
    seed: int
    threads: at_least(1)  # of one process on CPU; fixed, because results depend on it in the last bit
    checkpoint: at_least(0, float)  # seconds of training that a killed process may lose; results do not depend on it
    fields: tuple[str, ...]  # of CMD, the channels of a map in this order
    suites: tuple[str, ...]
    cases: tuple[str, ...]
    maps: Maps
    split: Split
    tune: Tune
    train: Train
    repeats: tuple[int, ...]  # more values of train.seed, from each of which every case is trained again
    evaluate: Evaluate
    attribute: Attribute
    sanity: Sanity
    robustness: Robustness
    rivals: Rivals
    seconds: Seconds

    def __post_init__(self):
        good = NAME.fullmatch(self.profile)
        check(good, "profile", "a name of at most 64 letters, digits, _ and -", self.profile)
        for name in ("fields", "suites", "cases"):
            values = getattr(self, name)
            check(values and len(set(values)) == len(values), name, "a list without repetition", list(values))
        for suite in self.suites:
            theta.hydro_suite(suite)
        seeds = (self.train.seed, *self.repeats)
        good = len(set(seeds)) == len(seeds) and min(seeds) >= 0
        check(good, "repeats", f"seeds that differ, also from train.seed = {self.train.seed}", list(self.repeats))
        meanings = [cases.parse(case).cuts for case in self.cases]
        check(len(set(meanings)) == len(meanings), "cases", "cases that differ", list(self.cases))
        check("original" in self.cases, "cases", "original among them", list(self.cases))
        known = f"some of {', '.join(self.cases)}"
        check(set(self.tune.cases) <= set(self.cases), "tune.cases", known, list(self.tune.cases))
        asked = self.attribute.cases
        good = "original" in asked and len(set(asked)) == len(asked) and set(asked) <= set(self.cases)
        check(good, "attribute.cases", f"some of {', '.join(self.cases)}, original among them", list(asked))
        more = self.robustness.suites
        good = len(set(more)) == len(more) and not set(more) & set(self.suites)
        check(good, "robustness.suites", f"suites other than {', '.join(self.suites)}", list(more))


def load(path="params.yaml"):
    """``Params`` of a YAML file; ValueError in one line that names the key, what was expected and what came."""
    store.refuse_conflict(path)
    return parse(Path(path).read_bytes(), path)


def parse(text, name):
    """As ``load``, of the text or the bytes of a file that is called ``name``."""
    try:
        made = build(Params, store.parse_yaml(text))
        _check_fields(made)
        return made
    except ValueError as error:
        raise ValueError(f"{name}: {store.one_line(error)}") from None


def _check_fields(params):
    """ValueError in one line unless suites, cases, baselines and experiments go with the fields."""
    names, robustness = params.fields, params.robustness
    try:
        fields.check(names, (*params.suites, *robustness.suites))
        for case in (*params.cases, *robustness.cuts):
            fields.check_case(names, case)
    except ValueError as error:
        raise ValueError(f"fields: {error}") from None
    known = params.maps.source != "twin" or set(names) <= set(fields.SIMULATED)
    what = f"some of {', '.join(fields.SIMULATED)}, which the twin knows; other fields are read from files of CMD"
    check(known, "fields", what, list(names))
    positive = all(fields.FIELDS[name].is_positive for name in names)
    for key in ("baseline", "shap_baseline"):
        value = getattr(params.attribute, key)
        what = "another baseline than noise, which is log-uniform, for fields with pixels of 0"
        check(positive or value != "noise", f"attribute.{key}", what, value)
    for key, experiments in EXPERIMENTS.items():
        for asked in getattr(robustness, key):
            what = f"no {asked} with these fields"
            check(asked in possible(experiments, names), f"robustness.{key}", what, list(names))


def possible(experiments, names):
    """Those of ``experiments`` that can be made with the fields ``names``."""
    one_of_mass = len(names) == 1 and fields.FIELDS[names[0]].is_mass and fields.FIELDS[names[0]].is_positive
    return [
        one
        for one in experiments
        if (one_of_mass or one not in OF_ONE_FIELD) and (len(names) > 1 or one not in OF_SEVERAL_FIELDS)
    ]


def _expanded(folder):
    return os.path.expanduser(os.path.expandvars(folder))
