"""Set-up on machines that are not as its author's: other pythons, pip's settings, Windows' line ends, no Linux."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from test_image import program

ROOT = Path(__file__).parent.parent
SCRIPTS = (
    "code/setup.sh",
    "code/pip.sh",
    "code/wheels.sh",
    "Makefile",
    "requirements.lock",
    "pyproject.toml",
    ".gitattributes",
    ".dvc/config",
)
OPERATORS = (
    "code/camelsight/pipeline/compiled.py",
    "code/camelsight/inference/fused.cpp",
    "code/camelsight/universe/particles.cpp",
)

# What stands for pip: it writes down what it is asked, and with what settings.
PIP = """
import os, sys
sys.stdout.write("") if sys.argv[1:2] != ["freeze"] else print("Pylians==0.12")
if sys.argv[1:2] == ["install"]:
    with open(os.environ["SEEN"], "a") as seen:
        settings = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "PYTHON")) and value}
        print("install", sys.argv[2:], sorted(settings.items()), file=seen)
    if "--no-index" in sys.argv and os.environ.get("LACKS", "nothing") in " ".join(sys.argv):
        sys.exit("ERROR: No matching distribution found for " + os.environ["LACKS"])
elif sys.argv[1:2] == ["config"]:
    from pip._internal.cli.main import main
    main(sys.argv[1:])
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with an environment that works, as the chosen interpreter made it, and a pip that installs nothing."""
    if not importlib.util.find_spec("ensurepip") or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("needs Python's venv and headers, which set-up would install and the image has not")
    folder = tmp_path / "project"
    for name in (*SCRIPTS, *OPERATORS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    for name in [name for name in os.environ if name.startswith(("PIP_", "PYTHON"))]:
        monkeypatch.delenv(name)
    programs = tmp_path / "programs"
    for name in ("latexmk", "pdflatex", "bibtex", "kpsewhich", "git", "g++", "gcc", "make"):
        if name not in ("git", "make", "gcc") or not shutil.which(name):
            program(programs / name, "exit 0")
    program(programs / "python3", fake_python(sys.executable))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return folder


def fake_python(real, version=None):
    """A script that is ``real``, but for environments, whose pip is PIP and which build no operators."""
    pip = PIP.replace("'", "'\\''")
    says = f'[ "$1" != -V ] || {{ echo Python {version}; exit; }}' if version else ""
    inner = f"""
args="$*"
case "$args" in
  *"-m pip --version"*) exit 0 ;;
  *"-m pip "*) shift; [ "$1" = pip ] || shift; shift; exec {real} -c '{pip}' "$@" ;;
  *camelsight.pipeline.compiled*) echo built >>"$SEEN"; exit 0 ;;
esac
{says}
exec {real} "$@"
"""
    return f"""
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p .venv/bin && echo made $0 >>"$SEEN"
  cat >.venv/bin/python <<'END'
#!/bin/bash{inner}
END
  chmod +x .venv/bin/python; exit
fi
{says}
case "$*" in *"print(sys.executable)"*) realpath "$0"; exit ;; esac
exec {real} "$@"
"""


def setup(project, *arguments, code=0, **environment):
    """Run make setup there; what was asked of pip meanwhile, a line each, and what it said."""
    seen = Path(os.environ["SEEN"])
    seen.write_text("")
    command = ["make", "setup", *arguments]
    run = subprocess.run(
        command, cwd=project, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode != 0) == code, run.stderr
    return seen.read_text(), run.stderr


def settings(seen):
    """The settings that pip had, in the environment, each time that it installed."""
    lines = [line for line in seen.splitlines() if line.startswith("install")]
    return [dict(ast.literal_eval(line[line.index("[(") :])) for line in lines]


def test_set_up_is_done_once(project):
    seen, said = setup(project)
    assert seen.startswith("made ") and "torch==2.13.0" in seen and said.endswith("setup: done\n")
    assert setup(project) == ("built\n", ""), "there are no operators"
    (project / "code/camelsight/inference/fused-AVX2-0.so").symlink_to(shared_library())
    assert setup(project) == ("", "")
    (project / "code/camelsight/inference/fused-AVX2-1.so").write_text("of another machine")
    assert setup(project) == ("built\n", "")


def shared_library():
    import _ctypes

    return _ctypes.__file__


def test_a_working_environment_outlives_another_python_that_comes_first_on_path(project, tmp_path, monkeypatch):
    """conda activate made every target delete 1.7 GB and build them again, and conda deactivate once more."""
    setup(project)
    program(tmp_path / "conda/python3", fake_python(sys.executable, "3.12.99"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'conda'}:{os.environ['PATH']}")
    assert "made" not in setup(project)[0]
    seen, _ = setup(project, f"PYTHON={tmp_path / 'conda/python3'}")
    assert f"made {tmp_path / 'conda/python3'}" in seen
    (project / ".venv/python.txt").write_text("/removed/python3\n")
    program(project / ".venv/bin/python", "exit 1")
    assert "made" in setup(project)[0], "it works no more"


FOREIGN = {"PYTHONPATH": "/module", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere", "PYTHONOPTIMIZE": "2"}
SETTINGS = {
    "PIP_USER": "1",
    "PIP_TARGET": "/t",
    "PIP_CONSTRAINT": "/c",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_PREFIX": "/p",
}


def test_what_is_set_for_other_work_does_not_reach_pip_and_where_packages_come_from_does(project, tmp_path):
    configuration = tmp_path / "pip/pip.conf"
    configuration.parent.mkdir()
    configuration.write_text(
        "[global]\nuser = true\nconstraint = /nowhere\nindex-url = https://a/simple\nextra-index-url =\n  https://b/\n"
        "  https://c/\n[install]\ntarget = /nowhere\nno-binary = :all:\ncert = it's.pem\n"
    )
    seen, _ = setup(project, XDG_CONFIG_HOME=str(tmp_path), PIP_INDEX_URL="https://d/simple", **FOREIGN, **SETTINGS)
    kept = {
        "PIP_CERT": "it's.pem",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_EXTRA_INDEX_URL": "\nhttps://b/\nhttps://c/",
        "PIP_INDEX_URL": "https://d/simple",
    }
    assert settings(seen) == [kept] * 3


def test_an_index_that_only_a_file_of_pip_names_is_asked(project, tmp_path):
    """ "user = true" in that file made pip list another one, and the index was lost."""
    configuration = tmp_path / "site.conf"
    configuration.write_text(
        "[global]\nuser = true\nindex-url = https://a/simple\ntrusted-host = a\nproxy = p:1\nprefix = /nowhere\n"
        "[install]\nfind-links = /wheels\ncert = a.pem\n"
    )
    seen, _ = setup(project, PIP_CONFIG_FILE=str(configuration))
    kept = {
        "CERT": "a.pem",
        "INDEX_URL": "https://a/simple",
        "TRUSTED_HOST": "a",
        "PROXY": "p:1",
        "FIND_LINKS": "/wheels",
    }
    ours = {"CONFIG_FILE": "/dev/null", "DISABLE_PIP_VERSION_CHECK": "1"}
    assert settings(seen) == [{f"PIP_{name}": value for name, value in (kept | ours).items()}] * 3


def test_a_folder_of_wheels_is_all_that_is_asked_and_what_it_lacks_is_one_line(project, tmp_path):
    wheels = tmp_path / "some wheels"
    wheels.mkdir()
    seen, _ = setup(project, f"WHEELS={wheels}")
    for line in seen.splitlines():
        assert line[:7] != "install" or "'--no-index'" in line
    assert seen.count(str(wheels)) == 2
    (project / "requirements.lock").write_text((project / "requirements.lock").read_text() + "# changed\n")
    _, said = setup(project, f"WHEELS={wheels}", code=1, LACKS="torch==2.13.0")
    assert said.splitlines()[1].startswith("setup: expected in") and "No matching distribution found for torch" in said
    assert "make wheels" in said
    _, said = setup(project, "WHEELS=nowhere", code=1)
    assert said.splitlines()[0] == "setup: expected a folder of wheels, got nowhere; make wheels fills one"


def test_a_torch_that_is_not_there_or_too_old_is_one_line(project, tmp_path):
    site = tmp_path / "module"
    for text, why in (
        ("__version__ = '2.1.0+cu121'", "got torch 2.1.0+cu121 of Python 3."),
        ("raise OSError('libcudart.so.12: not\\nfound')", "got none that works: OSError: libcudart.so.12: not found"),
    ):
        site.mkdir(exist_ok=True)
        (site / "torch.py").write_text(text)
        _, said = setup(project, "TORCH=site", code=1, PYTHONPATH=str(site))
        line = next(line for line in said.splitlines() if "expected" in line)
        assert line.startswith("setup: expected torch 2.11 or newer in ") and why in line and "load its module" in line


def test_an_unfinished_merge_in_the_lock_is_one_line(project):
    (project / "requirements.lock").write_text("<<<<<<< HEAD\na==1\n=======\na==2\n>>>>>>> theirs\n")
    _, said = setup(project, code=1)
    assert said.splitlines()[0].startswith("setup: requirements.lock or pyproject.toml has the conflict markers")


def test_elsewhere_than_on_linux_make_names_the_container(project, tmp_path):
    program(tmp_path / "programs/uname", "echo Darwin")
    for target in ("help", "setup", "paper"):
        run = subprocess.run(["make", target], cwd=project, capture_output=True, text=True, check=False)
        assert run.returncode == 2 and not run.stdout and run.stderr.count("\n") == 1
        assert "camelsight runs on Linux; elsewhere use its container: docker build -t camelsight ." in run.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="line ends are git's")
def test_a_clone_of_windows_keeps_the_line_ends_of_scripts(project, tmp_path):
    (project / "code/one.sh").write_bytes(b"echo one\r\n")
    for command in (
        ["init", "-q"],
        ["add", "code", ".gitattributes", "Makefile", "requirements.lock"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
        ["clone", "-q", "-c", "core.autocrlf=true", str(project), str(tmp_path / "clone")],
    ):
        subprocess.run(["git", *command], cwd=project, check=True, capture_output=True)
    for path in (tmp_path / "clone").rglob("*"):
        assert not path.is_file() or ".git" in path.parts or b"\r" not in path.read_bytes(), path


def test_no_pipe_ends_in_what_stops_reading():
    """On a busy machine grep -q ended before ldconfig, which pipefail took for a missing library."""
    for script in (*(ROOT / "code").glob("*.sh"), ROOT / "benchmarks/gpu.sh"):
        assert "| grep -q" not in script.read_text(encoding="utf-8"), script
