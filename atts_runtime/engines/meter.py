"""Counts what the embedded engine's steps need, call by call, while they run. No torch here, and little else: two
engines share an interpreter, so a microsecond of bookkeeping a step is one that both may wait for.

An append's rows are counted as they are fed. A decoding row costs nothing extra a step: what it needed follows in
closed form from where it joined and left, but for its share of the weights, which depends on its neighbours and is
kept as a running sum.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from atts_runtime.engines.base import PHASES, Demand, EngineStats, Phase, Usage
from atts_runtime.engines.steps import Executed, Steps
from atts_runtime.profiler.counts import Rates


class Part(NamedTuple):
    """New tokens of a row, all of one phase. `usage` is the call's that they are fed for."""

    usage: Usage
    phase: Phase
    new_tokens: int
    logit_rows: int


class Joined(NamedTuple):
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
        self._executed = 0
        self._weight_bytes_a_row = 0.0
        self._fed: list[tuple[Demand, int]] = []  # the pass under way: phases and their tokens
        self._pass: tuple[float, ...] | None = None
        self._mark_s = 0.0

    @staticmethod
    def open(usage: Usage) -> None:
        """A call has come in: from now on it is counted."""
        usage.prefill, usage.own = Demand(), Demand()

    def begin(self, now_s: float) -> None:
        """The engine starts on a pass, or on a pair of them."""
        self._mark_s = now_s

    def append(self, cached_tokens: Sequence[int], rows: Sequence[tuple[Part, ...]], executed: Executed) -> None:
        """A pass has fed each row its parts in order, on top of so many cached tokens."""
        rates, phases = self._rates, self._phases
        lengths = [sum(part[2] for part in parts) for parts in rows]
        fed, logit_rows = sum(lengths), sum(part[3] for parts in rows for part in parts)
        weight_bytes_a_token = rates.weight_bytes(fed, logit_rows) / fed
        flops, moved, longest = 0, 0.0, 0
        self._fed = []
        for cached, n_row, parts in zip(cached_tokens, lengths, rows, strict=True):
            kept = cached + n_row
            longest = max(longest, kept)
            # The row's cache is read once for all of its new tokens; each writes its own.
            bytes_a_token = weight_bytes_a_token + rates.kv_bytes * (kept / n_row + 1)
            for usage, phase, n, logits in parts:
                charged = usage.prefill if phase == "prefill" else usage.own
                needed, bytes_ = rates.flops(n, n * kept, logits), n * bytes_a_token
                if charged is not None:  # else the call came in before the counting began
                    charged.add(n, needed, bytes_)
                phases[phase].add(n, needed, bytes_)
                self._fed.append((phases[phase], n))
                flops, moved = flops + needed, moved + bytes_
        kept_tokens = sum(cached_tokens) + fed
        shape = (1, len(rows), fed, max(lengths), kept_tokens, longest, logit_rows)
        self._pass = (*shape, flops, moved, self._flops(executed), *executed[1:])

    def decode(self, cached_tokens: Sequence[int], executed: Executed) -> None:
        """A pass has fed one token to each row, on top of so many cached ones."""
        rates, rows = self._rates, len(cached_tokens)
        kept = sum(cached_tokens) + rows
        weight_bytes = rates.weight_bytes(rows, rows)
        flops, moved = rates.flops(rows, kept, rows), weight_bytes + rates.kv_bytes * (kept + rows)
        self._weight_bytes_a_row += weight_bytes / rows
        demand = self._phases["decode"]
        demand.add(rows, flops, moved)
        self._fed = [(demand, rows)]
        shape = (0, rows, rows, 1, kept, max(cached_tokens) + 1, rows)
        self._pass = (*shape, flops, moved, self._flops(executed), *executed[1:])

    def joined(self, cached_tokens: int) -> Joined:
        """A row enters the decode batch."""
        return Joined(cached_tokens, self._weight_bytes_a_row)

    def left(self, joined: Joined, cached_tokens: int, usage: Usage) -> None:
        """The row leaves it with so many cached tokens: charge the call."""
        rates, steps = self._rates, cached_tokens - joined.cached_tokens
        kept = steps * joined.cached_tokens + steps * (steps + 1) // 2
        weight_bytes = self._weight_bytes_a_row - joined.weight_bytes_a_row
        if usage.own is not None:  # else the call came in before the counting began
            usage.own.add(steps, rates.flops(steps, kept, steps), weight_bytes + rates.kv_bytes * (kept + steps))

    def _flops(self, executed: Executed) -> int:
        return self._rates.flops(executed.tokens, executed.pairs, executed.tokens)

    def lap(self) -> None:
        """The pass is over, if there was one: log it."""
        done = self._pass
        if done is None:
            return
        now_s = time.perf_counter()
        duration_s = now_s - self._mark_s
        self.steps.add((self._mark_s, duration_s, *done))
        self._pass, self._mark_s = None, now_s
        *_, flops_executed, _, _ = done
        self._executed += int(flops_executed)
        self._stats.flops_executed = self._executed
        a_token_s = duration_s / done[2]
        for demand, n in self._fed:
            demand.seconds += a_token_s * n
