"""A number with its unit and where it is from, as every profile states it: `{ value, unit, kind, source }`."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.untrusted import toml_of
from atts_runtime.wholefile import write_whole

__all__ = [
    "KINDS",
    "Number",
    "known_entries",
    "load_profile",
    "number",
    "save_profile",
    "stated_value",
    "text",
    "whole",
]

# How a number came about; a profile says it of each.
KINDS = ("datasheet", "measured", "analytic", "fitted", "fake")

_MOST_WHOLE = 2**31 - 1  # far above any model or machine; what is multiplied from a few of them is a float's yet


@dataclass(frozen=True, slots=True)
class Number:
    """A value in a unit; `kind` is one of `KINDS`, `source` a document, a command or a derivation."""

    value: float
    unit: str
    kind: str
    source: str

    def to_toml(self) -> dict[str, Any]:
        """The table that `number` reads."""
        return asdict(self)


def load_profile(path: str | Path, what: str) -> dict[str, Any]:
    """The entries of a TOML file; InputError, with what to give instead, where it cannot be read."""
    try:
        return toml_of(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give {what}") from error
    except ValueError as error:
        raise InputError(f"{path}: is not TOML ({error}); correct it") from error


def save_profile(path: Path, entries: Mapping[str, Any], heading: str) -> None:
    """Write entries below a line of comment, whole or not at all: one line a number, its tables inline."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"# {heading}\n{_lines(entries, '')}".encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error


def _lines(entries: Mapping[str, Any], prefix: str) -> str:
    import tomli_w

    plain, tables = "", ""
    for name, value in entries.items():
        if isinstance(value, Mapping) and "source" not in value:
            tables += f"\n[{prefix}{name}]\n" + _lines(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += "".join(f"\n[[{prefix}{name}]]\n" + _lines(one, f"{prefix}{name}.") for one in value)
        elif isinstance(value, Mapping):
            inside = ", ".join(tomli_w.dumps({key: item}).strip() for key, item in value.items())
            plain += f"{name} = {{ {inside} }}\n"
        elif isinstance(value, list):
            plain += f"{name} = [{', '.join(map(str, value))}]\n"
        else:
            plain += tomli_w.dumps({name: value})
    return plain + tables


def known_entries(where: str | Path, entries: Any, needed: Collection[str], optional: Collection[str] = ()) -> None:
    """InputError unless `entries` is a table that has the needed entries, and no other than those and the optional."""
    if not isinstance(entries, Mapping):
        raise InputError(f"{where} must be a table of {', '.join(needed)}")
    if extra := sorted(entries.keys() - {*needed, *optional}):
        raise InputError(f"{where}: unknown entry {extra[0]!r}; remove it")
    if missing := [name for name in needed if name not in entries]:
        raise InputError(f"{where}: {missing[0]!r} is missing; add it")


def whole(where: str, value: Any) -> int:
    """A whole number above 0, and no monster; InputError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where} must be a whole number above 0, got {value!r}")
    if value > _MOST_WHOLE:
        raise InputError(f"{where} must be at most {_MOST_WHOLE}, got {value!r:.40}")
    return value


def text(where: str | Path, entries: Mapping[str, Any], name: str) -> str:
    """An entry that must be text, and not empty."""
    value = entries[name]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {name!r} must be text, got {value!r}")
    return value


def number(where: str, entry: Any, unit: str, *, zero: bool = False, most: float = math.inf) -> Number:
    """A number above 0 (or not below, with `zero`), finite and at most `most`."""
    value = stated_value(where, entry, unit)
    if not 0 <= value <= sys.float_info.max or (value == 0 and not zero):
        raise InputError(f"{where} must be finite and {'not negative' if zero else 'above 0'}, got {value!r:.40}")
    if value > most:
        raise InputError(f"{where} must be at most {most:g}, got {value!r}")
    return Number(value, unit, entry["kind"], entry["source"])


def stated_value(where: str, entry: Any, unit: str | None) -> Any:
    """The value of an entry, which must have a source, a known kind and its unit; without a unit it is a flag."""
    wanted = {"value", "kind", "source"} | ({"unit"} if unit else set())
    if not isinstance(entry, Mapping) or entry.keys() != wanted:
        raise InputError(f"{where} must be a table of {', '.join(sorted(wanted))}")
    if entry["kind"] not in KINDS:
        raise InputError(f"{where} has kind {entry['kind']!r}; choose one of {', '.join(KINDS)}")
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise InputError(f"{where} has no source; say where the number is from")
    if unit is None:
        if not isinstance(entry["value"], bool):
            raise InputError(f"{where} must be true or false, got {entry['value']!r}")
    elif entry["unit"] != unit:
        raise InputError(f"{where} has unit {entry['unit']!r}; give it in {unit}")
    elif isinstance(entry["value"], bool) or not isinstance(entry["value"], int | float):
        raise InputError(f"{where} must be a number, got {entry['value']!r}")
    return entry["value"]
