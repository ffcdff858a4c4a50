"""Files that nobody has written: thousands for each reader, most of them good ones with a few changes.

What comes out means what it meant when it is written and read again, or it is one line for a person. Nothing is run,
nothing is written outside the test's folder, and no read takes a gigabyte. The same files every time;
CAMELSIGHT_FUZZ=20 tries twenty times as many, and others. ``pytest -rP tests/test_fuzz.py`` says how many were tried.
"""

import contextlib
import copy
import gzip
import hashlib
import io
import json
import os
import random
import re
import resource
import sqlite3
import sys
import tarfile
import time
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch._dynamo  # which torch imports at some damaged checkpoints, and which makes a folder
from dvc.utils import serialize
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import test_studies
from camelsight.analysis import networks
from camelsight.commands import everything, probe
from camelsight.ground import cmd, theta
from camelsight.inference import network, tuning
from camelsight.pipeline import (
    cli,
    conversion,
    launch,
    leftovers,
    map_files,
    params,
    paths,
    store,
    studies,
    text_tables,
)
from camelsight.referee import comparison, evidence, explain, locked, pack, verification
from camelsight.universe import camels

ROOT = Path(__file__).parent.parent
MORE = int(os.environ.get("CAMELSIGHT_FUZZ", 1))
FRESH = "" if MORE == 1 else str(time.time())
MEMORY = 1 << 30  # bytes
LINE = 1000  # characters that a message has at most; half a dozen paths and names fit
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.move")
SUITE, CASE = "IllustrisTNG", "original"

_watched = {}  # "inside": the folders in which something may change; "seen": what happened elsewhere


def _watch(event, given):
    if not _watched or event not in ("open", *RUNS, *CHANGES):
        return
    if event == "open":
        path, _, flags = given
        if not isinstance(path, str) or not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in CHANGES:
        path = next(one for one in given if isinstance(one, str | bytes | os.PathLike))
    if event in RUNS or not any(Path(os.fsdecode(path)).absolute().is_relative_to(one) for one in _watched["inside"]):
        _watched["seen"].append((event, str(given)[:200]))


sys.addaudithook(_watch)


def _memory():
    """The most bytes that this process has had in memory since ``clear_refs`` was written, and its address space."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10 for name in ("VmHWM", "VmSize")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, to work in, outside of which nothing may change, and a limit on memory."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(OSError):  # where that cannot be, the most so far counts
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (most, space), limits = _memory(), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (space + 4 * MEMORY, limits[1]))  # a bomb is to harm nobody
    _watched.update(inside=(tmp_path, ROOT / ".hypothesis"), seen=[])
    yield tmp_path
    seen = _watched.pop("seen")
    _watched.clear()
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not seen and _memory()[0] - most < MEMORY


class Tried:
    """What became of the files of one kind."""

    def __init__(self, kind):
        self.kind, self.read, self.refused = kind, 0, 0

    def __call__(self, read, *given):
        """What ``read`` made of them, or None if it refused them as a person expects it."""
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(io.StringIO()):
                value = read(*given)
        except Exception as error:
            assert cli._mistake(error) and not cli._out_of_memory(error), f"a traceback: {error!r}"
            line = store.one_line(error)
            assert 10 < len(line) < LINE, line
            self.refused += 1
            return None
        assert value is not None
        self.read += 1
        return value

    def told(self, least=1):
        print(f"{self.kind}: {self.read + self.refused:,} tried, {self.read:,} read, {self.refused:,} refused")
        assert min(self.read, self.refused) >= least


def draws(kind, tries):
    """As many sources of chance, of which every one can be had again."""
    for number in range(tries * MORE):
        yield random.Random(f"{kind} {number} {FRESH}")


def changed(data, draw, first=0, last=None):
    """``data`` with one to a few changes between two places: bits, bytes, numbers, pieces lost, doubled or moved."""
    data, last = bytearray(data), len(data) if last is None else last
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at, length = draw.randrange(first, max(first + 1, min(last, len(data)))), draw.choice((1, 2, 4, 8, 60, 500))
        kind = draw.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == 2:
            data[at : at + 4] = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1)).to_bytes(4, draw.choice(ORDERS))
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at:at] = draw.choice(WORDS)
        elif draw.random() < 0.2:
            del data[at:]
    return bytes(data)


ORDERS = ("little", "big")
WORDS = (
    b"\0", b"\n", b"nan", b"-1", b"9" * 30, b"1e999", b"\xff\xfe", b"\xef\xbb\xbf", b"../", b"{", b"[", b"]", b"&a ",
    b"*a", b": ", b"- ", b"\t", b"'", b'"', b"!!python/object/apply:os.system [touch mark]", b"012", b"<<: ", b"#",
    b"L", b"\x1b[2J", "é".encode(), b"\xe2\x80\xa8", b"cos\nsystem\n(S'touch mark'\ntR.",
)  # fmt: skip

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from((2**31, 2**64, -(2**64), 10**400))
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ("", "012", "1e-3", "~", "$HOME/x", "../../x", "/etc/x", "\0", "x" * 5000, "original", "nan", "1_0")
    )
    | st.sampled_from(("IllustrisTNG", "SIMBA", "EAGLE", "not available", "20%", "1e400%", "camels", "exact", "12:30")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)


@st.composite
def trees(draw, good):
    """The tree ``good`` of mappings and lists with one to three of its values changed, taken out or moved."""
    tree = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = None, None
        inner = tree
        while isinstance(inner, dict | list) and inner and (holder is None or draw(st.integers(0, 3))):
            holder = inner
            key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = inner[key]
        if holder is None:
            return draw(values)
        act = draw(st.integers(0, 5))
        if act == 0:
            del holder[key]
        elif act == 1 and isinstance(holder, dict):
            holder[draw(st.text(max_size=9))] = holder.pop(key)
        elif act == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(inner))
        else:
            holder[key] = draw(values)
    return tree


def fuzz(strategy, check, examples):
    """Call ``check`` with so many examples of ``strategy``."""
    chosen = settings(
        max_examples=examples * MORE, derandomize=MORE == 1, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],  # to make them smaller would take minutes
    )  # fmt: skip
    chosen(given(strategy)(check))()


def as_text(tree):
    """JSON, which is YAML as well."""
    return json.dumps(tree, default=str).encode()


# params.yaml

PROFILE = (ROOT / "profiles/smoke.yaml").read_bytes()


def check_params(tried, text):
    loaded = tried(params.parse, text, "params.yaml")
    if loaded is None:
        return
    assert params.parse(as_text(asdict(loaded)), "again") == loaded
    assert store.parse_yaml(text) == serialize.parse_yaml(text.decode("utf-8-sig"), "params.yaml"), "as DVC reads it"
    assert all(map(pack._inside, pack._known(loaded)))
    if tried.read % 8 == 0:  # it takes ten times as long
        more = tried(everything.switched_on, text.decode())
        assert more is None or params.parse(more, "again").maps == loaded.maps


def test_params(folder):
    tried = Tried("params.yaml")
    fuzz(trees(store.parse_yaml(PROFILE)), lambda tree: check_params(tried, as_text(tree)), 200)
    for draw in draws("params", 350):
        check_params(tried, changed(PROFILE, draw))
    tried.told(10)


# Maps

MAPS = np.random.default_rng(0).lognormal(27, 1, (60, 16, 16)).astype(np.float32)


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


DESCRIPTIONS = ("'<f4'", "'>f4'", "'|O'", "'<f8'", "[('a', '<f4')]", "'f4', 'descr': '<f2'", "b'<f4'", "4", "'M8'")
NUMBERS = ("60", "16", "16L", "-60", "0", "True", "6e1", "1" * 50, "(16,)", "2**40", "'16'")


def header(draw):
    """An NPY file whose header is text that NumPy may or may not read."""
    descr = draw.choice(DESCRIPTIONS)
    number = lambda: draw.choice(NUMBERS)  # noqa: E731
    shape = ", ".join(draw.choice((("60", "16", "16"), (number(), number(), number()), (number(),))))
    order = draw.choice(("False", "True", "0", "None", "False"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': ({shape})}}\n"
    version = draw.choice(((1, 0), (2, 0), (3, 0)))
    length = draw.choice((len(text), len(text), len(text), 2**16 - 1)).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + MAPS.tobytes()


def test_maps(folder):
    tried, good = Tried("NPY"), [npy(MAPS), npy(MAPS.astype(">f4")), npy(MAPS, (3, 0))]
    path = folder / cmd.maps_file_name(SUITE)
    for draw in draws("NPY", 2500):
        path.write_bytes(header(draw) if draw.random() < 0.5 else changed(draw.choice(good), draw, last=140))
        maps = tried(map_files.open_maps, SUITE, "Mtot", 4, 16, folder)
        if maps is not None:
            assert maps.shape == (60, 16, 16) and maps.dtype in ("<f4", ">f4")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert np.array_equal(maps, np.load(path), equal_nan=True)
        del maps
    tried.told(10)


def test_packed_maps(folder):
    tried = Tried(".npz, .npy.gz")
    packed = io.BytesIO()
    np.savez_compressed(packed, MAPS.astype(np.float64))
    good = {"m.npz": packed.getvalue(), "m.npy.gz": gzip.compress(npy(MAPS[:2]))}
    for draw in draws("packed", 300):
        name = draw.choice(list(good))
        Path(name).write_bytes(changed(good[name], draw))
        if tried(conversion.convert, name):
            assert np.load("m.npy").dtype == np.float32
        assert set(os.listdir()) <= {*good, "m.npy"}
        Path("m.npy").unlink(missing_ok=True)
    tried.told()


# Tables

TABLE = camels.parameters(SUITE)[:8]


def test_tables(folder):
    tried, path = Tried("parameter table"), folder / cmd.params_file_name(SUITE)
    rows = [" ".join(f"{x:.5f}" for x in row) for row in TABLE]
    numbered = [f"{number} {row}" for number, row in enumerate(rows)]
    plain, indexed = "\n".join(rows), "\n".join(numbered)
    named = "# name " + " ".join(theta.NAMES) + " seed\n" + "\n".join(f"LH_{line} {5000}" for line in numbered)
    for draw in draws("table", 2500):
        path.write_bytes(changed(draw.choice((plain, indexed, named)).encode(), draw))
        found = tried(map_files.read_parameters, SUITE, 8, folder)
        if found is not None:
            np.savetxt(path, found, fmt="%.17g")
            assert np.array_equal(map_files.read_parameters(SUITE, 8, folder), found)
    tried.told(10)


def test_predictions(folder):
    tried, path = Tried("predictions"), folder / "predictions.txt"
    good = text_tables.predictions(TABLE, TABLE * 1.01, TABLE * 0.1).encode()
    for draw in draws("predictions", 1500):
        path.write_bytes(changed(good, draw))
        found = tried(text_tables.read_predictions, path)
        if found is not None:
            np.savetxt(path, np.hstack(found), fmt="%.17g")
            assert all(map(np.array_equal, text_tables.read_predictions(path), found))
    tried.told(10)


# Weights

NETWORK = network.build(1, 0.0, size=16, generator=torch.Generator().manual_seed(0))


def saved(**options):
    file = io.BytesIO()
    torch.save(NETWORK.state_dict(), file, **options)
    return file.getvalue()


def repacked(data, draw):
    """A checkpoint whose pickle is changed and whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out := io.BytesIO(), "w") as archive:
        for member in given.infolist():
            content = given.read(member)
            archive.writestr(member.filename, changed(content, draw) if member.filename.endswith(".pkl") else content)
    return out.getvalue()


def test_checkpoints(folder):
    tried, new, old = Tried("checkpoint"), saved(), saved(_use_new_zipfile_serialization=False)
    for draw in draws("checkpoint", 800):
        kind = draw.choice(("whole", "pickle", "old"))
        data = repacked(new, draw) if kind == "pickle" else changed(old if kind == "old" else new, draw, last=9000)
        Path("weights.pt").write_bytes(data)
        net = tried(networks.load_published, "weights.pt")
        if net is not None:
            digest = store.tensor_digest(net.state_dict())
            torch.save(net.state_dict(), "weights.pt")
            assert store.tensor_digest(networks.load_published("weights.pt").state_dict()) == digest
    tried.told(10)


def test_weights(folder):
    whole = {name: tensor.contiguous() for name, tensor in NETWORK.state_dict().items()}
    tried, good = Tried("weights.safetensors"), safetensors.torch.save(whole)
    end = 8 + int.from_bytes(good[:8], "little")
    for draw in draws("weights", 500):
        Path("weights.safetensors").write_bytes(changed(good, draw, last=draw.choice((end, len(good)))))
        net = tried(store.read_weights, "weights.safetensors", network.build(1, 0.0, size=16))
        if net is not None:
            assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
    tried.told()


# Studies


def cells(path, draw):
    """A study in which some cells hold something else."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for _ in range(draw.choice((1, 1, 3))):
            table = draw.choice(list(studies.COLUMNS))
            column = draw.choice(list(studies.COLUMNS[table] if table != "studies" else ("study_id", "study_name")))
            value = draw.choice(
                (None, 0, 1, -1, 2**62, 1e308, -1e999, "", "x", "MINIMIZE", "COMPLETE", b"\xff", "1" * 600)
            )
            with contextlib.suppress(sqlite3.Error):
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [value, draw.randrange(1, 5)])


def test_optuna_studies(folder):
    tried, path = Tried("study"), Path("study.db")
    goods = []
    for schema in test_studies.TABLES:
        goods.append(test_studies.write(path, schema, {"a": test_studies.trials(6)}).read_bytes())
        path.unlink()
    for draw in draws("study", 1000):
        good = draw.choice(goods)
        path.write_bytes(good if draw.random() < 0.5 else changed(good, draw))
        if path.read_bytes() == good:
            cells(path, draw)
        found = tried(lambda: tuning.choose(studies.read(path)))
        if found is not None:
            params.Hyperparameters(**found[0]["hyperparameters"])
            assert json.loads(json.dumps(found[0])) == found[0]
        assert os.listdir() == ["study.db"]
    tried.told(10)


# Archives of a run


@pytest.fixture
def run(folder):
    """The files of a run, each of a few bytes, in a folder of their own."""
    loaded = params.parse(PROFILE, "params.yaml")
    (folder / "run").mkdir()
    os.chdir(folder / "run")
    for name in (*pack.LOCKS, "results/tables/r2.csv", *pack._needed(loaded)):
        store.write_text(name, f"what {name} holds\n")
    store.write_bytes(paths.PARAMS, PROFILE)
    pack.write(folder / "good.tar", loaded)
    os.chdir(folder)
    return (folder / "good.tar").read_bytes()


NAMES = (
    "../x", "/etc/x", "a/../../x", "", ".", "x\0y", "é", "x" * 300, "params.yaml", "SHA256SUMS", ".git/config", "a//b",
)  # fmt: skip
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)


def forged(good, draw):
    """An archive with other names, kinds and contents, whose digests are right."""
    with tarfile.open(fileobj=io.BytesIO(good)) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive][1:]
    for _ in range(draw.choice((1, 1, 2))):
        number, act = draw.randrange(len(members)), draw.randrange(5)
        member, data = members[number]
        if act == 0:
            member.name = draw.choice(NAMES)
        elif act == 1:
            member.type, member.linkname = draw.choice(KINDS), draw.choice(NAMES)
        elif act == 2:
            members.append(members[number])
        elif act == 3:
            del members[number]
        else:
            members[number] = member, changed(data, draw)
    listing = "".join(f"{hashlib.sha256(data).hexdigest()}  {member.name}\n" for member, data in members).encode()
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in [(tarfile.TarInfo(pack.LIST), listing), *members]:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_packs(run, folder):
    tried = Tried("pack")
    for draw in draws("pack", 350):
        data = forged(run, draw) if draw.random() < 0.5 else changed(run, draw, last=draw.choice((5000, len(run))))
        Path("given.tar").write_bytes(data)
        target = folder / f"taken-{draw.random()}"
        names = tried(pack.read, "given.tar", target)
        if names is None:
            assert not target.exists() or not os.listdir(target)
        else:
            there = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
            assert there == set(names)
            assert pack.read(target, folder / f"again-{draw.random()}") == names
    assert set(os.listdir()) >= {"good.tar", "given.tar", "run"} and not Path("mark").exists()
    tried.told(10)


# What a run says of itself, and what is published

ID = f"r2.{SUITE}.{CASE}.omega_m"
PUBLISHED = [
    {"id": name, "value": value, "class": kind, "tolerance": tolerance, "profile": profile, "tier": 3}
    | {"reason": "why", "source": "where"}
    for name, value, kind, tolerance, profile in (
        (ID, 0.994, "seed-statistical", 0.005, "camels"),
        (f"valid_loss.{SUITE}.{CASE}.all", -12.6, "float", "20%", "any"),
        ("split.CAMELS.test.all", "264 209", "exact", 0, "any"),
        (f"r2_table.{SUITE}.{CASE}.omega_m", "not available", "seed-statistical", 0.1, "camels"),
        (f"drop.{SUITE}.{CASE}.omega_m", "it saturates", "qualitative", {"below": 0.02}, "twin"),
    )
]
LOCK = {
    "schema": "2.0",
    "stages": {
        f"train@{SUITE}-{CASE}": {
            "cmd": "python -m x",
            "deps": [{"path": "results/code/train.txt", "hash": "md5", "md5": "0" * 32, "size": 9}],
            "params": {"params.yaml": {"train.epochs": 3, "tune": {"max_lr": [1e-5, 1e-3]}}},
            "outs": [{"path": "runs/x.json", "hash": "md5", "md5": "1" * 32, "size": 9}],
        },
        "gone": {"cmd": "x", "outs": [{"path": "y", "md5": "2" * 32}]},
    },
}
ROW = {"id": ID, "group": "paper", "verdict": "PASS", "why": "within", "expected": 0.9, "got": 0.91, "tier": 0}
VERDICT = {"profile": "smoke", "conclusion": {"verdict": "PASS", "text": "good", "exit_code": 0}, "rows": [ROW, ROW]}


@pytest.fixture
def judged(folder):
    """A folder with a dvc.lock, a verdict and published numbers; a function that explains a number from them."""
    loaded = params.parse(PROFILE, "params.yaml")
    store.write_bytes(paths.PARAMS, PROFILE)
    store.write_bytes(paths.DVC, (ROOT / paths.DVC).read_bytes())
    for path, tree in ((paths.DVC_LOCK, LOCK), (paths.VERDICT, VERDICT), (paths.EXPECTED, PUBLISHED)):
        store.write_bytes(path, as_text(tree))
    for path in paths.TEXTS:
        store.write_text(path, "")
    leftovers.record(paths.DVC_LOCK)  # imports DVC before the memory counts
    return loaded


def explained():
    with contextlib.redirect_stdout(io.StringIO()) as said:
        explain.explain(ID, as_json=True)
    return json.loads(said.getvalue())


def texts(path, tree, kind, check, examples, tries):
    """Try trees and bytes like ``tree`` as the file ``path``; ``check(tried)`` reads them."""
    tried = Tried(kind)

    def one(data):
        store.write_bytes(path, data)
        check(tried)

    one(as_text(tree))
    assert tried.read and not tried.refused, "the good one"
    fuzz(trees(tree), lambda changed_tree: one(as_text(changed_tree)), examples)
    for draw in draws(kind, tries):
        one(changed(as_text(tree), draw))
    tried.told(10)


def test_published_numbers(judged):
    def check(tried):
        rows = tried(comparison.statements)
        if rows is not None:
            store.write_bytes(paths.EXPECTED, as_text(rows))
            assert comparison.statements() == rows
            verdicts = verification.published(rows, {one["id"]: (0.7, 0.6, 0.8) for one in rows}, {})
            assert [one["id"] for one in verdicts] == [one["id"] for one in rows]
        tried(store.read_published, SUITE, CASE)

    texts(paths.EXPECTED, PUBLISHED, "expected.yaml", check, 250, 250)


def test_locks(judged):
    def check(tried):
        tried(explained)
        for row in evidence._or_fail("stage", locked.stages(judged, True)):
            assert row["verdict"] in verification.VERDICTS
        assert probe._wrong_with(paths.DVC_LOCK) in ("", "cut off", probe.CONFLICT)
        whole = leftovers.record(paths.DVC_LOCK) is not None
        launch.forget(judged)
        assert not whole or "gone" not in leftovers.record(paths.DVC_LOCK).get("stages", {})

    texts(paths.DVC_LOCK, LOCK, "dvc.lock", check, 80, 120)


def test_verdicts(judged):
    def check(tried):
        found = tried(explained)
        if found is not None:
            assert all(set(one) == {"id", "group", "verdict", "why", "expected", "got"} for one in found["verdict"])

    texts(paths.VERDICT, VERDICT, "verdict.json", check, 150, 250)
