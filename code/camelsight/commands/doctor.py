"""Whether this machine has what a run of a profile needs; each failure prints its fix.

Imports no more than Python's standard library before it knows that the rest is there: it is to say so where it is not.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass

from camelsight.commands import probe
from camelsight.pipeline import streams

OK, WARN, FAIL = "ok", "warn", "FAIL"
MIN_PYTHON = (3, 11)
GPU_PIXELS = 256  # maps of this size want a GPU: on two CPU cores a network trains on about 60 of them a second
MIN_SHARED_MEMORY = 1e6  # of the locks of a process pool
ADAM_COPIES = 4  # weights in a checkpoint: current, best, and two moments
OTHER_RESULTS = 2e8  # figures, tables, the PDF, logs
INSTALL = "apt-get update && apt-get install --no-install-recommends"
REFUSED_FIX = 'chown it to yourself, or git config --global --add safe.directory "$PWD"'


@dataclass(frozen=True)
class Needs:
    """What a profile needs, in bytes; disk without what is there already."""

    profile: str
    gpu: bool
    gpu_memory: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Check:
    name: str
    status: str
    found: str
    fix: str = ""


def judge(facts, needs):
    """The list of ``Check`` that follows from ``Facts`` and ``Needs``; needs are None where they cannot be known."""
    checks = [_python(facts), *_system(facts), _packages(facts), _environment(facts)]
    checks += [_gpu(facts, needs), _driver(facts)]
    if needs:
        name = f"of profile {needs.profile}"
        stop = "stop other programs, or take a machine or a container limit with more"
        checks.append(_enough("memory", facts.memory, needs.memory, f"a process {name}", stop))
        other = "make room, or work in a folder (a container: mount one) on a larger disk; make clean removes results"
        checks.append(_enough("disk", facts.disk, needs.disk, f"what is still to make {name}", other))
    more = "run the container with --shm-size=64m" if facts.container else "mount -t tmpfs tmpfs /dev/shm"
    pool = facts.shared_memory or 0, MIN_SHARED_MEMORY, "a pool of processes"
    checks.append(_enough("shared memory", *pool, more, where=" in /dev/shm"))
    return [*checks, _writing(facts), _locks(facts), _git(facts)]


def _python(facts):
    found, wanted = ".".join(map(str, facts.python)), ".".join(map(str, MIN_PYTHON))
    if facts.python[:2] >= MIN_PYTHON:
        return Check("python", OK, found)
    return Check("python", FAIL, f"{found}, expected {wanted} or newer", "make setup PYTHON=python3.12")


def _system(facts):
    yield _compiler(facts)
    for name, purpose in (("latex", "latex"), ("libraries", "openmp")):
        if packages := facts.missing.get(purpose):
            yield Check(name, FAIL, f"missing: {packages}", f"as root: {INSTALL} {packages}")
        else:
            yield Check(name, OK, "there")


def _compiler(facts):
    purposes = ("launcher", "headers") if facts.gpus else ("compiler", "headers")
    packages = " ".join(facts.missing[purpose] for purpose in purposes if purpose in facts.missing)
    fix = f"as root: {INSTALL} {packages}"
    if facts.packages and packages:
        return Check("compiler", FAIL, f"missing: {packages}", fix)
    if facts.gpus and packages:
        without = f"missing: {packages}; torch.compile needs a C compiler on a GPU, training takes longer without"
        return Check("compiler", WARN, without, "make image, which puts one in" if facts.container else fix)
    if facts.gpus:
        return Check("compiler", OK, "there, with headers: torch.compile can compile networks for the GPU")
    return Check("compiler", OK, "none, and none needed: everything is compiled" if packages else "there")


def _packages(facts):
    if wrong := facts.packages or facts.broken:
        first, more = wrong[0], len(wrong) - 1
        return Check("packages", FAIL, first + (f", and {more} more" if more else ""), _mended(facts))
    return Check("packages", OK, f"as pinned in requirements.lock; torch {facts.torch}")


def _mended(facts):
    """How packages that are not as they should be become so."""
    if facts.foreign:
        return f"unset {' '.join(facts.foreign)}, or unload the module that sets it, and try again; or else make setup"
    return "make setup" if facts.packages else "rm -r .venv && make setup"


def _environment(facts):
    paths = [name for name in facts.foreign if name not in probe.LIBRARIES]
    if paths:
        set_ = f"{', '.join(paths)} set: programs that are started by hand take foreign packages before ours"
        return Check("environment", WARN, set_, f"start them by make, or unset {' '.join(paths)}")
    found = [f"{name} is set" + ("" if facts.broken else " and does no harm") for name in facts.foreign]
    found += [f"{name} is set and left out by make" for name in facts.left_out]
    if found:
        return Check("environment", OK, "; ".join(found))
    return Check("environment", OK, "nothing that brings other software")


def _gpu(facts, needs):
    paper_scale = needs is not None and needs.gpu
    if not facts.gpus:
        if paper_scale:
            cause = "a container: run it with --gpus all; otherwise take a machine with one, or a smaller profile"
            return Check("gpu", WARN, f"none; on CPU cores profile {needs.profile} takes hours for every case", cause)
        return Check("gpu", OK, "none, and none needed" if needs else "none")
    named = []
    for number, (name, memory, capability) in enumerate(facts.gpus):
        among = f", number {number} of {len(facts.gpus)}" if len(facts.gpus) > 1 else ""
        named.append((f"{name}, {_size(memory)}{among}", memory, capability))
    oldest, _, capability = min(named, key=lambda gpu: gpu[2])
    smallest, memory, _ = min(named, key=lambda gpu: gpu[1])
    if facts.build_capability and capability < facts.build_capability:
        ours, theirs = (".".join(map(str, value)) for value in (capability, facts.build_capability))
        fix = "make setup TORCH=... with an older torch, or CUDA_VISIBLE_DEVICES= with other GPUs, or none, for the CPU"
        return Check("gpu", FAIL, f"{oldest}: compute capability {ours}, torch needs {theirs} or newer", fix)
    if needs and memory < needs.gpu_memory:
        maps = f"{smallest}; the maps of profile {needs.profile} take {_size(needs.gpu_memory)}"
        return Check("gpu", WARN, f"{maps}: they stay on the host and are streamed", "nothing, or take a larger GPU")
    return Check("gpu", OK, named[0][0])


def _driver(facts):
    """A driver serves programs built for its own major version of CUDA or an older one (NVIDIA, CUDA Compatibility)."""
    driver, build = (".".join(map(str, value)) if value else None for value in (facts.driver_cuda, facts.build_cuda))
    if driver is None:
        return Check("driver", OK, "no NVIDIA driver; the CPU is used")
    if build is None:
        fix = "make setup TORCH=torch==2.13.0 with pip set to the CUDA build, or leave it: the CPU is used"
        return Check("driver", WARN, f"knows CUDA {driver}, but torch is a CPU build", fix)
    if facts.driver_cuda[0] < facts.build_cuda[0]:
        older = f"make setup TORCH=... with a build for CUDA {driver} or older"
        fix = f"a driver for CUDA {facts.build_cuda[0]}, or {older}"
        return Check("driver", FAIL, f"knows CUDA {driver}, torch is built for {build}", fix)
    if not facts.gpus:
        fix = "nvidia-smi says what the driver sees; a container: --gpus all; is CUDA_VISIBLE_DEVICES set?"
        return Check("driver", FAIL, f"knows CUDA {driver}, but torch sees no GPU", fix)
    return Check("driver", OK, f"knows CUDA {driver}, torch is built for {build}")


def _enough(name, found, needed, what, fix, where=""):
    text = f"{_size(found)} free{where}, {_size(needed)} needed for {what}"
    return Check(name, OK, text) if found >= needed else Check(name, FAIL, text, fix)


def _writing(facts):
    if not facts.unwritable:
        return Check("writing", OK, "everywhere where a run writes")
    fix = f"chown -R {os.getuid()}:{os.getgid()} {' '.join(facts.unwritable)}"
    if facts.container:
        fix = 'mount a folder of your own at /out, and run as yourself: -u "$(id -u):$(id -g)"'
    return Check("writing", FAIL, f"refused in {', '.join(facts.unwritable)}", fix)


def _locks(facts):
    if facts.record == probe.CONFLICT:
        fix = f"git checkout --ours {probe.RECORD} (or --theirs); make paper then brings it up to date"
        return Check("locks", FAIL, f"{probe.RECORD} has {probe.CONFLICT}", fix)
    if facts.record:
        anew = "make paper, which sets it aside and takes what was made before from .dvc/cache"
        fix = f"{anew}, or git checkout {probe.RECORD}"
        return Check("locks", WARN, f"{probe.RECORD} is {facts.record}: DVC was killed while it wrote it", fix)
    for pid, command in facts.locks:
        return Check("locks", WARN, f"a run is at work here: process {pid}, {command}", "wait for it, or end it")
    return Check("locks", OK, "nobody holds one")


def _git(facts):
    if facts.git:
        return Check("git", WARN, f"{facts.git}; results are recorded without a commit", REFUSED_FIX)
    return Check("git", OK, "what it knows of this checkout is recorded with results")


def _size(value):
    return f"{value / 1e9:.1f} GB" if value >= 1e8 else f"{value / 1e6:.1f} MB"


def needs(profile=None):
    """The ``Needs`` of the profile of that name, or of the active params.yaml; ValueError if it cannot be."""
    from camelsight.pipeline import launch, params, paths

    loaded = params.load(paths.profile(profile) if profile else paths.PARAMS)
    suite, pixels = launch.suite_bytes(loaded), loaded.maps.pixels
    disk = _disk_needed(loaded, suite)
    return Needs(loaded.profile, pixels >= GPU_PIXELS, suite, memory=launch.process_bytes(loaded), disk=disk)


def _disk_needed(loaded, suite):
    """Bytes that a run will still write: maps, weights, checkpoints of running cases, attributions."""
    import torch

    from camelsight.inference import network
    from camelsight.interpretation import attribution
    from camelsight.pipeline import launch, map_files, paths

    spec, tune, asked, channels = loaded.maps, loaded.tune, loaded.attribute, len(loaded.fields)
    weights = {}
    for case in loaded.cases:
        hidden = tune.hidden[1] if tune.trials else tune.start_of(case).hidden
        with torch.device("meta"):
            net = network.build(hidden, 0.0, size=spec.pixels, channels=channels)
        weights[case] = 4 * network.count_parameters(net)
    attributions = channels * asked.maps * len(asked.parameters) * len(attribution.METHODS) * 4 * spec.pixels**2
    wanted = {}
    for name in loaded.suites:
        for field in loaded.fields:
            if spec.source == "twin" or map_files.find(spec.files, name, field) is None:
                wanted[paths.maps(name, field)] = suite / channels
        wanted |= {paths.weights(name, case): size for case, size in weights.items()}
        wanted |= {paths.attributions(name, case): attributions for case in asked.cases}
    missing = sum(max(0, int(size) - (path.stat().st_size if path.exists() else 0)) for path, size in wanted.items())
    return missing + ADAM_COPIES * max(weights.values()) * launch.default_jobs(loaded) + OTHER_RESULTS


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.commands.doctor", description=__doc__)
    parser.add_argument("--profile", help="the profile that is to run; default: params.yaml")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="print only what is not as it should be")
    streams.prepare()
    arguments = parser.parse_args()
    facts = probe.facts()
    try:
        wanted = needs(arguments.profile) if facts.torch and not facts.packages and not facts.broken else None
    except ValueError as error:
        sys.exit(f"doctor: {error}")
    checks = judge(facts, wanted)
    good = not any(check.status == FAIL for check in checks)
    if arguments.json:
        record = {"good": good, "profile": wanted and wanted.profile, "checks": [asdict(check) for check in checks]}
        print(json.dumps(record, indent=1))
    else:
        for check in checks:
            if check.status != OK or not arguments.quiet:
                fix = f"\n      fix: {check.fix}" if check.fix else ""
                print(f"{check.status:<5} {check.name:<14} {check.found}{fix}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
