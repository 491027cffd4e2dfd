"""The calls that decode together, in sums: what a run of steps costs and when it ends takes no look at each row."""

from __future__ import annotations

from heapq import heappop, heappush

from atts_runtime.profiler.padding import fitting
from atts_sim.calls import EngineCall


class DecodeBatch:
    """Rows of a decode. A row that joined with k tokens after s steps keeps k - s (its `offset`) more tokens than the
    batch has made steps; `step` counts those.

    A row that leaves is replaced by the last one, as in the embedded engine's batch. `stops`: `Padding.row_stops`.
    """

    __slots__ = (
        "_attended", "_finishes", "_groups", "_joins", "_longest", "_offsets", "_outgrown", "_stops", "rows", "size",
        "step",
    )  # fmt: skip

    def __init__(self, stops: tuple[int, ...] = ()) -> None:
        self.rows: list[EngineCall] = []
        self.size = self.step = 0
        self._finishes: list[tuple[int, int, EngineCall]] = []
        self._offsets = self._longest = self._joins = self._attended = 0
        self._stops = stops
        self._groups: dict[int, int] = {}  # rows by what they attend over
        # When a row outgrows what it attends over, the how manieth it was to join, when it is done, and the row.
        self._outgrown: list[tuple[int, int, int, EngineCall]] = []

    def shape(self) -> tuple[int, int, int]:
        """Rows, the tokens that they keep together, and those that the longest keeps."""
        size, step = self.size, self.step
        return size, self._offsets + size * step, self._longest + step

    def read(self) -> tuple[int, int, int]:
        """`shape`, with stops by what rows attend over in the next step in place of what they keep."""
        if not self._stops:
            return self.shape()
        self._move_on()
        return self.size, self._attended, self._longest + self.step

    @property
    def more_groups(self) -> int:
        """Groups of rows that attend together, beyond the first; as of the last `read`."""
        return len(self._groups) - 1 if self._groups else 0

    def _move_on(self) -> None:
        """Rows that would outgrow their stop in the next step attend over the next one."""
        outgrown, step = self._outgrown, self.step
        while outgrown and outgrown[0][0] <= step:
            _, joined, done, call = heappop(outgrown)
            if call.joined == joined:
                self._unreach(call)
                self._reach(call, done)

    def _reach(self, call: EngineCall, done: int) -> None:
        """What a row attends over from the next step on, until it is done with step `done` or outgrows it."""
        reach = call.reach = fitting(self._stops, call.offset + self.step + 1)
        self._attended += reach
        self._groups[reach] = self._groups.get(reach, 0) + 1
        if reach - call.offset < done:
            heappush(self._outgrown, (reach - call.offset, call.joined, done, call))

    def _unreach(self, call: EngineCall) -> None:
        self._attended -= call.reach
        left = self._groups[call.reach] - 1
        if left:
            self._groups[call.reach] = left
        else:
            del self._groups[call.reach]

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
        if self._stops:
            self._reach(call, self.step + left)

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
        if self._stops:
            self._unreach(call)
        if offset == self._longest and self.size:
            self._longest = max([row.offset for row in self.rows])
        return offset + self.step

    def steps_left(self) -> int:
        """Steps until the first row is done, or attends over more than before; the batch is not empty."""
        finishes = self._finishes
        while finishes[0][2].joined != finishes[0][1]:
            heappop(finishes)
        first = finishes[0][0]
        if self._outgrown:
            self._move_on()
            outgrown = self._outgrown
            while outgrown and outgrown[0][3].joined != outgrown[0][1]:
                heappop(outgrown)
            if outgrown and outgrown[0][0] < first:
                first = outgrown[0][0]
        return first - self.step

    def done(self) -> list[EngineCall]:
        """Rows that have decoded what they had to, in no order."""
        finishes, done, step = self._finishes, [], self.step
        while finishes and finishes[0][0] <= step:
            _, joined, call = heappop(finishes)
            if call.joined == joined:
                done.append(call)
        return done
