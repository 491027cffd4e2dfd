"""What an engine's step is: its phase, the shape of its batch, and which shapes were measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, TypeAlias

from atts_runtime.profiler.counts import Fed

Phase: TypeAlias = Literal["append", "decode"]


class StepShape(NamedTuple):
    """A batch in sums over its rows; `kept` = cached + new tokens.

    pairs: query-key pairs that causality leaves, sum of new * cached + new * (new + 1) / 2; None: taken from the means,
    exact where rows are alike and when decoding. joined: rows that were not in the decode step before (None: not told);
    what a profile says does not hang on it. attended: positions that a decode's rows attend over together, for engines
    with `Padding.row_stops` (None: rows are taken to be alike); groups: how many different stops those are.
    """

    rows: int
    new_tokens: int
    longest_new: int
    kept_tokens: int
    longest_kept: int
    logit_rows: int
    pairs: int | None = None
    joined: int | None = None
    attended: int | None = None
    groups: int = 1

    @classmethod
    def of(cls, batch: Iterable[Fed]) -> Self:
        """The shape of a step that feeds these sequences, at least one."""
        rows = new = longest_new = kept = longest_kept = logits = pairs = 0
        for fed in batch:
            n, s = fed.new_tokens, fed.cached_tokens
            rows, new, kept, logits = rows + 1, new + n, kept + s + n, logits + fed.logit_rows
            longest_new, longest_kept = max(longest_new, n), max(longest_kept, s + n)
            pairs += n * s + n * (n + 1) // 2
        return cls(rows, new, longest_new, kept, longest_kept, logits, pairs)


@dataclass(frozen=True, slots=True)
class Range:
    """The largest batches measured in a phase, padded; the smallest was one row of few tokens.

    No block of `Padding.kept_stops`, or in a decode of `Padding.row_stops`, straddles `longest_kept`.
    """

    rows: int
    new_tokens: int
    kept_tokens: int
    longest_kept: int

    def holds(self, shape: StepShape) -> bool:
        return (
            shape.rows <= self.rows
            and shape.new_tokens <= self.new_tokens
            and shape.kept_tokens <= self.kept_tokens
            and shape.longest_kept <= self.longest_kept
        )
