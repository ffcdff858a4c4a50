"""Unfinished work that survives: checkpoints of a training or of a list of results, and sets of maps being filled."""

import copy
import hashlib
import io
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from camelsight.pipeline import store

FINISHED = ".finished"  # the ending of a mark beside a checkpoint


def write(path, state):
    """``state`` in ``path``, sealed with its digest; what was there before stays beside it."""
    import torch

    buffer = io.BytesIO()  # torch.save itself does not say when a disk is full
    torch.save(state, buffer)
    data, new = buffer.getvalue(), Path(path).with_suffix(".new")
    store.write_bytes(new, hashlib.sha256(data).digest() + data)
    if Path(path).exists():
        os.replace(path, _previous(path))
    os.replace(new, path)


def read(path, device):
    """The state last written to ``path``, or None where there is none.

    A damaged file is set aside with a line on standard error, and the one before it is read.
    """
    import torch

    for place in (Path(path), _previous(path)):
        if not place.exists():
            continue
        data = place.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return torch.load(io.BytesIO(data[32:]), map_location=device, weights_only=True)
        aside = place.with_name(f"{place.name}.damaged")
        os.replace(place, aside)
        print(f"{place} is damaged and now called {aside.name}; the one before it is used, if any", file=sys.stderr)
    return None


def remove(path):
    """Forget what is in ``path``, and what killed processes left half-written."""
    new = Path(path).with_suffix(".new")
    for place in (path, _previous(path), new, *new.parent.glob(f".{new.name}.*")):
        Path(place).unlink(missing_ok=True)


def finish(path):
    """Say that the work in ``path`` is done. It stays until ``forget_finished``.

    DVC, killed while it waits for its lock, has not recorded what came out, and runs the stage again.
    """
    Path(path).with_suffix(FINISHED).touch()


def forget_finished(folder):
    """Remove the checkpoints in ``folder`` that are finished; for when DVC has recorded everything."""
    for mark in Path(folder).glob(f"*{FINISHED}"):
        remove(mark.with_suffix(".pt"))
        mark.unlink()


def _previous(path):
    return Path(path).with_suffix(".previous")


class Checkpoint:
    """Unfinished work that survives: on disk at least every ``seconds``, and at once when the block is interrupted."""

    def __init__(self, path, device, seconds):
        """``state`` is what an earlier attempt left in ``path``, or None."""
        self.path, self.seconds = path, seconds
        self.state = read(path, device)
        self._unsaved, self._written = None, time.monotonic()

    def keep(self, state):
        """Remember ``state``, of which the tensors may change later."""
        if time.monotonic() - self._written < self.seconds:
            self._unsaved = copy.deepcopy(state)
        else:
            self._unsaved = state
            self._write()

    def flush(self):
        """Have on disk what was kept last: the work is done, and what comes out of it is not yet recorded."""
        if self._unsaved is not None:
            self._write()

    def _write(self):
        write(self.path, self._unsaved)
        self._unsaved, self._written = None, time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.flush()

    def remove(self):
        self._unsaved = None
        remove(self.path)


class PartialSet:
    """Arrays of shape ``(items, ...)`` that are filled item by item, and survive being killed in between."""

    def __init__(self, folder, arrays, items):
        """``arrays``: file name -> shape; ``items``: how many are to be done. Continues what ``folder`` holds."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not all((self.folder / name).exists() for name in arrays):
            (self.folder / "done.npy").unlink(missing_ok=True)  # what it says is done has gone
        self.arrays = {name: self._open(name, shape, np.float32) for name, shape in arrays.items()}
        self._done = self._open("done.npy", (items,), np.uint8)

    def _open(self, name, shape, dtype):
        path = self.folder / name
        if not path.exists():
            with store.replacing(path) as part:
                np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape).flush()
                with open(part, "rb+") as file:  # a full disk is an error now, instead of a crash at the first write
                    os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        return np.lib.format.open_memmap(path, mode="r+")

    @property
    def missing(self):
        return np.flatnonzero(np.asarray(self._done) == 0)

    def done(self, item):
        for array in self.arrays.values():
            array.flush()
        self._done[item] = 1
        self._done.flush()

    def move_to(self, places):
        """Hand the finished files over to ``places``, file name -> path, and forget the set."""
        self.arrays, self._done = {}, None
        (self.folder / "done.npy").unlink()
        for name, path in places.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.folder / name, path)
        shutil.rmtree(self.folder)
