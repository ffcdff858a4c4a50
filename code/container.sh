#!/usr/bin/env bash
# What a container does: lay the project out in the working folder, /out, and hand over to make there; not as root, but as
# the owner of that folder, where -u does not say who.
#
# There, what nothing writes to is a link into the image, as long as a command runs, and the rest a copy; params.yaml and
# dvc.lock are only put where there are none, so that a folder that was used before goes on where it stopped, also with the
# image of another version. A folder that holds anything else is somebody's, and is left alone.
set -euo pipefail
image=$(dirname "$(dirname "$(realpath "$0")")")
fail() { echo "container: $*" >&2; exit 1; }

usage() {
  cat <<'END'
camelsight: a reproducibility package for arXiv:2504.17839

  mkdir -p out
  docker run --rm -v "$PWD/out:/out" IMAGE COMMAND

  paper    every figure, every table and the PDF, from simulated maps; twenty minutes on two cores
  verify   what they say, against what is expected
  test     lint, unit tests and the smallest run from end to end
  doctor   whether this machine has what a run needs; it is also the first step of the others
  plan     what would run, why, and for how long
  shell    bash in /out
  ...      any other target of make help, and its options: paper PROFILE=smoke JOBS=2

With a GPU:         docker run --gpus all ... IMAGE paper PROFILE=twin
With CAMELS' maps:  docker run --gpus all -v /path/to/CMD:/out/data/CMD ... IMAGE paper PROFILE=camels
The next run with the same folder goes on where the last one stopped.
END
}

refuse_others() { # a folder that is neither empty, but for what may be mounted or given, nor that of an earlier run
  local found
  [ ! -e .git ] || found=.git
  [ -e .dvc/container.lock ] || found=$(find . -mindepth 1 -maxdepth 1 ! -name data ! -name params.yaml ! -name lost+found -print -quit 2>/dev/null) || true
  [ -z "${found:-}" ] || fail "expected an empty folder or one of an earlier run in $PWD, got ${found#./}; mount another one"
}

leave_root() { # for the owner of the folder; for user 1000 where the engine made it, or none is mounted
  local owner outside
  read -r _ outside _ </proc/self/uid_map
  [ "$(id -u)" = 0 ] && [ "$outside" = 0 ] || return 0 # the root of rootless podman is the user outside
  owner=$(stat --format %u:%g .)
  [ "${owner%:*}" != 0 ] || owner=1000:1000
  find . -maxdepth 1 -uid 0 \( -path . -o -path ./data \) -exec chown "$owner" {} + # made by the engine, to mount something
  exec setpriv --reuid "${owner%:*}" --regid "${owner#*:}" --clear-groups -- "$0" "$@"
}

lay_out() {
  mkdir -p .dvc/tmp
  exec 9>>.dvc/container.lock
  if ! flock --nonblock 9; then
    mine=
    case $1 in shell | doctor | plan) return ;; esac
    fail "another container is at work in $PWD; wait for it, or mount another folder"
  fi
  rm -f .dvc/tmp/rwlock # its process ids are those of an earlier container, and may be anybody's in this one
  for path in "$image"/* "$image"/.[!.]*; do
    name=${path##*/}
    case $name in
      params.yaml | dvc.lock) [ -s "$name" ] || cp "$path" "$name" ;; # empty: DVC was killed while it wrote it
      .dvc | figures | paper | profiles) cp -R "$path" . ;;
      *)
        [ -L "$name" ] || [ ! -e "$name" ] || fail "expected no $name in $PWD, or a link that the image made; move it away"
        ln -sfn "$path" "$name"
        ;;
    esac
  done
  grep -qs no_scm .dvc/config.local || .venv/bin/python -m dvc config --quiet --local core.no_scm true # no checkout
}

take_up() { # what leads into the image, where this container laid it
  local name
  [ "$mine" ] || return 0
  for name in * .[!.]*; do
    if [ -L "$name" ] && [[ $(readlink "$name") = "$image"/* ]]; then rm "$name"; fi
  done
}

run() { # this command, which hears what this script hears; its exit code
  local child code=0
  set -m # else it would not hear Ctrl-C
  "$@" &
  child=$!
  trap 'kill -TERM "$child"' TERM HUP
  trap 'kill -INT -- "-$child"' INT
  wait "$child" 2>/dev/null || code=$? # bash would say Terminated
  while kill -0 "$child" 2>/dev/null; do # a signal ends the waiting
    code=0
    wait "$child" 2>/dev/null || code=$?
  done
  return "$code"
}

case ${1:-help} in help | -h | --help) usage; exit ;; esac
mine=yes
refuse_others
[ "$1" = lay ] || leave_root "$@"
[ -w . ] || fail "expected a folder that user $(id -u) may write to, got $PWD; mount your own, or run as its owner: -u"
lay_out "$1"
[ "$1" != lay ] || exit 0
trap take_up EXIT
case $1 in
  shell) bash "${@:2}" ;;
  doctor | plan) run make "$@" ;;
  verify) # not by make, which turns every failure into 2: the exit code is the verdict's
    options=()
    for option in "${@:2}"; do
      case $option in
        *=) ;;
        TIER=* | PACK=* | SUITE=* | CASE=*) key=${option%%=*} && options+=("--${key,,}" "${option#*=}") ;;
        JSON=*) options+=(--json) ;;
        -*) options+=("$option") ;;
        *) fail "expected verify with TIER=, PACK=, SUITE=, CASE= or JSON=1, got $option" ;;
      esac
    done
    make doctor QUIET=1 >&2
    run .venv/bin/python -P -m camelsight.referee.verify "${options[@]}"
    ;;
  *)
    make doctor QUIET=1 "${@:2}" JSON= >&2
    run make "$@"
    ;;
esac
