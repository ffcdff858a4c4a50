"""A process that forks stages, in a copy of the code with a stage more, which says how it was called."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import until

ROOT = Path(__file__).parent.parent
STAGE = """
import atexit, json, os, signal, sys, threading, time

from camelsight.stages import slow_to_import

HEARD = []
if __name__ == "__main__":
    word = sys.argv[1]
    names = "DVC_STAGE", "PYTHONPATH"
    print(json.dumps([sys.argv[1:], *map(os.environ.get, names), os.getsid(0)]), flush=word != "late")
    if word == "fail":
        raise ValueError("no luck")
    if word == "wait":
        signal.signal(signal.SIGINT, lambda *_: HEARD.append(1))
        open("ready", "w").close()
        time.sleep(1)
        print("heard", len(HEARD))
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "leave":
        atexit.register(print, "the last word")
        threading.Thread(target=lambda: [time.sleep(0.3), print("a thread's")]).start()
        sys.exit("a word to leave")
    sys.exit(int(word) if word.isdigit() else None)
"""
IMPORTED = "import time\nprint('imported', flush=True)\nopen('importing', 'w').close()\ntime.sleep({seconds})\n"
CALLER = """
import json, os, signal, sys
from camelsight.pipeline import forks

run = forks.begin()
signal.signal(signal.SIGINT, signal.SIG_IGN)
for number, command in enumerate(sys.argv[1:]):
    output = os.open(f"{number}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = run(command, os.environ | {"DVC_STAGE": f"stage {number}"})
    with open(f"{number}.code", "w") as file:
        json.dump(code, file)
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Begin a caller in a session of its own, which runs commands; the stage's import takes ``seconds``."""
    monkeypatch.chdir(tmp_path)
    stages = tmp_path / "code/camelsight/stages"
    shutil.copytree(ROOT / "code/camelsight", stages.parent, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (stages / "talk.py").write_text(STAGE)

    def start(*commands, seconds=0):
        (stages / "slow_to_import.py").write_text(IMPORTED.format(seconds=seconds))
        surroundings = os.environ | {"PYTHONPATH": f"{tmp_path}/code", "PYTHONUNBUFFERED": ""}
        return subprocess.Popen([sys.executable, "-c", CALLER, *commands], env=surroundings, start_new_session=True)

    return start


def code(number):
    return json.loads(Path(f"{number}.code").read_text())


def said(number):
    return Path(f"{number}.log").read_text().splitlines()


def test_stages_run_as_by_themselves_one_after_the_other_and_what_they_import_is_imported_once(start, tmp_path):
    words = "0 'a b'", "3", "fail", "killed", "leave"
    caller = start(*(f"code/stage talk {word}" for word in words))
    assert caller.wait() == 0
    assert [code(number) for number in range(5)] == [0, 3, 1, -signal.SIGKILL, 1]
    assert said(0)[0] == "imported" and not any("imported" in said(number) for number in range(1, 5))
    path = f"{tmp_path}/code"
    assert json.loads(said(0)[1]) == [["0", "a b"], "stage 0", f"{path}{os.pathsep}{path}", caller.pid]
    assert json.loads(said(1)[0])[:2] == [["3"], "stage 1"]
    assert said(2)[1] == "Traceback (most recent call last):" and said(2)[-1] == "ValueError: no luck"
    assert said(4)[1:] == ["a word to leave", "a thread's", "the last word"]


def test_a_stage_whose_words_find_no_room_has_failed(start, tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.log").symlink_to("/dev/full")
    assert start(*(f"code/stage talk {word}" for word in ("0", "late", "0"))).wait() == 0
    assert list(map(code, range(3))) == [0, 120, 1]


def test_a_command_that_is_no_stage_of_this_code_is_left_to_the_caller(start, tmp_path):
    assert start("seq 3").wait() == 0 and code(0) is None
    (tmp_path / "code").rename(tmp_path / "away")
    (tmp_path / "code").mkdir()
    shutil.copytree(tmp_path / "away/camelsight", tmp_path / "elsewhere/camelsight")
    surroundings = os.environ | {"PYTHONPATH": str(tmp_path / "elsewhere")}
    subprocess.run([sys.executable, "-c", CALLER, "code/stage talk 0"], env=surroundings, check=True)
    assert code(0) is None


def test_a_signal_reaches_a_stage_once_and_one_that_has_not_begun_does_not_begin(start):
    caller = start("code/stage talk wait")
    until(Path("ready").exists)
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.wait() == 0 and code(0) == 0 and said(0)[-1] == "heard 1"

    for name in ("importing", "0.log"):
        Path(name).unlink()
    caller = start("code/stage talk 0", seconds=1)
    until(Path("importing").exists)
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.wait() == 0 and code(0) == 130 and said(0) == ["imported"]


def test_what_is_imported_before_a_training_asks_for_no_gpu():
    """A process that has asked CUDA for anything cannot fork one that computes on it."""
    code = """
import sys, torch
def asked(*_, **__):
    sys.exit("CUDA was asked")
for name in ("is_available", "device_count", "current_device", "get_device_properties", "_lazy_init"):
    setattr(torch.cuda, name, asked)
import torch._dynamo
import camelsight.stages.train, camelsight.stages.tune, camelsight.stages.sanity, camelsight.stages.transfer
"""
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "code")}, check=True)
