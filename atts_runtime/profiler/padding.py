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
    """

    rectangular: bool = False
    rows_to: int = 1
    new_to: int = 1
    kept_stops: tuple[int, ...] = ()

    def kept(self, length: int) -> int:
        """The length that attention runs over for a row that keeps `length` tokens."""
        if not self.kept_stops:
            return length
        whole, rest = divmod(length, self.kept_stops[-1])
        return whole * self.kept_stops[-1] + (self.kept_stops[bisect_left(self.kept_stops, rest)] if rest else 0)


RAGGED = Padding()
"""An engine that computes only what is asked, as paged engines come down to."""
