"""Reading and writing files. What is written appears whole or not at all."""

import contextlib
import copy
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import math
import mmap
import os
import re
import shlex
import shutil
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML, events

from camelsight.ground import cmd, fields, theta
from camelsight.pipeline import paths

RELEASED_BYTES = 1 << 32  # of a checkpoint from elsewhere: hidden 64 on maps of 256² pixels takes 3.8e9
SAFETENSORS_HEADER_BYTES = 1 << 16  # names and shapes of a network take 10 kB
YAML_LENGTH = 1 << 24  # of a text; dvc.lock has 337,450 characters for mini
YAML_LEVELS = 50  # of keys and lists within each other: at some 10,000 the parser in C ends the process
YAML_VALUES = 1_000_000  # that a text may stand for; a few lines of aliases can stand for any number
OTHERS = 3  # files of CMD that a message lists at most
FINISHED = ".finished"  # the ending of a mark beside a checkpoint


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_bytes(path, data):
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path, text):
    write_bytes(path, text.encode())


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1, default=plain) + "\n")


def read_macros(path):
    """Name → text of the macros that a LaTeX file defines, a line each."""
    return dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", Path(path).read_text(encoding="utf-8")))


def read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {path}, got: {one_line(error):.200}") from None


def parse_yaml(text, aliases=True):
    """The content of a YAML 1.2 text, or of its bytes, as DVC reads it: what runs is what dvc.lock records.

    ValueError in one line for what is no YAML, has a key twice, or could grow without end; also for ``aliases`` where
    these are not wanted, since a line of them can stand for gigabytes.
    """
    text = (text.decode() if isinstance(text, bytes) else text).removeprefix("\ufeff")
    if len(text) > YAML_LENGTH:
        raise ValueError(f"expected at most {YAML_LENGTH:,} characters, got {len(text):,}")
    try:
        _check_yaml(YAML(typ="safe").parse(text), aliases)
        return YAML(typ="safe").load(text)
    except Exception as error:  # the parser raises whatever the text makes it raise
        reason = one_line(error).replace(' in "<unicode string>",', " in")
        if "\t" in text and ("start any token" in reason or " tab " in reason):
            reason += "; indent with spaces, not with tabs"
        raise ValueError(f"{reason:.300}") from None


def _check_yaml(found, aliases):
    """ValueError if the events of a text have a key twice, or what makes the parser take very long."""
    opened, sizes = [_Opened(None, None)], {}  # sizes: how many values the anchor of a list or a mapping stands for
    for event in found:
        if isinstance(event, events.CollectionEndEvent):
            ended = opened.pop()
            if ended.anchor:
                sizes[ended.anchor] = ended.size
            opened[-1].size += ended.size
        if not isinstance(event, events.NodeEvent):
            continue
        if opened[-1].keys is not None:
            if opened[-1].expects_key:
                _add_key(opened[-1].keys, event)
            opened[-1].expects_key = not opened[-1].expects_key
        if isinstance(event, events.CollectionStartEvent):
            opened.append(_Opened(event.anchor, {} if isinstance(event, events.MappingStartEvent) else None))
        elif isinstance(event, events.AliasEvent) and not aliases:
            raise ValueError(f"expected no aliases, got one in line {event.start_mark.line + 1}")
        else:
            opened[-1].size += sizes.get(event.anchor, 1) if isinstance(event, events.AliasEvent) else 1
        if len(opened) > YAML_LEVELS:
            raise ValueError("expected a few levels of keys and lists, got hundreds")
        if opened[-1].size > YAML_VALUES:
            raise ValueError(f"expected aliases that stand for at most {YAML_VALUES:,} values, got more")


@dataclasses.dataclass
class _Opened:
    """A list, or a mapping with the lines of its ``keys``, of which the end is still to come."""

    anchor: str | None
    keys: dict | None
    expects_key: bool = True
    size: int = 1


def _add_key(keys, event):
    line = event.start_mark.line + 1
    if not isinstance(event, events.ScalarEvent):
        raise ValueError(f"expected a word or a number as key, got a list, a mapping or an alias in line {line}")
    if event.value in keys:
        lines = f"lines {keys[event.value]} and {line}"
        raise ValueError(f"expected every key once, got {event.value!r:.60} in {lines}; remove one of them")
    keys[event.value] = line


def write_arrays(path, **arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path):
    """Name -> array of what ``write_arrays`` wrote; ValueError for an archive that unpacks to more than it holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            if packed := [one.filename for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]:
                raise ValueError(f"arrays that are compressed, such as {packed[0]}")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, NotImplementedError) as error:
        reason = f"{type(error).__name__}: {one_line(error):.150}"
        raise ValueError(f"expected whole arrays in {path}, got {reason}") from None


def write_weights(path, network):
    import safetensors.torch  # here and below: the command line, which uses the rest, must not wait for torch

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))


def read_weights(path, network):
    """``network`` with the weights in ``path``; ValueError if they are not all of its own, finite, or damaged."""
    import safetensors.torch

    own, size = network.state_dict(), Path(path).stat().st_size
    largest = sum(tensor.nbytes for tensor in own.values()) + SAFETENSORS_HEADER_BYTES
    if size > largest:
        raise ValueError(f"expected at most {largest:,} bytes of weights in {path}, got {size:,}")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"expected weights in {path}, got a damaged file: {one_line(error):.200}") from None
    for name in own | tensors:
        wanted, given = (_described(tensors_of.get(name)) for tensors_of in (own, tensors))
        if wanted != given:
            raise ValueError(f"expected {wanted} as {name!r:.60} in {path}, got {given}")
        if not tensors[name].isfinite().all():
            raise ValueError(f"expected finite weights in {path}, got NaN or infinity in {name}")
    network.load_state_dict(tensors)
    return network


def _described(tensor):
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def read_released(path):
    """What ``torch.save`` put into a file from elsewhere: tensors and plain values, of which nothing is run.

    ValueError if the file is too large, cut short, damaged, or holds anything else. Files of torch before 1.6 have no
    checksums, so that a changed byte in one of these goes unnoticed.
    """
    import torch

    size = Path(path).stat().st_size
    if size > RELEASED_BYTES:
        raise ValueError(f"expected a checkpoint of at most {RELEASED_BYTES:,} bytes, got {size:,} in {path}")
    with open(path, "rb") as file:
        zipped = file.read(4) == b"PK\3\4"
    if zipped:
        _check_zip(path, size)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises whatever the bytes make it raise, and advises to run what is in the file
        raise ValueError(
            f"expected a checkpoint of torch.save in {path}, got a file that is damaged, another kind, or holds more "
            "than tensors; nothing in it was run: save the state dict alone, torch.save(net.state_dict(), file)"
        ) from None


def _check_zip(path, size):
    """ValueError unless every member is whole by its checksum, which torch does not read."""
    whole = f"expected a whole checkpoint of torch.save in {path}, got"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(set(archive.namelist())) < len(members) or sum(member.file_size for member in members) > size:
                raise ValueError(f"{whole} members that overlap or are compressed")
            damaged = archive.testzip()
    except zipfile.BadZipFile:
        raise ValueError(f"{whole} {size:,} bytes without the end: it is cut short; copy it again") from None
    except (OSError, RuntimeError, struct.error, EOFError, zlib.error) as error:
        raise ValueError(f"{whole} a damaged one: {one_line(error):.100}; copy it again") from None
    if damaged:
        raise ValueError(f"{whole} one in which {damaged!r:.60} differs from its checksum; copy it again")


def write_checkpoint(path, state):
    """``state`` in ``path``, sealed with its digest; what was there before stays beside it."""
    import torch

    buffer = io.BytesIO()  # torch.save itself does not say when a disk is full
    torch.save(state, buffer)
    data, new = buffer.getvalue(), Path(path).with_suffix(".new")
    write_bytes(new, hashlib.sha256(data).digest() + data)
    if Path(path).exists():
        os.replace(path, _previous(path))
    os.replace(new, path)


def read_checkpoint(path, device):
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


def remove_checkpoint(path):
    """Forget what is in ``path``, and what killed processes left half-written."""
    new = Path(path).with_suffix(".new")
    for place in (path, _previous(path), new, *new.parent.glob(f".{new.name}.*")):
        Path(place).unlink(missing_ok=True)


def finish_checkpoint(path):
    """Say that the work in ``path`` is done. It stays until ``forget_finished``.

    DVC, killed while it waits for its lock, has not recorded what came out, and runs the stage again.
    """
    Path(path).with_suffix(FINISHED).touch()


def forget_finished(folder):
    """Remove the checkpoints in ``folder`` that are finished; for when DVC has recorded everything."""
    for mark in Path(folder).glob(f"*{FINISHED}"):
        remove_checkpoint(mark.with_suffix(".pt"))
        mark.unlink()


def _previous(path):
    return Path(path).with_suffix(".previous")


class Checkpoint:
    """Unfinished work that survives: on disk at least every ``seconds``, and at once when the block is interrupted."""

    def __init__(self, path, device, seconds):
        """``state`` is what an earlier attempt left in ``path``, or None."""
        self.path, self.seconds = path, seconds
        self.state = read_checkpoint(path, device)
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
        write_checkpoint(self.path, self._unsaved)
        self._unsaved, self._written = None, time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.flush()

    def remove(self):
        self._unsaved = None
        remove_checkpoint(self.path)


@contextlib.contextmanager
def claim(path, wait=False):
    """Whether ``path`` has been got for this process while the block lasts; ``wait`` until it has.

    The kernel lets go of what a process held when it ends, however it ends.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except BlockingIOError:
            mine = False
        except OSError as error:
            raise OSError(f"expected a file system with locks for {path}, got: {error}; put runs/ on another") from None
        yield mine


def link(source, target):
    """Put ``target`` in place as a hard link of ``source``, or a symbolic one across disks."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        os.symlink(os.path.abspath(source), target)


def tensor_digest(tensors):
    """The identity of weights: sha256 over sorted names, dtypes, shapes and bytes; independent of the file format."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def file_digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*values):
    """sha256 of values, as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=plain).encode()).hexdigest()


def code_digest():
    """sha256 of this package's source."""
    files = sorted(path for kind in ("*.py", "*.cpp") for path in paths.PACKAGE.rglob(kind))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def find(folder, suite, field=None, of=cmd.SET):
    """The file with the maps of a ``field`` of a set of ``suite``, or with its parameters, in ``folder``; or None.

    Looked at are also the sub-folder that CMD has, and the one that a run has.
    """
    names, folders = cmd.file_names(suite, field, of), _places(folder, suite)
    return next((place / name for name in names for place in folders if (place / name).exists()), None)


def _places(folder, suite):
    return Path(folder), Path(folder, cmd.folder_name(suite)), Path(folder, suite)


def missing(folder, suite, field=None):
    """What to say where ``find`` has found no such file: also what else of CMD lies there."""
    names = cmd.file_names(suite, field)
    if found := packed(folder, suite, field) if field else None:
        advice = f"which cannot be mapped into memory; unpack it with {cmd.CONVERT} {shlex.quote(str(found))}"
        return f"expected {Path(folder, names[0])}, got {found.name}, {advice}"
    also = others(folder, [field] if field else fields.FIELDS)
    return f"expected {Path(folder, names[0])}, got no such file; run make maps, or put it there{also}"


def packed(folder, suite, field):
    """The maps of a ``field`` of ``suite`` as .npz or .npy.gz where ``find`` looks, or None."""
    places = [place / name for name in cmd.file_names(suite, field) for place in _places(folder, suite)]
    packed = (path for place in places for path in (Path(f"{place}.gz"), place.with_suffix(".npz")))
    return next((path for path in packed if path.is_file()), None)


def others(folder, wanted):
    """What files in ``folder`` hold that CMD has, other than the fields ``wanted``, as the end of a sentence."""
    known = [(suite, field) for suite in theta.SUITES for field in (None, *wanted)]
    known = [(suite, field) for suite, field in known if field in (None, *fields.of_suite(suite))]
    used = {name for suite, field in known for name in cmd.file_names(suite, field)}
    names = sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []
    said = [f"; {name} has {what}" for name in names if name not in used and (what := cmd.described(name))]
    return "".join(said[:OTHERS])


def _found(folder, suite, field=None):
    if (path := find(folder, suite, field)) is None:
        raise ValueError(missing(folder, suite, field))
    return path


def read_header(path):
    """The ``cmd.Header`` of an NPY file; ValueError in one line if it is none."""
    with open(path, "rb") as file:
        return cmd.read_header(file.read(cmd.LONGEST_HEADER), path)


def check_whole(header, path):
    """ValueError in one line unless an NPY file is as long as its ``header`` says."""
    expected, size = header.size + math.prod(header.shape) * header.dtype.itemsize, Path(path).stat().st_size
    if size != expected:
        advice = "the copy is not whole; remove it and run make maps to fetch or simulate it again"
        raise ValueError(f"expected {expected:,} bytes, got {size:,} in {path}: {advice}")


def open_maps(suite, field, simulations, pixels, folder):
    """The maps of a ``field`` of ``suite`` as a read-only memory map, ``(15 * simulations, pixels, pixels)`` float32.

    A file of another machine may have the other byte order. ValueError if the file is no NPY file, is cut short, or
    holds another shape or type.
    """
    return map_file(_found(folder, suite, field), simulations, pixels)


def map_file(path, simulations, pixels):
    """As ``open_maps``, of the file at ``path``."""
    header = read_header(path)
    cmd.check_maps(header, simulations, pixels, path)
    check_whole(header, path)
    return np.memmap(path, header.dtype, mode="r", offset=header.size, shape=header.shape)


def release(maps):
    """Let go of the pages that reading from a memory map brought in; they would count as this process's memory."""
    if isinstance(maps.base, mmap.mmap):
        maps.base.madvise(mmap.MADV_DONTNEED)


def read_parameters(suite, simulations, folder):
    """The ``(simulations, 6)`` physical parameters of ``suite``; ValueError if the file holds anything else."""
    path = _found(folder, suite)
    values = read_parameter_table(path)
    cmd.check_params(values, simulations, suite, path.name)
    return values


def read_table(path):
    """The numbers of a text file, ``(rows, columns)`` float64; ValueError if it holds anything else, or nothing."""
    return _numbers(_read_rows(path)[1], path)


def read_parameter_table(path):
    """The six parameters of each simulation in a text file, ``(simulations, 6)``, in the order of ``theta.NAMES``.

    Read are CMD's files, and tables with a header, a column of names (of which LH_0, LH_1, ... are taken), a count
    before the parameters or a seed after them, as in CAMELS' CosmoAstroSeed files. ValueError for anything else.
    """
    header, rows = _read_rows(path)
    if not _is_number(rows[0][0]):
        rows = sorted((int(row[0][3:]), row) for row in rows if re.fullmatch(r"LH_\d{1,6}", row[0]))
        if [number for number, _ in rows] != list(range(len(rows))) or not rows:
            raise ValueError(f"expected LH_0, LH_1, ... each once as names of the rows in {path}, got others")
        rows = [row[1:] for _, row in rows]
        header = header[1:]
    values = _numbers(rows, path)
    columns = [theta.recognise(word) for word in header]
    if len(columns) == values.shape[1] and all(columns.count(name) == 1 for name in theta.NAMES):
        return values[:, [columns.index(name) for name in theta.NAMES]]
    count = np.arange(len(values)) + values[0, 0]
    if values.shape[1] > len(theta.NAMES) and values[0, 0] in (0, 1) and (count == values[:, 0]).all():
        values = values[:, 1:]
    if values.shape[1] == len(theta.NAMES) + 1 and all(map(float.is_integer, values[:, -1].tolist())):
        values = values[:, :-1]
    return values


def _read_rows(path):
    """The header, if there is one that says what columns are, and the rows of a text file, as lists of words."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected a table of numbers in {path}, got: {one_line(error)}") from None
    header, rows = [], []
    for number, line in enumerate(lines, start=1):
        content, _, comment = line.partition("#")
        words, said = (re.split(r"[,;\s]+", text.strip(" ,;\t\r\n")) for text in (content, comment))
        if rows and words != [""] and len(words) != len(rows[0]):
            got = f"{len(words)} words in line {number} after lines of {len(rows[0])}"
            raise ValueError(f"expected a table of numbers in {path}, got: {got}")
        if words != [""] and (rows or any(map(_is_number, words))):
            rows.append(words)
        elif not rows and sum(theta.recognise(word) is not None for word in (*words, *said)) > 1:
            header = words if words != [""] else said
        elif words != [""]:
            raise ValueError(f"expected a table of numbers in {path}, got: {line.strip()!r:.60} in line {number}")
    if not rows:
        raise ValueError(f"expected a table of numbers in {path}, got: no rows")
    return header, rows


def _is_number(word):
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(rows, path):
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        found = next(word for row in rows for word in row if not _is_number(word))
        raise ValueError(f"expected a table of numbers in {path}, got: {found!r:.60}") from None


PREDICTIONS_FORMAT = "%.9e"


def predictions_text(truth, mean, sigma):
    """``(N, P)`` arrays in physical units, as the text of CMD's benchmark: true values, means, sigmas in a row."""
    text = io.StringIO()
    np.savetxt(text, np.hstack([truth, mean, sigma]), fmt=PREDICTIONS_FORMAT)
    return text.getvalue()


def write_predictions(path, truth, mean, sigma):
    write_text(path, predictions_text(truth, mean, sigma))


def read_predictions(path):
    """``(truth, mean, sigma)``, ``(N, P)`` each with P = 6 or 2; ValueError if the file holds anything else."""
    if not Path(path).is_file():
        raise ValueError(f"expected a file of predictions, got {path}, which is none")
    header, rows = _read_rows(path)
    values = _numbers(rows, path)
    if values.shape[1] not in (18, 6):
        raise ValueError(
            f"expected 18 columns (six true values, six means, six sigmas) or 6 (two of each) in {path}, "
            f"got {len(values)} rows of {values.shape[1]}"
        )
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values).all(1))) + 1
        where = f"{np.sum(~np.isfinite(values))} that are not, first in row {first}"
        raise ValueError(f"expected finite numbers in {path}, got {where}")
    _check_order(header, values.shape[1] // 3, path)
    truth, mean, sigma = np.split(values, 3, axis=1)
    if (sigma < 0).any():
        raise ValueError(f"expected standard deviations of at least 0 in {path}, got {sigma.min():g}")
    return truth, mean, sigma


def _check_order(header, parameters, path):
    """ValueError unless the ``header`` of predictions, where it says something, says the order that is meant."""
    said, meant = [theta.recognise(word) for word in header], theta.NAMES[:parameters] * 3
    kinds = [re.search(r"true|truth|mean|pred|std|err", word.lower()) for word in header]
    group = {"true": 0, "truth": 0, "mean": 1, "pred": 1, "std": 2, "err": 2}
    order = [group[kind[0]] for kind in kinds if kind]
    if (len(header) == len(meant) and said != list(meant)) or order != sorted(order):
        names, shown = ", ".join(meant[:parameters]), ", ".join(header)
        raise ValueError(
            f"expected true values, means and sigmas, in this order and each of {names}, in {path}, got {shown:.200} "
            "by its header; put the columns into this order"
        )


def read_published(suite, case):
    """``{metric: {parameter: value}}`` of ``suite`` and ``case``: what was measured of them, perhaps nothing."""
    published = {}
    try:
        for row in parse_yaml(paths.EXPECTED.read_bytes()):
            metric, *place, parameter = row["id"].split(".")
            known = row["class"] == "seed-statistical" and isinstance(row["value"], int | float)
            if known and place == [suite, case]:
                published.setdefault(metric, {})[parameter] = row["value"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"expected a list of published numbers in {paths.EXPECTED}, got: {error}") from None
    return published


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
            with replacing(path) as part:
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


def conflict(text):
    """The line, from 1, at which ``text`` has the markers that Git leaves where a merge failed; 0 if nowhere."""
    found = re.search(r"^<{7} .*?^={7}$.*?^>{7} ", text, re.MULTILINE | re.DOTALL)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def refuse_conflict(path):
    """ValueError if Git left the markers of a merge in the file at ``path``."""
    path = Path(path)
    if path.exists() and (line := conflict(path.read_text(encoding="utf-8", errors="replace"))):
        raise ValueError(
            f"{path}: expected one text, got the conflict markers of a merge, from line {line} on; choose, or take one "
            f"side: git checkout --ours {path} (or --theirs)"
        )


def one_line(error):
    """What went wrong, for a person, in one line."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full: nothing was left half-written; free some space and run the same command again"
    return " ".join(str(error).split())


def _umask():
    value = os.umask(0)
    os.umask(value)
    return value


def plain(value):
    """``value`` as JSON knows it: arrays and tensors become lists, dataclasses and mappings dicts."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.tolist() if hasattr(value, "tolist") else dict(value)
