#!/usr/bin/env bash
# Set-up for Debian and Ubuntu: system packages where missing, then .venv from requirements.lock, torch and Pylians.
# Run by `make setup`; PYTHON and TORCH choose the interpreter and the torch requirement, and are remembered.
# The image is built from its halves: `setup.sh run PACKAGE...` installs what a run needs, and these packages;
# `setup.sh build` makes .venv. `setup.sh missing` lists the system packages that are missing, by purpose.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:-all}
python=${PYTHON:-$(cat .venv/python.txt 2>/dev/null || echo python3)}
torch=${TORCH:-$(cat .venv/torch.txt 2>/dev/null || echo torch==2.13.0)}
stamp=.venv/.ready
digest() { cat requirements.lock pyproject.toml code/setup.sh code/camelsight/{pipeline/compiled.py,inference/fused.cpp,universe/particles.cpp} <(echo "$(realpath -m .venv) $("$python" -V 2>&1) $torch") | sha256sum; }

fail() { echo "setup: $*" >&2; exit 1; }

has_latex() {
  for program in latexmk pdflatex bibtex kpsewhich; do command -v "$program" >/dev/null || return 1; done
  kpsewhich booktabs.sty microtype.sty natbib.sty mathptmx.sty ptmr8t.tfm >/dev/null
}

missing() { # the system packages that are missing for this purpose
  case $1 in
    python) command -v "$python" >/dev/null || echo python3 ;;
    make) command -v make >/dev/null || echo make ;;
    openmp) /sbin/ldconfig -p | grep -q 'libgomp\.so\.1' || echo libgomp1 ;; # Pylians'
    latex) has_latex || echo latexmk texlive-latex-recommended texlive-fonts-recommended ;;
    git) command -v git >/dev/null || echo git ;;
    compiler) command -v gcc >/dev/null || echo build-essential ;;
    headers)
      if ! command -v "$python" >/dev/null; then echo python3-venv python3-dev; return; fi
      minor=$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}")')
      "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$minor-venv"
      "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        echo "$minor-dev"
      ;;
  esac
}

run=(python make openmp latex)
build=(python git compiler headers)
case $part in
  all) purposes=("${run[@]}" "${build[@]:1}") ;;
  run) purposes=("${run[@]}") ;;
  build) purposes=("${build[@]}") ;;
  missing)
    for purpose in "${run[@]}" "${build[@]:1}"; do
      packages=$(missing "$purpose" | xargs)
      [ -z "$packages" ] || echo "$purpose: $packages"
    done
    exit 0
    ;;
  *) fail "expected run, build, missing or nothing, got $part" ;;
esac
# DVC asks Git for commits, and refuses to work without one unless it is told: an archive is no checkout.
with_or_without_git() {
  if [ ! -e .git ]; then
    grep -qs no_scm .dvc/config.local || .venv/bin/dvc config --quiet --local core.no_scm true
  elif grep -qs no_scm .dvc/config.local; then
    .venv/bin/dvc config --quiet --local --unset core.no_scm
  fi
}

exec >&2 # standard output is for what make's targets have to say
if [ "$part" = all ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(digest)" ] && has_latex; then
  with_or_without_git
  exit 0
fi

! command -v "$python" >/dev/null || "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "expected Python 3.11 or newer, got $("$python" -V 2>&1); name another one: make setup PYTHON=python3.12"
packages=("${@:2}")
for purpose in "${purposes[@]}"; do
  mapfile -t -O ${#packages[@]} packages < <(missing "$purpose" | xargs -r -n 1)
done
if [ ${#packages[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  command="${root[*]:+sudo }apt-get update && ${root[*]:+sudo }apt-get install --no-install-recommends ${packages[*]}"
  command -v apt-get >/dev/null || fail "system packages are missing; install what your system calls: ${packages[*]}"
  [ ${#root[@]} = 0 ] || sudo -n true 2>/dev/null || fail "system packages are missing; run: $command"
  echo "setup: installing system packages: ${packages[*]}"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [ "$part" = run ]; then exit 0; fi

echo "setup: Python packages into .venv (a few minutes the first time)"
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || [ "$(.venv/bin/python -V)" != "$("$python" -V)" ]; then
  "$python" -m venv --clear .venv
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet --progress-bar off)
pylians=.venv/pylians.txt
sed -n '/^pylians==/,/[^\\]$/p' requirements.lock >"$pylians"
"${pip[@]}" --no-deps --require-hashes -r <(sed '/^pylians==/,/[^\\]$/d' requirements.lock)

# Pylians is compiled against the locked NumPy, with one compiler process per core, while torch arrives. It asks for
# Cython 0.29, whose output Python 3.13 cannot compile; Cython 3 reads its sources where told that an unmarked C function
# raises nothing, as 0.29 assumed.
if ! .venv/bin/python -m pip --disable-pip-version-check freeze | grep -qi "^$(sed -n '1s/ .*//p' "$pylians")$"; then
  echo "setup: compiling Pylians (one to three minutes)"
  mkdir -p .venv/build
  printf '[build_ext]\nparallel=%s\n' "$(nproc)" >.venv/build/build.cfg
  printf '%s\n' 'from Cython.Compiler import Options' \
    'Options.get_directive_defaults()["legacy_implicit_noexcept"] = True' >.venv/build/sitecustomize.py
  DIST_EXTRA_CONFIG=$PWD/.venv/build/build.cfg PYTHONPATH=$PWD/.venv/build \
    "${pip[@]}" --no-deps --no-build-isolation --require-hashes -r "$pylians" >.venv/pylians.log 2>&1 &
  compiling=$!
  trap 'kill "$compiling" 2>/dev/null || true' EXIT
fi
"${pip[@]}" "$torch"
if [ -n "${compiling:-}" ]; then
  wait "$compiling" || { tail -n 20 .venv/pylians.log >&2; fail "Pylians did not compile; see .venv/pylians.log"; }
fi
"${pip[@]}" --no-deps --no-build-isolation --editable .
[ "$part" = build ] || .venv/bin/python -m camelsight.pipeline.compiled ||
  echo "setup: simulating and training on CPU will do without the compiled operators"
[ "$part" = build ] || with_or_without_git
echo "$python" >.venv/python.txt
echo "$torch" >.venv/torch.txt
digest >"$stamp"
echo "setup: done"
