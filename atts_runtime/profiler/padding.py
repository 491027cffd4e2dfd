"""How engines round a batch up before they compute it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from atts_runtime.errors import InputError
from atts_runtime.profiler.provenance import known_entries, whole


@dataclass(frozen=True, slots=True)
class Padding:
    """How an engine rounds a batch up; the default pads nothing.

    rectangular     every row is fed as many tokens as the longest, attends over as many as the longest keeps (but for
                    `row_stops`), and each fed token gets logits
    rows_to         rows of a decode come in multiples of this
    new_to          new tokens of an append's row come in multiples of this
    kept_stops      attention runs over one of these lengths, ascending, up to `kept_stops[-1]`, and then over those
                    plus multiples of it; none: over the length itself
    row_stops       each row of a decode attends over the first of these lengths, ascending, that holds it, or over a
                    multiple of the last; none: over as many as the longest row, as in an append
    """

    rectangular: bool = False
    rows_to: int = 1
    new_to: int = 1
    kept_stops: tuple[int, ...] = ()
    row_stops: tuple[int, ...] = ()

    @classmethod
    def of_entries(cls, where: str, entries: Any) -> Self:
        """A profile's table. Raises InputError that says what is wrong with it."""
        known_entries(where, entries, ("rectangular", "rows_to", "new_to", "kept_stops"), {"row_stops"})
        if not isinstance(entries["rectangular"], bool):
            raise InputError(f"{where}.rectangular must be true or false, got {entries['rectangular']!r}")
        kept, row = (_stops(f"{where}.{name}", entries.get(name, [])) for name in ("kept_stops", "row_stops"))
        rows_to, new_to = (whole(f"{where}.{name}", entries[name]) for name in ("rows_to", "new_to"))
        return cls(entries["rectangular"], rows_to, new_to, kept, row)

    def to_entries(self) -> dict[str, Any]:
        """The table that `of_entries` reads."""
        stated = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in stated.items()}

    def kept(self, length: int) -> int:
        """The length that attention runs over for a row that keeps `length` tokens."""
        if not self.kept_stops:
            return length
        whole, rest = divmod(length, self.kept_stops[-1])
        return whole * self.kept_stops[-1] + (self.kept_stops[bisect_left(self.kept_stops, rest)] if rest else 0)

    def row_kept(self, length: int) -> int:
        """The length that a decode's attention runs over for a row that keeps `length` tokens, and is the longest where
        rows are not told apart."""
        return fitting(self.row_stops, length) if self.row_stops else self.kept(length)


def _stops(where: str, stops: Any) -> tuple[int, ...]:
    if not isinstance(stops, list):
        raise InputError(f"{where} must be a list of whole numbers, got {stops!r}")
    lengths = tuple(whole(where, stop) for stop in stops)
    if list(lengths) != sorted(set(lengths)):
        raise InputError(f"{where} must ascend, got {stops}")
    return lengths


def grouped(stops: tuple[int, ...], kept: Sequence[int]) -> tuple[int | None, int]:
    """Positions that rows which keep so many tokens attend over together (None where there are no stops), and in how
    many groups."""
    if not stops:
        return None, 1
    reached = [fitting(stops, length) for length in kept]
    return sum(reached), len(set(reached))


def fitting(stops: tuple[int, ...], length: int) -> int:
    """The first of the stops, at least one, that holds the length; beyond the last a multiple of it."""
    last = stops[-1]
    return stops[bisect_left(stops, length)] if length <= last else -(-length // last) * last


RAGGED = Padding()
"""An engine that computes only what is asked, as paged engines come down to."""
