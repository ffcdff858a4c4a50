"""Every file name of the project, relative to its root."""

from pathlib import Path

from camelsight.ground import cmd

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
SEEDS = PROFILES / "reference"  # PROFILE.json: R² of networks from several seeds
DVC_LOCK = Path("dvc.lock")
MAPS = Path("data/maps")  # a folder for each suite
PARTIAL = Path("data/partial")  # simulations of an unfinished set
CHECKPOINTS = Path("runs/checkpoints")  # of unfinished trainings; outside DVC's outs, which DVC deletes before a run
CODE = Path("results/code")
TIMINGS = Path("runs/timings")
LOGS = Path("runs/logs")
RECORDS = Path("runs/records")
RUN_LOCK = Path("runs/paper.lock")  # of a run, while it goes on
STATUS = Path("runs/status")  # what running stages say of themselves
CUTS = Path("results/cuts")
TRIALS = Path("results/tune")
HYPERPARAMETERS = Path("results/hyperparameters")
EVALUATIONS = Path("results/evaluate")
CURVES = Path("results/curves")  # of the training, for dvc plots
ATTRIBUTIONS = Path("results/attribute")
UNIVERSE = Path("results/universe.json")
SANITY = Path("results/sanity")
ROBUSTNESS = Path("results/robustness")  # inputs/CASE/SUITE.json, STAGE/EXPERIMENT.json and .npz
FURTHER = Path("data/further")  # a folder for each suite that transfer@suites adds
INTERPRETATION = Path("results/interpretation.json")
TABLES = Path("results/tables")
METRICS = Path("results/metrics.json")  # for dvc metrics
PLOTS = Path("results/plots")  # for dvc plots
NUMBERS = Path("results/numbers.tex")
FIGURES = Path("figures")
ROBUSTNESS_FIGURES = FIGURES / "robustness"  # those of the experiments that were run
PDF = Path("paper/ms.pdf")
TUNING_RECORD = Path("benchmarks/tuning.json")  # measured once, by benchmarks/tuning.py
EXPECTED = Path("paper/expected.yaml")  # published numbers
DIGITISED = Path("paper/tng_lh0_map0_log10.npy")  # a map of the paper, see paper/README.md
PACKAGE = Path(__file__).parent.parent  # of this code
FUSED_SOURCE = PACKAGE / "inference" / "fused.cpp"
PARTICLES_SOURCE = PACKAGE / "universe" / "particles.cpp"
TEXTS = tuple(Path("paper", name) for name in ("ms.tex", "robustness.tex", "rivals.tex"))
REFERENCES = Path("paper/refs.bib")
DVC = Path("dvc.yaml")
VERDICT = Path("results/verdict.json")
CRATE = Path("results/ro-crate-metadata.json")
PAGE = Path("report/index.html")
REHEARSALS = Path("runs/rehearsals")  # what make rehearse found, a profile each
REHEARSED = Path("rehearsed.json")  # in the folder of a rehearsal: what a stage took
AGAIN = Path("runs/again")  # stages that the verdict and the reference run once more
REQUIREMENTS = Path("requirements.lock")
IMAGE = Path("environment.lock.json")  # digest of the image, where one was built


def profile(name):
    """The file of a profile; ValueError with the known ones if there is none."""
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"expected a profile among {', '.join(known)}, got {name!r}")
    return PROFILES / f"{name}.yaml"


def compiled(source, capability, digest):
    return source.with_name(f"{source.stem}-{capability}-{digest}.so")


def maps(suite, field, folder=MAPS):
    return folder / suite / cmd.maps_file_name(suite, field)


def all_maps(suites, fields):
    return [maps(suite, field) for suite in dict.fromkeys(suites) for field in fields]


def parameters(suite, folder=MAPS):
    return folder / suite / cmd.params_file_name(suite)


def _of_each(folder, ending):
    """The function that gives the file of a name in ``folder``."""
    return lambda name: folder / f"{name}{ending}"


def _of_each_case(folder, ending):
    """The function that gives a case's file in ``folder`` by its suite and its name."""
    return lambda suite, case: folder / suite / f"{case}{ending}"


reference = _of_each(SEEDS, ".json")  # of a profile: R² over seeds of the training, made by ``make reference``
digests = _of_each(PROFILES, ".sha256")  # of a profile, of CMD's files: sha256, size, name and source, a line a file
code = _of_each(CODE, ".txt")  # of a stage: what its code is, as the stage ``code`` writes it
log = _of_each(LOGS, ".log")
heartbeat = _of_each(STATUS, ".json")
sanity = _of_each(SANITY, ".json")  # of a suite
rehearsal = _of_each(REHEARSALS, ".json")  # of a profile
cut = _of_each_case(CUTS, ".json")
cut_samples = _of_each_case(CUTS, ".npz")
study = _of_each_case(TRIALS, ".log")  # its journal, for Optuna; empty where no trial was run
trials = _of_each_case(TRIALS, ".json")
hyperparameters = _of_each_case(HYPERPARAMETERS, ".json")
weights = _of_each_case(Path("runs"), "/weights.safetensors")
history = _of_each_case(Path("runs"), "/history.json")
record = _of_each_case(RECORDS, ".json")  # with what a network was trained: commit, machine, packages
predictions = _of_each_case(EVALUATIONS, ".npz")
predictions_text = _of_each_case(EVALUATIONS, ".txt")
metrics = _of_each_case(EVALUATIONS, ".json")
curve = _of_each_case(CURVES, ".json")  # loss and learning rate, epoch by epoch, as ``dvc plots`` reads them
attributions = _of_each_case(ATTRIBUTIONS, ".npz")
attribution_statistics = _of_each_case(ATTRIBUTIONS, ".json")
experiment = _of_each_case(ROBUSTNESS, ".json")  # by its stage and its name
experiment_arrays = _of_each_case(ROBUSTNESS, ".npz")


def unfinished_study(suite, case, key):
    """The journal of a search, which processes share; ``key`` is that of ``dataset.resume_key``, or ``*``."""
    return CHECKPOINTS / f"tune-{suite}-{case}-{key}" / "study.log"


def unfinished_training(key):
    return CHECKPOINTS / f"train-{key}.pt"


def finished_training(key):
    """What came out of it, until DVC has recorded that; ``key`` is that of ``dataset.resume_key``, or ``*``."""
    return CHECKPOINTS / f"trained-{key}.pt"


def repeated_weights(suite, case, seed):
    """Those of ``repeat``; beside ``weights``, so that attributions depend on one folder."""
    return weights(suite, case).with_name(f"seed_{seed}.safetensors")


def repeat(suite, case, seed):
    """R² of the network of a case that was trained from another seed."""
    return EVALUATIONS / suite / f"{case}.seed_{seed}.json"


def robustness_input(suite, case):
    """What the experiments start from: the digest of a trained network, or the survey of a further suite.

    They depend on the folder of a case, which holds it for every suite.
    """
    return ROBUSTNESS / "inputs" / case / f"{suite}.json"


def robustness_figure(name, ending):
    return ROBUSTNESS_FIGURES / f"{name}.{ending}"


def figure(name, ending):
    return FIGURES / f"{name}.{ending}"
