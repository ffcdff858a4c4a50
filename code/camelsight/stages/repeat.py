"""Train the network of a case once more, from another seed, and measure it: how much of R² is luck of the training?"""

import dataclasses

from camelsight.analysis import dataset, networks, prediction
from camelsight.ground import theta
from camelsight.inference import metrics
from camelsight.pipeline import cli, paths, store


def main(params, suite, case, seed):
    params = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=int(seed)), repeats=())
    spec, device, hyperparameters = params.train, cli.device(), networks.chosen(suite, case)
    key = networks.resume_key(params, suite, case, device, "repeat", hyperparameters)
    train, valid = dataset.load_tensors(params, suite, case, ("train", "valid"), device)
    net, history = networks.resumed(
        params,
        suite,
        case,
        hyperparameters,
        train,
        valid,
        checkpoint=paths.unfinished_training(key),
        what=f"repeat {suite} {case} {seed}",
        weights=("train", "weights"),
        seed=("train",),
        epochs=spec.epochs,
        patience=spec.patience,
    )
    part = dataset.load(params, suite, case, ("test",))["test"]
    predictions = prediction.predict(net, part, suite, params.evaluate.views)
    record = {
        "suite": suite,
        "case": case,
        "seed": spec.seed,
        "weights": store.tensor_digest(net.state_dict()),
        "valid": min(epoch["valid"] for epoch in history),
        "r2": dict(zip(theta.NAMES, metrics.r2(predictions["truth"], predictions["mean"]), strict=True)),
    }
    store.write_json(paths.repeat(suite, case, spec.seed), record)
    store.finish_checkpoint(paths.unfinished_training(key))


if __name__ == "__main__":
    cli.run_stage(main)
