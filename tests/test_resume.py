"""Work that is killed at any moment goes on to the same bits. Run as a program, this file is what gets killed.

The program forks from one interpreter, because importing torch takes longer than all that is killed here.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from camelsight.inference import network, training, tuning
from camelsight.pipeline import checkpoints, cli, store, studies

KILLS, SIZE, EPOCHS = 20, 16, 8
RANGES = {"max_lr": (1e-3, 3e-2), "dropout": (0.0, 0.3), "hidden": (2, 3)}


def fit(checkpoint, hyperparameters, seed=1, on_epoch=lambda state: None, epochs=EPOCHS):
    """A small training on noise that goes on from ``checkpoint``: the network and its history."""
    generator = torch.Generator().manual_seed(5)
    maps, theta = torch.randn(96, 1, SIZE, SIZE, generator=generator), torch.rand(96, 2, generator=generator)
    net = network.build(
        hyperparameters["hidden"], hyperparameters["dropout"], size=SIZE, parameters=2, generator=generator
    )

    def keep(state):
        checkpoint.keep(state)
        on_epoch(state)

    history = training.fit(
        net, (maps, theta), (maps[:32], theta[:32]), epochs=epochs, batch=16, max_lr=hyperparameters["max_lr"],
        weight_decay=1e-3, seed=seed, schedule="onecycle", state=checkpoint.state, on_epoch=keep,
    )  # fmt: skip
    return net, history


def train(folder, seconds=0.0, on_epoch=lambda state: None):
    """A training whose result is one file; what is unfinished is saved every ``seconds``."""
    with checkpoints.Checkpoint(folder / "train.pt", "cpu", seconds) as checkpoint:
        net, history = fit(checkpoint, {"max_lr": 1e-2, "dropout": 0.1, "hidden": 2}, on_epoch=on_epoch)
    store.write_json(folder / "result.json", [store.tensor_digest(net.state_dict()), history])
    checkpoint.remove()


def tune(folder, trials=9):
    """A search whose result is one file."""

    def objective(hyperparameters, number, report):
        def tell(state):
            report(state["history"][-1]["epoch"], state["history"][-1]["valid"])

        with checkpoints.Checkpoint(folder / f"{number}.pt", "cpu", 0) as checkpoint:
            if checkpoint.state:
                tell(checkpoint.state)
            _, history = fit(checkpoint, hyperparameters, seed=number, on_epoch=tell)
        checkpoint.remove()
        return min(record["valid"] for record in history)

    study = tuning.search(
        objective, trials=trials, ranges=RANGES, first=None, storage=studies.journal(folder / "study.log"), seed=1,
        rungs=(1, 3), claim=lambda name, wait=False: store.claim(folder / f"{name}.lock", wait),
    )  # fmt: skip
    store.write_json(folder / "result.json", tuning.record(study))


def start(action, *arguments):
    """A process of its own that runs ``action`` as a stage is run."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        cli.guard(lambda: action(*arguments), "test")
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_and_kill(action, folder):
    """Killed KILLS times at seeded moments, as often begun anew as it came to its end: how many ends differed."""
    rng, begun = random.Random(1), time.monotonic()
    results = {run(action, folder / "whole")}
    took, kills, runs = time.monotonic() - begun, 0, 0
    while kills < KILLS:
        attempt, runs, code = make(folder / str(runs)), runs + 1, None
        while code != 0:
            pid = start(action, attempt)
            if kills < KILLS:
                time.sleep(rng.uniform(0, took / 2))
                os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            kills += code != 0
        results.add((attempt / "result.json").read_text())
    return {"kills": kills, "runs": runs, "results": len(results)}


def run(action, folder):
    assert ended(start(action, make(folder))) == 0
    return (folder / "result.json").read_text()


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def terminate_within_an_epoch(folder):
    """SIGTERM where no interval has passed yet: the exit code, what is saved, what else is there, and the result."""

    def on_epoch(state):
        if len(state["history"]) == 3:
            (folder / "at three").touch()
            time.sleep(0.01)

    pid = start(train, make(folder), 1e9, on_epoch)
    while not (folder / "at three").exists():
        time.sleep(0.001)
    time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    code = ended(pid)
    saved = len(checkpoints.read(folder / "train.pt", "cpu")["history"])
    files = sorted(path.name for path in folder.iterdir())
    same = run(train, folder) == run(train, folder / "whole")
    return {"code": code, "saved": saved, "files": files, "same": same}


def lose_a_worker(folder):
    """Two processes on one study, of which one is killed."""
    workers = [start(tune, make(folder), 6) for _ in range(2)]
    time.sleep(0.3)
    os.kill(workers[0], signal.SIGKILL)
    codes = [ended(pid) for pid in workers]
    record = json.loads((folder / "result.json").read_text())
    return {"codes": codes, "states": [trial["state"] for trial in record],
            "distinct": len({json.dumps(trial["hyperparameters"]) for trial in record})}  # fmt: skip


def report(name, folder):
    """What ``name`` found, run in an interpreter of its own."""
    command = [sys.executable, __file__, name, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("action", ["train", "tune"])
def test_what_is_killed_at_any_moment_goes_on_to_the_same_bits(action, tmp_path):
    found = report(action, tmp_path)
    assert found["kills"] >= KILLS and found["runs"] >= 1
    assert found["results"] == 1, "a run that was killed ended in other bits"


def test_a_signal_to_end_saves_the_last_whole_epoch(tmp_path):
    found = report("terminate", tmp_path)
    assert found["code"] == cli.INTERRUPTED and found["same"]
    assert 3 <= found["saved"] <= EPOCHS and found["files"] == ["at three", "train.pt"]


def test_the_trial_of_a_worker_that_died_is_taken_up_by_another(tmp_path):
    found = report("worker", tmp_path)
    assert found["codes"] == [-signal.SIGKILL, 0]
    assert len(found["states"]) == found["distinct"] == 6 and "complete" in found["states"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder))  # what torch sets up at first is there when the process is forked
    name, place = sys.argv[1], Path(sys.argv[2])
    actions = {
        "train": lambda: run_and_kill(train, place),
        "tune": lambda: run_and_kill(tune, place),
        "terminate": lambda: terminate_within_an_epoch(place / "run"),
        "worker": lambda: lose_a_worker(place / "run"),
    }
    print(json.dumps(actions[name]()))
