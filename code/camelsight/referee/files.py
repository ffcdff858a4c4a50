"""Files of a run, as far as they are there and can be read."""

from pathlib import Path

from camelsight.pipeline import paths, store
from camelsight.referee import verification
from camelsight.referee.verification import FAIL, NOT_RUN


def row(id, verdict, why, **more):
    """A row of tier 0 on the integrity of a run."""
    return verification.row(id, "integrity", verdict, why, tier=0, **more)


def absent(id, path):
    """The ``row`` of what cannot be checked because the file ``path`` is not there."""
    return row(id, NOT_RUN, f"{path} is not there: {how_to_get(path)}")


def name_of(path):
    """The id of the row on a file of results."""
    return f"file.{path.relative_to(paths.NUMBERS.parent)}"


def how_to_get(path):
    """The commands that bring a file that is not there."""
    return "make maps" if Path(path).is_relative_to(paths.MAPS.parent) else "dvc pull, or make paper"


def lost_maps(params, suites):
    """The files of maps of ``suites`` that are not there, as text."""
    return [str(path) for path in paths.all_maps(suites, params.fields) if not path.exists()]


def unreadable(error, what="it"):
    return f"{what} cannot be read: {type(error).__name__}: {store.one_line(error)}"[:300]


def read(reader, path):
    """What ``reader`` makes of ``path``, or None without such a file; ValueError that names it if it is damaged."""
    if not path.exists():
        return None
    try:
        return reader(path)
    except Exception as error:
        raise ValueError(unreadable(error, path)) from None


def damaged():
    """A row that fails for each file of results that is not whole."""
    readers = {".json": store.read_json, ".npz": store.read_arrays}
    for path in sorted(paths.NUMBERS.parent.rglob("*")):
        try:
            if path.suffix in readers:
                read(readers[path.suffix], path)
        except ValueError as error:
            yield row(name_of(path), FAIL, str(error), accuses=[path])
