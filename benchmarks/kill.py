"""Kills a toy of the profile smoke again and again, while it runs, pushes and pulls; what comes out must be equal.

    .venv/bin/python benchmarks/kill.py [--kills 1000] [--minutes 60] [--seed 0] [--folder DIR]
    .venv/bin/python benchmarks/kill.py --disk        (as root: runs on file systems of a few MB more each time)

A victim is the whole session, one of its processes drawn at random, or the one that was started; the signal is SIGKILL,
SIGTERM or SIGINT. Now and then a second run is started beside the first, which must be refused. It prints what was
killed, and ends with exit code 1 at the first difference, at an error that no kill explains, or at a traceback.
"""

import argparse
import collections
import contextlib
import filecmp
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parent.parent
TOY = {  # of profiles/smoke.yaml, to take half as long
    "suites: [IllustrisTNG, Nbody_IllustrisTNG]": "suites: [IllustrisTNG]",
    "  - kmax_1\n": "",
    "cuts: [kmax_1, max_1e12_random]": "cuts: [max_1e12_random]",
    "transfer: []": "transfer: [seeds]",
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SHORTEST = 0.2  # seconds until a kill, of which the logarithm is drawn; the longest are what an unkilled run takes
TRIPS, TRIP_SECONDS = 5, 8  # pushes and pulls of a run, and until they are killed at the latest
PATIENCE = 300  # seconds that a session may take to end
BESIDE = 0.1  # of runs, beside which a second one is started
GROWTH = 2**20  # bytes that a full disk gets more each time
UNSAVED, HALF = "Use `--force` to force.", re.compile(r"\.[\w-]+\.tmp")  # a file that a killed pull had begun
RUN, PUSH, PULL = ("camelsight", "paper", "--jobs", "2"), ("dvc", "push"), ("dvc", "pull")


class Found(Exception):
    """What must not be."""


def check_out(folder):
    """The toy in ``folder``: a clone of the commit that is here, with its own params and no run yet."""
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(folder)], check=True)
    (folder / "dvc.lock").unlink()
    (folder / ".venv").symlink_to(sys.prefix)
    text = (ROOT / "profiles/smoke.yaml").read_text(encoding="utf-8")
    for before, after in TOY.items():
        if before not in text:
            raise ValueError(f"expected {before!r} in profiles/smoke.yaml, got none: mend TOY in benchmarks/kill.py")
        text = text.replace(before, after)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    git = ("git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.c")
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "Toy"], check=True)


def start(folder, command, log):
    """A command of the toy, which leads a session of its own."""
    return subprocess.Popen(
        [".venv/bin/python", "-m", *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "code")},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Killer:
    """Runs commands to their end through as many kills as are drawn."""

    def __init__(self, seed, kills, minutes, longest):
        self.longest, self.random, self.left, self.until = (
            longest,
            random.Random(seed),
            kills,
            time.monotonic() + 60 * minutes,
        )
        self.done = collections.Counter()

    @property
    def over(self):
        return self.left <= 0 or time.monotonic() > self.until

    def through(self, folder, command):
        """Run ``command`` until it has ended by itself, killed on the way; ``Found`` if it fails unkilled.

        After each push or pull that was killed DVC is made to forget its lists, as docs/artefacts.md says: it would go
        on with the list that the killed one had begun. A pull also refuses to remove files that a killed one had begun,
        unless forced.
        """
        while True:
            killed, code, said = self.once(folder, command)
            if killed:
                if command != RUN:
                    forget(folder)
                continue
            if code and command == PULL and UNSAVED in said:
                others = [line for line in said.partition(UNSAVED)[2].split() if not HALF.fullmatch(Path(line).name)]
                if others:
                    raise Found(f"dvc pull in {folder} would remove {others[0]}")
                command = (*PULL, "--force")
                continue
            if code or re.search(r"Traceback|Bus error|Segmentation", said):
                raise Found(f"{' '.join(command)} in {folder} ended with {code}, unkilled: {said[-3000:]}")
            return

    def once(self, folder, command):
        """Whether one attempt was killed, its exit code, and what it said."""
        log = folder.parent / f"{folder.name}.log"
        with open(log, "w", encoding="utf-8") as output:
            process = start(folder, command, output)
            if command == RUN and self.random.random() < BESIDE:
                self.beside(folder, process)
            longest = self.longest if command == RUN else TRIP_SECONDS
            wait = SHORTEST * (longest / SHORTEST) ** self.random.random()
            killed = False
            try:
                process.wait(None if self.over else wait)
            except subprocess.TimeoutExpired:
                killed = self.kill(process, command)
            process.wait(PATIENCE if killed else None)
        return killed, process.returncode, log.read_text(encoding="utf-8", errors="replace")

    def kill(self, process, command):
        """End something of the session of ``process``; whether there was something."""
        how, with_what = self.random.choice(("session", "one", "leader")), self.random.choice(SIGNALS)
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            leader = psutil.Process(process.pid)
            family = [leader, *leader.children(recursive=True)]
            victims = {"session": family, "one": [self.random.choice(family)], "leader": [leader]}[how]
            for one in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(with_what)
            self.left -= 1
            self.done[f"{command[0]} {command[1]}, {how}, {with_what.name}"] += 1
            return True
        return False

    def beside(self, folder, first):
        """A second run at once must be refused in one line, unless the first has not begun or has ended."""
        time.sleep(3)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            second = start(folder, RUN, output)
            second.wait()
            output.seek(0)
            said = output.read()
        self.done["a second run beside"] += 1
        refused = second.returncode == 1 and said.startswith("paper: another make paper") and said.count("\n") == 1
        if not refused and second.returncode:
            raise Found(f"a second run ended with {second.returncode}: {said[-2000:]}")


def outs(folder):
    """Paths of what DVC keeps of the toy, and its digests, from dvc.lock."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}


def compare(folder, reference, kept=lambda path: True):
    """``Found`` if an output of ``folder`` is not that of ``reference``, in dvc.lock or on the disk."""
    ours, wanted = outs(folder), outs(reference)
    if other := [path for path in wanted | ours if ours.get(path) != wanted.get(path)]:
        raise Found(f"dvc.lock of {folder} has other digests than {reference}: {', '.join(other[:5])}")
    for path in filter(kept, wanted):
        for file in [path] if (reference / path).is_file() else _files(reference / path, reference):
            if not (folder / file).is_file() or not filecmp.cmp(folder / file, reference / file, shallow=False):
                raise Found(f"{folder / file} is not {reference / file}")


def _files(place, root):
    return [path.relative_to(root) for path in place.rglob("*") if path.is_file()]


def cycle(killer, place, number, reference):
    """Run a toy through kills, push and pull it several times, and compare."""
    folder = place / f"run-{number}"
    check_out(folder)
    killer.through(folder, RUN)
    compare(folder, reference)
    for _ in range(TRIPS):
        killer.done["a trip of push and pull"] += 1
        trip(killer, folder, reference)
    shutil.rmtree(folder)


def trip(killer, folder, reference):
    """Push ``folder`` and pull it elsewhere, through kills, and compare."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="trip-") as place:
        remote, pulled = Path(place, "remote"), Path(place, "pulled")
        check_out(pulled)
        shutil.copy(folder / "dvc.lock", pulled)
        for one in (folder, pulled):
            text = f"[core]\n    remote = r\n['remote \"r\"']\n    url = {remote}\n"
            (one / ".dvc/config.local").write_text(text, encoding="utf-8")
        killer.through(folder, PUSH)
        killer.through(pulled, PULL)
        compare(pulled, reference, kept=lambda path: not path.startswith("data/"))


def forget(folder):
    """Remove DVC's lists of what lies where, if it has any yet."""
    doctor = [".venv/bin/python", "-m", "dvc", "doctor"]
    said = subprocess.run(doctor, cwd=folder, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(re.search(r"^Repo.site_cache_dir: (.+)$", said, re.MULTILINE)[1], ignore_errors=True)


def full_disk(place, reference):
    """Run the toy on a disk that is too small, and grows each time that it said so; compare what comes out."""
    disk, full = place / "disk", 0
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)], check=True)
    try:
        folder = disk / "toy"
        check_out(folder)
        size = shutil.disk_usage(disk).used + GROWTH
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        while True:
            with open(place / "disk.log", "w+", encoding="utf-8") as output:
                code = start(folder, RUN, output).wait()
                output.seek(0)
                said = output.read()
            if code == 0:
                break
            last = said.replace("\r", "\n").strip().splitlines()[-1]
            print(f"{size / 2**20:.0f} MB: {last}", flush=True)
            if "Traceback" in said or not re.search(r"disk is full|no room|No space|room", said):
                raise Found(f"on a full disk: {said[-3000:]}")
            size, full = size + GROWTH, full + 1
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        compare(folder, reference)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return full


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--folder", type=Path, help="where it works; it keeps the unkilled run for the next time")
    parser.add_argument("--disk", action="store_true", help="full disks instead of kills")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a script starts with & ignores it, and its children
    place = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    reference = place / "reference"
    if not (reference / "whole").exists():
        shutil.rmtree(reference, ignore_errors=True)
        check_out(reference)
        begun = time.monotonic()
        subprocess.run([".venv/bin/python", "-m", *RUN], cwd=reference, check=True,
                       env=os.environ | {"PYTHONPATH": str(reference / "code")})  # fmt: skip
        (reference / "whole").write_text(str(time.monotonic() - begun), encoding="utf-8")
    longest = float((reference / "whole").read_text(encoding="utf-8"))
    killer = Killer(arguments.seed, arguments.kills, arguments.minutes, longest)
    number = 0
    try:
        if arguments.disk:
            print(f"{full_disk(place, reference)} full disks, and the same outputs in the end")
            return
        while not killer.over:
            cycle(killer, place, number, reference)
            number += 1
    except Found as error:
        sys.exit(f"kill: {error}")
    finally:
        for what, count in sorted(killer.done.items()):
            print(f"{count:5} {what}")
    print(f"{number} cycles, {arguments.kills - killer.left} kills: the same outputs each time")


if __name__ == "__main__":
    main()
