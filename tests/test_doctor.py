import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from camelsight.commands import doctor, probe
from camelsight.pipeline import leftovers, packages, store
from conftest import ran

ROOT = Path(__file__).parent.parent

HEALTHY = probe.Facts(
    python=(3, 11, 7),
    missing={},
    packages=(),
    torch="2.13.0+cu130",
    build_cuda=(13, 0),
    build_capability=(7, 5),
    driver_cuda=(13, 0),
    gpus=(("Some GPU", 80e9, (9, 0)),),
    memory=64e9,
    shared_memory=64e6,
    disk=100e9,
)
NEEDS = doctor.Needs(profile="camels", gpu=True, gpu_memory=3.9e9, memory=9.4e9, disk=30e9)


def all_judged(needs=NEEDS, **facts):
    """Every check by its name, with some facts changed."""
    return {check.name: check for check in doctor.judge(dataclasses.replace(HEALTHY, **facts), needs)}


def judged(name, needs=NEEDS, **facts):
    """The check of that name with some facts changed; the only one that is not ok, if it is not."""
    checks = all_judged(needs, **facts)
    assert {check.name for check in checks.values() if check.status != doctor.OK} <= {name}
    return checks[name]


def test_nothing_is_wrong_with_a_healthy_machine():
    checks = doctor.judge(HEALTHY, NEEDS)
    assert {check.status for check in checks} == {doctor.OK} and not any(check.fix for check in checks)
    names = ["python", "compiler", "latex", "libraries", "packages", "environment", "gpu", "driver", "memory", "disk"]
    names += ["shared memory", "writing", "locks", "git"]
    assert [check.name for check in checks] == names


@pytest.mark.parametrize(
    ("name", "facts", "found", "fix"),
    [
        ("python", {"python": (3, 10, 12)}, "3.10.12, expected 3.11", "make setup PYTHON=python3.12"),
        ("latex", {"missing": {"latex": "latexmk"}}, "missing: latexmk", "install --no-install-recommends latexmk"),
        ("libraries", {"missing": {"openmp": "libgomp1"}}, "libgomp1", "install --no-install-recommends libgomp1"),
        ("packages", {"packages": ("numpy is not installed", "x")}, "numpy is not installed, and 1 more", "make setup"),
        ("packages", {"broken": ("torch does not load: OSError: libgomp.so.1", "x")}, "1 more", "rm -r .venv"),
        ("packages", {"broken": ("torch does not load",), "foreign": ("LD_PRELOAD",)}, "does not", "unset LD_PRELOAD"),
        ("locks", {"record": probe.CONFLICT}, "dvc.lock has conflict markers", "git checkout --ours dvc.lock"),
        ("gpu", {"gpus": (("Old", 80e9, (6, 1)),)}, "capability 6.1, torch needs 7.5", "CUDA_VISIBLE_DEVICES="),
        ("gpu", {"gpus": (*HEALTHY.gpus, ("Old", 80e9, (6, 1)))}, "Old, 80.0 GB, number 1 of 2: compute", "other GPUs"),
        ("driver", {"driver_cuda": (12, 8)}, "knows CUDA 12.8, torch is built for 13.0", "driver for CUDA 13"),
        ("memory", {"memory": 8e9}, "8.0 GB free, 9.4 GB needed", "more"),
        ("disk", {"disk": 20e9}, "20.0 GB free, 30.0 GB needed", "larger disk"),
        ("shared memory", {"shared_memory": 0.0}, "0.0 MB free in /dev/shm", "mount"),
        ("shared memory", {"shared_memory": 0.0, "container": True}, "0.0 MB free", "--shm-size"),
        ("writing", {"unwritable": ("runs", "results")}, "refused in runs, results", f"chown -R {os.getuid()}"),
        ("writing", {"unwritable": (".",), "container": True}, "refused in .", '-u "$(id -u):$(id -g)"'),
    ],
)  # fmt: skip
def test_each_failure_prints_its_fix(name, facts, found, fix):
    check = judged(name, **facts)
    assert check.status == doctor.FAIL and found in check.found and fix in check.fix


def test_a_newer_minor_version_of_cuda_than_the_driver_is_no_failure():
    assert judged("driver", build_cuda=(13, 2)).status == doctor.OK
    assert judged("driver", driver_cuda=(14, 1)).status == doctor.OK


def test_a_driver_without_a_gpu_fails_and_a_cpu_build_beside_one_warns():
    driver = all_judged(gpus=())["driver"]
    assert driver.status == doctor.FAIL and "sees no GPU" in driver.found
    driver = all_judged(gpus=(), build_cuda=None)["driver"]
    assert driver.status == doctor.WARN and "CPU build" in driver.found


def test_a_gpu_is_wanted_at_paper_scale_only():
    assert judged("gpu", gpus=(), driver_cuda=None).status == doctor.WARN
    small = dataclasses.replace(NEEDS, gpu=False)
    assert judged("gpu", needs=small, gpus=(), driver_cuda=None).status == doctor.OK


def test_maps_larger_than_any_of_the_gpus_are_streamed_there():
    check = judged("gpu", gpus=(*HEALTHY.gpus, ("Small", 2e9, (9, 0))))
    assert check.status == doctor.WARN and "Small, 2.0 GB, number 1 of 2; the maps of profile camels" in check.found
    assert "take 3.9 GB: they stay on the host and are streamed" in check.found


def test_no_compiler_is_needed_once_everything_is_compiled_but_on_a_gpu_one_helps():
    without = {"compiler": "build-essential", "headers": "python3-dev", "launcher": "gcc libc6-dev"}
    on_cpu, small = {"gpus": (), "driver_cuda": None}, dataclasses.replace(NEEDS, gpu=False)
    assert judged("compiler", small, missing=without, **on_cpu).status == doctor.OK
    check = judged("compiler", missing=without)
    assert check.status == doctor.WARN and "torch.compile" in check.found
    assert check.fix.endswith("gcc libc6-dev python3-dev")
    assert "torch.compile can compile networks" in judged("compiler").found
    assert "make image" in judged("compiler", missing=without, container=True).fix
    checks = all_judged(None, missing=without, packages=("torch is not installed",))
    assert [name for name, check in checks.items() if check.status == doctor.FAIL] == ["compiler", "packages"]
    assert checks["compiler"].fix.endswith("gcc libc6-dev python3-dev")
    checks = all_judged(None, missing=without, packages=("x",), gpus=())
    assert checks["compiler"].fix.endswith("build-essential python3-dev")


def test_a_running_run_and_a_record_that_make_paper_will_mend_warn():
    check = judged("locks", locks=((7, "dvc repro"),))
    assert check.status == doctor.WARN and "process 7" in check.found
    check = judged("locks", record="cut off")
    assert check.status == doctor.WARN and "dvc.lock is cut off" in check.found and "make paper" in check.fix


def test_who_is_at_work_is_told_unless_packages_are_missing(monkeypatch):
    monkeypatch.setattr(leftovers, "at_work", lambda: {7: "dvc repro"})
    assert list(probe._at_work()) == [(7, "dvc repro")]
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert list(probe._at_work()) == []


def test_a_record_that_was_cut_off_is_noticed(tmp_path):
    record = tmp_path / "dvc.lock"
    assert probe._wrong_with(record) == ""
    for text, wrong in (
        ("", "cut off"),
        ("schema: '2.0'\nstages:\n  maps: {cmd: a}\n", ""),
        ("stages: {maps: {cm", "cut off"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", probe.CONFLICT),
        ("a: |\n  <<<<<<< no marker\n", ""),
        ("[1]", "cut off"),
        ("\x00", "cut off"),
        ("[" * 20_000, "cut off"),  # ended the process
    ):
        record.write_text(text)
        assert probe._wrong_with(record) == wrong


@pytest.fixture
def project(tmp_path):
    """A folder in which doctor can run, beside the real environment."""
    for name in ("code", "profiles", "requirements.lock", "params.yaml", "Makefile", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def doctor_in(project, **environment):
    """What doctor, started by hand, says there: name -> (status, found, fix)."""
    run = ran(sys.executable, "-m", "camelsight.commands.doctor", "--json", folder=project, **environment)
    assert "Traceback" not in run.stderr and run.stdout, run.stderr
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert (run.returncode == 0) == all(check["status"] != doctor.FAIL for check in checks.values())
    return checks


def test_a_foreign_library_that_breaks_torch_is_named_with_its_cure(project):
    """doctor said "ok, torch None", or ended in a traceback."""
    (project / "libgomp.so.1").write_text("of a module")
    check = doctor_in(project, LD_LIBRARY_PATH=str(project))["packages"]
    assert check["status"] == doctor.FAIL and "torch does not load: OSError" in check["found"]
    assert check["fix"].startswith("unset LD_LIBRARY_PATH")


def test_packages_of_a_module_are_named_by_doctor_and_left_out_by_make(project):
    foreign = project / "module"
    store.write_text(foreign / "numpy/__init__.py", "raise ImportError('of a module')")
    checks = doctor_in(project, PYTHONPATH=f"{foreign}{os.pathsep}{ROOT / 'code'}")
    assert checks["packages"]["status"] == doctor.FAIL and "of a module" in checks["packages"]["found"]
    assert checks["packages"]["fix"].startswith("unset PYTHONPATH")
    assert checks["environment"]["status"] == doctor.WARN and "PYTHONPATH set" in checks["environment"]["found"]
    others = {"PYTHONPATH": str(foreign), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere"}
    run = ran("make", "doctor", "JSON=1", folder=project, **others)
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert checks["packages"]["status"] == doctor.OK and "left out by make" in checks["environment"]["found"]


def test_pins_are_compared_with_what_is_installed(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "pytest==0.0.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
        "no-such-package==1.0 \\\n    --hash=sha256:00\n"
        "other-system==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
    )
    wrong = list(packages.wrong(lock))
    assert len(wrong) == 2 and wrong[0].endswith("expected 0.0.1") and wrong[1] == "no-such-package is not installed"


def test_folders_that_refuse_are_found(tmp_path):
    (tmp_path / "file").touch()
    assert list(probe._unwritable([tmp_path, tmp_path / "not yet"])) == []
    assert list(probe._unwritable(["/proc"])) == ["/proc"]


def test_paper_scale_needs_more_than_smoke(monkeypatch):
    monkeypatch.chdir(ROOT)
    smoke, camels = doctor.needs("smoke"), doctor.needs("camels")
    assert camels.gpu and not smoke.gpu
    assert camels.gpu_memory == 15_000 * 256**2 * 4
    assert camels.memory > 2 * camels.gpu_memory and camels.disk > 2 * camels.gpu_memory and smoke.disk < 1e9
    with pytest.raises(ValueError, match="expected a profile among"):
        doctor.needs("nope")
