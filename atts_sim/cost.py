"""What engine steps cost: the interface to a step-time model, and runs of decode steps in closed form.

A decode step of n rows keeps n more tokens than the one before it. At a fixed number of rows, and while the longest row
stays within one block of padding, its time is the largest of a few affine functions of the tokens kept (`DecodeLines`:
compute-bound, memory-bound, each with its overhead). So k steps are an arithmetic series per line and block, and how
many steps fit into a time is a quadratic's root. Both are O(blocks of padding), whatever k is.

Where each row is padded by itself (`Padding.row_stops`), what rows attend over stays what it is until one outgrows its
stop, which ends the run: all steps of a run then take the same time.

Shapes, costs and lines are those of the profiler's step model, which is one `StepCost`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple, Protocol

from atts_runtime.profiler.steptime import Cost, DecodeLines, Phase, StepShape

__all__ = ["Cost", "DecodeLines", "DecodeRuns", "Phase", "StepCost", "StepShape"]


class StepCost(Protocol):
    """Seconds of an engine's steps, what passes between them included. Who inherits from it has no groups of rows."""

    @property
    def row_stops(self) -> tuple[int, ...]:
        """As in `Padding`: with them, what decoding rows read is the positions that they attend over, else the tokens
        that they keep."""
        return ()

    @property
    def group_s(self) -> float:
        """Of each group of rows beyond the first: what `cost` adds for it and `decode_lines` do not have."""
        return 0.0

    def cost(self, phase: Phase, shape: StepShape, /) -> Cost:
        """Of one pass."""

    def decode_lines(self, rows: int, longest_kept: int, /) -> DecodeLines:
        """Of decode passes of so many rows, for the block of padding that `longest_kept` lies in."""


class _Piece(NamedTuple):
    """Where one line is the largest: at up to `kept` tokens kept."""

    kept: float
    seconds: float
    per_token: float


_Block = tuple[int | None, tuple[_Piece, ...], bool]
_Series = tuple[int, float, float]
"""How many steps, the first one's seconds, and what each adds to the one before."""
_ALL = 1 << 62
_LONG = 128  # steps of a run from which on it is worth while to have all blocks summed up


class _Stairs:
    """Steps whose time hangs on their block of padding alone, up to the last block that was asked for. `ends`: the
    longest rows that blocks end with; `totals`: seconds of one step at each length, all up to there together; `whole`:
    the next block is of another kind."""

    __slots__ = ("each", "ends", "totals", "whole")

    def __init__(self) -> None:
        self.whole = False
        self.ends, self.totals, self.each = [0], [0.0], [0.0]

    def add(self, end: int, seconds: float) -> None:
        """One more block, of steps of so many seconds."""
        self.totals.append(self.totals[-1] + seconds * (end - self.ends[-1]))
        self.ends.append(end)
        self.each.append(seconds)

    def upto(self, longest: int) -> float:
        """Seconds of steps at lengths from 1 to `longest`, which lies in a known block."""
        block = bisect_left(self.ends, longest)
        return self.totals[block] - self.each[block] * (self.ends[block] - longest)

    def reach(self, seconds: float) -> int:
        """The length, about, at which that many seconds are full."""
        block = min(max(bisect_left(self.totals, seconds), 1), len(self.ends) - 1)
        return self.ends[block] - int((self.totals[block] - seconds) / self.each[block])


class DecodeRuns:
    """Runs of decode steps of one engine in closed form.

    A run starts from `rows` rows that keep `kept` tokens in total and `longest` at most; its j-th step (from 1) keeps
    kept + j * rows and longest + j. Of an engine with `row_stops`, `kept` is what the rows attend over, in each step of
    a run the same, as are the seconds `more` that each of its steps takes besides. What it has asked of the step model
    it keeps: engines of one model can share it.
    """

    def __init__(self, cost: StepCost) -> None:
        self._cost, self._grows = cost, not cost.row_stops
        self._known: dict[int, dict[int, _Block]] = {}
        self._unpadded: dict[int, _Block] = {}
        self._stairs: dict[int, _Stairs] = {}  # by rows
        self._vouched: dict[int, list[int]] = {}  # by rows: the longest known to be inside, the shortest outside

    def seconds(self, rows: int, kept: int, longest: int, steps: int, more: float = 0.0) -> float:
        """Time of `steps` steps."""
        block = self._unpadded.get(rows) or self._block(rows, longest + 1)
        end, seconds, per_token = block[1][0]
        grown = rows if self._grows else 0
        if kept + grown * steps <= end and (block[0] is None or longest + steps <= block[0]):
            return steps * (more + seconds + per_token * (kept + grown * (steps + 1) / 2))
        if steps > _LONG and (stairs := self._stairs_to(rows, longest + steps)) is not None:
            return stairs.upto(longest + steps) - stairs.upto(longest)
        return math.fsum([_sum(*series) for series in self._series(rows, kept, longest, steps, more)])

    def until(
        self, rows: int, kept: int, longest: int, steps: int, time_s: float, more: float = 0.0
    ) -> tuple[int, float]:
        """The least number of steps, at least one and at most `steps`, that take `time_s` or longer; and their time."""
        if steps > _LONG and (stairs := self._stairs_to(rows, longest + steps)) is not None:
            before = stairs.upto(longest)
            found = min(max(stairs.reach(before + time_s) - longest, 1), steps)
            while found < steps and stairs.upto(longest + found) - before < time_s:
                found += 1
            while found > 1 and stairs.upto(longest + found - 1) - before >= time_s:
                found -= 1
            return found, stairs.upto(longest + found) - before
        done, total = 0, 0.0
        for count, first, growth in self._series(rows, kept, longest, steps, more):
            whole = _sum(count, first, growth)
            if total + whole >= time_s:
                part = _steps_for(time_s - total, count, first, growth)
                while part > 1 and total + _sum(part - 1, first, growth) >= time_s:
                    part -= 1
                taken = total + _sum(part, first, growth)
                while taken < time_s and part < count:
                    part += 1
                    taken = total + _sum(part, first, growth)
                return done + part, taken
            done += count
            total += whole
        return done, total

    def outside_s(self, rows: int, kept: int, longest: int, steps: int, seconds: float, more: float = 0.0) -> float:
        """Of the `seconds` that the run takes, those of steps that the model does not vouch for: the last ones, as what
        it vouches for ends with the longest row."""
        vouched = self._vouched.get(rows)
        if (vouched is not None and longest + steps <= vouched[0]) or self._inside(rows, longest + steps):
            return 0.0
        least, most = self._vouched[rows]
        low, high = max(0, least - longest), min(steps, most - longest)  # it vouches for `low` steps, not for `high`
        while high - low > 1:
            middle = (low + high) // 2
            if self._inside(rows, longest + middle):
                low = middle
            else:
                high = middle
        return seconds - self.seconds(rows, kept, longest, low, more) if low else seconds

    def _inside(self, rows: int, longest: int) -> bool:
        known = self._vouched.get(rows)
        if known is None:
            always = self._block(rows, longest)[0] is None and self._cost.decode_lines(rows, _ALL).inside
            known = self._vouched[rows] = [_ALL if always else 0, _ALL]
        least, most = known
        if least < longest < most:
            until, _, inside = self._block(rows, longest)
            if until is None:  # its block is the same for any longest row
                inside = self._cost.decode_lines(rows, longest).inside
            known[not inside] = longest
            return inside
        return longest <= least

    def _series(self, rows: int, kept: int, longest: int, steps: int, more: float) -> list[_Series]:
        """The run as arithmetic series, one for each line that is the largest and each block of padding."""
        block, grown = self._unpadded.get(rows), rows if self._grows else 0
        if block is not None:
            end, seconds, per_token = block[1][0]
            if kept + grown * steps <= end:
                return [(steps, more + seconds + per_token * (kept + grown), per_token * grown)]
        found: list[_Series] = []
        done = 0
        while done < steps:
            until, pieces, _ = self._block(rows, longest + done + 1)
            last = steps if until is None or until - longest > steps else until - longest
            for until_kept, seconds, per_token in pieces:
                end = last if kept + grown * last <= until_kept else math.floor((until_kept - kept) / rows)
                if end > done:
                    first = more + seconds + per_token * (kept + (done + 1) * grown)
                    found.append((end - done, first, per_token * grown))
                    done = end
                    if done == last:
                        break
        return found

    def _stairs_to(self, rows: int, longest: int) -> _Stairs | None:
        """Of all blocks up to that longest row; None where one of them is none of a single time, or rows are padded by
        themselves. What is returned does not hang on what was asked before: processes that have seen different runs
        agree to the last bit."""
        if not self._grows:
            return None
        stairs = self._stairs.get(rows)
        if stairs is None:
            stairs = self._stairs[rows] = _Stairs()
        while stairs.ends[-1] < longest:
            if stairs.whole:
                return None
            until, pieces, _ = self._block(rows, stairs.ends[-1] + 1)
            if until is None or len(pieces) > 1 or pieces[0].per_token:
                stairs.whole = True
            else:
                stairs.add(until, pieces[0].seconds)
        return stairs

    def _block(self, rows: int, longest: int) -> _Block:
        block = self._unpadded.get(rows)
        if block is None:
            known = self._known.setdefault(rows, {})
            block = known.get(longest)
            if block is None:
                lines, constant, until, inside = self._cost.decode_lines(rows, longest)
                block = (until, _envelope([(constant + a, b) for a, b in lines]), inside)
                if until is None:
                    self._unpadded[rows] = block
                else:
                    known.update(dict.fromkeys(range(longest, until + 1), block))
        return block


def _sum(count: int, first: float, growth: float) -> float:
    """Of `count` terms, of which each is larger by `growth` than the one before."""
    return count * (first + growth * (count - 1) / 2)


def _envelope(lines: list[tuple[float, float]]) -> tuple[_Piece, ...]:
    """The largest of the lines, from no tokens on upwards; the last piece has no end."""
    hull: list[tuple[float, float]] = []
    ends: list[float] = []
    for seconds, per_token in sorted(lines, key=lambda line: (line[1], line[0])):
        if hull and hull[-1][1] == per_token:
            hull.pop()
            ends = ends[: len(hull)]
        while hull:
            cross = (hull[-1][0] - seconds) / (per_token - hull[-1][1])
            if cross > (ends[-2] if len(ends) > 1 else 0.0):
                ends[-1] = cross
                break
            hull.pop()
            ends.pop()
        hull.append((seconds, per_token))
        ends.append(math.inf)
    return tuple(_Piece(end, *line) for end, line in zip(ends, hull, strict=True))


def _steps_for(time_s: float, count: int, first: float, growth: float) -> int:
    """About how many steps of the series take `time_s`, between 1 and `count`; exact but for rounding."""
    if time_s <= 0:
        return 1
    b = first - growth / 2
    square = b * b + 2 * growth * time_s
    root = math.sqrt(square) if square > 0 else 0.0
    if not b + root > 0:
        return count
    steps = math.ceil(2 * time_s / (b + root))
    return 1 if steps < 1 else steps if steps < count else count
