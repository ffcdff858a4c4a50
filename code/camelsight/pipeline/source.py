"""What of this code can change a result: the ground, the rooms and the analysis that a stage uses, and its own file.

The stage ``code`` writes a digest for each stage, on which that stage depends. Comments, docstrings and blank lines are
left out of it, as is plumbing: the folders in ``PLUMBING`` hold no numbers.
"""

import ast
import functools
import hashlib
import io
import tokenize

from camelsight.pipeline import paths

PLUMBING = ("pipeline", "referee", "commands")


def essence(text):
    """Python source without comments, docstrings and blank lines."""
    lines = text.splitlines(keepends=True)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    dropped = [(token.start, token.end) for token in tokens if token.type == tokenize.COMMENT]
    for node in _nodes(text):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            first = body[0]
            start = first.lineno, _column(lines, first.lineno, first.col_offset)
            dropped.append((start, (first.end_lineno, _column(lines, first.end_lineno, first.end_col_offset))))
    for (row, start), (last, end) in sorted(dropped, reverse=True):
        lines[row - 1 : last] = [lines[row - 1][:start] + lines[last - 1][end:]] + [""] * (last - row)
    return "".join(line.rstrip() + "\n" for line in lines if line.strip())


@functools.cache
def _nodes(text):
    return list(ast.walk(ast.parse(text)))


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _column(lines, row, in_bytes):
    """The character at which a node begins; ``ast`` counts bytes."""
    return len(lines[row - 1].encode()[:in_bytes].decode())


@functools.cache
def files(stage):
    """The files that can change what ``stage`` gives, relative to the package, sorted."""
    seen, left = set(), [paths.PACKAGE / "stages" / f"{stage}.py"]
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        left += _imported(path)
        if path.with_suffix(".cpp").exists():
            seen.add(path.with_suffix(".cpp"))
    found = sorted(path.relative_to(paths.PACKAGE) for path in seen)
    return [path for path in found if path.parts[0] not in PLUMBING and (paths.PACKAGE / path).stat().st_size]


@functools.cache
def _imported(path):
    """The files of this package that the source in ``path`` imports."""
    if path.suffix != ".py":
        return []
    names = set()
    for node in _nodes(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    places = [paths.PACKAGE.parent.joinpath(*name.split(".")) for name in names if name.startswith("camelsight")]
    candidates = [place.with_suffix(".py") for place in places] + [place / "__init__.py" for place in places]
    return [candidate for candidate in candidates if candidate.exists()]


def listing(stage):
    """A line for each file that can change what ``stage`` gives: its name and the sha256 of its essence."""
    return "".join(f"{_digest(paths.PACKAGE / path)}  {path.as_posix()}\n" for path in files(stage))


@functools.cache
def _digest(path):
    text = path.read_text(encoding="utf-8")
    text = essence(text) if path.suffix == ".py" else text
    return hashlib.sha256(text.encode()).hexdigest()


def digest(stage):
    """The identity of the code that can change what ``stage`` gives, for the keys of unfinished work."""
    return hashlib.sha256(listing(stage).encode()).hexdigest()


def stages():
    """The names of all stages but ``code``."""
    names = {path.stem for path in (paths.PACKAGE / "stages").glob("*.py")}
    return sorted(names - {"__init__", "code"})


def changed(stage):
    """The files of which the stage ``code`` wrote another digest for ``stage``, or which only one of the two has."""
    path = paths.code(stage)
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = set(written.splitlines()) ^ set(listing(stage).splitlines())
    return sorted({line.rpartition("  ")[2] for line in lines})


def stale():
    """The stages whose code has changed since the stage ``code`` ran."""
    return {stage for stage in stages() if changed(stage)}
