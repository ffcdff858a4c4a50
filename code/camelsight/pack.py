"""One archive of a finished run that another machine can judge without training: ``make pack``.

It holds the weights, the results with their verdict, the parameters and the locks, and before them ``SHA256SUMS``,
their list, which ``sha256sum -c`` reads. The list tells what was changed by mistake; against intent, compare the digest
of the archive itself, which ``make pack`` prints. The same files give the same archive, byte for byte.
"""

import argparse
import hashlib
import io
import os
import tarfile
import tempfile
from pathlib import Path

from camelsight import cli, params, paths, store

LIST = "SHA256SUMS"
WEIGHTS = ("weights.safetensors", "history.json", "tuning.json")  # of every case
MAY_BE_MISSING = ("report/index.html", "environment.lock.json")
LOCKS = (str(paths.PARAMS), "dvc.yaml", "dvc.lock", "requirements.lock")
CHUNK = 1 << 20


def write(path, loaded):
    """Write the archive of the run that ``loaded`` params describe; the names of its files, sorted.

    ValueError if a file of the run is not there.
    """
    names = _names(loaded)
    listing = "".join(f"{store.file_digest(name)}  {name}\n" for name in names).encode()
    with store.replacing(path) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(_member(LIST, len(listing)), io.BytesIO(listing))
        for name in names:
            with open(name, "rb") as file:
                archive.addfile(_member(name, os.fstat(file.fileno()).st_size), file)
    return names


def _names(loaded):
    names = {str(file) for file in Path("results").rglob("*") if file.is_file()} | set(LOCKS)
    for suite in loaded.suites:
        for case in loaded.cases:
            names |= {str(paths.weights(suite, case).with_name(name)) for name in WEIGHTS}
            names.add(str(paths.metrics(suite, case)))
    if lost := sorted(name for name in names if not Path(name).is_file()):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(f"expected a finished run of {loaded.profile}, got none of {lost[0]}{more}; run make paper")
    return sorted(names | {name for name in MAY_BE_MISSING if Path(name).is_file()})


def _member(name, size):
    member = tarfile.TarInfo(name)  # owner, time and mode are the same wherever it is written
    member.size, member.mode = size, 0o644
    return member


def read(path, folder):
    """Check the archive and unpack it into ``folder``; its file names, sorted. ValueError in one line if it is wrong.

    Nothing reaches ``folder`` before all is checked: every member is a plain file under a relative name without ``..``,
    stands in ``SHA256SUMS`` with its digest, and is there once; and nothing that stands there is missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pack-") as part:
        try:
            with tarfile.open(path, "r:") as archive:
                wanted = _read_list(archive, path)
                for member in archive:
                    _unpack(archive, member, wanted, Path(part), path)
        except FileNotFoundError:
            raise ValueError(f"expected an archive of make pack, got no file {path}") from None
        except (tarfile.TarError, EOFError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
            raise ValueError(f"expected an archive of make pack, got {path}: {store.one_line(error)}") from None
        if lost := sorted(name for name, digest in wanted.items() if digest is not None):
            raise _refused(path, f"{lost[0]} is in {LIST} and not in the archive")
        for name in wanted:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(part, name), target)
    return sorted(wanted)


def _read_list(archive, path):
    """Name -> sha256, from the first member of the archive."""
    first = archive.next()
    if first is None or first.name != LIST or not first.isfile():
        raise ValueError(f"expected an archive of make pack, which begins with {LIST}, got {path}")
    wanted = {}
    for line in archive.extractfile(first).read().decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if not _inside(name):
            raise _refused(path, f"{LIST} names {name!r}, which would be written elsewhere")
        wanted[name] = digest
    return wanted


def _inside(name):
    return name not in ("", LIST) and str(Path(name)) == name and not {"..", "/"} & set(Path(name).parts)


def _unpack(archive, member, wanted, folder, path):
    """Write one member below ``folder`` and tick it off in ``wanted``."""
    if member.name == LIST and member.offset == 0:
        return
    if not member.isreg() or wanted.get(member.name) is None:
        raise _refused(path, f"{member.name!r} is no file that {LIST} names, or is there twice")
    target, digest = folder / member.name, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "wb") as file, archive.extractfile(member) as source:
        while data := source.read(CHUNK):
            digest.update(data)
            file.write(data)
    if digest.hexdigest() != wanted[member.name]:
        raise _refused(
            path, f"expected {member.name} with sha256 {wanted[member.name][:12]}, got {digest.hexdigest()[:12]}"
        )
    wanted[member.name] = None


def _refused(path, reason):
    return ValueError(f"{path} was changed since make pack wrote it: {reason}; get it again from where it came")


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.pack", description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="the archive; default: camelsight-PROFILE.tar")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    loaded = params.load(paths.PARAMS)
    path = Path(arguments.output or f"camelsight-{loaded.profile}.tar")
    names = write(path, loaded)
    record = {"archive": str(path), "sha256": store.file_digest(path), "bytes": path.stat().st_size, "files": names}
    if arguments.json:
        cli.print_json(record)
    else:
        print(f"{path}: {len(names)} files, {record['bytes'] / 1e6:.1f} MB\nsha256 {record['sha256']}")


if __name__ == "__main__":
    cli.guard(main, prefix="pack")
