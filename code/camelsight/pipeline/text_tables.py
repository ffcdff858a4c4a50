"""Text files of numbers: parameters of simulations, and predictions in the form of CMD's benchmark."""

import io
import re
from pathlib import Path

import numpy as np

from camelsight.ground import theta
from camelsight.pipeline import store

PREDICTIONS_FORMAT = "%.9e"


def read(path):
    """The numbers of a text file, ``(rows, columns)`` float64; ValueError if it holds anything else, or nothing."""
    return _numbers(_read_rows(path)[1], path)


def read_parameters(path):
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
        raise ValueError(f"expected a table of numbers in {path}, got: {store.one_line(error)}") from None
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


def predictions(truth, mean, sigma):
    """``(N, P)`` arrays in physical units, as the text of CMD's benchmark: true values, means, sigmas in a row."""
    text = io.StringIO()
    np.savetxt(text, np.hstack([truth, mean, sigma]), fmt=PREDICTIONS_FORMAT)
    return text.getvalue()


def write_predictions(path, truth, mean, sigma):
    store.write_text(path, predictions(truth, mean, sigma))


def read_predictions(path):
    """``(truth, mean, sigma)``, ``(N, P)`` each with P = 6 or 2; ValueError if the file holds anything else."""
    if not Path(path).is_file():
        raise ValueError(f"expected a file of predictions, got {path}, which is none")
    header, rows = _read_rows(path)
    values = _numbers(rows, path)
    if values.shape[1] not in (18, 6):
        expected = "18 columns (six true values, six means, six sigmas) or 6 (two of each)"
        raise ValueError(f"expected {expected} in {path}, got {len(values)} rows of {values.shape[1]}")
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
        wanted, shown = f"in this order and each of {', '.join(meant[:parameters])}", ", ".join(header)
        got = f"got {shown:.200} by its header; put the columns into this order"
        raise ValueError(f"expected true values, means and sigmas, {wanted}, in {path}, {got}")
