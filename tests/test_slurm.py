"""A real SLURM on loopback: two nodes, a third that does not see the disk, and what clusters do to jobs."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
import yaml

from camelsight.pipeline import params, paths, slurm, store
from camelsight.stages import choose, cut, evaluate, train, tune
from smoke import camelsight, changed, check_out, finish

SUITE = "IllustrisTNG"
CASES = ("original", "kmax_1", "max_1e12_random")
STAGES = ("code", "maps", "cut", "tune", "choose", "train", "evaluate")  # the rest needs no cluster
EPOCHS = 300  # some seconds, in which a job can be met at work
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

missing = [program for program in PROGRAMS if not shutil.which(program)]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing),
    reason=f"needs root and Debian's slurm-wlm; here: uid {os.geteuid()}, missing {', '.join(missing) or 'nothing'}",
)

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
MailProg=/bin/true
SlurmdParameters=config_overrides
MaxArraySize=5
ReturnToService=2
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000
NodeName=node3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=1 RealMemory=4000
PartitionName=all Nodes=node[1-2] Default=YES State=UP
PartitionName=blind Nodes=node3 State=UP
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout whose pipeline ends with evaluate."""
    folder = tmp_path_factory.mktemp("project")
    check_out(folder)
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    (folder / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: stages[name] for name in STAGES}}, sort_keys=False)
    )
    values = yaml.safe_load((folder / "profiles/smoke.yaml").read_text())
    values["suites"], values["cases"], values["attribute"]["cases"] = [SUITE], list(CASES), ["original"]
    values["train"]["epochs"] = EPOCHS
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, project):
    """munged, slurmctld and three slurmd, of which the third has an empty folder in place of the project."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(socket.socket()) for _ in range(4)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        ports = [port.getsockname()[1] for port in ports]
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports))
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o600)
    munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    blind = f"mount -t tmpfs none {project} && exec slurmd -D -N node3"
    commands = [
        ["munged", "--foreground", "--force", *(f"--{name}={folder}/munge.{end}" for name, end in munge.items())],
        ["slurmctld", "-D", "-i"],
        *(["slurmd", "-D", "-N", node] for node in ("node1", "node2")),
        ["unshare", "--mount", "sh", "-c", blind],
    ]
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    running = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        try:
            for command in commands:
                with open(folder / f"{len(running)}.out", "w") as log:
                    running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                if command[0] == "munged":
                    until(lambda: (folder / "munge.socket").exists())
            until(lambda: scontrol("show", "node", "node1,node2").count("State=IDLE") == 2)
            yield folder
        finally:
            subprocess.run(["scancel", "--state=PENDING", "--user=root"], check=False)
            subprocess.run(["scancel", "--signal=KILL", "--user=root"], check=False)
            for process in reversed(running):
                process.terminate()
            for process in reversed(running):
                process.wait(30)


def scontrol(*arguments):
    run = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def until(condition, run=None, seconds=300):
    """What ``condition`` returns once it is true; fails when ``run``, a command, has ended before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "in vain"
        assert run is None or run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    return found


def status(project):
    return {row["case"]: row for row in json.loads(finish(camelsight(project, "status", "--json")))["rows"]}


def at_work(project, case, stage, other_than=None):
    """The job that has trained an epoch of ``case``, or None."""
    path = project / paths.heartbeat(f"{SUITE}-{case}")
    said = store.read_json(path) if path.exists() else {}
    busy = (said.get("stage"), said.get("state")) == (stage, "running") and said.get("done", 0) >= 1
    return said["job"] if busy and said["job"] != other_than else None


def weights(folder, case):
    return store.read_json(folder / paths.history(SUITE, case))["weights"]


def started_again(job):
    """SLURM lets a job that went back to the queue wait for two minutes; not here."""
    until(lambda: "JobState=PENDING" in scontrol("show", "job", job))
    scontrol("update", f"jobid={job}", "starttime=now")


@pytest.fixture(scope="module")
def ended(project, cluster, request):
    """A run on one of two nodes, the other one drained, and its repetition.

    Of three jobs that train, the first is told that its time is up, the second is cancelled, the third preempted.
    """
    run = camelsight(project, "paper", "--launch", "slurm", "--minutes", "20")
    request.addfinalizer(lambda: run.poll() is None and run.kill())
    until(lambda: scontrol("show", "job").count("JobName=camelsight-tune") >= 1, run)
    scontrol("update", "nodename=node2", "state=drain", "reason=test")
    timed_out = until(lambda: at_work(project, "original", "train"), run)
    signalling = subprocess.Popen(["scancel", "--quiet", "--signal=USR2", timed_out])  # and again, until it is stopped
    until(lambda: "JobState=PENDING" in scontrol("show", "job", timed_out), run)
    signalling.kill()
    signalling.wait()
    cancelled = until(lambda: at_work(project, "kmax_1", "train"), run)
    shown = status(project)
    subprocess.run(["scancel", cancelled], check=True)
    preempted = until(lambda: at_work(project, "max_1e12_random", "train"), run)
    scontrol("requeue", preempted)
    for job in (timed_out, preempted):
        started_again(job)
    scontrol("update", "nodename=node2", "state=resume")
    first = finish(run, code=1)
    between = status(project)
    second = finish(camelsight(project, "paper", "--launch", "slurm", "--minutes", "20", "--concurrency", "1"))
    return {"first": first, "second": second, "cancelled": cancelled, "shown": shown, "between": between}


def test_a_job_that_is_cancelled_is_named_and_the_others_go_on(ended):
    lines = [line for line in ended["first"].splitlines() if line.startswith("paper: ")]
    job = f"job {ended['cancelled']} on node1"
    assert lines == [f"paper: {SUITE}-kmax_1 failed: {job} was cancelled; the same command goes on from there"]
    assert {case: row["state"] for case, row in ended["between"].items()} == {
        "original": "done",
        "kmax_1": "waiting",
        "max_1e12_random": "done",
    }


def test_status_says_where_a_job_is_and_how_far(ended):
    row = ended["shown"]["kmax_1"]
    assert (row["state"], row["stage"], row["total"]) == ("running", "train", EPOCHS)
    assert (row["node"], row["job"]) == ("node1", ended["cancelled"])
    assert row["done"] >= 1 and row["best"] is not None


def test_what_was_cut_off_goes_on_from_its_last_epoch(project, ended):
    for case in CASES:
        log = (project / paths.log(f"{SUITE}-{case}")).read_text()
        before, after = log.split(f"train {SUITE} {case}: interrupted")
        first = re.search(rf"train {SUITE} {case}: +\d+%\|[^|]*\| (\d+)/{EPOCHS}", after)
        assert int(first[1]) > 0 and f"{EPOCHS}/{EPOCHS}" in after and f"{EPOCHS}/{EPOCHS}" not in before
    assert {row["state"] for row in status(project).values()} == {"done"}


def test_the_cluster_and_this_process_make_the_same_weights_and_metrics(project, ended, tmp_path, monkeypatch):
    shutil.copytree(project / "data/maps", tmp_path / "data/maps")
    shutil.copy(project / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    loaded = params.load()
    for case in loaded.tune.cases:
        cut.main(loaded, SUITE, case)
        tune.main(loaded, SUITE, case)
    for case in CASES:
        for stage in (cut, choose, train, evaluate):
            stage.main(loaded, SUITE, case)
        assert weights(tmp_path, case) == weights(project, case)
        assert (tmp_path / paths.metrics(SUITE, case)).read_bytes() == (
            project / paths.metrics(SUITE, case)
        ).read_bytes()


def test_a_node_that_does_not_see_the_repository_is_one_clear_line(project, ended):
    if "State=IDLE" not in scontrol("show", "node", "node3"):
        pytest.skip("no name space for mounts here")
    with changed(lambda text: text.replace("seed: 1", "seed: 2"), project / "params.yaml"):
        output = finish(camelsight(project, "paper", "--launch", "slurm", "--partition", "blind"), code=1)
    lines = [line for line in output.splitlines() if line.startswith("paper: ")]
    assert len(lines) == 1 and f"the node does not see {project}" in lines[0], output


def test_ctrl_c_cancels_the_jobs(project, ended):
    with changed(lambda text: text.replace("dropout: 0.05", "dropout: 0.06"), project / "params.yaml"):
        run = camelsight(project, "paper", "--launch", "slurm")
        until(lambda: "JobState=RUNNING" in scontrol("show", "job"), run)
        os.killpg(run.pid, signal.SIGINT)
        assert "interrupted; the same command goes on from here" in finish(run, code=130)
    active = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout
    assert not active


def test_a_refusal_of_slurm_and_options_without_it_are_one_line(project, ended):
    with changed(lambda text: text.replace("dropout: 0.05", "dropout: 0.06"), project / "params.yaml"):
        output = finish(camelsight(project, "paper", "--launch", "slurm", "--partition", "nowhere"), code=1)
    assert "paper: SLURM takes no job" in output and "invalid partition" in output and "Traceback" not in output
    output = finish(camelsight(project, "paper", "--partition", "all"), code=1)
    assert output == "paper: expected --partition with --launch slurm only\n"


@pytest.mark.parametrize("memory", slurm.MEMORY)
def test_more_jobs_than_an_array_may_have_are_submitted_in_pieces(project, ended, monkeypatch, memory):
    """Inside a job, too, whose own memory contradicts what ours ask for."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    with monkeypatch.context() as patch:
        patch.setattr(slurm, "_array", lambda *_: {})
        slurm.run(params.load(), ["evaluate@IllustrisTNG-original"], str)
    assert "SLURM_MEM_PER_CPU" not in os.environ and slurm._most_in_an_array() == 5
    parameters = slurm.job_parameters(params.load(), memory=memory, sbatch="--comment='in pieces' --no-kill")
    commands = {f"{memory}-{number}": ["true"] for number in range(7)}
    assert slurm._array(f"many-{memory}", commands, {}, parameters | {"array_parallelism": 6}) == {}
    jobs = [job for job in scontrol("show", "job").split("\n\n") if f"JobName=camelsight-many-{memory}" in job]
    assert len(jobs) == 7 and all("JobState=COMPLETED" in job and "Comment=in pieces" in job for job in jobs)
    arrays = {(re.search(r"ArrayJobId=(\d+)", job) or re.search(r"JobId=(\d+)", job))[1] for job in jobs}
    assert 2 <= len(arrays) <= 3
    asked = {"node": "MinMemoryNode=", "cpu": "MinMemoryCPU="}.get(memory)
    assert asked is None or all(f"{asked}" in job and f"{asked}0" not in job for job in jobs)
