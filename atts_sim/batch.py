"""The calls that decode together, in sums: what a run of steps costs and when it ends takes no look at each row."""

from __future__ import annotations

from heapq import heappop, heappush

from atts_sim.calls import EngineCall


class DecodeBatch:
    """Rows of a decode. A row that joined with k tokens after s steps keeps k - s (its `offset`) more tokens than the
    batch has made steps; `step` counts those.

    A row that leaves is replaced by the last one, as in the embedded engine's batch.
    """

    __slots__ = ("_finishes", "_joins", "_longest", "_offsets", "rows", "size", "step")

    def __init__(self) -> None:
        self.rows: list[EngineCall] = []
        self.size = self.step = 0
        self._finishes: list[tuple[int, int, EngineCall]] = []
        self._offsets = self._longest = self._joins = 0

    def shape(self) -> tuple[int, int, int]:
        """Rows, the tokens that they keep together, and those that the longest keeps."""
        size, step = self.size, self.step
        return size, self._offsets + size * step, self._longest + step

    def join(self, call: EngineCall, tokens: int, left: int) -> None:
        """A row that keeps `tokens` and decodes `left` more."""
        offset = call.offset = tokens - self.step
        if not self.size or offset > self._longest:
            self._longest = offset
        self._offsets += offset
        call.row = self.size
        self.size += 1
        self.rows.append(call)
        self._joins += 1
        call.joined = self._joins
        heappush(self._finishes, (self.step + left, self._joins, call))

    def leave(self, call: EngineCall) -> int:
        """Out of the batch; returns the tokens that the row kept."""
        last = self.rows.pop()
        self.size -= 1
        if last is not call:
            last.row = call.row
            self.rows[call.row] = last
        call.joined = -1
        offset = call.offset
        self._offsets -= offset
        if offset == self._longest and self.size:
            self._longest = max([row.offset for row in self.rows])
        return offset + self.step

    def steps_left(self) -> int:
        """Steps until the first row is done; the batch is not empty."""
        finishes = self._finishes
        while finishes[0][2].joined != finishes[0][1]:
            heappop(finishes)
        return finishes[0][0] - self.step

    def done(self) -> list[EngineCall]:
        """Rows that have decoded what they had to, in no order."""
        finishes, done, step = self._finishes, [], self.step
        while finishes and finishes[0][0] <= step:
            _, joined, call = heappop(finishes)
            if call.joined == joined:
                done.append(call)
        return done
