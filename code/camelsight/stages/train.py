"""Train the network of a case with the hyperparameters chosen for it; goes on from the last epoch if it was cut off."""

from camelsight.analysis import networks
from camelsight.pipeline import checkpoints, cli, environment, paths, store


def main(params, suite, case):
    device = cli.device()
    hyperparameters = networks.chosen(suite, case)
    key = networks.resume_key(params, suite, case, device, "train", hyperparameters)
    finished = paths.finished_training(key)
    if (made := checkpoints.read(finished, device)) is None:
        made = _train(params, suite, case, device, key, hyperparameters)
        checkpoints.write(finished, made)  # DVC, killed before it has recorded them, deletes outs
        checkpoints.remove(paths.unfinished_training(key))
    net = networks.build(params, hyperparameters)
    net.load_state_dict(made["weights"])
    store.write_json(
        paths.history(suite, case),
        {
            "epochs": made["epochs"],
            "hyperparameters": hyperparameters,
            "precision": networks.precision(params, device),
            "engine": networks.engine(device),
            "weights": store.tensor_digest(net.state_dict()),
            "versions": made["environment"]["versions"],
        },
    )
    store.write_json(paths.record(suite, case), made["environment"])
    store.write_weights(paths.weights(suite, case), net)


def _train(params, suite, case, device, key, hyperparameters):
    """The weights, the history, and the environment as it was when the training began."""
    checkpoint, surroundings = paths.unfinished_training(key), environment.read()
    what = f"train {suite} {case}"
    net, history = networks.of_case(params, suite, case, device, hyperparameters, checkpoint=checkpoint, what=what)
    return {"weights": net.state_dict(), "epochs": history, "environment": surroundings}


if __name__ == "__main__":
    cli.run_stage(main)
