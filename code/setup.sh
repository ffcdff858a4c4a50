#!/usr/bin/env bash
# Set-up for Debian and Ubuntu: system packages where missing, then .venv from requirements.lock, torch and Pylians.
# Run by `make setup`. PYTHON and TORCH choose the interpreter and the torch requirement, and are remembered; TORCH=site is
# the torch that the interpreter has already. WHEELS is a folder that `make wheels` filled: with it no network is used.
# The image is built from its parts: `setup.sh run PACKAGE...` installs what a run needs, and these packages; `setup.sh
# build` makes .venv, `compile` our own operators; `gpu` installs what torch.compile needs, if torch is a CUDA build.
# `setup.sh missing` lists the system packages that are missing, by purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
source code/pip.sh
site_path=${CAMELSIGHT_PYTHONPATH-${PYTHONPATH:-}} # of a module that is loaded: TORCH=site may lie there
unset "${other_work[@]}"
part=${1:-all}
stamp=.venv/.ready
wheels=${WHEELS:+$(realpath -m "$WHEELS")}

chosen() { # PYTHON, or what made .venv: another python3 that has come first on PATH since, such as conda's, is neither
  local last
  if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; return; fi
  last=$(cat .venv/python.txt 2>/dev/null) || true
  if [[ $last = /* && -x $last ]]; then echo "$last"; return; fi
  .venv/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null || echo python3
}
python=$(chosen)
torch=${TORCH:-$(cat .venv/torch.txt 2>/dev/null || echo torch==2.13.0)}
digest() { cat requirements.lock pyproject.toml code/{setup,pip}.sh code/camelsight/{pipeline/compiled.py,inference/fused.cpp,universe/particles.cpp} <(echo "$(realpath -m .venv) $("$python" -V 2>&1) $torch") | sha256sum; }

has_latex() {
  for program in latexmk pdflatex bibtex kpsewhich; do command -v "$program" >/dev/null || return 1; done
  kpsewhich booktabs.sty microtype.sty natbib.sty mathptmx.sty ptmr8t.tfm >/dev/null
}

# grep -q would end before what it reads from, which pipefail then takes for a failure.
missing() { # the system packages that are missing for this purpose
  case $1 in
    python) command -v "$python" >/dev/null || echo python3 ;;
    make) command -v make >/dev/null || echo make ;;
    openmp) /sbin/ldconfig -p | grep 'libgomp\.so\.1' >/dev/null || echo libgomp1 ;; # Pylians'
    latex) has_latex || echo latexmk texlive-latex-recommended texlive-fonts-recommended ;;
    git) command -v git >/dev/null || echo git ;;
    compiler) command -v g++ >/dev/null || echo build-essential ;;
    launcher) echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || echo gcc libc6-dev ;; # Triton's, with headers
    headers)
      if ! command -v "$python" >/dev/null; then echo python3-venv python3-dev; return; fi
      minor=$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}")')
      "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$minor-venv"
      "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        echo "$minor-dev"
      ;;
  esac
}

loads() { # whether our compiled operators are there, and this machine can load them, or could not build them anyway
  .venv/bin/python -I -S -c 'import ctypes, glob, sys
found = glob.glob("code/camelsight/*/*.so")
[ctypes.CDLL(path) for path in found]
sys.exit(not found)' 2>/dev/null || ! command -v g++ >/dev/null
}

operators() {
  .venv/bin/python -m camelsight.pipeline.compiled ||
    echo "setup: simulating and training on CPU will do without the compiled operators"
}

install_system() { # these packages, by whoever may; else the command that does
  local root=() command
  [ "$(id -u)" = 0 ] || root=(sudo)
  command="${root[*]:+sudo }apt-get update && ${root[*]:+sudo }apt-get install --no-install-recommends $*"
  if [ -n "$wheels" ] && [ "$part" = all ]; then
    echo "setup: without a network these system packages are left out, and what needs them will fail: $*"
    return
  fi
  command -v apt-get >/dev/null || fail "system packages are missing; install what your system calls: $*"
  [ ${#root[@]} = 0 ] || sudo -n true 2>/dev/null || fail "system packages are missing; run: $command"
  echo "setup: installing system packages: $*"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_pip() { # with these arguments, from the folder of wheels where there is one; the image may ask an index after it
  local pip=(.venv/bin/python -m pip install --quiet --progress-bar off)
  if [ -z "$wheels" ]; then "${pip[@]}" "$@"; return; fi
  "${pip[@]}" --no-index --find-links "$wheels" "$@" 2>.venv/pip.log && return
  if [ "$part" = build ]; then "${pip[@]}" --find-links "$wheels" "$@"; return; fi
  fail "expected in $wheels what Python $(.venv/bin/python -V | cut -d ' ' -f 2) on $(uname -m) needs, got:" \
    "$(grep '^ERROR' .venv/pip.log | tail -n 1); make wheels PYTHON_VERSION=… collects it where there is a network"
}

install_locked() { # all of requirements.lock, by its hashes; but a wheel that `make wheels` built has none there
  local lock=.venv/requirements.txt built=() wheel name pin
  cp requirements.lock "$lock"
  for wheel in ${wheels:+"$wheels"/*.whl}; do
    name=${wheel##*/}
    pin=$(cut -d - -f 1,2 <<<"${name,,}" | sed 's/-/==/; s/_/-/g')
    if grep -q "^$pin\b" "$lock" && ! grep -q "sha256:$(sha256sum "$wheel" | cut -d ' ' -f 1)" requirements.lock &&
      [[ $name = *none-any.whl || $name = *-cp$("$python" -c 'import sys; print("3%d" % sys.version_info[1])')-*$(uname -m).whl ]]; then
      built+=("$wheel")
      sed -i "/^$pin\b/,/[^\\\\]$/d" "$lock"
    fi
  done
  sed -n '/^pylians==/,/[^\\]$/p' "$lock" >.venv/pylians.txt
  sed -i '/^pylians==/,/[^\\]$/d' "$lock"
  install_pip --no-deps --require-hashes -r "$lock"
  [ ${#built[@]} = 0 ] || install_pip --no-deps "${built[@]}"
}

compile_pylians() { # in the background, while torch arrives
  local pin
  pin=$(sed -n '1s/ .*//p' .venv/pylians.txt)
  if [ -z "$pin" ] || .venv/bin/python -m pip freeze | grep -i "^$pin$" >/dev/null; then return; fi
  echo "setup: compiling Pylians (one to three minutes)"
  (with_pylians_flags install_pip --no-deps --no-build-isolation --require-hashes -r .venv/pylians.txt) >.venv/pylians.log 2>&1 &
  compiling=$!
  trap 'kill "$compiling" 2>/dev/null || true' EXIT
}

place_of_site() { # where the interpreter keeps packages, its torch among them; one line a folder
  PYTHONPATH=$site_path "$python" - <<'END'
import os, sys, sysconfig
try:
    import torch
except Exception as error:
    sys.exit(f"got none that works: {type(error).__name__}: {' '.join(str(error).split())}")
version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if version < (2, 11) or not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"got torch {torch.__version__} of Python {sys.version.split()[0]}")
standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
for path in map(os.path.realpath, filter(None, sys.path)):
    if os.path.isdir(path) and path not in standard and os.path.basename(path) != "lib-dynload":
        print(path)
END
}

install_torch() {
  local folders packages
  packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  if [ "$torch" != site ]; then
    rm -f "$packages/site_torch.pth"
    install_pip "$torch"
    return
  fi
  folders=$(place_of_site 2>&1) ||
    fail "expected torch 2.11 or newer in $python, of Python 3.11 to 3.13, $folders; load its module, or name PYTHON="
  echo "$folders" >"$packages/site_torch.pth" # behind .venv's own packages
  .venv/bin/python -c 'import torch' 2>.venv/pip.log ||
    fail "torch of $python works there, but not beside requirements.lock: $(tail -n 1 .venv/pip.log)"
}

run=(python make openmp latex)
build=(python git compiler headers)
case $part in
  all) purposes=("${run[@]}" "${build[@]:1}") ;;
  run) purposes=("${run[@]}") ;;
  build) purposes=("${build[@]}") ;;
  gpu) purposes=(launcher headers) ;;
  compile) purposes=() ;;
  missing)
    for purpose in "${run[@]}" "${build[@]:1}" launcher; do
      packages=$(missing "$purpose" | xargs)
      [ -z "$packages" ] || echo "$purpose: $packages"
    done
    exit 0
    ;;
  *) fail "expected run, build, compile, gpu, missing or nothing, got $part" ;;
esac
! grep -qs '^<<<<<<< ' requirements.lock pyproject.toml ||
  fail "requirements.lock or pyproject.toml has the conflict markers of a merge: git checkout --ours (or --theirs) FILE"
# DVC asks Git for commits, and refuses to work without one unless it is told: an archive is no checkout.
with_or_without_git() {
  if [ ! -e .git ]; then
    grep -qs no_scm .dvc/config.local || .venv/bin/python -m dvc config --quiet --local core.no_scm true
  elif grep -qs no_scm .dvc/config.local; then
    .venv/bin/python -m dvc config --quiet --local --unset core.no_scm
  fi
}

exec >&2 # standard output is for what make's targets have to say
if [ "$part" = compile ]; then
  .venv/bin/python -m camelsight.pipeline.compiled
  digest >"$stamp"
  exit 0
fi
if [ "$part" = all ] && .venv/bin/python -I -S -c "" 2>/dev/null && [ "$(cat "$stamp" 2>/dev/null)" = "$(digest)" ] && { has_latex || [ -e .venv/wheels.txt ]; }; then
  loads || operators
  with_or_without_git
  exit 0
fi
if [ "$part" = gpu ] && ! .venv/bin/python -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then exit 0; fi

! command -v "$python" >/dev/null || "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "expected Python 3.11 or newer, got $("$python" -V 2>&1); name another one: make setup PYTHON=python3.12"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "expected a folder of wheels, got $WHEELS; make wheels fills one"
packages=("${@:2}")
for purpose in "${purposes[@]}"; do
  mapfile -t -O ${#packages[@]} packages < <(missing "$purpose" | xargs -r -n 1)
done
[ ${#packages[@]} = 0 ] || install_system "${packages[@]}"
if [ "$part" = run ] || [ "$part" = gpu ]; then exit 0; fi

echo "setup: Python packages into .venv (a few minutes the first time)"
before=$(cat .venv/torch.txt 2>/dev/null || echo "$torch")
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || [ "$(.venv/bin/python -V)" != "$("$python" -V)" ] ||
  { [ "$before" != "$torch" ] && [[ " $before $torch " = *" site "* ]]; }; then
  "$python" -m venv --clear .venv || fail "$python made no virtual environment; name another one: make setup PYTHON=…"
fi
shield
install_locked
compile_pylians
install_torch
if [ -n "${compiling:-}" ]; then
  wait "$compiling" || { tail -n 20 .venv/pylians.log >&2; fail "Pylians did not compile; see .venv/pylians.log"; }
fi
.venv/bin/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
"$python" -c 'import sys; print(sys.executable)' >.venv/python.txt
echo "$torch" >.venv/torch.txt
if [ -n "$wheels" ]; then echo "$wheels" >.venv/wheels.txt; fi
if [ "$part" = build ]; then exit 0; fi
operators
with_or_without_git
digest >"$stamp"
echo "setup: done"
