"""Search the hyperparameters of a case: Optuna's TPE on the validation loss."""

import sys
from pathlib import Path

import optuna

from camelsight import cases, cli, dataset, networks, paths, seeding, store, studies, theta
from camelsight.inference import training, tuning

RANGES = ("max_lr", "weight_decay", "dropout", "hidden")


def main(params, suite, case):
    start = params.tune.start_of(case)
    if params.tune.trials == 0:
        store.write_json(
            paths.tuning(suite, case), {"hyperparameters": start, "value": None, "trial": None, "complete": 0}
        )
        store.write_text(paths.study(suite, case), "")
        return
    spec, device = params.tune, cli.device()
    precision = training.resolve_precision(params.train.precision, device)
    train, valid = dataset.load_tensors(params, suite, case, ("train", "valid"), device)

    key = dataset.resume_key(params, suite, case, device, networks.engine(device), "tune", precision, params.tune)
    journal = paths.CHECKPOINTS / f"tune-{key}.log"
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))

    with cli.progress(spec.trials * spec.epochs, f"tune {suite} {case}", "epoch") as bar:

        def objective(hyperparameters, number):
            _, history = networks.fit(
                params,
                suite,
                case,
                hyperparameters,
                train,
                valid,
                weights=("tune", "weights", number),
                seed=("tune", number),
                epochs=spec.epochs,
                precision=precision,
                on_epoch=lambda state: bar.update(),
            )
            return min(record["valid"] for record in history)

        study = tuning.search(
            objective,
            trials=spec.trials,
            ranges={name: getattr(spec, name) for name in RANGES},
            first=store.plain(start),
            storage=storage,
            seed=seeding.entropy(params.seed, suite, case, "tune"),
        )
    store.write_json(paths.tuning(suite, case), tuning.best(study))
    store.write_bytes(paths.study(suite, case), journal.read_bytes())
    journal.unlink()


def import_study(import_, *, study=None, suite=None, case=None, json=False):
    """Take the best trial of a published Optuna SQLite file.

    Writes it as the tuning.json of --suite and --case, or else into the current folder; --study names one of several.
    """
    if (suite is None) != (case is None):
        raise ValueError("expected both --suite and --case, or neither, got one of them")
    if suite:
        theta.hydro_suite(suite)
        cases.parse(case)
    record, why = tuning.choose(studies.read(import_), study)
    target = paths.tuning(suite, case) if suite else Path(paths.tuning("", "").name)
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
    """Write the study of --suite and --case as an Optuna SQLite file, with the released names."""
    journal = paths.study(suite, case)
    if not journal.exists() or not journal.stat().st_size:
        raise ValueError(f"expected the study {journal}, got none: run make paper with tune.trials above 0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    study = optuna.load_study(study_name=None, storage=storage)
    studies.write(export, tuning.released(study, f"{suite}_{case}"))
    print(f"wrote {export}")


if __name__ == "__main__":
    cli.run_stage(main, import_study, export_study)
