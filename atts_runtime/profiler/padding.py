"""How engines round a batch up before they compute it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Padding:
    """How an engine rounds a batch up; the default pads nothing.

    rectangular     every row is fed as many tokens as the longest, attends over as many as the longest keeps, and each
                    fed token gets logits
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


def fitting(stops: tuple[int, ...], length: int) -> int:
    """The first of the stops, at least one, that holds the length; beyond the last a multiple of it."""
    last = stops[-1]
    return stops[bisect_left(stops, length)] if length <= last else -(-length // last) * last


RAGGED = Padding()
"""An engine that computes only what is asked, as paged engines come down to."""
