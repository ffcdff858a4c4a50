"""Search the hyperparameters of a case: Optuna's TPE on the validation loss, with successive halving."""

import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path

import optuna

from camelsight.analysis import dataset, networks
from camelsight.ground import cases, cmd, seeding, theta
from camelsight.inference import training, tuning
from camelsight.pipeline import checkpoints, cli, paths, store, studies
from camelsight.pipeline.params import load


def main(params, suite, case):
    """Write what came of the search of a case: its best trial, if any ran, all trials, and the journal."""
    spec, study = params.tune, None
    if spec.trials:
        elsewhere = os.environ.get("CAMELSIGHT_HELPERS")  # jobs of their own, see launch
        with _helpers(0 if elsewhere else spec.workers - 1, suite, case):
            study, journal = search(params, suite, case)
    store.write_json(
        paths.trials(suite, case),
        {
            "epochs": spec.epochs,
            "best": tuning.best(study, spec.trials) if study else None,
            "trials": tuning.record(study, spec.trials) if study else [],
            "importances": tuning.importances(study, spec.trials) if study else {},
        },
    )
    store.write_bytes(paths.study(suite, case), studies.timeless(journal) if study else b"")
    if study:
        for path in journal.parent.glob("*.pt"):  # of trials that were not called again
            checkpoints.remove(path)


def join(join=False, *, suite, case):
    """Help the search of --suite and --case, which may run elsewhere, until nothing is left to begin."""
    params = load(paths.PARAMS)
    cli.set_threads(params.threads)
    if params.tune.trials:
        search(params, suite, case, wait=False)


def dashboard(dashboard=False, *, port="8080"):
    """Serve Optuna's dashboard on the searches of params.yaml, finished or not, as they stand now."""
    try:
        import optuna_dashboard
    except ImportError:
        raise ValueError("expected the package optuna-dashboard, got none: run pip install optuna-dashboard") from None
    params, journals = load(paths.PARAMS), {}
    for suite in params.suites:
        for case in params.cases:
            begun = sorted(Path().glob(str(paths.unfinished_study(suite, case, "*"))))
            journals[f"{suite} {case}"] = [*begun, paths.study(suite, case)]
    optuna_dashboard.run_server(studies.gather(journals), port=int(port))


def search(params, suite, case, wait=True):
    """The study of a case, run as far as it was missing, and its journal. What is unfinished outlives this process."""
    spec, device = params.tune, cli.device()
    parts = dataset.load_tensors(params, suite, case, ("train", "valid"), device)
    any_number = {"trials": 0} if spec.pruner == "none" else {}
    alike = dataclasses.replace(spec, cases=("original",), workers=1, **any_number)  # no trial depends on these
    key = networks.resume_key(params, suite, case, device, "tune", alike)
    folder = paths.unfinished_study(suite, case, key).parent
    with cli.progress(spec.trials, f"tune {suite} {case}", "trial") as bar:
        study = tuning.search(
            functools.partial(_trial, params, suite, case, parts, folder, bar),
            trials=spec.trials,
            ranges={name: getattr(spec, name) for name in tuning.HYPERPARAMETERS},
            first=store.plain(spec.start_of(case)),
            storage=studies.journal(folder / "study.log"),
            seed=seeding.entropy(params.seed, suite, case, "tune"),
            rungs=tuning.rungs(spec.epochs) if spec.pruner == "halving" else (),
            claim=lambda name, wait=False: store.claim(folder / f"{name}.lock", wait),
            wait=wait,
        )
        bar.update(spec.trials - bar.n)
    return study, folder / "study.log"


def _trial(params, suite, case, parts, folder, bar, hyperparameters, number, report):
    """The best validation loss of the trial ``number``, which ``report`` hears of after each epoch, and may end."""

    def on_epoch(state):
        checkpoint.keep(state)
        tell(state)

    def tell(state):
        last = state["history"][-1]
        bar.set_postfix_str(f"epoch {last['epoch']}, valid {last['valid']:.2f}", refresh=False)
        cli.heartbeat.beat(best=last["valid"])
        report(last["epoch"], last["valid"])

    bar.update(max(number - bar.n, 0))
    settings = {"weights": ("tune", "weights", number), "seed": ("tune", number), "epochs": params.tune.epochs}
    with checkpoints.Checkpoint(folder / f"{number}.pt", cli.device(), params.checkpoint) as checkpoint:
        try:
            if checkpoint.state:
                tell(checkpoint.state)
            settings |= {"state": checkpoint.state, "on_epoch": on_epoch}
            _, history = networks.fit(params, suite, case, hyperparameters, *parts, **settings)
        except training.DivergenceError:
            checkpoint.remove()
            raise
        checkpoint.remove()
    return min(record["valid"] for record in history)


@contextlib.contextmanager
def _helpers(count, suite, case):
    """As many other processes that join the search. They end when nothing is left, or with a block that fails."""
    command = [sys.executable, "-m", "camelsight.stages.tune", "--join", "--suite", suite, "--case", case]
    running = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    except BaseException:
        for process in running:
            process.terminate()
        raise
    finally:
        for process in running:
            process.wait()


def import_study(import_, *, study=None, suite=None, case=None, json=False):
    """Take the best trial of a published Optuna SQLite file.

    Writes it as the hyperparameters of --suite and --case, or else into the current folder; --study names one of
    several.
    """
    if (suite is None) != (case is None):
        raise ValueError("expected both --suite and --case, or neither, got one of them")
    if suite:
        theta.hydro_suite(suite)
        cases.parse(case)
    record, why = tuning.choose(studies.read(import_), study)
    if said := cmd.published(Path(import_).name):
        about, names, smoothing = said
        what = f"{about}, {', '.join(names)}, smoothing {smoothing or 'none'}"
        print(f"{Path(import_).name}: a study of CMD's benchmark, of {what}", file=sys.stderr)
    target = paths.hyperparameters(suite, case) if suite else Path("hyperparameters.json")
    store.write_json(target, record)
    print(f"{record['study']}: {why}", file=sys.stderr)
    if json:
        cli.print_json(record)
        return
    values = ", ".join(f"{key}: {value}" for key, value in record["hyperparameters"].items())
    print(f"best of {record['complete']} completed trials: number {record['trial']}, loss {record['value']:.4f}")
    print(f"wrote {target}; to train with it, put this under tune.start in params.yaml, with tune.trials: 0")
    print(f"  {case or 'original'}: {{{values}}}")


def export_study(export, *, suite, case):
    """Write the study of --suite and --case as an Optuna SQLite file, with the released names.

    Where --export is a folder, the file and the study are called as CMD's benchmark calls them.
    """
    journal = paths.study(suite, case)
    if not journal.exists() or not journal.stat().st_size:
        raise ValueError(f"expected the study {journal}, got none: run make paper with tune.trials above 0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.load_study(study_name=None, storage=studies.journal(journal))
    except Exception as error:  # Optuna raises whatever the lines make it raise
        raise ValueError(f"expected the journal of a search in {journal}, got: {store.one_line(error):.200}") from None
    name = f"{suite}_{case}"
    if Path(export).is_dir():
        fields = load(paths.PARAMS).fields
        export, name = Path(export, cmd.benchmark_names(suite, fields, case, 0)[0]), cmd.STUDY
    studies.write(export, tuning.released(study, name))
    print(f"wrote {export}")


if __name__ == "__main__":
    cli.run_stage(main, import_study, export_study, join, dashboard)
