import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from camelsight import pack, params, paths, store

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
            names.add(str(paths.metrics(suite, case)))
    for name in names:
        store.write_text(name, f"what {name} holds\n")
    return loaded, sorted(names)


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
    assert all(path.read_text() == f"what {name} holds\n" for path, name in zip(found, names, strict=True))


def test_the_same_files_give_the_same_archive(run):
    loaded, names = run
    pack.write("one.tar", loaded)
    for name in names:
        store.write_bytes(name, Path(name).read_bytes())  # other times and inodes
    pack.write("two.tar", loaded)
    assert store.file_digest("one.tar") == store.file_digest("two.tar")


def test_the_list_is_one_that_sha256sum_reads(run, tmp_path):
    loaded, names = run
    pack.write("one.tar", loaded)
    (tmp_path / "plain").mkdir()
    subprocess.run(["tar", "-xf", "one.tar", "-C", tmp_path / "plain"], check=True)
    checked = subprocess.run(
        ["sha256sum", "-c", pack.LIST], cwd=tmp_path / "plain", capture_output=True, text=True, check=True
    )
    assert checked.stdout.count(": OK") == len(names)


def test_an_unfinished_run_is_not_packed(run):
    loaded, _ = run
    paths.weights("IllustrisTNG", "kmax_1").unlink()
    with pytest.raises(ValueError, match=r"got none of runs/IllustrisTNG/kmax_1/weights.safetensors; run make paper$"):
        pack.write("one.tar", loaded)
    assert not list(Path().glob("*.tar"))


WEIGHTS = "runs/IllustrisTNG/original/weights.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, data: data.replace(b"what", b"That") if name == WEIGHTS else data, f"expected {WEIGHTS} with"),
        (lambda name, data: None if name == WEIGHTS else data, f"{WEIGHTS} is in SHA256SUMS and not in the archive"),
        (lambda name, data: data.replace(b"results/tables/r2.csv", b"results/tables/r3.csv"), "r2.csv' is no file"),
        (lambda name, data: data.replace(WEIGHTS.encode(), b"../away"), "'../away', which would be written elsewhere"),
        (lambda name, data: data.replace(WEIGHTS.encode(), b"/tmp/away"), "'/tmp/away', which would be written"),
        (lambda name, data: None if name == pack.LIST else data, "begins with SHA256SUMS"),
    ],
)
def test_a_changed_archive_is_refused_in_one_line_and_leaves_nothing(run, tmp_path, change, message):
    pack.write("one.tar", run[0])
    rewrite("one.tar", change)
    with pytest.raises(ValueError, match=r"one\.tar") as error:
        pack.read("one.tar", tmp_path / "other")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_plain_file_is_refused(run, tmp_path, kind):
    pack.write("one.tar", run[0])
    with tarfile.open("one.tar", "a") as archive:
        member = tarfile.TarInfo(WEIGHTS)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match="is no file that SHA256SUMS names, or is there twice"):
        pack.read("one.tar", tmp_path / "other")


def test_what_is_no_archive_or_a_half_one_is_refused(run, tmp_path):
    pack.write("one.tar", run[0])
    data = Path("one.tar").read_bytes()
    for content in (b"", b"not an archive" * 100, data[: len(data) // 2]):
        store.write_bytes("half.tar", content)
        with pytest.raises(ValueError, match=r"half\.tar"):
            pack.read("half.tar", tmp_path / "other")
    with pytest.raises(ValueError, match=r"got no file none\.tar"):
        pack.read("none.tar", tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
