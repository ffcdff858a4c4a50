"""Best validation loss against the epochs spent: searches of full trials, and searches with successive halving.

`python benchmarks/tuning.py` runs what is missing, in runs/benchmark, of both kinds of search for each seed, trains
networks from other seeds with what each search found, because the lowest of many losses is partly luck, and writes what
is there to tuning.json. It goes on where it was killed, and several processes share the work; --record only writes. It
needs maps and cut of the profile mini: `dvc repro cut@IllustrisTNG-original`. No search is given hyperparameters to
start from.
"""

import dataclasses
import datetime
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from camelsight.analysis import dataset, networks
from camelsight.ground import seeding
from camelsight.inference import tuning
from camelsight.pipeline import checkpoints, cli, environment, packages, params, store, studies

SUITE, CASE = "IllustrisTNG", "original"
SEEDS, TRIALS, EPOCHS = (1, 2, 3), 36, 20  # what two hours of CPU allow
RUNGS = {"full": (), "halving": tuple(tuning.rungs(EPOCHS))}
RANGES = {"max_lr": (4e-3, 3e-2), "weight_decay": (1e-5, 1e-1), "dropout": (0.0, 0.3), "hidden": (3, 5)}
AGAIN = 3  # networks trained with what a search found
FOLDER, RECORD = Path("runs/benchmark"), Path(__file__).with_suffix(".json")


def search(kind, seed, trials, train, valid):
    """The study, with what was missing of ``trials`` trials; ``train`` and ``valid`` are (maps, targets)."""
    mini = _profile(seed)

    def objective(hyperparameters, number, report):
        def on_epoch(state):
            checkpoint.keep(state)
            last = state["history"][-1]
            with open(FOLDER / f"{kind}-{seed}.jsonl", "a") as file:
                print(json.dumps({"trial": number, "epoch": last["epoch"], "valid": last["valid"]}), file=file)
            report(last["epoch"], last["valid"])

        path = FOLDER / f"{kind}-{seed}-{number}.pt"
        with checkpoints.Checkpoint(path, train[0].device, mini.checkpoint) as checkpoint:
            if checkpoint.state:
                report(checkpoint.state["history"][-1]["epoch"], checkpoint.state["history"][-1]["valid"])
            loss = _best_loss(
                mini, hyperparameters, train, valid, ("tune", number), state=checkpoint.state, on_epoch=on_epoch
            )
        checkpoint.remove()
        return loss

    return tuning.search(
        objective, trials=trials, ranges=RANGES, first=None,
        storage=studies.journal(FOLDER / f"{kind}-{seed}.log"), seed=seeding.entropy(seed, SUITE, CASE, "tune"),
        rungs=RUNGS[kind],
    )  # fmt: skip


def train_again(kind, seed, train, valid):
    """The losses of ``AGAIN`` networks with the best hyperparameters of a finished search, into a file."""
    found = tuning.best(search(kind, seed, TRIALS, train, valid))["hyperparameters"]
    losses = [_best_loss(_profile(seed), found, train, valid, ("again", number)) for number in range(AGAIN)]
    store.write_json(_again(kind, seed), losses)


def _profile(seed):
    return dataclasses.replace(params.load("profiles/mini.yaml"), seed=seed)


def _best_loss(profile, hyperparameters, train, valid, words, **progress):
    _, history = networks.fit(
        profile, SUITE, CASE, hyperparameters, train, valid, weights=(words[0], "weights", *words[1:]), seed=words,
        epochs=EPOCHS, **progress,
    )  # fmt: skip
    return min(record["valid"] for record in history)


def _again(kind, seed):
    return FOLDER / f"{kind}-{seed}.again.json"


def epochs_of(kind, seed):
    """(trial, epoch) -> validation loss, in the order in which they were trained."""
    path = FOLDER / f"{kind}-{seed}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["trial"], row["epoch"]): row["valid"] for row in rows}  # after a kill, some were trained twice


def trials_of(kind, seed):
    """How many trials have run all their epochs, or, of a search with halving, have begun."""
    done = epochs_of(kind, seed)
    return len([trial for trial, epoch in done if epoch == (EPOCHS if kind == "full" else 1)])


def finished(kind, seed):
    return trials_of(kind, seed) == TRIALS and (FOLDER / f"{kind}-{seed}.done").exists()


def run():
    mini = params.load("profiles/mini.yaml")
    train, valid = dataset.load_tensors(mini, SUITE, CASE, ("train", "valid"), cli.device())
    while left := [(kind, seed) for kind in RUNGS for seed in SEEDS if not _again(kind, seed).exists()]:
        left.sort(key=lambda one: (one[0] == "full", trials_of(*one)))
        for kind, seed in left:
            with store.claim(FOLDER / f"{kind}-{seed}.lock") as mine:
                if not mine:
                    continue
                if finished(kind, seed):
                    train_again(kind, seed, train, valid)
                else:
                    trials = min(TRIALS, trials_of(kind, seed) + 1) if kind == "full" else TRIALS
                    search(kind, seed, trials, train, valid)
                    if trials == TRIALS:
                        (FOLDER / f"{kind}-{seed}.done").touch()
                break
        else:
            return  # other processes are at work on the rest


def record():
    """What there is of each search, and whether that is all of it.

    Its trials and epochs, where the best loss fell: [epochs spent, loss], ..., and the losses of the networks that were
    trained again with what it found.
    """
    searches = []
    for kind in RUNGS:
        for seed in SEEDS:
            falls, best = [], float("inf")
            for spent, loss in enumerate(losses := list(epochs_of(kind, seed).values()), start=1):
                if loss < best:
                    falls, best = [*falls, [spent, round(loss, 4)]], loss
            facts = {"kind": kind, "seed": seed, "finished": finished(kind, seed), "trials": trials_of(kind, seed)}
            again = store.read_json(_again(kind, seed)) if _again(kind, seed).exists() else []
            facts |= {"epochs": len(losses), "best": falls, "again": [round(loss, 4) for loss in again]}
            searches.append(facts)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    about = {
        "suite": SUITE, "case": CASE, "profile": "mini", "trials": TRIALS, "epochs": EPOCHS, "rungs": RUNGS["halving"],
        "factor": tuning.FACTOR, "hardware": environment.hardware(), "date": str(datetime.date.today()),
        "commit": commit, "versions": packages.versions(("torch", "optuna")),
    }  # fmt: skip
    store.write_json(RECORD, {"about": about, "searches": searches})


def epochs(kind):
    """The mean number of epochs that the finished ones of the recorded searches of a kind took; NaN without any."""
    searches = store.read_json(RECORD)["searches"]
    took = [one["epochs"] for one in searches if one["kind"] == kind and one["finished"]]
    return statistics.mean(took) if took else float("nan")


ROWS = [
    {"name": "tune-epochs", "unit": "epochs a search", "rounds": 1, "ours": lambda: epochs("halving"),
     "peer": lambda: epochs("full"),
     "note": f"as recorded in {RECORD.name}, with the losses reached; peer: full trials. Target 6"},
]  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(1)
    cli.keep_memory()
    if "--record" not in sys.argv:
        run()
    record()
