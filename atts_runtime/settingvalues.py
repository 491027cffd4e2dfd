"""Values of settings as files and flags give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atts_runtime.conformal.store import load_bank
from atts_runtime.errors import InputError
from atts_runtime.wholenumbers import LARGEST_IN_TABLES


def scores_of(bank: str) -> tuple[float, ...]:
    """The scores of a bank's file; raises InputError where it is none or empty."""
    try:
        scores = load_bank(Path(bank)).scores
    except OSError as error:
        raise InputError(f"cannot read bank {bank}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"bank {error}") from error
    if not len(scores):
        raise InputError(f"bank {bank} holds no scores; make it with atts-sim replay EVENTS --save-bank {bank}")
    return tuple(scores.tolist())


def typed(name: str, annotation: str, value: Any) -> Any:
    """The value as its setting's type: an int serves as a float, and must then fingerprint like one."""
    if name.endswith("_args") and isinstance(value, dict):
        try:
            return json.dumps(value, sort_keys=True)
        except TypeError as error:  # dates and times, which TOML has and JSON has not
            raise InputError(f"{name}: {error}; write it as text") from error
    if name.endswith("_url") and isinstance(value, list):
        return ",".join(map(str, value))
    wanted = annotation.split(" | ")
    actual = "None" if value is None else type(value).__name__
    to_float = actual == "int" and "float" in wanted
    if actual not in wanted and not to_float:
        raise InputError(f"{name} must be {annotation}, got {value!r}")
    if actual == "int" and abs(value) > LARGEST_IN_TABLES:
        raise InputError(f"{name} must fit into 64 bits, got {value}")
    return float(value) if to_float else value
