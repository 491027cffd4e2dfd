"""A swept parameter: a list of values, or a range of numbers, even or logarithmic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.wholenumbers import LARGEST_EXACT
from atts_sim.options import HEEDED, Value, checked, is_number, is_whole

RANGE_KEYS = ("from", "to", "steps", "log")
MOST_POINTS = 1_000_000
"""Of a study."""


@dataclass(frozen=True, slots=True)
class Axis:
    """`values`: those of a list, or the `steps` of a range. `low`, `high`: the ends of a range (None: a list), from
    which random search draws evenly, or evenly in the logarithm (`log`)."""

    name: str
    values: tuple[Value, ...]
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        return is_whole(self.name)

    def at(self, u: float) -> Value:
        """The value at a share u of the axis, 0 <= u < 1. Of whole numbers each has the same share of a range."""
        if self.low is None or self.high is None:
            return self.values[int(u * len(self.values))]
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        drawn = _between(low, high, u, self.log)
        return min(max(round(drawn), round(self.low)), round(self.high)) if self.whole else drawn


def axis(where: str, name: str, entry: Any) -> Axis:
    """From a list or from ``{ from, to, steps, log }``; InputError where it is empty, repeats itself, or has values
    that the parameter cannot have."""
    where = f"{where}: sweep.{name}"
    if name.startswith("settings.") and name.removeprefix("settings.") not in HEEDED:
        raise InputError(f"{where} changes nothing in a simulation; sweep over one of {', '.join(HEEDED)}")
    if isinstance(entry, dict):
        return _range(where, name, entry)
    if not isinstance(entry, list):
        raise InputError(f"{where} must be a list of values, or a range {{ from, to, steps }}, got {entry!r}")
    if not entry:
        raise InputError(f"{where} has no values; give one or more")
    values = tuple(checked(where, name, value) for value in entry)
    if len(set(values)) < len(values):
        raise InputError(f"{where} has a value twice; give each once")
    return Axis(name, values)


def _range(where: str, name: str, entry: dict[str, Any]) -> Axis:
    if unknown := sorted(entry.keys() - set(RANGE_KEYS)):
        raise InputError(f"{where}: unknown entry {unknown[0]!r}; a range has {', '.join(RANGE_KEYS)}")
    if not {"from", "to"} <= entry.keys():
        raise InputError(f"{where}: a range needs 'from' and 'to'")
    if not is_number(name):
        raise InputError(f"{where} takes no numbers; give a list of values")
    low, high = (checked(where, name, entry[end]) for end in ("from", "to"))
    steps, log = entry.get("steps"), entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{where}.log must be true or false, got {log!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or not 2 <= steps <= MOST_POINTS):
        raise InputError(f"{where}.steps must be a whole number from 2 to {MOST_POINTS:,}, got {steps!r}")
    assert isinstance(low, int | float)
    assert isinstance(high, int | float)
    if is_whole(name) and high > LARGEST_EXACT:  # values between are reckoned in floats
        raise InputError(f"{where}: a range of whole numbers may go up to 2^53, got {high}; give a list of values")
    if low >= high:
        raise InputError(f"{where} is an empty range: 'from' ({low}) must be below 'to' ({high})")
    if log and low <= 0:
        raise InputError(f"{where}: a logarithmic range must begin above 0, got {low}")
    at = [_between(low, high, i / (steps - 1), log) for i in range(steps)] if steps else []
    values = tuple(dict.fromkeys(map(round, at))) if is_whole(name) else tuple(float(f"{v:.12g}") for v in at)
    return Axis(name, values, float(low), float(high), log)


def _between(low: float, high: float, u: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return low + u * (high - low)
