"""Every file name of the project, relative to its root."""

from pathlib import Path

from camelsight.universe import cmd

PARAMS = Path("params.yaml")
PROFILES = Path("profiles")
MAPS = Path("data/maps")
PARTIAL = Path("data/partial")  # simulations of an unfinished set
CHECKPOINTS = Path("runs/checkpoints")  # of unfinished trainings; outside DVC's outs, which DVC deletes before a run
TIMINGS = Path("runs/timings")
LOGS = Path("runs/logs")
CUTS = Path("results/cuts")
TRIALS = Path("results/tune")
EVALUATIONS = Path("results/evaluate")
ATTRIBUTIONS = Path("results/attribute")
UNIVERSE = Path("results/universe.json")
SANITY = Path("results/sanity")
ROBUSTNESS = Path("results/robustness")  # inputs/CASE/SUITE.json, STAGE/EXPERIMENT.json and .npz
FURTHER = Path("data/further")  # maps of the suites that transfer@suites adds
INTERPRETATION = Path("results/interpretation.json")
TABLES = Path("results/tables")
NUMBERS = Path("results/numbers.tex")
FIGURES = Path("figures")
ROBUSTNESS_FIGURES = FIGURES / "robustness"  # those of the experiments that were run
PDF = Path("paper/ms.pdf")
EXPECTED = Path("paper/expected.yaml")  # published numbers
FUSED_SOURCE = Path(__file__).parent / "inference" / "fused.cpp"


def profile(name):
    """The file of a profile; ValueError with the known ones if there is none."""
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"expected a profile among {', '.join(known)}, got {name!r}")
    return PROFILES / f"{name}.yaml"


def fused(capability, digest):
    return FUSED_SOURCE.with_name(f"fused-{capability}-{digest}.so")


def digests(profile):
    """The lock file that pins the files of CMD: sha256, size, name and source, a line a file."""
    return PROFILES / f"{profile}.sha256"


def maps(suite, folder=MAPS):
    return folder / cmd.maps_file_name(suite)


def parameters(suite, folder=MAPS):
    return folder / cmd.params_file_name(suite)


def cut(suite, case):
    return CUTS / suite / f"{case}.json"


def cut_samples(suite, case):
    return CUTS / suite / f"{case}.npz"


def tuning(suite, case):
    return Path("runs", suite, case, "tuning.json")


def study(suite, case):
    return Path("runs", suite, case, "study.log")


def trials(suite, case):
    return TRIALS / suite / f"{case}.json"


def weights(suite, case):
    return Path("runs", suite, case, "weights.safetensors")


def history(suite, case):
    return Path("runs", suite, case, "history.json")


def predictions(suite, case):
    return EVALUATIONS / suite / f"{case}.npz"


def predictions_text(suite, case):
    return EVALUATIONS / suite / f"{case}.txt"


def metrics(suite, case):
    return EVALUATIONS / suite / f"{case}.json"


def attributions(suite, case):
    return ATTRIBUTIONS / suite / f"{case}.npz"


def attribution_statistics(suite, case):
    return ATTRIBUTIONS / suite / f"{case}.json"


def sanity(suite):
    return SANITY / f"{suite}.json"


def robustness_input(suite, case):
    """What the experiments start from: the digest of a trained network, or the survey of a further suite.

    They depend on the folder of a case, which holds it for every suite.
    """
    return ROBUSTNESS / "inputs" / case / f"{suite}.json"


def robustness_figure(name, ending):
    return ROBUSTNESS_FIGURES / f"{name}.{ending}"


def experiment(stage, name):
    return ROBUSTNESS / stage / f"{name}.json"


def experiment_arrays(stage, name):
    return ROBUSTNESS / stage / f"{name}.npz"


def further_maps(suite):
    """The folder of the maps of a suite beyond those of the profile."""
    return FURTHER / suite


def figure(name, ending):
    return FIGURES / f"{name}.{ending}"
