"""Train the network of a case with its tuned hyperparameters; goes on from the last epoch if it was cut off."""

from camelsight import cli, dataset, environment, networks, paths, store
from camelsight.inference import training


def main(params, suite, case):
    spec, device = params.train, cli.device()
    precision = training.resolve_precision(spec.precision, device)
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    train, valid = dataset.load_tensors(params, suite, case, ("train", "valid"), device)
    key = dataset.resume_key(params, suite, case, device, networks.engine(device), "train", precision, hyperparameters)
    checkpoint = store.Checkpoint(paths.CHECKPOINTS / f"train-{key}.pt", device, params.checkpoint)
    done = len(checkpoint.state["history"]) if checkpoint.state else 0
    with checkpoint, cli.progress(spec.epochs, f"train {suite} {case}", "epoch", done) as bar:

        def on_epoch(state):
            checkpoint.keep(state)
            bar.set_postfix_str(f"valid {state['history'][-1]['valid']:.2f}", refresh=False)
            bar.update(best=min(record["valid"] for record in state["history"]))

        net, history = networks.fit(
            params,
            suite,
            case,
            hyperparameters,
            train,
            valid,
            weights=("train", "weights"),
            seed=("train",),
            epochs=spec.epochs,
            precision=precision,
            patience=spec.patience,
            state=checkpoint.state,
            on_epoch=on_epoch,
        )
    store.write_json(
        paths.history(suite, case),
        {
            "epochs": history,
            "hyperparameters": hyperparameters,
            "precision": precision,
            "weights": store.tensor_digest(net.state_dict()),
            "environment": environment.read(),
        },
    )
    store.write_weights(paths.weights(suite, case), net)
    checkpoint.remove()


if __name__ == "__main__":
    cli.run_stage(main)
