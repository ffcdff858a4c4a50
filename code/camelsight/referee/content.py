"""Whether two files say the same: to the byte, or else to rounding. A function returns the first difference, or None.

The first argument is what was made anew, the second what was given.
"""

import io
import re
import zlib

import numpy as np
from matplotlib import image

COLOURS = 0.25  # of a pixel's range that edges may differ by where another processor rounds
POINTS = 0.02  # of a PDF's unit, 1/72 inch
BYTES = 1e-3  # of an image in a PDF that may be others, for the same reason
MOST = 1 << 27  # bytes that a stream may unpack to
NUMBER = re.compile(rb"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?")
STREAM = re.compile(rb"stream\r?\n(.*?)\r?\nendstream", re.DOTALL)
SHOWN = 50


def values(made, given, rounding, place=""):
    """Trees of JSON. ``rounding`` is relative to the largest number of the same list, or to the number itself."""
    if isinstance(made, dict) and isinstance(given, dict):
        if made.keys() != given.keys():
            other = sorted(map(str, made.keys() ^ given.keys()))
            return f"{place or 'it'} has other entries: {other[0][:SHOWN]}"
        pairs = [(made[key], given[key], f"{place}.{key}".lstrip(".")) for key in made]
        return _first(values(*pair[:2], rounding, pair[2]) for pair in pairs)
    if isinstance(made, list) and isinstance(given, list):
        if len(made) != len(given):
            return f"{place or 'it'} has {len(given)} entries, expected {len(made)}"
        if made and all(map(_number, made)) and all(map(_number, given)):
            return arrays(np.array(made, float), np.array(given, float), rounding, place)
        pairs = zip(made, given, range(len(made)), strict=True)
        return _first(values(ours, theirs, rounding, f"{place}[{n}]") for ours, theirs, n in pairs)
    if _number(made) and _number(given):
        return arrays(np.array([made], float), np.array([given], float), rounding, place)
    same = type(made) is type(given) and made == given
    return None if same else f"{place or 'it'}: expected {str(made)[:SHOWN]!r}, got {str(given)[:SHOWN]!r}"


def _number(value):
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _first(differences):
    return next((one for one in differences if one is not None), None)


def arrays(made, given, rounding, place=""):
    """Arrays of one shape; NaN equals NaN."""
    if made.shape != given.shape or (made.dtype.kind in "fiu") != (given.dtype.kind in "fiu"):
        return f"{place or 'it'}: expected {made.dtype} {made.shape}, got {given.dtype} {given.shape}"
    if made.dtype.kind not in "fiu":
        return None if np.array_equal(made, given) else f"{place or 'it'} is another"
    finite = np.abs(made[np.isfinite(made)])
    limit = rounding * finite.max() if finite.size else 0.0
    same = (made == given) | (np.isnan(made) & np.isnan(given))
    same |= np.abs(np.subtract(made, given, dtype=float), where=~same, out=np.zeros(made.shape)) <= limit
    if same.all():
        return None
    first = np.unravel_index(np.argmin(same), same.shape)
    count = f"{np.sum(~same)} of {same.size} differ"
    return f"{place or 'it'}: expected {made[first]:.6g}, got {given[first]:.6g} ({count})"


def named_arrays(made, given, rounding):
    """Dicts of arrays, as archives of NumPy hold them."""
    if made.keys() != given.keys():
        return f"it has other arrays: {min(made.keys() ^ given.keys())[:SHOWN]}"
    return _first(arrays(made[name], given[name], rounding, name) for name in made)


def text(made, given):
    """Texts, line by line."""
    ours, theirs = made.splitlines(), given.splitlines()
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False), 1):
        if a != b:
            return f"line {number}, {' '.join(a.split())[:50]!r}: expected {_clip(a, b)!r}, got {_clip(b, a)!r}"
    if len(ours) != len(theirs):
        gone = (ours[len(theirs) :] or theirs[len(ours) :])[0]
        return f"it has {len(theirs)} lines, expected {len(ours)}; the first of them: {gone[:100]!r}"
    return None


def _clip(line, other, before=60, after=40):
    """The surroundings of the first character that differs."""
    at = next((i for i, (a, b) in enumerate(zip(line, other, strict=False)) if a != b), min(len(line), len(other)))
    return " ".join(line[max(at - before, 0) : at + after].split())


def picture(made, given):
    """PNG files, as bytes: no pixel may differ by more than ``COLOURS``."""
    if made == given:
        return None
    ours = image.imread(io.BytesIO(made), format="png")
    try:
        theirs = image.imread(io.BytesIO(given), format="png")
    except Exception as error:  # whatever a damaged picture raises
        return f"it is no picture: {' '.join(str(error).split())[:SHOWN]}"
    if ours.shape != theirs.shape:
        return f"expected {ours.shape[1]} × {ours.shape[0]} pixels, got {theirs.shape[1]} × {theirs.shape[0]}"
    other = (np.abs(ours - theirs) > COLOURS).reshape(*ours.shape[:2], -1).any(axis=-1)
    return f"{other.sum()} pixels are others" if other.any() else None


def drawing(made, given):
    """Figures as PDF files, as bytes: the same streams, numbers within ``POINTS``, images but for few bytes."""
    if made == given:
        return None
    ours, theirs = _streams(made), _streams(given)
    if len(ours) != len(theirs):
        return f"expected {len(ours)} streams, got {len(theirs)}"
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True), 1):
        if not _alike(a, b):
            return f"stream {number} of {len(ours)} is another"
    ours, theirs = STREAM.sub(b"", made), STREAM.sub(b"", given)
    return None if NUMBER.split(ours) == NUMBER.split(theirs) else "its structure is another"


def _alike(a, b):
    if a == b:
        return True
    if not (a.isascii() and b.isascii()):
        a, b = (np.frombuffer(one, np.uint8) for one in (a, b))
        return len(a) == len(b) and np.mean(a != b) <= BYTES
    if NUMBER.split(a) != NUMBER.split(b):
        return False
    moved = np.array(NUMBER.findall(a), float) - np.array(NUMBER.findall(b), float)
    return bool(np.abs(moved).max() <= POINTS)


def _streams(data):
    """The content of every stream of a PDF file, unpacked where it is packed."""
    found = []
    for packed in STREAM.findall(data):
        try:
            found.append(zlib.decompressobj().decompress(packed, MOST))
        except zlib.error:
            found.append(packed)
    return found


def typesetter(data):
    """What the PDF file ``data`` says that typeset it, such as pdfTeX with its version; empty if nothing."""
    said = re.search(rb"/PTEX\.Fullbanner \((.*)\)\s", data)
    return said[1].decode(errors="replace") if said else ""
