"""JSON, TOML and tables that nobody vouches for: what is none is told, and nothing nests so deep that to go through it
would overrun the stack."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from atts_runtime.errors import InputError

__all__ = ["json_file", "json_of", "table_in", "toml_of"]

_DEEPEST = 100
"""Lists and tables in one another: more than any file or answer has, and a tenth of the calls that Python stacks."""
_NESTS = frozenset({dict, list})


def json_of(text: str | bytes) -> Any:
    """The value of a JSON text (bytes: UTF-8). Raises ValueError where it is none."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(value)
    return value


def toml_of(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError where it is none."""
    try:
        entries = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(entries)  # dotted names nest without a call
    repr(entries)  # ValueError: a hexadecimal number may have more digits than Python will write in a message
    return entries


def json_file(path: Path, *, missing: str | None = None) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError where it cannot be read or holds none; `missing`: what to say where
    there is no such file."""
    try:
        found = json_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
            raise InputError(missing) from error
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object")
    return found


def table_in(path: Path) -> Any:
    """The DataFrame in a Parquet file. Raises OSError where it cannot be read, ValueError (a line) where it is none."""
    import pandas as pd

    try:
        with path.open("rb") as file:
            return pd.read_parquet(file)
    except Exception as error:  # pandas trusts the JSON that it keeps in the file's metadata
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(said) from error


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {_DEEPEST} deep")


def _check_depth(value: Any) -> None:
    """Raises ValueError where lists and tables are nested too deep. Level by level, so that no depth matters here."""
    level = [value] if type(value) in _NESTS else []
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _NESTS
        ]
        if not level:
            return
    raise _too_deep()
