import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import scipy.linalg
import threadpoolctl
import torch

from camelsight.pipeline import cli
from conftest import ran, until

ROOT = Path(__file__).parent.parent


def test_a_process_computes_with_as_many_threads_as_it_is_told():
    scipy.linalg.inv(np.eye(2))  # the libraries of both are loaded
    try:
        for count in (2, 1):
            cli.set_threads(count)
            libraries = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
            assert {one["num_threads"] for one in libraries} == {count} == {torch.get_num_threads()}
    finally:
        cli.set_threads(1)  # as conftest.py has it


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
READ_AND_SAY = """
from camelsight.commands import plan
from camelsight.pipeline import cli, params, store
def action():
    store.write_json("record.json", {"said": "R² – ×"})
    assert store.read_json("record.json") == {"said": "R² – ×"}
    profile = params.load("params.yaml").profile
    assert store.read_published("IllustrisTNG", "original")
    stages = [{"stage": f"cut@SIMBA-kmax_{k}", "seconds": 1, "why": []} for k in (1, 3)]
    print(plan.text({"profile": profile, "jobs": 1, "seconds": 2, "stages": stages}))
cli.guard(action, prefix="plan")
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_nothing_for_a_command_and_its_children(closed, tmp_path):
    say = "import sys; print('said'); print('warned', file=sys.stderr); sys.exit(len(sys.stdin.read()))"
    action = f"""
import subprocess, sys
from camelsight.pipeline import cli
def action():
    with open("result", "w") as file:
        print("said", flush=True)
        file.write(str(subprocess.call([sys.executable, "-c", {say!r}])))
cli.guard(action, prefix="plan")
"""
    found = ran("bash", "-c", f'exec {sys.executable} -c "$ACTION" {closed}', folder=tmp_path, ACTION=action)
    said, warned = "" if ">&-" in closed.split() else "said\nsaid\n", "" if "2>&-" in closed else "warned\n"
    assert (found.returncode, found.stdout, found.stderr) == (0, said, warned)
    assert (tmp_path / "result").read_text() == "0"


def test_doctor_runs_without_standard_output(tmp_path):
    found = ran("bash", "-c", f"exec {sys.executable} -m camelsight.commands.doctor --help >&-", folder=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("locale", "times"),
    [
        (ASCII, r"2 \xd7 cut"),
        ({"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}, r"2 \xd7 cut"),
        (ASCII | {"PYTHONIOENCODING": "latin-1"}, "2 × cut"),
        (ASCII | {"PYTHONIOENCODING": "utf-8"}, "2 × cut"),
    ],
)
def test_files_are_utf_8_and_anything_can_be_printed_in_every_locale(locale, times, tmp_path):
    for name in ("paper", "code"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "profiles" / "mini.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(f"# R² of π\n{text}", encoding="utf-8")
    path = Path(tmp_path, "say.py")
    path.write_text(READ_AND_SAY, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "code")} | locale
    found = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    assert times in found.stdout.decode(locale.get("PYTHONIOENCODING", "ascii"))


SWALLOWED = """
import ctypes, os, signal
from camelsight.pipeline import cli
def action():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ctypes.ArgumentError("argument 3: KeyboardInterrupt")
cli.guard(action, prefix="maps")
"""
SIMULATION = """
import os, signal, threading, time
from pathlib import Path
from camelsight.analysis import simulation
from camelsight.pipeline import cli, params
def simulate():
    smoke = params.load(Path("profiles/smoke.yaml"))
    cli.device = lambda: __import__("torch").device("cpu")
    cli.processes = lambda *_: 2
    return simulation._run(smoke, smoke.suites, [(i, i) for i in range(4)])
"""
STARTING = (
    SIMULATION
    + """
if __name__ == "__main__":
    def twice():
        for seconds in (0, 0.05):
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGINT)
    def action():
        finished = simulate()
        launch = simulation.futures.ProcessPoolExecutor._spawn_process
        def spawn(pool):
            launch(pool)
            threading.Thread(target=twice).start()
        simulation.futures.ProcessPoolExecutor._spawn_process = spawn
        next(finished)
    cli.guard(action, prefix="maps")
"""
)
WAITING = (
    SIMULATION
    + """
if __name__ == "__main__":
    finished = simulate()
    next(finished)
    print(*(one.pid for one in simulation.multiprocessing.active_children()), flush=True)
    signal.pause()
"""
)


@pytest.mark.parametrize("code", [SWALLOWED, STARTING])
def test_ctrl_c_ends_in_one_line_while_a_library_or_a_starting_process_is_at_work(code, tmp_path):
    (tmp_path / "run.py").write_text(code, encoding="utf-8")
    found = ran(sys.executable, tmp_path / "run.py", folder=ROOT)
    assert (found.returncode, found.stderr) == (130, "maps: interrupted; the same command goes on from here\n")


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    """They waited for its work for ever."""
    (tmp_path / "run.py").write_text(WAITING, encoding="utf-8")
    surroundings = os.environ | {"PYTHONPATH": str(ROOT / "code")}
    command = [sys.executable, tmp_path / "run.py"]
    with subprocess.Popen(command, cwd=ROOT, env=surroundings, stdout=subprocess.PIPE, text=True) as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    assert len(workers) == 2
    until(lambda: not any(psutil.pid_exists(worker) for worker in workers))


TELLING = """
import sys, time
from camelsight.pipeline import cli
def action():
    time.sleep(0.5)  # until nobody reads any more
    print("R²\\n" * int(sys.argv[1]))
    sys.exit(2) if sys.argv[2:] else None
cli.guard(action, prefix="status")
"""
BREAKING = """
import os
from camelsight.pipeline import cli
read, write = os.pipe()
os.close(read)
cli.guard(lambda: os.write(write, b"x"), prefix="status")
"""


@pytest.mark.parametrize("given", [["1"], ["1", "exit"], ["100000"]], ids=["at the end", "with a verdict", "amid"])
def test_where_nobody_reads_on_it_ends_without_a_word(given):
    surroundings, pipe = os.environ | {"PYTHONPATH": str(ROOT / "code")}, subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", TELLING, *given], env=surroundings, stdout=pipe, stderr=pipe
    ) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)


def test_another_pipe_that_broke_is_said():
    found = ran(sys.executable, "-c", BREAKING, folder=ROOT)
    assert (found.returncode, found.stderr) == (1, "status: [Errno 32] Broken pipe\n")
