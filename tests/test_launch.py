"""Cases on several processes, GPUs and machines; and what can be seen of them meanwhile."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from submitit.core.utils import FailedJobError

from camelsight.commands import paper, status
from camelsight.pipeline import cli, launch, machine, params, paths, slurm, store
from conftest import ran

ROOT = Path(__file__).parent.parent
QUEUE = [(f"case-{number}", [f"train@case-{number}"]) for number in range(5)]

FAKE = """
import json, os, socket, sys, time

def run(targets):
    time.sleep(0.1)
    print("GPU", os.environ.get("CUDA_VISIBLE_DEVICES"), targets, flush=True)
    if os.environ["FAIL"] in targets[-1]:
        sys.exit("train: out of luck")

if sys.argv[1] != "--chains":
    sys.exit(run(sys.argv[1:]))
chains = socket.socket(fileno=int(sys.argv[2]))
while (message := socket.recv_fds(chains, 1000, 2))[0]:
    for number, file in enumerate(message[1], start=1):
        os.dup2(file, number)
    run(json.loads(message[0]))
    chains.send(b"1")
"""


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return params.load(ROOT / "profiles/smoke.yaml")


@pytest.fixture
def fake_dvc(monkeypatch, tmp_path):
    """A DVC that says which GPU it sees and what it is to do, and fails where that is case 3."""
    script = tmp_path / "dvc.py"
    script.write_text(FAKE)
    monkeypatch.setattr(launch, "DVC", [sys.executable, str(script)])
    monkeypatch.setenv("FAIL", "nothing")


def test_the_command_line_does_not_wait_for_torch():
    """It takes 1.5 s to import, more than all the rest that a run without work does."""
    code = "import sys, camelsight.__main__; sys.exit(bool({'torch', 'captum', 'optuna', 'scipy'} & set(sys.modules)))"
    assert ran(sys.executable, "-c", code, folder=ROOT).returncode == 0


def test_torch_is_asked_for_gpus_where_there_is_a_driver_alone(monkeypatch):
    """It takes 2 s to import, as long as all else that make plan does."""

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    monkeypatch.setattr(launch.os.path, "exists", lambda _: False)
    for load, found in ((missing, []), (str, ["4", "GPU-7"])):
        monkeypatch.setattr(launch.ctypes, "CDLL", load)
        assert launch.gpus() == found


def test_every_process_gets_one_gpu_and_the_next_one_the_gpu_that_has_become_free(smoke, fake_dvc, monkeypatch):
    monkeypatch.setattr(launch, "gpus", lambda: ["4", "GPU-7"])
    ended = []
    launch.local(QUEUE, 2, lambda key: ended.append(key) or key)
    assert sorted(ended) == [key for key, _ in QUEUE]
    said = [paths.log(key).read_text() for key, _ in QUEUE]
    assert {line.split()[1] for line in said} == {"4", "GPU-7"}
    assert all(f"['train@{key}']" in line for (key, _), line in zip(QUEUE, said, strict=True))
    assert launch.default_jobs(smoke) == 2


def test_a_case_that_is_attributed_is_trained_again_before(smoke):
    """Its attributions are those of all its networks; other repeats wait until the chains are done."""
    loaded = dataclasses.replace(smoke, repeats=(1, 2))
    names = launch.stages(loaded)
    assert len(names) == len(set(names)) and set(launch.stages(smoke)) < set(names)
    outside = dict(launch.experiments(loaded, names))
    within = dict(launch.chains(loaded, names))
    for suite, case in itertools.product(loaded.suites, loaded.cases):
        key = f"{suite}-{case}"
        again, chain = [f"repeat@{key}-{seed}" for seed in loaded.repeats], within[key]
        if case in loaded.attribute.cases:
            assert [one for one in chain if launch.kind(one) in ("train", "repeat", "attribute")] == [
                f"train@{key}", *again, f"attribute@{key}"
            ]  # fmt: skip
            assert not outside.keys() & set(again)
        else:
            assert outside.keys() >= set(again) and not set(chain) & set(again)
    assert {launch.kind(name) for name, _ in launch.experiments(smoke, launch.stages(smoke))} <= set(launch.EXPERIMENTS)


def test_without_a_gpu_processes_times_threads_are_the_cores(smoke, monkeypatch):
    monkeypatch.setattr(launch, "gpus", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(launch, "process_bytes", lambda _: 1)
    monkeypatch.setattr(machine, "groups", lambda _: [])
    assert launch.default_jobs(smoke) == 8
    object.__setattr__(smoke, "threads", 3)
    assert launch.default_jobs(smoke) == 2
    object.__setattr__(smoke, "tune", dataclasses.replace(smoke.tune, trials=2, workers=2))
    assert launch.default_jobs(smoke) == 1


@pytest.mark.parametrize("background", [False, True], ids=["in sight", "in the background"])
def test_a_case_that_fails_is_named_with_its_reason_and_its_log(smoke, fake_dvc, monkeypatch, background):
    """Also where the shell lets its children ignore SIGINT, as it does for those in the background of a script."""
    monkeypatch.setenv("FAIL", "case-3")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler)
    try:
        with pytest.raises(ValueError, match=r"case-3 failed: train: out of luck \(see runs/logs/case-3.log\)"):
            launch.local(QUEUE, 2, str)
    finally:
        signal.signal(signal.SIGINT, before)


def test_on_a_cluster_the_workers_of_a_search_are_jobs_that_join_it(smoke):
    object.__setattr__(smoke, "tune", dataclasses.replace(smoke.tune, workers=3))
    found = slurm._helpers(smoke, {"Nbody_IllustrisTNG-kmax_1": ["dvc"]})
    assert list(found) == ["Nbody_IllustrisTNG-kmax_1-2", "Nbody_IllustrisTNG-kmax_1-3"]
    for command in found.values():
        assert command[1:4] == ["-m", "camelsight.stages.tune", "--join"]
        assert command[4:] == ["--suite", "Nbody_IllustrisTNG", "--case", "kmax_1"]


def test_a_job_says_why_it_failed_and_refuses_other_code_or_parameters(smoke, fake_dvc, monkeypatch):
    paths.LOGS.mkdir(parents=True)
    paths.PARAMS.write_text("seed: 1")
    slurm.Job([*launch.DVC, "train@case-1"], paths.log("case-1"))()
    assert "train@case-1" in paths.log("case-1").read_text()
    monkeypatch.setenv("FAIL", "case-3")
    with pytest.raises(ValueError, match=r"train: out of luck"):
        slurm.Job([*launch.DVC, "train@case-3"], paths.log("case-3"))()
    job = slurm.Job(["true"], paths.log("case-4"))
    paths.PARAMS.write_text("seed: 2")
    with pytest.raises(ValueError, match=r"expected the code and the params.yaml that were submitted, \w+, got \w+ on"):
        job()
    again = job.checkpoint().function  # told to leave before it had begun
    assert again is not job and again.work == job.work


def test_a_controller_that_does_not_answer_is_named_at_once_and_given_up_in_the_end(tmp_path, monkeypatch, capsys):
    squeue, job = tmp_path / "squeue", type("Job", (), {"job_id": "7_0"})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error' >&2; exit 1\n")
    squeue.chmod(0o755)
    with pytest.raises(ValueError, match=r"SLURM has not answered for 0.1 s: slurm_load_jobs error"):
        slurm._states([job], patience=0.1)
    assert capsys.readouterr().err.count("SLURM does not answer (slurm_load_jobs error)") == 1
    squeue.write_text("#!/bin/sh\necho '7_0|RUNNING|node1'\n")
    assert slurm._states([job]) == {"7_0": ("RUNNING", "node1")}


def test_a_second_run_in_the_same_folder_is_refused(smoke):
    ran = []
    with store.claim(paths.RUN_LOCK) as mine, pytest.raises(ValueError, match="another make paper or make maps"):
        assert mine
        paper.say(lambda: ran.append(1), False)
    paper.say(lambda: ran.append(2), False)
    assert ran == [2]


def test_metrics_that_are_not_yet_seen_do_not_end_a_run(smoke):
    assert paper.summary("Nbody_IllustrisTNG-original", smoke) == "  Nbody_IllustrisTNG-original: done"


def say(suite, case, **said):
    where = {"profile": "smoke", "node": cli.node(), "pid": os.getpid(), "time": time.time()}
    store.write_json(paths.heartbeat(f"{suite}-{case}"), {"suite": suite, "case": case, **where, **said})


def states(smoke, pending):
    return {(row["suite"], row["case"]): row for row in status.rows(smoke, pending)}


def test_each_case_has_one_of_five_states(smoke):
    every = [f"{stage}@{suite}-{case}" for stage in launch.CHAIN for suite in smoke.suites for case in smoke.cases]
    pending = [stage for stage in every if not stage.endswith("@IllustrisTNG-max_1e12_random")]
    store.write_json(paths.history("IllustrisTNG", "max_1e12_random"), {"epochs": [{"valid": -3}, {"valid": -2}]})
    running = {"state": "running", "stage": "train", "done": 3, "total": 9, "unit": "epoch"}
    say("IllustrisTNG", "original", **running, best=-1.5, seconds_left=3700)
    say("IllustrisTNG", "kmax_1", **running | {"node": "another"}, per_item=200, time=time.time() - 900)
    say("Nbody_IllustrisTNG", "kmax_1", **running | {"node": "another"}, per_item=10, time=time.time() - 900)
    say("Nbody_IllustrisTNG", "original", state="failed", stage="tune", reason="no luck")
    rows = states(smoke, pending)
    assert {key: row["state"] for key, row in rows.items()} == {
        ("IllustrisTNG", "original"): "running",
        ("IllustrisTNG", "kmax_1"): "running",  # silent for long, but its epochs are long
        ("IllustrisTNG", "max_1e12_random"): "done",  # without a word: DVC has it
        ("Nbody_IllustrisTNG", "original"): "failed",
        ("Nbody_IllustrisTNG", "kmax_1"): "lost",
        ("Nbody_IllustrisTNG", "max_1e12_random"): "waiting",
    }
    assert rows["IllustrisTNG", "max_1e12_random"]["best"] == -3
    text = status.table(list(rows.values()))
    first = next(line for line in text.splitlines() if line.startswith("IllustrisTNG"))
    assert all(word in first for word in ("3/9 epoch", "-1.500", "1 h 01 min", cli.node()))
    assert "Nbody_IllustrisTNG-original: no luck" in text
    assert text.endswith("2 running, 1 waiting, 1 failed, 1 lost, 1 done")
    json.dumps(list(rows.values()), allow_nan=False)


def test_what_failed_or_was_lost_before_does_not_mark_a_case_that_is_done(smoke):
    say("IllustrisTNG", "original", state="failed", stage="train", reason="no luck")
    say("IllustrisTNG", "kmax_1", state="running", stage="train", node="another", time=0)
    assert {row["state"] for row in status.rows(smoke, [])} == {"done"}


def test_a_stage_whose_process_is_gone_is_lost(smoke):
    gone = subprocess.Popen(["true"])
    gone.wait()
    say("IllustrisTNG", "original", state="running", stage="train", pid=gone.pid)
    assert states(smoke, ["train@IllustrisTNG-original"])["IllustrisTNG", "original"]["state"] == "lost"


def test_a_stage_says_how_far_it_is_and_how_it_ended(smoke, monkeypatch):
    (Path("params.yaml")).write_text((ROOT / "profiles/smoke.yaml").read_text())
    said = []
    monkeypatch.setattr(cli, "BEAT_SECONDS", 0)

    def work(params, suite, case):
        with cli.progress(3, "work", "epoch", 1) as bar:
            bar.update(best=-1.0)
            said.append(store.read_json(paths.heartbeat("IllustrisTNG-original")))
            if case == "original":
                raise ValueError("no\nluck")

    with pytest.raises(ValueError):
        cli._timed(work, "train", {"suite": "IllustrisTNG", "case": "original"})
    running = {"profile": "smoke", "stage": "train", "state": "running", "done": 2, "total": 3, "unit": "epoch"}
    assert said[0].items() >= (running | {"best": -1.0, "node": cli.node(), "pid": os.getpid()}).items()
    assert said[0]["seconds_left"] == pytest.approx(said[0]["per_item"])
    ended = store.read_json(paths.heartbeat("IllustrisTNG-original"))
    assert (ended["state"], ended["reason"]) == ("failed", "no luck")
    cli._timed(work, "train", {"suite": "IllustrisTNG", "case": "kmax_1"})
    assert store.read_json(paths.heartbeat("IllustrisTNG-kmax_1"))["state"] == "done"


def test_the_lock_forgets_stages_that_the_pipeline_has_no_more_and_keeps_the_others(smoke):
    kept = "  cut@IllustrisTNG-kmax_1:\n    cmd: a\n    params:\n      params.yaml:\n        low: 1e-08\n"
    gone = "  cut@IllustrisTNG-kmax_3:\n    cmd: b\n  cut@SIMBA-kmax_1:\n    cmd: c\n"
    launch.forget(smoke)
    assert not paths.DVC_LOCK.exists()
    for text in ("schema: '2.0'\nstages:\n" + kept + gone, "schema: '2.0'\nstages:\n" + kept, "schema: '2.0'\n"):
        paths.DVC_LOCK.write_text(text)
        launch.forget(smoke)
        assert paths.DVC_LOCK.read_text() == text.replace(gone, "")


class Cluster:
    """An executor of submitit's whose SLURM takes ``limit`` jobs at a time, and ``array`` in an array."""

    def __init__(self, limit, array):
        self.limit, self.array, self.jobs, self.asked = limit, array, {}, []

    def batch(self):
        return self

    def __enter__(self):
        self.piece = []

    def __exit__(self, *_):
        self.asked.append(len(self.piece))
        if len(self.piece) > self.array:
            raise FailedJobError("sbatch: error: Batch job submission failed: Invalid job array specification")
        if len(self.jobs) + len(self.piece) > self.limit:
            raise FailedJobError(
                "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
            )

    def submit(self, job):
        self.piece.append(job)
        return job


@pytest.mark.parametrize(
    ("limit", "array", "concurrency"), [(1000, 5, 256), (7, 1001, 256), (1000, 5, 8), (1000, 1001, 2)]
)
def test_no_more_jobs_are_submitted_than_slurm_takes_and_all_are_in_the_end(smoke, limit, array, concurrency):
    paths.PARAMS.write_text("seed: 1")
    cluster, left, done = Cluster(limit, array), {f"case-{number}": ["true"] for number in range(54)}, []
    limits = {"array": array, "jobs": concurrency}
    while left or cluster.jobs:
        slurm._submit(cluster, left, cluster.jobs, limits)
        assert cluster.jobs and len(cluster.jobs) <= limit
        before = len(cluster.asked)
        slurm._submit(cluster, left, cluster.jobs, limits)
        assert len(cluster.asked) == before, "not asked again before one has ended"
        done.append(next(iter(cluster.jobs)))
        del cluster.jobs[done[-1]]
    assert sorted(done) == sorted(f"case-{number}" for number in range(54))


def test_another_refusal_of_slurm_is_one_line_at_once(smoke, monkeypatch):
    paths.PARAMS.write_text("seed: 1")
    cluster = Cluster(1000, 1000)
    monkeypatch.setattr(Cluster, "__exit__", lambda *_: (_ for _ in ()).throw(FailedJobError("invalid partition")))
    with pytest.raises(ValueError, match="SLURM takes no job: invalid partition"):
        slurm._submit(cluster, {"a": ["true"], "b": ["true"]}, {}, {"array": 9, "jobs": 9})


def test_what_a_site_wants_passes_through_to_slurm(smoke):
    asked = slurm.job_parameters(smoke, qos="short", constraint="a100&nvme", sbatch="--reservation='a b' --exclusive")
    assert (asked["qos"], asked["constraint"], asked["time"]) == ("short", "a100&nvme", 720)
    assert "partition" not in asked
    assert asked["additional_parameters"] == {"requeue": True, "reservation": "a b", "exclusive": True}
    object.__setattr__(smoke, "threads", 4)
    of_node = int(slurm.job_parameters(smoke)["mem"][:-1])
    of_cpu = slurm.job_parameters(smoke, memory="cpu")
    assert "mem" not in of_cpu and of_node / 4 <= int(of_cpu["mem_per_cpu"][:-1]) <= of_node / 4 + 1
    assert not {"mem", "mem_per_cpu"} & slurm.job_parameters(smoke, memory="none").keys()
    for wrong in ("exclude=node3", "-x", "--", "--a='b"):
        with pytest.raises(ValueError, match="expected options of sbatch"):
            slurm.job_parameters(smoke, sbatch=wrong)
