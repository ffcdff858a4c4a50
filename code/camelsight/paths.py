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
EVALUATIONS = Path("results/evaluate")
ATTRIBUTIONS = Path("results/attribute")
UNIVERSE = Path("results/universe.json")
SANITY = Path("results/sanity")
INTERPRETATION = Path("results/interpretation.json")
TABLES = Path("results/tables")
NUMBERS = Path("results/numbers.tex")
FIGURES = Path("figures")
PDF = Path("paper/ms.pdf")
EXPECTED = Path("paper/expected.yaml")  # published numbers
MANUSCRIPT = Path("paper/ms.tex")
DVC = Path("dvc.yaml")
LOCK = Path("dvc.lock")
VERDICT = Path("results/verdict.json")
CRATE = Path("results/ro-crate-metadata.json")
PAGE = Path("report/index.html")
AGAIN = Path("runs/again")  # stages that the verdict and the reference run once more
REQUIREMENTS = Path("requirements.lock")
IMAGE = Path("environment.lock.json")  # digest of the image, where one was built


def profile(name):
    """The file of a profile; ValueError with the known ones if there is none."""
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"expected a profile among {', '.join(known)}, got {name!r}")
    return PROFILES / f"{name}.yaml"


def reference(profile):
    """R² of the profile over seeds of the training, made by ``make reference``."""
    return PROFILES / "reference" / f"{profile}.json"


def digests(profile):
    """The lock file that pins the files of CMD: sha256, size, name and source, a line a file."""
    return PROFILES / f"{profile}.sha256"


def maps(suite):
    return MAPS / cmd.maps_file_name(suite)


def parameters(suite):
    return MAPS / cmd.params_file_name(suite)


def cut(suite, case):
    return CUTS / suite / f"{case}.json"


def cut_samples(suite, case):
    return CUTS / suite / f"{case}.npz"


def tuning(suite, case):
    return Path("runs", suite, case, "tuning.json")


def study(suite, case):
    return Path("runs", suite, case, "study.log")


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


def figure(name, ending):
    return FIGURES / f"{name}.{ending}"
