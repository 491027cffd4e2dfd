"""Fitted models as JSON files, and fields of files that nobody vouches for: the value if it is one, else ValueError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.errors import InputError
from atts_runtime.untrusted import json_of
from atts_runtime.wholefile import write_whole
from atts_runtime.wholenumbers import LARGEST_EXACT

T = TypeVar("T")


def write(path: Path, form: str, fields: Mapping[str, Any]) -> None:
    """Write the fields under the name of their form, whole or not at all. Raises InputError where that fails."""
    text = json.dumps({"format": form, **fields}, allow_nan=False, indent=1)
    try:
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another file") from error


def read(path: Path, form: str, make: Callable[[Mapping[str, Any]], T], refusal: str) -> T:
    """What `make` makes of the fields. InputError says where the file cannot be read, or is none of the form
    (`refusal`)."""
    try:
        data = json_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != form:
        raise InputError(f"{path}{refusal}")
    try:
        return make(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{path}{refusal} ({error!r})") from error


def maybe(data: Any, make: Callable[[Any], T]) -> T | None:
    """None, or what `make` makes."""
    return None if data is None else make(data)


def listed(data: Any, make: Callable[[Any], T]) -> tuple[T, ...]:
    """A list with something in it."""
    if not isinstance(data, list) or not data:
        raise ValueError("an empty list, or none")
    return tuple(make(entry) for entry in data)


def ascending(data: Any, make: Callable[[Any], T]) -> tuple[T, ...]:
    """Likewise, in order."""
    values = listed(data, make)
    if sorted(values, key=lambda v: v) != list(values):  # type: ignore[arg-type, return-value]
        raise ValueError("values that do not ascend")
    return values


def real(value: Any, least: float = -math.inf) -> float:
    """A finite number that is not below the least."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        raise ValueError(f"{value!r} where a number belongs")
    return float(value)


def share(value: Any) -> float:
    """A number from 0 to 1."""
    if real(value, 0.0) > 1:
        raise ValueError(f"{value!r} where a share belongs")
    return float(value)


def shares(data: Any) -> tuple[float, ...]:
    """Parts of a whole; none is fine."""
    if not isinstance(data, list) or math.fsum(parts := [share(part) for part in data]) > 1 + 1e-9:
        raise ValueError(f"{data!r} where shares belong")
    return tuple(parts)


def count(value: Any, least: int) -> int:
    """A whole number that is not below the least, nor beyond what a float holds to the last digit."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST_EXACT:
        raise ValueError(f"{value!r} where a count belongs")
    return value


def tokens(value: Any) -> int:
    """A whole number above 0."""
    return count(value, 1)


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} where true or false belongs")
    return value
