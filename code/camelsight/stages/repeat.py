"""Train the network of a case once more, from another seed, and measure it: how much of R² is luck of the training?"""

import dataclasses

from camelsight.analysis import dataset, networks, prediction
from camelsight.ground import theta
from camelsight.inference import metrics
from camelsight.pipeline import checkpoints, cli, paths, store


def main(params, suite, case, seed):
    params = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=int(seed)), repeats=())
    device, hyperparameters = cli.device(), networks.chosen(suite, case)
    key = networks.resume_key(params, suite, case, device, "repeat", hyperparameters)
    checkpoint, what = paths.unfinished_training(key), f"repeat {suite} {case} {seed}"
    net, history = networks.of_case(params, suite, case, device, hyperparameters, checkpoint=checkpoint, what=what)
    part = dataset.load(params, suite, case, ("test",))["test"]
    predictions = prediction.predict(net, part, suite, params.evaluate.views)
    record = {
        "suite": suite,
        "case": case,
        "seed": params.train.seed,
        "weights": store.tensor_digest(net.state_dict()),
        "valid": min(epoch["valid"] for epoch in history),
        "r2": dict(zip(theta.NAMES, metrics.r2(predictions["truth"], predictions["mean"]), strict=True)),
    }
    store.write_weights(paths.repeated_weights(suite, case, seed), net)
    store.write_json(paths.repeat(suite, case, seed), record)
    checkpoints.finish(checkpoint)


if __name__ == "__main__":
    cli.run_stage(main)
