"""Dataclasses from what YAML says: unknown keys, missing ones and wrong types are refused in one line."""

import dataclasses
import difflib
import reprlib
import typing

SHOWN = reprlib.Repr()  # of a wrong value: aliases make a value of gigabytes of a few lines of YAML
SHOWN.maxlevel, SHOWN.maxlist, SHOWN.maxstring, SHOWN.maxother, SHOWN.maxlong = 2, 60, 100, 100, 60


def build(cls, raw, prefix=""):
    """The frozen dataclass ``cls`` of a mapping ``raw`` from YAML; ``prefix`` comes before the names of keys."""
    check(isinstance(raw, dict), prefix.rstrip(".") or "the file", "a mapping of keys to values", raw)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in raw:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known here: {', '.join(names)}"
            raise ValueError(f"unknown key {prefix}{key!s:.60}{hint}")
    missing = [name for name in names if name not in raw]
    check(not missing, ", ".join(prefix + name for name in missing), "a value", None)
    hints = typing.get_type_hints(cls, include_extras=True)
    return cls(**{name: _cast(raw[name], hints[name], prefix + name) for name in names})


def _cast(value, kind, key):
    if dataclasses.is_dataclass(kind):
        return build(kind, value, f"{key}.")
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        plain, expected, is_good = inner
        made = _cast(value, plain, key)
        check(is_good(made), key, expected, list(made) if isinstance(made, tuple) else made)
        return made
    if origin is tuple:
        check(isinstance(value, list), key, "a list", value)
        if inner[-1] is Ellipsis:
            inner = inner[:1] * len(value)
        check(len(value) == len(inner), key, f"{len(inner)} values", value)
        return tuple(_cast(item, item_kind, key) for item, item_kind in zip(value, inner, strict=True))
    if origin is dict:
        check(isinstance(value, dict), key, "a mapping", value)
        return {str(name): _cast(item, inner[1], f"{key}.{name!s:.60}") for name, item in value.items()}
    if kind is bool:
        check(isinstance(value, bool), key, "true or false", value)
        return value
    if kind is str:
        check(isinstance(value, str | int) and not isinstance(value, bool), key, "a word", value)
        return str(value)
    name = {int: "an integer", float: "a number"}[kind]
    check(not isinstance(value, bool) and isinstance(value, int | float | str), key, name, value)
    if kind is int and isinstance(value, int):
        return value
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    exact = kind is float or (abs(number) < 2**53 and number == int(number))
    check(abs(number) < float("inf") and exact, key, name, value)
    return kind(number)


def check(condition, key, expected, got):
    """ValueError in one line, unless ``condition``."""
    if not condition:
        raise ValueError(f"{key}: expected {expected}, got {SHOWN.repr(got)}")


def at_least(low, kind=int):
    """The type of a number of this ``kind`` that is not below ``low``."""
    return typing.Annotated[kind, f"at least {low}", lambda value: value >= low]


def one_of(*words):
    """The type of a text that is one of these ``words``."""
    return typing.Annotated[str, f"{', '.join(words[:-1])} or {words[-1]}", lambda value: value in words]


def positive_range(kind):
    """The type of a pair of positive numbers of this ``kind``, the ends of a range."""
    expected = "two positive numbers, the lower first"
    return typing.Annotated[tuple[kind, kind], expected, lambda ends: 0 < ends[0] <= ends[1]]
