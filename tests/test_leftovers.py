"""What a run must survive, on a pipeline of two stages: damaged and cut-off files, full disks, SIGKILL."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from dvc.utils import serialize
from dvc.utils.serialize import modify_yaml, parse_yaml

from camelsight.pipeline import cli, dvc_repro, forks, launch, leftovers, params, paths
from conftest import until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of DVC's own
ROOT = Path(__file__).parent.parent
RUN = """
import sys
from camelsight.commands import paper
from camelsight.pipeline import cli, launch

def make():
    print("out of date:", *launch.out_of_date(), flush=True)
    launch.repro()

cli.guard(lambda: paper.say(make, False), "paper")
"""
PIPELINE = """
stages:
  one:
    cmd: seq 1000 > results/one.txt && echo ran one
    deps: [input]
    outs: [results/one.txt]
  two:
    cmd: wc -l < results/one.txt > results/two.txt && echo ran two
    deps: [results/one.txt]
    outs: [results/two.txt]
"""
RESULT = "".join(f"{number}\n" for number in range(1, 1001))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder with a pipeline in it."""
    (tmp_path / "toy/.dvc").mkdir(parents=True)
    (tmp_path / "toy/results").mkdir()
    monkeypatch.chdir(tmp_path / "toy")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "code"))
    shutil.copy(ROOT / ".dvc/config", ".dvc")
    Path("dvc.yaml").write_text(PIPELINE)
    Path("input").write_text("1")


def start(output=subprocess.PIPE):
    return subprocess.Popen([sys.executable, "-c", RUN], stdout=output, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def run(capfd):
    """Run what is out of date here; the lines that were printed, errors first."""

    def run():
        capfd.readouterr()
        leftovers.clear()
        print("out of date:", *launch.out_of_date(), flush=True)
        launch.repro()
        return "".join(reversed(capfd.readouterr())).splitlines()

    return run


def fail():
    """The lines that a run printed which failed; in a process of its own, because DVC's locks may outlive it."""
    process = start()
    said, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" not in said, said
    return said.splitlines()


def damage(path):
    """Another byte, in place, as a failing disk writes it: owner, mode and links stay."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.write(b"9")
    path.chmod(mode)


def cached():
    """The cache's copy of the first result."""
    return next(path for path in Path(".dvc/cache/files").rglob("*") if path.is_file() and path.stat().st_size > 1000)


def test_a_result_that_was_changed_is_restored_and_a_damaged_cache_is_not_believed(run):
    """They were one file under two names, and what was damaged came back as restored."""
    result = Path("results/one.txt")
    run()
    assert not result.samefile(cached())
    damage(result)
    assert run() == ["out of date: one two"] and result.read_text() == RESULT
    damage(cached())
    damage(result)
    said = run()
    assert "was damaged (its md5 is" in said[0] and said[-1] == "ran one"
    assert result.read_text() == cached().read_text() == RESULT
    damage(cached())
    Path("input").write_text("2")  # the stage makes the same again, and DVC would take the cache's copy in its place
    said = run()
    assert "was damaged" in said[0] and said[-1] == "ran one" and result.read_text() == cached().read_text() == RESULT


def test_dvc_hears_ctrl_c_also_where_a_background_shell_ignores_it():
    """It waited forever for work, and so did a run in the background of a script, of which a case had failed."""
    ours, theirs = forks.channel()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [*launch.DVC, "--chains", str(theirs.fileno())]
        worker = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with ours, open("log", "w") as log:
        theirs.close()
        socket.send_fds(ours, [b'["one"]'], [log.fileno()] * 2)
        assert ours.recv(1) == b"1" and "ran one" in Path("log").read_text()
        os.killpg(worker.pid, signal.SIGINT)
        assert worker.wait(60) == cli.INTERRUPTED


def test_what_the_cache_has_lost_is_put_back_from_the_working_folder(run):
    run()
    shutil.rmtree(".dvc/cache")
    assert not any("ran" in line for line in run())
    assert cached().read_text() == RESULT


@pytest.mark.parametrize(
    "held",
    [
        '{"read": {"a": [',
        "[]",
        '{"write": {"results/one.txt": {"pid": "x"}}}',
        json.dumps({"write": {"FOLDER/results/one.txt": {"pid": 1, "cmd": "dvc repro"}}}),
        json.dumps({"read": {"FOLDER/results/one.txt": [{"pid": 1, "cmd": "dvc repro"}]}}),
    ],
    ids=["cut off", "another value", "another type", "written by init", "read by init"],
)
def test_locks_of_the_dead_are_dropped(held):
    """DVC: JSON structure is corrupted; or: is busy, blocked by PID 1."""
    leftovers.RWLOCK.parent.mkdir()
    leftovers.RWLOCK.write_text(held.replace("FOLDER", str(Path.cwd())))
    leftovers.clear()
    assert not leftovers.RWLOCK.exists()


def test_a_lock_of_a_process_that_is_gone_is_left_to_dvc():
    gone = subprocess.Popen(["true"])
    gone.wait()
    leftovers.RWLOCK.parent.mkdir()
    leftovers.RWLOCK.write_text(json.dumps({"write": {"a": {"pid": gone.pid, "cmd": "dvc repro"}}}))
    leftovers.clear()
    assert leftovers.RWLOCK.exists()


@pytest.mark.parametrize("kept", [0, 3], ids=["empty", "cut off"])
def test_a_record_that_was_cut_off_is_set_aside_and_made_anew_from_the_cache(run, kept):
    run()
    leftovers.RWLOCK.write_text('{"read": ')
    whole = paths.DVC_LOCK.read_text()
    paths.DVC_LOCK.write_text(whole[: kept and whole.index("outs:") + kept])
    said = run()
    assert said == [
        "dvc.lock was cut off and is now called dvc.lock.damaged; what did not change is restored from .dvc/cache",
        "out of date: one two",
    ]
    assert paths.DVC_LOCK.read_text() == whole


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 100_000, "\x00", "stages: [a]", "a: &a [*a, *a]", "stages: {a: 5}"]
)
def test_a_record_that_is_none_is_told_from_one(text):
    """DVC's reader ends the process at a hundred thousand brackets."""
    assert leftovers.record(paths.DVC_LOCK) == {}
    paths.DVC_LOCK.write_text(text, encoding="utf-8")
    assert leftovers.record(paths.DVC_LOCK) is None
    launch.forget(params.load(ROOT / "profiles/smoke.yaml"))
    assert paths.DVC_LOCK.read_text(encoding="utf-8") == text


def test_the_record_is_written_whole_or_not_at_all():
    """A run that was killed just then had its maps simulated again."""
    paths.DVC_LOCK.write_text("stages: {}")
    with pytest.raises(KeyboardInterrupt), dvc_repro._in_one_go(half_way)(paths.DVC_LOCK):
        pass
    assert paths.DVC_LOCK.read_text() == "stages: {}" and not list(Path().glob(".dvc.lock*"))


@contextlib.contextmanager
def half_way(path, fs):
    assert Path(path).read_text() == "stages: {}"
    yield
    Path(path).write_text("st")
    raise KeyboardInterrupt


RECORD = """schema: '2.0'
stages:
  one:
    cmd: seq 9
    params:
      params.yaml:
        rate: 1.6e-2
  one@a-b:
    cmd: |-
      seq 3

      seq 9
    outs:
    - path: b
      rate: 2.5e-3
  two:
    cmd: seq 2
    rate: 1.0e-5
"""
NEWS = {"cmd": "seq 5", "params": {"params.yaml": {"a": 1.5e-7, "b": ["c", 2]}}, "outs": [{"path": "long/" * 30}]}


@pytest.mark.parametrize("name", ["one", "one@a-b", "two", "three@a-b"])
def test_the_record_of_a_stage_is_written_as_dvc_does_it_and_all_else_stays_as_it_is(name):
    for number, modify in enumerate((modify_yaml, dvc_repro._in_one_go(modify_yaml))):
        Path(f"{number}.lock").write_text(RECORD)
        with modify(f"{number}.lock") as data:
            data["stages"].update({name: NEWS})
    theirs, ours = (Path(f"{number}.lock").read_text() for number in range(2))
    assert ours == theirs and ours.count("rate:") == 2 + (name == "three@a-b")


def test_a_text_is_parsed_once_and_what_becomes_of_it_is_forgotten(monkeypatch):
    parsed = []
    monkeypatch.setattr(serialize, "parse_yaml", lambda *given: parsed.append(given) or parse_yaml(*given))
    for _ in range(2):
        record = dvc_repro._parsed(RECORD, "dvc.lock")
        assert record == parse_yaml(RECORD, "")
        record["stages"].clear()
    assert len(parsed) == 1
    with pytest.raises(serialize.YAMLError, match="structure is corrupted"):
        dvc_repro._parsed("{", "dvc.lock")


@pytest.mark.parametrize(
    "text", [RECORD + "datasets: []\n", RECORD.replace("  one:\n", "  'one':\n"), "stages: {one: {}}"]
)
def test_a_record_that_is_not_laid_out_as_dvc_does_it_says_the_same_afterwards(text):
    for name in ("one", "three"):
        Path("a.lock").write_text(text)
        with dvc_repro._in_one_go(modify_yaml)("a.lock") as data:
            data["stages"].update({name: NEWS})
        expected = parse_yaml(text, "")
        expected["stages"][name] = NEWS
        assert parse_yaml(Path("a.lock").read_text(), "") == expected


def test_a_damaged_database_of_dvcs_is_named_with_its_folder(run, tmp_path):
    run()
    for database in (tmp_path / "state").rglob("cache.db"):
        database.write_text("no database")
    (said,) = fail()
    assert said.startswith(
        f"paper: dvc: expected a database of DVC's in {tmp_path}/state/repo, got: file is not a data"
    )
    shutil.rmtree(tmp_path / "state/repo")
    assert run() == ["out of date:"]


def test_only_what_dvc_left_half_copied_is_removed():
    left = [Path("results/.NBqZmcSpBAuA9LA0c3-7sw.tmp"), Path(".dvc.lock.x1y2z3.lock")]
    mine = Path("results/.mine.tmp")
    for path in (*left, mine):
        path.touch()
    leftovers.clear()
    assert mine.exists() and not any(path.exists() for path in left)


@pytest.mark.skipif(os.geteuid() != 0, reason=f"needs root, to mount a small disk; here: uid {os.geteuid()}")
@pytest.mark.parametrize(
    ("folder", "state"),
    [
        ("results", "full"),
        (".dvc/cache", "full"),
        (".dvc/tmp", "full"),
        ("results", "read-only"),
        (".dvc/cache", "read-only"),
    ],
)
def test_a_disk_that_takes_no_more_is_said_in_a_line_and_then_it_goes_on(run, folder, state):
    """It was: dvc repro --quiet ended with 255; the reason stands above. Nothing stood above."""
    Path(folder).mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode:
        pytest.skip("needs a right to mount")
    try:
        if state == "full":
            fill(Path(folder, "filling"))
        else:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        said = fail()
        assert any(reason in line for line in said for reason in ("disk is full", "No space left", "Read-only")), said
        assert "stands above" not in said[-1] or len(said) > 2 + ("ran one" in said)
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        Path(folder, "filling").unlink(missing_ok=True)
        said = run()
        assert said[-1] == "ran two" and Path("results/one.txt").read_text() == RESULT
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            return


STAGE = """
import os, signal, sys, time
try:
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)  # to save what it has
    open("saved", "w").close()
    sys.exit(130)
"""


@pytest.fixture
def slow():
    """A stage that takes its time, and saves its state when it is told to end, unless there is one."""
    Path("stage.py").write_text(STAGE)
    command = f"if [ -e saved ]; then seq 1000 > results/one.txt; else exec {sys.executable} stage.py; fi"
    Path("dvc.yaml").write_text(PIPELINE.replace("seq 1000 > results/one.txt && echo ran one", command))


def begun():
    """The process id of the stage."""
    until(lambda: Path("pid").exists() and Path("pid").read_text())
    return int(Path("pid").read_text())


def test_a_run_that_is_killed_ends_its_stage_and_the_next_one_waits_for_that_and_goes_on(run, slow):
    """Its DVC went on, and the same command failed with DVC's own message for as long as that took."""
    first = start(subprocess.DEVNULL)
    begun()
    first.kill()
    first.wait()
    said = run()
    assert f"which is at work in {Path.cwd()}" in said[0]
    assert Path("saved").exists() and said[-1] == "ran two"
    assert not leftovers.at_work()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dvc_that_is_ended_does_not_leave_its_stage_at_work(slow, number):
    first = start()
    begun()
    (dvc,) = psutil.Process(first.pid).children()
    os.kill(dvc.pid, number)
    said, _ = first.communicate()
    assert first.returncode == 1 and Path("saved").exists() and not leftovers.at_work()
    assert number == signal.SIGTERM or "DVC was killed by signal 9; the same command goes on from here" in said


def test_a_stage_that_was_killed_is_said_to_have_been():
    Path("dvc.yaml").write_text(PIPELINE.replace("seq 1000", "kill -9 $$; seq 1000"))
    said = fail()
    assert said[1].startswith("dvc: failed to reproduce 'one': failed to run: ") and "make paper JOBS=1" in said[1]


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml", "params.yaml"])
def test_an_unfinished_merge_is_one_line_with_what_to_do_and_nothing_is_set_aside(tmp_path, monkeypatch, name):
    """dvc.lock was called cut off, and moved away."""
    monkeypatch.chdir(tmp_path)
    text = "a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> theirs\n"
    Path(name).write_text(text)
    for look in (params.load,) if name == "params.yaml" else (leftovers.clear, launch.out_of_date, launch.peek):
        with pytest.raises(ValueError, match=rf"^{name}: .* from line 2 on; .*git checkout --ours {name}"):
            look()
    assert Path(name).read_text() == text and not list(tmp_path.glob("*.damaged"))
