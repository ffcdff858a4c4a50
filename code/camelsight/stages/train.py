"""Train the network of a case with its tuned hyperparameters; goes on from the last epoch if it was cut off."""

from camelsight import cli, dataset, environment, networks, paths, store
from camelsight.inference import network, training


def main(params, suite, case):
    device = cli.device()
    precision = training.resolve_precision(params.train.precision, device)
    hyperparameters = store.read_json(paths.tuning(suite, case))["hyperparameters"]
    key = dataset.resume_key(params, suite, case, device, networks.engine(device), "train", precision, hyperparameters)
    finished = paths.finished_training(key)
    if (made := store.read_checkpoint(finished, device)) is None:
        made = _train(params, suite, case, device, key, precision, hyperparameters)
        store.write_checkpoint(finished, made)  # DVC, killed before it has recorded them, deletes outs
        store.remove_checkpoint(paths.unfinished_training(key))
    net = network.build(hyperparameters["hidden"], hyperparameters["dropout"], size=params.maps.pixels)
    net.load_state_dict(made["weights"])
    store.write_json(
        paths.history(suite, case),
        {
            "epochs": made["epochs"],
            "hyperparameters": hyperparameters,
            "precision": precision,
            "weights": store.tensor_digest(net.state_dict()),
            "environment": made["environment"],
        },
    )
    store.write_weights(paths.weights(suite, case), net)


def _train(params, suite, case, device, key, precision, hyperparameters):
    """The weights, the history, and the environment as it was when the training began."""
    spec, surroundings = params.train, environment.read()
    train, valid = dataset.load_tensors(params, suite, case, ("train", "valid"), device)
    checkpoint = store.Checkpoint(paths.unfinished_training(key), device, params.checkpoint)
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
    return {"weights": net.state_dict(), "epochs": history, "environment": surroundings}


if __name__ == "__main__":
    cli.run_stage(main)
