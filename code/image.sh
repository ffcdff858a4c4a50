#!/usr/bin/env bash
# Builds the image with the first of docker, podman and buildah that works here; run by `make image`. Of a checkout it takes
# the files that git tracks, of an unpacked archive all that .dockerignore does not name. BASE is the image to start from,
# TAG what to call this one, TORCH another torch, WHEELS a folder whose wheels are taken before an index is asked, such as
# torch's CPU build. Its size and digest, and what it was made from, go to environment.lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${TAG:-camelsight}
lock=environment.lock.json
fail() { echo "image: $*" >&2; exit 1; }

works() { if [ "$1" = buildah ]; then buildah images; else "$1" info; fi >/dev/null 2>&1; }
for engine in docker podman buildah none; do works "$engine" && break; done
[ "$engine" != none ] || fail "expected docker, podman or buildah, got none that works here; install one, or start its service"
[ -z "${WHEELS:-}" ] || compgen -G "$WHEELS/*.whl" >/dev/null || fail "expected a folder of wheels, got $WHEELS"

base=${BASE:-$(sed -n 's/^ARG BASE=//p' Dockerfile)}
revision=unknown source=
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
said=$(LC_ALL=C git rev-parse --show-toplevel 2>&1) || true
case $said in
  *"dubious ownership"* | *"unsafe repository"*)
    fail "git says nothing of $PWD, which is another user's; chown it, or git config --global --add safe.directory $PWD" ;;
esac
if [ "$said" = "$(pwd -P)" ]; then # and not a repository around an archive that was unpacked in it
  revision=$(git rev-parse HEAD)
  git diff --quiet HEAD -- . ":!$lock" || revision=$revision-changed
  source=$({ git remote get-url origin 2>/dev/null || true; } | sed -n 's#^https://\([^/@]*@\)\?#https://#p') # no password
  git ls-files -z | tar --null --files-from=- --create | tar --extract --directory "$context"
else
  echo "image: no checkout of git: the image takes all of $PWD but what .dockerignore names, and knows no commit" >&2
  tar --create --exclude-from=<(sed 's#^[^*]#./&#; s#^\*\*/##' .dockerignore) . | tar --extract --directory "$context"
fi
if [ -n "${WHEELS:-}" ]; then mkdir "$context/.wheels" && cp "$WHEELS"/* "$context/.wheels"; fi
arguments=(--build-arg "BASE=$base" --build-arg "TORCH=${TORCH:-}" --build-arg "REVISION=$revision"
  --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" --build-arg "SOURCE=$source"
  --build-arg "CREATED=$(date -u +%FT%TZ)")
"$engine" build "${arguments[@]}" --tag "$tag" --file "$context/Dockerfile" "$context" >&2

if [ "$engine" = docker ]; then
  digest=$(docker image inspect --format '{{.Id}}' "$tag") size=$(docker images --format '{{.Size}}' "$tag" | head -n 1)
else
  digest=$("$engine" images --format '{{.Digest}}' "$tag" | head -n 1)
  size=$("$engine" images --format '{{.Size}}' "$tag" | head -n 1)
fi
cat >"$lock" <<END
{
 "image": "$tag",
 "digest": "$digest",
 "size": "$size",
 "engine": "$engine",
 "base": "$base",
 "torch": "${TORCH:-as in code/setup.sh}",
 "revision": "$revision",
 "requirements.lock": "sha256:$(sha256sum requirements.lock | cut -d ' ' -f 1)"
}
END
echo "image: $tag, $size, $digest; recorded in $lock"
