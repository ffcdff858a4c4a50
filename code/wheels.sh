#!/usr/bin/env bash
# Collects in the folder WHEELS what `make setup WHEELS=folder` needs on a machine without a network; run by `make wheels`
# on one with a network and the same kind of processor. PYTHON_VERSION is that machine's; TORCH names a torch to take along,
# where that machine has none. What has no wheel (Pylians) is built here if a wheel of here fits there; otherwise its source
# is taken, and that machine needs a compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
source code/pip.sh
unset "${other_work[@]}"
here=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
version=${PYTHON_VERSION:-$here}
wheels=$(realpath -m "${WHEELS:-wheels}")
[[ $version =~ ^3\.[0-9]+$ ]] || fail "expected PYTHON_VERSION such as 3.12, got $version"
mkdir -p "$wheels" .venv/build
shield
pip=(.venv/bin/python -m pip)
quiet=(--quiet --progress-bar off)
fitting=(--only-binary :all: --implementation cp --python-version "$version" --platform "linux_$(uname -m)")
for minor in $(seq 28 -1 5); do fitting+=(--platform "manylinux_2_${minor}_$(uname -m)"); done
for year in 2014 2010 1; do fitting+=(--platform "manylinux${year}_$(uname -m)"); done

lock=.venv/build/requirements.txt sources=()
cp requirements.lock "$lock"
until "${pip[@]}" download "${quiet[@]}" --no-deps --require-hashes "${fitting[@]}" --dest "$wheels" -r "$lock" 2>.venv/pip.log; do
  lacking=$(sed -n 's/^ERROR: No matching distribution found for \([^ ]*\).*/\1/p' .venv/pip.log)
  grep -q "^${lacking:-none}\b" "$lock" || { cat .venv/pip.log >&2; fail "pip could not collect requirements.lock"; }
  sed -n "/^$lacking\b/,/[^\\\\]$/p" "$lock" >".venv/build/$lacking.txt"
  sed -i "/^$lacking\b/,/[^\\\\]$/d" "$lock"
  sources+=("$lacking")
done
for pin in "${sources[@]}"; do
  built=$(mktemp -d)
  echo "wheels: $pin has no wheel for Python $version"
  options=(--no-deps --require-hashes -r ".venv/build/$pin.txt")
  with_pylians_flags "${pip[@]}" wheel "${quiet[@]}" --no-build-isolation "${options[@]}" --wheel-dir "$built"
  if [ "$version" = "$here" ] || compgen -G "$built/*none-any.whl" >/dev/null; then
    cp "$built"/*.whl "$wheels"
  else
    with_pylians_flags "${pip[@]}" download "${quiet[@]}" --no-build-isolation --no-binary :all: "${options[@]}" --dest "$wheels"
  fi
  rm -r "$built"
done
[ -z "${TORCH:-}" ] || [ "$TORCH" = site ] || "${pip[@]}" download "${quiet[@]}" "${fitting[@]}" --dest "$wheels" "$TORCH"
echo "wheels: $wheels, $(du -sh "$wheels" | cut -f 1); there: make setup WHEELS=folder" \
  "$([ -n "${TORCH:-}" ] && [ "$TORCH" != site ] && echo "TORCH=$TORCH" || echo TORCH=site)"
