"""What vLLM says of its steps, as the runtime's totals: a stat logger, one per engine.

vLLM reports a step when it is over: how many requests read their prompt and how many drew, how many tokens of either,
how long it took, how full its KV is. It does not say which requests took part, so a call is charged in closed form
(`profiler.counts`) from the times at which it drew its first and its last token; those are by the core's clock,
CLOCK_MONOTONIC, which `time.perf_counter` also reads. Its share of the weights' bytes and of the steps' seconds is that
of its tokens among a step's. Speculative decoding draws several tokens a step: they count as if drawn one by one.

The cached tokens of a step are what the open calls add up to, since vLLM does not report them either.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from dataclasses import replace
from typing import Any

from atts_runtime.engines.base import PHASES, Demand, EngineStats, Usage
from atts_runtime.engines.request import Request
from atts_runtime.engines.steps import Steps
from atts_runtime.profiler.counts import Rates


class VllmLog:
    """Totals of an engine. `rates` are the model's, `kv_capacity_tokens` its pool's; both None until they are known."""

    def __init__(self) -> None:
        self.rates: Rates | None = None
        self.kv_capacity_tokens: int | None = None
        self.reset(counted=True)

    def reset(self, *, counted: bool) -> None:
        """Forget all totals; from here on steps are counted, or not."""
        self._counted = counted and self.rates is not None
        self._stats = EngineStats(
            idle_s=0.0,
            evictions=None,
            phases={phase: Demand() for phase in PHASES} if self._counted else None,
            flops_executed=0 if self._counted else None,
            running=0,
            waiting=0,
            preemptions=0,
            prefix_queried_tokens=0,
            prefix_hit_tokens=0,
            kv_capacity_tokens=self.kv_capacity_tokens,
        )
        self._steps = Steps()
        self._at_s, self._weight_bytes, self._seconds = array("d"), array("d"), array("d")  # by step; the last two sums
        self._open = self._open_tokens = 0
        self._since_s = time.perf_counter()

    # -- calls, as the front end sees them

    def usage(self) -> Usage:
        """For a call that has just come in."""
        usage = Usage(time.perf_counter())
        if self._counted:
            usage.prefill, usage.own = Demand(), Demand()
        return usage

    def opened(self, tokens: int) -> None:
        """A request has gone to vLLM with so many ids."""
        if not self._open:
            self._stats.idle_s = (self._stats.idle_s or 0.0) + self._lap_s()
        self._open += 1
        self._open_tokens += tokens

    def closed(self, tokens: int, drawn: int) -> None:
        """It is answered, or given up; it drew so many, as far as is known."""
        if not self._open:  # it was opened before the last reset
            return
        self._open -= 1
        self._open_tokens -= tokens + drawn
        if not self._open:
            self._stats.busy_s += self._lap_s()
            self._open_tokens = 0

    def _lap_s(self) -> float:
        now_s = time.perf_counter()
        lap_s, self._since_s = now_s - self._since_s, now_s
        return lap_s

    def stats(self) -> EngineStats:
        """A copy of the totals."""
        now_s, stats = time.perf_counter() - self._since_s, self._stats
        busy_s = stats.busy_s + (now_s if self._open else 0.0)
        idle_s = (stats.idle_s or 0.0) + (0.0 if self._open else now_s)
        phases = None if stats.phases is None else {name: replace(demand) for name, demand in stats.phases.items()}
        return replace(stats, busy_s=busy_s, idle_s=idle_s, phases=phases)

    @property
    def steps(self) -> Steps | None:
        """Every step since the last reset; None where they are not counted."""
        return self._steps if self._counted else None

    @property
    def at_rest(self) -> bool:
        """Whether vLLM has reported that nothing runs or waits."""
        return not (self._open or self._stats.running or self._stats.waiting)

    def seen(self, t_s: float) -> bool:
        """Whether the step that ended at `t_s` has been reported."""
        return bool(self._at_s) and self._at_s[-1] >= t_s

    def charge(self, usage: Usage, request: Request, *, cached: int, drawn: int, first_s: float, last_s: float) -> None:
        """Count what a request needed: ids that were not `cached`, and tokens `drawn` from `first_s` to `last_s`.

        A call to score draws one token as vLLM will have it, which feeds nothing.
        """
        if not self._at_s or usage.prefill is None or usage.own is None:
            return
        assert self.rates is not None
        rates, kept = self.rates, len(request.full)
        first, last = self._step(first_s), self._step(last_s)
        weights, seconds = self._weight_bytes[first], self._seconds[first]
        if first:
            weights, seconds = weights - self._weight_bytes[first - 1], seconds - self._seconds[first - 1]
        context = max(0, request.context - cached)
        segment = max(0, kept - max(cached, request.context))
        for phase, demand, n, rows in (
            ("prefill", usage.prefill, context, 1),
            ("score", usage.own, segment, segment),
        ):
            if n:
                bytes_ = n * (weights + rates.kv_bytes * (kept / (context + segment) + 1))
                self._add(phase, demand, n, rates.flops(n, n * kept, rows), bytes_, n * seconds)
        n = drawn - 1  # the first comes from the logits of the last id fed
        if n > 0:
            pairs = n * kept + n * (n + 1) // 2
            bytes_ = self._weight_bytes[last] - self._weight_bytes[first] + rates.kv_bytes * (pairs + n)
            seconds = self._seconds[last] - self._seconds[first]
            self._add("decode", usage.own, n, rates.flops(n, pairs, n), bytes_, seconds)

    def _add(self, phase: Any, demand: Demand, tokens: int, flops: int, bytes_: float, seconds: float) -> None:
        assert self._stats.phases is not None
        demand.add(tokens, flops, bytes_)
        whole = self._stats.phases[phase]
        whole.add(tokens, flops, bytes_)
        whole.seconds += seconds

    def _step(self, t_s: float) -> int:
        return min(bisect_left(self._at_s, t_s), len(self._at_s) - 1)

    # -- vLLM's StatLoggerBase

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> VllmLog:
        """As the factory that vLLM asks for: itself, for all of its engine cores."""
        return self

    def log_engine_initialized(self) -> None: ...

    def log(self) -> None: ...

    def record_sleep_state(self, is_awake: int, level: int) -> None: ...

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """A step is over."""
        stats, now_s = self._stats, time.perf_counter()
        if iteration_stats is not None:
            stats.preemptions = (stats.preemptions or 0) + iteration_stats.num_preempted_reqs
        if scheduler_stats is None:
            return
        stats.running, stats.waiting = scheduler_stats.num_running_reqs, scheduler_stats.num_waiting_reqs
        prefix = scheduler_stats.prefix_cache_stats
        if prefix is not None:
            stats.prefix_queried_tokens = (stats.prefix_queried_tokens or 0) + prefix.queries
            stats.prefix_hit_tokens = (stats.prefix_hit_tokens or 0) + prefix.hits
        guesses = scheduler_stats.spec_decoding_stats
        if guesses is not None:
            stats.speculated_tokens = (stats.speculated_tokens or 0) + guesses.num_draft_tokens
            stats.accepted_tokens = (stats.accepted_tokens or 0) + guesses.num_accepted_tokens
        if self.kv_capacity_tokens is not None:
            stats.kv_tokens = round(scheduler_stats.kv_cache_usage * self.kv_capacity_tokens)
            stats.kv_peak_tokens = max(stats.kv_peak_tokens, stats.kv_tokens)
        details = scheduler_stats.iteration_details
        if details is not None and not details.is_dummy:
            self._step_over(details, scheduler_stats.perf_stats, now_s)

    def _step_over(self, details: Any, perf: Any, now_s: float) -> None:
        stats, duration_s = self._stats, details.elapsed_ms / 1000
        drawing, fed = details.num_generation_requests, details.num_ctx_tokens
        rows, tokens = drawing + details.num_ctx_requests, fed + details.num_generation_tokens
        stats.steps += 1
        stats.decode_steps += bool(drawing)
        stats.decode_rows += drawing
        stats.prefilled_tokens += fed
        if not self._counted or not tokens:
            return
        assert self.rates is not None
        rates = self.rates
        share = rows / self._open if self._open > rows else 1.0
        kept = max(self._open_tokens * share, tokens)
        self._open_tokens += rows if not details.num_generation_tokens else details.num_generation_tokens
        pairs = kept * (tokens / rows)
        weight_bytes = rates.weight_bytes(tokens, rows)
        flops, moved = rates.flops(tokens, round(pairs), rows), weight_bytes + rates.kv_bytes * (kept + tokens)
        executed = 0
        if perf is not None:
            executed = perf.num_flops_per_gpu
            stats.flops_executed = (stats.flops_executed or 0) + executed
        unknown = float("nan")
        shape = (int(fed > 0), rows, tokens, unknown, kept, unknown, rows)
        self._steps.add((now_s - duration_s, duration_s, *shape, flops, moved, executed, unknown, unknown))
        before = (self._weight_bytes[-1], self._seconds[-1]) if self._at_s else (0.0, 0.0)
        self._at_s.append(now_s)
        self._weight_bytes.append(before[0] + weight_bytes / tokens)
        self._seconds.append(before[1] + duration_s / tokens)
