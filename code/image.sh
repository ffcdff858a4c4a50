#!/usr/bin/env bash
# Builds the image from the files that git tracks, with the first of docker, podman and buildah that works here; run by
# `make image`. BASE is the image to start from, TAG what to call this one, TORCH another torch. Its size and digest, and
# what it was made from, go to environment.lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${TAG:-camelsight}
lock=environment.lock.json

works() { if [ "$1" = buildah ]; then buildah images; else "$1" info; fi >/dev/null 2>&1; }
for engine in docker podman buildah none; do works "$engine" && break; done
if [ "$engine" = none ]; then
  echo "image: expected docker, podman or buildah, got none that works here; install one, or start its service" >&2
  exit 1
fi

base=${BASE:-$(sed -n 's/^ARG BASE=//p' Dockerfile)}
revision=$(git rev-parse HEAD)
git diff --quiet HEAD -- . ":!$lock" || revision=$revision-changed
source=$({ git remote get-url origin 2>/dev/null || true; } | sed -n 's#^https://\([^/@]*@\)\?#https://#p') # no password
arguments=(--build-arg "BASE=$base" --build-arg "TORCH=${TORCH:-}" --build-arg "REVISION=$revision"
  --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" --build-arg "SOURCE=$source"
  --build-arg "CREATED=$(date -u +%FT%TZ)")
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git ls-files -z | tar --null --files-from=- --create | tar --extract --directory "$context"
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
