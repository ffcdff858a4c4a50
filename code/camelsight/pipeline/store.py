"""Reading and writing files. What is written appears whole or not at all."""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML, events

from camelsight.pipeline import paths

RELEASED_BYTES = 1 << 32  # of a checkpoint from elsewhere: hidden 64 on maps of 256² pixels takes 3.8e9
SAFETENSORS_HEADER_BYTES = 1 << 16  # names and shapes of a network take 10 kB
YAML_LENGTH = 1 << 24  # of a text; dvc.lock has 337,450 characters for mini
YAML_LEVELS = 50  # of keys and lists within each other: at some 10,000 the parser in C ends the process
YAML_VALUES = 1_000_000  # that a text may stand for; a few lines of aliases can stand for any number


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
    """Name → text of the macros that a LaTeX file defines, a line each; none where there is no such file."""
    if not Path(path).exists():
        return {}
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
        elif "find expected" in reason and re.search(r"^ *-[^\s-]", text, re.MULTILINE):
            reason += "; a list has a space after each '-'"
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
        got = "a file that is damaged, another kind, or holds more than tensors; nothing in it was run"
        advice = "save the state dict alone, torch.save(net.state_dict(), file)"
        raise ValueError(f"expected a checkpoint of torch.save in {path}, got {got}: {advice}") from None


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


def file_digest(path, kind="sha256"):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def digest(*values):
    """sha256 of values, as JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=plain).encode()).hexdigest()


def code_digest():
    """sha256 of this package's source."""
    files = sorted(path for kind in ("*.py", "*.cpp") for path in paths.PACKAGE.rglob(kind))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


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


def conflict(text):
    """The line, from 1, at which ``text`` has the markers that Git leaves where a merge failed; 0 if nowhere."""
    found = re.search(r"^<{7} .*?^={7}$.*?^>{7} ", text, re.MULTILINE | re.DOTALL)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def refuse_conflict(path):
    """ValueError if Git left the markers of a merge in the file at ``path``."""
    path = Path(path)
    if path.exists() and (line := conflict(path.read_text(encoding="utf-8", errors="replace"))):
        got = f"{path}: expected one text, got the conflict markers of a merge, from line {line} on"
        raise ValueError(f"{got}; choose, or take one side: git checkout --ours {path} (or --theirs)")


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
