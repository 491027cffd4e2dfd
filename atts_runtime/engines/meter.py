"""Counts what the embedded engine's steps need, call by call, while they run. No torch here.

An append's rows are counted as they are fed. A decoding row costs nothing extra a step: what it needed follows in
closed form from where it joined and left, but for its share of the weights, which depends on its neighbours and is
kept as a running sum.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from atts_runtime.engines.base import PHASES, Demand, EngineStats, Phase, Usage
from atts_runtime.engines.steps import Step, Steps
from atts_runtime.profiler.counts import Rates

Padded = tuple[int, int, int, int]
"""Rows, rows that attend, new tokens a row, and cached positions a row, padding included."""


@dataclass(frozen=True, slots=True)
class Part:
    """New tokens of a row, all of one phase. `usage` is the call's that they are fed for."""

    usage: Usage
    phase: Phase
    new_tokens: int
    logit_rows: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an append: its cached tokens, and the parts that it is fed in order."""

    cached_tokens: int
    parts: tuple[Part, ...]

    @property
    def new_tokens(self) -> int:
        return sum(part.new_tokens for part in self.parts)


@dataclass(frozen=True, slots=True)
class Joined:
    """A row's entry into the decode batch: its cached tokens, and the weights' running sum."""

    cached_tokens: int
    weight_bytes_a_row: float


class Meter:
    """Adds to `stats` and `steps`; `rates` are the model's."""

    def __init__(self, rates: Rates, stats: EngineStats) -> None:
        self._rates, self._stats = rates, stats
        self.steps = Steps()
        self._phases: dict[Phase, Demand] = {phase: Demand() for phase in PHASES}
        stats.phases, stats.flops_executed = self._phases, 0
        self._weight_bytes_a_row = 0.0
        self._tokens: dict[Phase, int] = {}
        self._step: Step | None = None
        self._mark_s = 0.0

    @staticmethod
    def open(usage: Usage) -> None:
        """A call has come in: from now on it is counted."""
        usage.prefill, usage.own = Demand(), Demand()

    def begin(self, now_s: float) -> None:
        """The engine starts on a pass, or on a pair of them."""
        self._mark_s = now_s

    def append(self, rows: Sequence[Row], padded: Padded) -> None:
        """A pass has fed these rows; `padded` is the batch that was computed."""
        rates = self._rates
        fed = sum(row.new_tokens for row in rows)
        kept = sum(row.cached_tokens + row.new_tokens for row in rows)
        logit_rows = sum(part.logit_rows for row in rows for part in row.parts)
        weight_bytes_a_token = rates.weight_bytes(fed, logit_rows) / fed
        flops, moved, self._tokens = 0, 0.0, {}
        for row in rows:
            length = row.cached_tokens + row.new_tokens
            kv_bytes_a_token = rates.kv_bytes * (length / row.new_tokens + 1)  # the row's cache read, and a token's own
            for part in row.parts:
                n = part.new_tokens
                needed = rates.flops(n, n * length, part.logit_rows)
                bytes_ = n * (weight_bytes_a_token + kv_bytes_a_token)
                self._charge(part, needed, bytes_)
                flops, moved = flops + needed, moved + bytes_
        longest = max(row.cached_tokens + row.new_tokens for row in rows)
        widest = max(row.new_tokens for row in rows)
        shape = (len(rows), fed, widest, kept, longest, logit_rows)
        self._log(Step(self._mark_s, 0.0, 1, *shape, flops, moved, 0), padded)

    def _charge(self, part: Part, flops: int, bytes_: float) -> None:
        n = part.new_tokens
        charged = part.usage.prefill if part.phase == "prefill" else part.usage.own
        assert charged is not None  # since `open`
        charged.add(n, flops, bytes_)
        self._phases[part.phase].add(n, flops, bytes_)
        self._tokens[part.phase] = self._tokens.get(part.phase, 0) + n

    def decode(self, cached_tokens: Sequence[int], padded: Padded) -> None:
        """A pass has fed one token to each row, on top of so many cached ones."""
        rates, rows = self._rates, len(cached_tokens)
        kept = sum(cached_tokens) + rows
        weight_bytes = rates.weight_bytes(rows, rows)
        flops, moved = rates.flops(rows, kept, rows), weight_bytes + rates.kv_bytes * (kept + rows)
        self._weight_bytes_a_row += weight_bytes / rows
        self._phases["decode"].add(rows, flops, moved)
        self._tokens = {"decode": rows}
        shape = (rows, rows, 1, kept, max(cached_tokens) + 1, rows)
        self._log(Step(self._mark_s, 0.0, 0, *shape, flops, moved, 0), padded)

    def joined(self, cached_tokens: int) -> Joined:
        """A row enters the decode batch."""
        return Joined(cached_tokens, self._weight_bytes_a_row)

    def left(self, joined: Joined, cached_tokens: int, usage: Usage) -> None:
        """The row leaves it with so many cached tokens: charge the call."""
        rates, steps = self._rates, cached_tokens - joined.cached_tokens
        kept = steps * joined.cached_tokens + steps * (steps + 1) // 2
        weight_bytes = self._weight_bytes_a_row - joined.weight_bytes_a_row
        assert usage.own is not None  # since `open`
        usage.own.add(steps, rates.flops(steps, kept, steps), weight_bytes + rates.kv_bytes * (kept + steps))

    def _log(self, step: Step, padded: Padded) -> None:
        executed = self.executed(*padded)
        assert self._stats.flops_executed is not None
        self._stats.flops_executed += executed
        self._step = step._replace(flops_executed=executed)

    def executed(self, rows: int, attending: int, new: int, time_: int) -> int:
        """FLOPs of a padded pass: `rows` of `new` tokens, of which `attending` rows look at `time_` positions."""
        return self._rates.flops(rows * new, attending * new * time_, rows * new)

    def lap(self) -> None:
        """The pass is over."""
        if self._step is None:
            return
        now_s = time.perf_counter()
        duration_s, self._mark_s = now_s - self._mark_s, now_s
        self.steps.add(self._step._replace(duration_s=duration_s))
        self._step = None
        fed = sum(self._tokens.values())
        for phase, n in self._tokens.items():
            self._phases[phase].seconds += duration_s * n / fed
