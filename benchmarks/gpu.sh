#!/usr/bin/env bash
# All that a GPU has to show, on one GPU machine without a network, within eleven minutes: set-up on the torch that is there,
# the tests marked gpu, the rehearsal of twin, the rows of the benchmark that need a GPU.
#
#   make wheels WHEELS=wheels PYTHON_VERSION=3.12    # before, where there is a network; the version is that machine's
#   benchmarks/gpu.sh wheels gpu-results             # there; PYTHON= names the interpreter that has torch
#   benchmarks/gpu.sh wheels gpu-results setup tests # some of the steps alone: setup, doctor, tests, rehearse, bench
#
# What each step says is in the second folder while it goes on: a machine that is taken back leaves what was measured.
# A step that fails or takes too long ends no other; the exit code is the number of those that did.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=${1:?gpu.sh: expected a folder that make wheels filled, got none}
out=$(realpath -m "${2:-gpu-results}")
profile=${PROFILE:-twin}
export PYTHON=${PYTHON:-python3}
mkdir -p "$out"
failed=0 budget=${BUDGET:-650} # seconds, of which each step has its share at most
end=$((SECONDS + budget)) wanted=("${@:3}")

step() { # NAME, the seconds of 650 that it may take, and what it runs
  local name=$1 limit=$(($2 * budget / 650)) left=$((end - SECONDS)) start=$SECONDS code=0
  shift 2
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then return; fi
  if [ "$left" -lt "$limit" ]; then limit=$left; fi
  if [ "$limit" -le 0 ]; then
    code=124
  else
    timeout --signal INT --kill-after 15 "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err" || code=$?
  fi
  [ "$code" = 0 ] || failed=$((failed + 1))
  echo "gpu.sh: $name ended with $code after $((SECONDS - start)) s" | tee -a "$out/steps.txt"
}

rm -f "$out/steps.txt"
{ date -u +%F; nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no nvidia-smi"; } \
  >"$out/machine.txt" 2>&1
step setup 200 make setup WHEELS="$wheels" TORCH=site
step doctor 40 make doctor PROFILE="$profile"
step tests 200 .venv/bin/python -m pytest -q tests/test_gpu.py
step rehearse 340 make rehearse PROFILE="$profile"
step bench 150 .venv/bin/python benchmarks/run.py train-256-gpu universe-256-gpu
cp "runs/rehearsals/$profile.json" benchmarks/latest.json "$out" 2>/dev/null || true
exit "$failed"
