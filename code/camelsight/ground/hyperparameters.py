"""The hyperparameters of a network, and the values that they can have."""

import math
from dataclasses import dataclass, fields

HIDDEN_LIMIT = 64  # a network of maps of 256² pixels has 1e9 weights then; the published ones have 6 to 12


@dataclass(frozen=True)
class Hyperparameters:
    max_lr: float
    weight_decay: float
    dropout: float
    hidden: int

    def __post_init__(self):
        for name in ("max_lr", "weight_decay", "dropout"):
            self._check(name, "a finite number", _is_number(getattr(self, name)))
        self._check("max_lr", "above 0", self.max_lr > 0)
        self._check("weight_decay", "at least 0", self.weight_decay >= 0)
        self._check("dropout", "from 0 to below 1", 0 <= self.dropout < 1)
        whole = isinstance(self.hidden, int) and not isinstance(self.hidden, bool)
        good = whole and 1 <= self.hidden <= HIDDEN_LIMIT
        self._check("hidden", f"an integer from 1 to {HIDDEN_LIMIT}", good)

    def _check(self, name, expected, good):
        if not good:
            raise ValueError(f"hyperparameters.{name}: expected {expected}, got {getattr(self, name)!r:.60}")


NAMES = tuple(field.name for field in fields(Hyperparameters))


def checked(values, where):
    """``values``, name -> number, as they are; ValueError that names ``where``, the key and its value otherwise."""
    if not isinstance(values, dict) or set(values) != set(NAMES):
        got = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"{where}: expected hyperparameters {', '.join(NAMES)}, got {got:.200}")
    try:
        Hyperparameters(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return values


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
