"""params.yaml as frozen dataclasses: unknown keys, wrong types and impossible values are refused in one line."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from camelsight.ground import cases, cmd, fields, theta
from camelsight.ground.choices import BASELINES, PRIOR
from camelsight.ground.hyperparameters import HIDDEN_LIMIT, Hyperparameters
from camelsight.pipeline import paths, store
from camelsight.pipeline.typed import build, check, check_range

EXPERIMENTS = {  # of the stages on robustness; make paper FULL=1 runs them all
    "transfer": (
        "fields", "suites", "smoothing", "probes", "leakage", "simulations", "normalisation", "augmentation", "seeds"
    ),
    "baseline": ("network", "mean", "histogram", "likelihood", "scales"),
}  # fmt: skip
OF_ONE_FIELD = {"probes", *EXPERIMENTS["baseline"]}  # experiments about a single density of mass
OF_SEVERAL_FIELDS = {"fields"}
NAME = re.compile("[A-Za-z0-9_-]{1,64}")  # of a profile: names of files are made of it


@dataclass(frozen=True)
class Maps:
    source: str  # "twin": CAMELS' universes, simulated again; "camels": files of the CMD release in `folder`
    folder: str
    bases: tuple[str, ...]  # URLs of CMD's folder 2D_maps/data, from which missing files are fetched
    simulations: int
    pixels: int
    particles: int  # per side, twin only, as are mesh and steps
    mesh: int
    steps: int

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
        check(self.simulations >= 3, "maps.simulations", "at least 3", self.simulations)
        power_of_two = self.pixels >= 16 and self.pixels & (self.pixels - 1) == 0
        check(power_of_two and self.pixels <= 512, "maps.pixels", "a power of two from 16 to 512", self.pixels)
        most = f"at most the {cmd.SIMULATIONS} of CAMELS"
        check(
            self.source == "camels" or self.simulations <= cmd.SIMULATIONS, "maps.simulations", most, self.simulations
        )
        good = self.particles >= 8 and self.particles % 2 == 0
        check(good, "maps.particles", "an even number from 8", self.particles)
        check(self.mesh >= self.particles, "maps.mesh", f"at least maps.particles = {self.particles}", self.mesh)
        check(self.steps >= 2, "maps.steps", "at least 2", self.steps)


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
    trials: int  # 0: no search, `start` is what the networks are trained with
    epochs: int
    pruner: str  # "halving": stop early what is behind others after as many epochs; "none"
    workers: int  # processes that share the search; with more than one, trials are not the same from run to run
    start: dict[str, Hyperparameters]  # by case; the first trial, the others are drawn by TPE from the ranges
    max_lr: tuple[float, float]
    weight_decay: tuple[float, float]
    dropout: tuple[float, float]
    hidden: tuple[int, int]

    def __post_init__(self):
        check(self.dropout[1] < 1, "tune.dropout", "numbers below 1", list(self.dropout))
        check(self.hidden[1] <= HIDDEN_LIMIT, "tune.hidden", f"numbers up to {HIDDEN_LIMIT}", list(self.hidden))
        check(self.trials >= 0, "tune.trials", "at least 0", self.trials)
        differ = self.cases and len(set(self.cases)) == len(self.cases)
        check(differ, "tune.cases", "cases that differ", list(self.cases))
        check("original" in self.start, "tune.start", "an entry original, for cases without one", list(self.start))
        check(self.epochs >= 1, "tune.epochs", "at least 1", self.epochs)
        check(self.pruner in ("halving", "none"), "tune.pruner", "halving or none", self.pruner)
        check(self.workers >= 1, "tune.workers", "at least 1", self.workers)
        for name in ("max_lr", "weight_decay", "dropout", "hidden"):
            low, high = getattr(self, name)
            check_range(f"tune.{name}", low, high, may_be_zero=name == "dropout")
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
    seed: int  # of weights, order, symmetries and dropout, beside the run's seed: other networks on the same maps
    epochs: int
    batch: int
    schedule: str  # "cyclic" as published (500 steps up, 500 down), or "onecycle"
    precision: str  # "bfloat16", "float32", or "auto": the former where the hardware has it
    normalisation: str  # statistics of the "train" maps, or of "all" as in the released code
    patience: int  # epochs without a better one after which training ends; 0: never, as published
    deterministic: bool  # a GPU repeats itself bit for bit, and is slower; a CPU always does

    def __post_init__(self):
        check(self.seed >= 0, "train.seed", "at least 0", self.seed)
        check(self.epochs >= 1, "train.epochs", "at least 1", self.epochs)
        check(self.batch >= 2, "train.batch", "at least 2", self.batch)
        check(self.schedule in ("cyclic", "onecycle"), "train.schedule", "cyclic or onecycle", self.schedule)
        good = self.precision in ("auto", "float32", "bfloat16")
        check(good, "train.precision", "auto, float32 or bfloat16", self.precision)
        check(self.normalisation in ("train", "all"), "train.normalisation", "train or all", self.normalisation)
        check(self.patience >= 0, "train.patience", "at least 0", self.patience)


@dataclass(frozen=True)
class Evaluate:
    views: str  # "1": the map; "8": the eight symmetries as rows, as published; "mean8": their average
    resamples: int

    def __post_init__(self):
        check(self.views in ("1", "8", "mean8"), "evaluate.views", "1, 8 or mean8", self.views)
        check(self.resamples >= 100, "evaluate.resamples", "at least 100", self.resamples)


@dataclass(frozen=True)
class Attribute:
    cases: tuple[str, ...]  # whose networks are asked
    parameters: tuple[str, ...]
    output: str  # "mean" or "sigma": the posterior mean of a parameter, or its standard deviation
    maps: int  # test maps, spread over the test simulations
    baseline: str  # Integrated Gradients starts from it
    shap_baseline: str  # GradientShap draws from it
    ig_steps: int  # to begin with; more are taken where a map needs them to be complete
    shap_samples: int
    views: str  # "1": the map; "mean8": the average over its eight symmetries

    def __post_init__(self):
        for name in ("maps", "ig_steps", "shap_samples"):
            check(getattr(self, name) >= 1, f"attribute.{name}", "at least 1", getattr(self, name))
        for name in ("baseline", "shap_baseline"):
            known = getattr(self, name) in BASELINES
            check(known, f"attribute.{name}", f"one of {', '.join(BASELINES)}", getattr(self, name))
        check(self.output in ("mean", "sigma"), "attribute.output", "mean or sigma", self.output)
        check(self.views in ("1", "mean8"), "attribute.views", "1 or mean8", self.views)
        known = len(set(self.parameters)) == len(self.parameters) and set(self.parameters) <= set(theta.NAMES)
        good = known and set(theta.COSMOLOGICAL) <= set(self.parameters)
        what = f"some of {', '.join(theta.NAMES)}, each once, with {' and '.join(theta.COSMOLOGICAL)} among them"
        check(good, "attribute.parameters", what, list(self.parameters))


@dataclass(frozen=True)
class Sanity:
    maps: int  # test maps
    ig_steps: int
    shap_samples: int
    seeds: int  # other networks trained for the first suite; 0: none
    seed_epochs: int
    shuffled_epochs: int  # of the network trained on shuffled labels, for the first suite; 0: none

    def __post_init__(self):
        for name in ("maps", "ig_steps", "shap_samples", "seed_epochs"):
            check(getattr(self, name) >= 1, f"sanity.{name}", "at least 1", getattr(self, name))
        for name in ("seeds", "shuffled_epochs"):
            check(getattr(self, name) >= 0, f"sanity.{name}", "at least 0", getattr(self, name))


@dataclass(frozen=True)
class Robustness:
    transfer: tuple[str, ...]  # experiments of the stage that are run
    baseline: tuple[str, ...]
    suites: tuple[str, ...]  # made for transfer@suites alone, uncut
    smoothing: tuple[float, ...]  # widths in pixels
    cuts: tuple[str, ...]  # cases that the probes show to the network of the uncut maps
    seeds: int  # networks trained from other seeds
    curve_epochs: int  # of the learning curves, each counted in as many maps as the training set has

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
        for name in ("seeds", "curve_epochs"):
            check(getattr(self, name) >= 1, f"robustness.{name}", "at least 1", getattr(self, name))


@dataclass(frozen=True)
class Emulator:
    epochs: int
    max_lr: float
    weight_decay: float

    def __post_init__(self):
        check(self.epochs >= 1, "rivals.emulator.epochs", "at least 1", self.epochs)
        check(self.max_lr > 0, "rivals.emulator.max_lr", "above 0", self.max_lr)
        check(self.weight_decay >= 0, "rivals.emulator.weight_decay", "at least 0", self.weight_decay)


@dataclass(frozen=True)
class Rivals:
    trials: int  # of the networks on the spectrum; the first is in the middle of the ranges
    epochs: int
    layers: tuple[int, int]
    hidden: tuple[int, int]
    max_lr: tuple[float, float]
    weight_decay: tuple[float, float]
    dropout: tuple[float, float]
    emulator: Emulator
    maps: int  # of each test simulation whose posterior is sampled
    walkers: int
    steps: int  # at most
    lengths: int  # autocorrelation times after which a chain ends
    cuts: tuple[str, ...]  # cases of one k_max, of the experiment scales

    def __post_init__(self):
        cuts = [cases.parse(case).only for case in self.cuts]
        good = all(cut and cut.kind == "kmax" for cut in cuts) and len(set(cuts)) == len(cuts)
        check(good, "rivals.cuts", "cases of one k_max that differ", list(self.cuts))
        for name in ("trials", "epochs", "steps", "lengths"):
            check(getattr(self, name) >= 1, f"rivals.{name}", "at least 1", getattr(self, name))
        check(1 <= self.maps <= cmd.MAPS_PER_SIMULATION, "rivals.maps", "from 1 to 15", self.maps)
        good = 4 * len(theta.NAMES) <= self.walkers <= PRIOR and self.walkers % 2 == 0
        check(good, "rivals.walkers", f"an even number from {4 * len(theta.NAMES)} to {PRIOR}", self.walkers)
        for name in ("layers", "hidden", "max_lr", "weight_decay", "dropout"):
            check_range(f"rivals.{name}", *getattr(self, name), may_be_zero=name == "dropout")
        check(self.dropout[1] < 1, "rivals.dropout", "numbers below 1", list(self.dropout))


@dataclass(frozen=True)
class Seconds:
    """What one item of each stage took where the profile was measured; for the forecast alone."""

    maps: float
    universe: float
    cut: float
    tune: float
    choose: float
    train: float
    repeat: float
    evaluate: float
    attribute: float
    sanity: float
    further: float
    transfer: float
    baseline: float
    tabulate: float
    figures: float
    paper: float


@dataclass(frozen=True)
class Params:
    profile: str
    seed: int
    threads: int  # of one process on CPU; fixed, because results depend on it in the last bit
    checkpoint: float  # seconds of training that a killed process may lose; results do not depend on it
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
        check(self.threads >= 1, "threads", "at least 1", self.threads)
        check(self.checkpoint >= 0, "checkpoint", "at least 0", self.checkpoint)
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
