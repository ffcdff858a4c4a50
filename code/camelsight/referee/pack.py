"""One archive of a finished run that another machine can judge without training: ``make pack``, ``make release``.

It holds the weights, the results with their verdict, figures and PDF, the parameters and the locks, and before them
``SHA256SUMS``, their list, which ``sha256sum -c`` reads. The list tells what was changed by mistake; against intent,
compare the digest of the archive itself, which ``make pack`` prints. The same files give the same archive. A release is
the same and an RO-Crate, with the licence and how to cite it.

An archive that comes in is data. Only the files that ``write`` would put into it are taken, below stated sizes.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
from itertools import product
from pathlib import Path

from camelsight.pipeline import cli, params, paths, source, store

LIST = "SHA256SUMS"
DEPOSITED = ("CITATION.cff", "LICENSE")  # of a release
CRATE = paths.CRATE.name
WEIGHTS = ("weights.safetensors", "history.json")  # of every case
LOCKS = (str(paths.PARAMS), str(paths.DVC), str(paths.DVC_LOCK), str(paths.REQUIREMENTS))
CHUNK = 1 << 20
MOST = {  # bytes of one file, by its ending; the largest network of the paper has 135 MB
    ".safetensors": 1 << 30, ".npz": 1 << 30, ".json": 1 << 28, ".pdf": 1 << 27, ".png": 1 << 26, ".html": 1 << 28,
}  # fmt: skip
MOST_TEXT = 1 << 24  # of every other file, the list among them
_MADE = re.compile(r"results/(tables|plots/[a-z0-9_]+)/\w+\.(csv|md|tex)|figures/(robustness/)?[a-z0-9_]+\.(pdf|png)")


def write(path, loaded, release=False):
    """Write the archive of the run that ``loaded`` params describe; the names of its files, sorted.

    ValueError if a file of the run is not there, and for a ``release`` without a verdict, or with one that failed.
    """
    names = sorted({*_found(loaded), *(DEPOSITED if release else ())})
    made = {CRATE: _crate(loaded, names)} if release else {}
    digests = {name: store.file_digest(name) for name in names}
    digests |= {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()
    with store.replacing(path) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in {LIST: listing, **made}.items():
            archive.addfile(_member(name, len(data)), io.BytesIO(data))
        for name in names:
            with open(name, "rb") as file:
                archive.addfile(_member(name, os.fstat(file.fileno()).st_size), file)
    return sorted(digests)


def _crate(loaded, names):
    """The description of a release as bytes; ValueError if nobody has judged the run, or it failed."""
    from camelsight.referee import crate  # which takes a second, for a release alone

    if lost := [name for name in (*DEPOSITED, str(paths.VERDICT)) if not Path(name).is_file()]:
        raise ValueError(f"expected {lost[0]} for a release, got no such file; run make verify in a checkout")
    verdict = store.read_json(paths.VERDICT)
    if verdict["conclusion"]["exit_code"]:
        raise ValueError(f"expected a run that make verify does not fail, got: {verdict['conclusion']['text']}")
    return json.dumps(crate.of_run(loaded, verdict, names), indent=1).encode()


def _found(loaded):
    needed = _needed(loaded)
    if lost := sorted(name for name in needed if not Path(name).is_file()):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(f"expected a finished run of {loaded.profile}, got none of {lost[0]}{more}; run make paper")
    folders = (paths.TABLES, paths.PLOTS, paths.FIGURES)
    made = {path.as_posix() for folder in folders for path in folder.rglob("*") if _MADE.fullmatch(path.as_posix())}
    apart = {CRATE, *DEPOSITED}
    return sorted(needed | {name for name in made | _known(loaded) - apart if Path(name).is_file()})


def _needed(loaded):
    """What no finished run is without."""
    names = set(LOCKS)
    for key in product(loaded.suites, loaded.cases):
        names |= {str(paths.weights(*key).with_name(name)) for name in WEIGHTS}
        names |= {str(paths.metrics(*key)), str(paths.hyperparameters(*key))}
    return names


def _known(loaded):
    """Every file by name that an archive of ``loaded`` may hold, beside the tables and the figures."""
    known = [paths.VERDICT, paths.CRATE, paths.PAGE, paths.IMAGE, paths.PDF]
    known += [paths.UNIVERSE, paths.INTERPRETATION, paths.NUMBERS, paths.METRICS]
    of_case = (
        paths.study, paths.record, paths.trials, paths.cut, paths.cut_samples, paths.metrics, paths.predictions,
        paths.predictions_text, paths.curve, paths.robustness_input,
    )  # fmt: skip
    of_attribution = (paths.attributions, paths.attribution_statistics)
    for made, *axes in (
        (of_case, loaded.cases),
        (of_attribution, loaded.attribute.cases),
        ((paths.repeat, paths.repeated_weights), loaded.cases, loaded.repeats),
    ):
        known += [path(*key) for key in product(loaded.suites, *axes) for path in made]
    known += [paths.sanity(suite) for suite in loaded.suites] + [paths.code(stage) for stage in source.stages()]
    known += [paths.robustness_input(suite, "original") for suite in loaded.robustness.suites]
    for stage in params.EXPERIMENTS:
        for name in getattr(loaded.robustness, stage):
            known += [paths.experiment(stage, name), paths.experiment_arrays(stage, name)]
    return _needed(loaded) | set(map(str, known)) | {CRATE, *DEPOSITED}


def _member(name, size):
    member = tarfile.TarInfo(name)  # owner, time and mode are the same wherever it is written
    member.size, member.mode = size, 0o644
    return member


def read(path, folder):
    """Take what ``write`` writes from an archive, or from the folder of a run, into ``folder``, which is new or empty.

    The file names, sorted. ValueError in one line, and nothing in ``folder``, if an archive is not whole, or holds
    anything else than plain files that ``write`` would put there, each once and with the digest that ``SHA256SUMS``
    has, or files beyond a sane size. From a folder everything else is left where it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pack-") as part:
        take = _copy if Path(path).is_dir() else _unpack
        names = take(Path(path), Path(part))
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(part, name), target)
    return sorted(names)


def _unpack(path, part):
    try:
        with tarfile.open(path, "r:") as archive:
            wanted = _read_list(archive, path)
            members = {member.name: member for member in _members(archive, path)}
            if lost := sorted(wanted.keys() - members.keys()):
                raise _refused(path, f"{lost[0]} is in {LIST} and not in the archive")
            if more := sorted(members.keys() - wanted.keys()):
                raise _refused(path, f"{more[0]!r} is no file that {LIST} names")
            if str(paths.PARAMS) not in members:
                raise _refused(path, f"it has no {paths.PARAMS}")
            _check_names(members, archive.extractfile(members[str(paths.PARAMS)]).read(), path)
            _check_room(sum(member.size for member in members.values()), part, path)
            for name, member in members.items():
                with archive.extractfile(member) as source:
                    got = _write(source, member.size, part / name)
                if got != wanted[name]:
                    raise _refused(path, f"expected {name} with sha256 {wanted[name][:12]}, got {got[:12]}")
    except FileNotFoundError:
        raise ValueError(f"expected an archive of make pack, or a run's folder, got no file {path}") from None
    except (tarfile.TarError, EOFError, OverflowError, RecursionError) as error:
        raise ValueError(f"expected an archive of make pack, got {path}: {store.one_line(error)}") from None
    return list(members)


def _read_list(archive, path):
    """Name -> sha256, from the first member of the archive."""
    first = archive.next()
    if first is None or first.name != LIST or not _plain(first):
        raise ValueError(f"expected an archive of make pack, which begins with {LIST}, got {path}")
    if first.size > MOST_TEXT:
        raise _refused(path, f"expected {LIST} of at most {MOST_TEXT:,} bytes, got {first.size:,}")
    wanted = {}
    for line in archive.extractfile(first).read().decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if not _inside(name):
            raise _refused(path, f"{LIST} names {name!r}, which would be written elsewhere")
        wanted[name] = digest
    return wanted


def _inside(name):
    return name not in ("", LIST) and str(Path(name)) == name and not {"..", "/"} & set(Path(name).parts)


def _plain(member):
    """Whether a member is a file as it stands in the archive; a sparse one claims any size in a few bytes."""
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None


def _members(archive, path):
    """Every member after the list, when its kind and its size are as they should be."""
    seen = set()
    for member in archive:
        if member.offset == 0:
            continue
        if not _plain(member) or member.name in seen:
            raise _refused(path, f"{member.name!r} is no plain file, or is there twice")
        _check_size(member.name, member.size, path)
        seen.add(member.name)
        yield member


def _check_size(name, size, path):
    most = MOST.get(Path(name).suffix, MOST_TEXT)
    if size > most:
        raise ValueError(f"expected {name} of at most {most:,} bytes in {path}, got {size:,}")


def _check_names(names, text, path):
    """ValueError for a name that ``write`` would not write for a run with the params.yaml ``text``."""
    known = _known(params.parse(text, f"{path}: {paths.PARAMS}"))
    if strange := sorted(name for name in names if name not in known and not _MADE.fullmatch(name)):
        raise ValueError(f"expected in {path} what make pack writes, results and weights of the run, got {strange[0]}")


def _check_room(needed, folder, path):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"expected room for the {needed:,} bytes in {path}, got {free:,} free in {folder.parent}")


def _write(source, size, target):
    """Copy ``size`` bytes of an open file to ``target``; their sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        while size > 0 and (data := source.read(min(CHUNK, size))):
            digest.update(data)
            file.write(data)
            size -= len(data)
    return digest.hexdigest()


def _copy(run, part):
    """Copy what ``write`` would pack of the folder ``run``; nothing is followed out of it."""
    with _opened(run, str(paths.PARAMS)) as file:
        if file is None:
            raise ValueError(f"expected the folder of a run, got no {paths.PARAMS} in {run}")
        _check_size(paths.PARAMS, os.fstat(file.fileno()).st_size, run)
        loaded = params.parse(file.read(), f"{run}: {paths.PARAMS}")
    folders = [run / folder for folder in (paths.TABLES, paths.PLOTS, paths.FIGURES)]
    listed = {path.relative_to(run).as_posix() for folder in folders for path in folder.rglob("*")}
    copied = []
    for name in sorted(_known(loaded) | {name for name in listed if _MADE.fullmatch(name)}):
        with _opened(run, name) as file:
            if file is None:
                continue
            size = os.fstat(file.fileno()).st_size
            _check_size(name, size, run)
            _check_room(size, part, run)
            _write(file, size, part / name)
            copied.append(name)
    return copied


@contextlib.contextmanager
def _opened(run, name):
    """The plain file ``name`` below ``run``, open, or None without one; a link on the way to it is refused."""
    place = run
    for step in Path(name).parts:
        place = place / step
        if place.is_symlink():
            raise ValueError(f"expected files in {run}, got a link: {place}; copy what it leads to")
    try:
        # Without waiting for a writer, if it is a pipe.
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"expected a plain file, got {place}, which is none")
        yield file


def _refused(path, reason):
    return ValueError(f"{path} was changed since make pack wrote it: {reason}; get it again from where it came")


def main():
    parser = argparse.ArgumentParser(prog="python -m camelsight.referee.pack", description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="the archive; default: camelsight-PROFILE.tar")
    parser.add_argument("--release", action="store_true", help="with what a deposit wants: RO-Crate, licence, citation")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    loaded = params.load(paths.PARAMS)
    kind = "-release" if arguments.release else ""
    path = Path(arguments.output or f"camelsight-{loaded.profile}{kind}.tar")
    names = write(path, loaded, arguments.release)
    record = {"archive": str(path), "sha256": store.file_digest(path), "bytes": path.stat().st_size, "files": names}
    text = f"{path}: {len(names)} files, {record['bytes'] / 1e6:.1f} MB\nsha256 {record['sha256']}"
    cli.show(record, lambda _: text, arguments.json)


if __name__ == "__main__":
    cli.guard(main, prefix="pack")
