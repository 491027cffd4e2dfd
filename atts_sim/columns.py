"""Columns of tables that nobody vouches for: numbers where numbers belong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.errors import InputError
from atts_runtime.wholenumbers import LARGEST_EXACT


def check_numbers(table: Any, where: str, *, numbers: Iterable[str] = (), counts: Iterable[str] = ()) -> None:
    """Raises InputError, which begins with `where`, where one of the columns holds something other than numbers; in
    `numbers` some or all may be missing, `counts` are whole, not negative, none missing, and no larger than what a
    float holds to the last digit."""
    from pandas.api.types import is_numeric_dtype

    counts = tuple(counts)
    for name in (*counts, *numbers):
        column = table[name]
        if not is_numeric_dtype(column) and not column.isna().all():
            raise InputError(f"{where} has something other than numbers in column {name}")
        if name not in counts:
            continue
        if column.isna().any() or (column < 0).any():
            raise InputError(f"{where} has a missing or negative {name}")
        if (column > LARGEST_EXACT).any() or (column % 1 != 0).any():
            raise InputError(f"{where} has a {name} that is no whole number, or beyond 2^53")


def floats(table: Any, name: str) -> NDArray[np.float64]:
    """A column of numbers, NaN where one is missing."""
    return np.asarray(table[name].to_numpy(np.float64, na_value=np.nan))
