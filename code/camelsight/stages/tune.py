"""Search the hyperparameters of a case: Optuna's TPE on the validation loss."""

import optuna

from camelsight import cli, dataset, paths, seeding, store
from camelsight.inference import network, training, tuning

RANGES = ("max_lr", "weight_decay", "dropout", "hidden")


def main(params, suite, case):
    spec, device = params.tune, cli.device()
    precision = training.resolve_precision(params.train.precision, device)
    parts = dataset.load(params, suite, case, ("train", "valid"))
    train, valid = ((parts[name].maps.to(device), parts[name].targets.to(device)) for name in ("train", "valid"))

    key = dataset.resume_key(params, suite, case, device, "tune", precision, params.tune)
    journal = paths.CHECKPOINTS / f"tune-{key}.log"
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))

    with cli.progress(spec.trials * spec.epochs, f"tune {suite} {case}", "epoch") as bar:

        def objective(hyperparameters, number):
            net = network.build(
                hyperparameters["hidden"],
                hyperparameters["dropout"],
                size=params.maps.pixels,
                generator=seeding.torch_generator(params.seed, suite, case, "tune", "weights", number),
            ).to(device)
            history = training.fit(
                net,
                train,
                valid,
                epochs=spec.epochs,
                batch=params.train.batch,
                max_lr=hyperparameters["max_lr"],
                weight_decay=hyperparameters["weight_decay"],
                seed=seeding.entropy(params.seed, suite, case, "tune", number),
                schedule=params.train.schedule,
                precision=precision,
                on_epoch=lambda state: bar.update(),
            )
            return min(record["valid"] for record in history)

        study = tuning.search(
            objective,
            trials=spec.trials,
            ranges={name: getattr(spec, name) for name in RANGES},
            first=store.plain(spec.first),
            storage=storage,
            seed=seeding.entropy(params.seed, suite, case, "tune"),
        )
    store.write_json(paths.tuning(suite, case), tuning.best(study))
    store.write_bytes(paths.study(suite, case), journal.read_bytes())
    journal.unlink()


if __name__ == "__main__":
    cli.run_stage(main)
