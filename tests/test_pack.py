import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import rocrate.rocrate

from camelsight.pipeline import params, paths, store
from camelsight.referee import pack
from conftest import refused

ROOT = paths.PARAMS.resolve().parent


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with the files of a finished run, without their meaning, and its params."""
    folder = tmp_path / "run"
    folder.mkdir()
    loaded = params.load(ROOT / "profiles/smoke.yaml")
    monkeypatch.chdir(folder)
    names = {*pack.LOCKS, "results/tables/r2.csv", "results/verdict.json", "report/index.html"}
    for suite in loaded.suites:
        for case in loaded.cases:
            names |= {str(paths.weights(suite, case).with_name(name)) for name in pack.WEIGHTS}
            names |= {str(paths.metrics(suite, case)), str(paths.hyperparameters(suite, case))}
    for name in names:
        store.write_text(name, f"what {name} holds\n")
    store.write_bytes(paths.PARAMS, (ROOT / "profiles/smoke.yaml").read_bytes())
    return loaded, sorted(names)


@pytest.fixture
def packed(run):
    """The archive of that run."""
    pack.write("one.tar", run[0])
    return Path("one.tar")


def refused_whole(message, archive, folder):
    """The archive is refused, and nothing of it is left in the folder."""
    with refused(message):
        pack.read(archive, folder)
    assert not list(folder.iterdir())


def rewrite(path, change):
    """Write the archive anew; ``change(name, data)`` gives the data of each member, or None to leave it out."""
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            if (data := change(member.name, data)) is not None:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_what_is_packed_is_unpacked_bit_for_bit(run, tmp_path):
    loaded, names = run
    assert pack.write("one.tar", loaded) == names
    assert pack.read("one.tar", tmp_path / "other") == names
    found = sorted(path for path in (tmp_path / "other").rglob("*") if path.is_file())
    assert [str(path.relative_to(tmp_path / "other")) for path in found] == names
    assert all(path.read_bytes() == Path(name).read_bytes() for path, name in zip(found, names, strict=True))


def test_the_same_files_give_the_same_archive(run, packed):
    loaded, names = run
    for name in names:
        store.write_bytes(name, Path(name).read_bytes())  # other times and inodes
    pack.write("two.tar", loaded)
    assert store.file_digest("one.tar") == store.file_digest("two.tar")


def test_the_list_is_one_that_sha256sum_reads(run, packed, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["tar", "-xf", packed, "-C", plain], check=True)
    checked = subprocess.run(["sha256sum", "-c", pack.LIST], cwd=plain, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK") == len(run[1])


def test_an_unfinished_run_is_not_packed(run):
    loaded, _ = run
    paths.weights("IllustrisTNG", "kmax_1").unlink()
    with refused(r"got none of runs/IllustrisTNG/kmax_1/weights.safetensors; run make paper$"):
        pack.write("one.tar", loaded)
    assert not list(Path().glob("*.tar"))


WEIGHTS = "runs/IllustrisTNG/original/weights.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: data.replace(b"what", b"That") if name == WEIGHTS else data, f"expected {WEIGHTS} with"),
        (lambda name, data: None if name == WEIGHTS else data, f"{WEIGHTS} is in SHA256SUMS and not in the archive"),
        (lambda name, data: data.replace(b"tables/r2.csv", b"tables/r3.csv"), "r3.csv is in SHA256SUMS and not"),
        (lambda name, data: data.replace(WEIGHTS.encode(), b"../away"), "'../away', which would be written elsewhere"),
        (lambda name, data: data.replace(WEIGHTS.encode(), b"/tmp/away"), "'/tmp/away', which would be written"),
        (lambda name, data: None if name == pack.LIST else data, "begins with SHA256SUMS"),
    ],
)
def test_a_changed_archive_is_refused_in_one_line_and_leaves_nothing(packed, tmp_path, change, message):
    rewrite(packed, change)
    refused_whole(rf"one\.tar.*{re.escape(message)}|{re.escape(message)}.*one\.tar", packed, tmp_path / "other")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_plain_file_is_refused(packed, tmp_path, kind):
    with tarfile.open(packed, "a") as archive:
        member = tarfile.TarInfo(WEIGHTS)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with refused("is no plain file, or is there twice"):
        pack.read(packed, tmp_path / "other")


def test_what_is_no_archive_or_a_half_one_is_refused(packed, tmp_path):
    data = packed.read_bytes()
    for content in (b"", b"not an archive" * 100, data[: len(data) // 2]):
        store.write_bytes("half.tar", content)
        refused_whole(r"half\.tar", "half.tar", tmp_path / "other")
    refused_whole(r"got no file none\.tar", "none.tar", tmp_path / "other")


def add(path, name, data, listed=True):
    """Put one more file into the archive, and into its list, as somebody would who makes all digests anew."""
    digest = hashlib.sha256(data).hexdigest()
    rewrite(path, lambda one, held: held + f"{digest}  {name}\n".encode() if listed and one == pack.LIST else held)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


STRANGE = (
    ".git/config", "runs/again/T1-0123456789abcdef/tqdm.py", "tqdm.py", "code/camelsight/cli.py", "paper/expected.yaml",
    "profiles/reference/smoke.json", "data/maps/params_LH_IllustrisTNG.txt", "runs/checkpoints/trained-0123.pt",
    "data/maps/IllustrisTNG/params_LH_IllustrisTNG.txt",
    "Makefile", ".dvc/config", "results/evaluate/IllustrisTNG/kmax_7.json", "results/tables/../tables/r2.csv",
    "figures/gallery.py", "runs/IllustrisTNG/original/weights.pt",
)  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_an_archive_brings_nothing_but_what_make_pack_writes(packed, tmp_path, name):
    add(packed, name, b"anything")
    refused_whole(r"what make pack writes, .*got|would be written elsewhere", packed, tmp_path / "other")


def test_a_member_that_no_list_names_is_refused(packed, tmp_path):
    add(packed, "results/universe.json", b"{}", listed=False)
    with refused(r"'results/universe.json' is no file that SHA256SUMS names"):
        pack.read(packed, tmp_path / "other")


HUGE = 1 << 40


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (pack.LIST, tarfile.REGTYPE, "expected SHA256SUMS of at most"),
        ("results/universe.json", tarfile.REGTYPE, r"expected results/universe.json of at most"),
        ("results/universe.json", tarfile.GNUTYPE_SPARSE, "is no plain file"),
    ],
)
def test_a_file_of_a_terabyte_is_refused_before_it_is_read(run, tmp_path, name, kind, message):
    member = tarfile.TarInfo(name)
    member.size, member.type = HUGE, kind
    with open("huge.tar", "wb") as file:
        if name != pack.LIST:
            file.write(tarfile.TarInfo(pack.LIST).tobuf())
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.truncate(HUGE)  # without taking place on the disk
    refused_whole(message, "huge.tar", tmp_path / "other")


def test_an_archive_that_does_not_fit_the_disk_is_refused_before_it_is_unpacked(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with refused(r"expected room for the [\d,]+ bytes in one.tar, got 1 free"):
        pack.read("one.tar", tmp_path / "other")


def test_parameters_of_an_archive_are_checked_before_anything_is_taken(packed, tmp_path):
    wrong = b"profile: x\n"
    old, new = (hashlib.sha256(data).hexdigest().encode() for data in (Path(paths.PARAMS).read_bytes(), wrong))
    rewrite(packed, lambda name, data: wrong if name == str(paths.PARAMS) else data.replace(old, new))
    refused_whole(r"^one.tar: params.yaml: ", packed, tmp_path / "other")


def test_from_a_folder_only_what_make_pack_writes_is_taken(run, tmp_path):
    for name in STRANGE:
        if ".." not in name:
            store.write_text(name, "anything")
    assert pack.read(Path.cwd(), tmp_path / "other") == run[1]
    found = {str(path.relative_to(tmp_path / "other")) for path in (tmp_path / "other").rglob("*") if path.is_file()}
    assert found == set(run[1])


@pytest.mark.parametrize("name", [WEIGHTS, "runs/IllustrisTNG", "results"])
def test_nothing_is_followed_out_of_a_folder(run, tmp_path, name):
    Path(name).rename(tmp_path / "outside")
    Path(name).symlink_to(tmp_path / "outside")
    with refused(f"got a link: .*{name}"):
        pack.read(Path.cwd(), tmp_path / "other")
    Path(name).unlink()
    (tmp_path / "outside").rename(name)


def test_a_pipe_in_a_folder_is_no_file(run, tmp_path):
    Path(WEIGHTS).unlink()
    os.mkfifo(WEIGHTS)
    with refused(r"expected a plain file, got .*weights.safetensors"):
        pack.read(Path.cwd(), tmp_path / "other")


VERDICT = {
    "conclusion": {"text": "all is well", "exit_code": 0},
    "environment": {"commit": "abc123"},
    "rows": [
        {"id": "data.IllustrisTNG", "got": "d1", "tier": 0},
        {"id": "weights.IllustrisTNG.kmax_1", "got": "w1", "tier": 0},
        {"id": "weights.IllustrisTNG.original", "got": None, "tier": 0},
    ],
}


def test_a_release_is_an_ro_crate_of_every_file_and_is_read_as_an_archive(run, tmp_path):
    loaded, names = run
    store.write_json(paths.VERDICT, VERDICT)
    store.write_json(paths.IMAGE, {"digest": "sha256:1234"})
    for name in pack.DEPOSITED:
        store.write_bytes(name, (ROOT / name).read_bytes())
    written = pack.write("one.tar", loaded, release=True)
    assert {*names, *pack.DEPOSITED, "ro-crate-metadata.json", str(paths.VERDICT), str(paths.IMAGE)} == set(written)
    assert pack.read("one.tar", tmp_path / "other") == written
    read = rocrate.rocrate.ROCrate(tmp_path / "other")
    files = {entity.id: entity["sha256"] for entity in read.data_entities}
    assert files == {
        name: store.file_digest(tmp_path / "other" / name) for name in written if name != "ro-crate-metadata.json"
    }
    values = {one["propertyID"]: one["value"] for one in read.get_by_type("PropertyValue")}
    assert values["maps:IllustrisTNG"] == "d1" and values["image"] == "sha256:1234"
    assert values["weights:IllustrisTNG/kmax_1"] == "w1" and "weights:IllustrisTNG/original" not in values
    assert (read.description, read.root_dataset["author"]["name"]) == ("all is well", "The camelsight authors")
    assert pack.write("two.tar", loaded) == sorted({*names, str(paths.VERDICT), str(paths.IMAGE)})


def test_a_run_that_was_not_judged_or_failed_is_not_released(run):
    for name in pack.DEPOSITED:
        store.write_bytes(name, (ROOT / name).read_bytes())
    paths.VERDICT.unlink()
    with refused(r"expected results/verdict.json for a release, got no such file; run make ver"):
        pack.write("one.tar", run[0], release=True)
    failed = VERDICT | {"conclusion": {"text": "1 row failed: weights.A", "exit_code": 1}}
    store.write_json(paths.VERDICT, failed)
    with refused(r"expected a run that make verify does not fail, got: 1 row failed: weights.A"):
        pack.write("one.tar", run[0], release=True)
    assert not list(Path().glob("*.tar"))
