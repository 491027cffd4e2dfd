"""The scheduling of vLLM's engine (V1): a step mixes decodes and prefills under one budget of tokens.

In tokens and blocks, by its rules (docs.vllm.ai, ``vllm/v1/core/sched/scheduler.py`` of 0.11 and later):

- A step has ``max_num_batched_tokens``. Running calls come first: a token for each that decodes, then the rest of a
  prefill that was cut. Then waiting calls are let in, first come first served, while there are tokens, rows
  (``max_num_seqs``) and blocks for all that they must be fed.
- What is cached of a call's prefix, in full blocks, is not fed again (`blocks`). At least one token is; of a score all
  from the last one before the segment on, whose logits it needs.
- Where a decode needs a block and there is none, the call admitted last goes back to the head of those that wait, and
  computes again what is no longer cached when it returns. In such a step nobody is let in.
- A score is a prefill that draws one token, which nobody reads.

A step with any prefill in it is one pass of phase ``append``, decoding rows included; others are decodes. Unlike vLLM,
a call gets the blocks of its whole prefill when it is let in, not chunk by chunk, and without chunking a prefill above
the budget goes with no other, where vLLM refuses it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from atts_runtime.control.events import ChainId
from atts_runtime.errors import InputError
from atts_sim.batch import DecodeBatch
from atts_sim.blocks import BlockPool, Seat
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import Clock
from atts_sim.cost import StepShape
from atts_sim.growth import Growth

_ALL = 1 << 62


class Mixed:
    """A `Discipline`: vLLM's."""

    decodes_after_pass = False
    taken_s = 0.0

    def __init__(
        self, clock: Clock, spec: EngineSpec, batch: DecodeBatch, answer: Callable[[EngineCall], None]
    ) -> None:
        assert spec.paged is not None
        self._clock, self._batch, self._answer = clock, batch, answer
        self._rows, self._step_tokens, self._chunked = spec.max_rows, spec.step_tokens, spec.paged.chunked
        self._pool = BlockPool(spec.paged)
        self._waiting: deque[EngineCall] = deque()
        self._running: dict[EngineCall, None] = {}  # in the order of admission
        self._partial: EngineCall | None = None  # the one whose prefill was cut: the last of those that run
        self._fed: list[tuple[EngineCall, int, int]] = []  # in this step's pass, from and to how many tokens
        self._growth = Growth(batch, spec.paged.block_tokens)
        self._ahead = 0  # decode steps to come whose blocks have been taken
        self._any_dropped = self._preempted = False
        self._admissions = self._prefilled = self._preemptions = 0

    def state(self, totals: Totals) -> None:
        pool = self._pool
        totals.prefilled_tokens, totals.preemptions = self._prefilled, self._preemptions
        totals.evictions = pool.evictions
        totals.kv_tokens, totals.kv_peak_tokens = pool.used * pool.size, pool.peak * pool.size

    # -- messages

    def add(self, call: EngineCall) -> None:
        pool = self._pool
        most = call.full_tokens + (0 if call.kind == "score" else call.new_tokens - 1)
        if -(-most // pool.size) > pool.blocks:
            raise InputError(
                f"a call of {most} tokens does not fit into {pool.blocks} KV blocks of {pool.size} tokens; give the "
                "engine more memory or a higher share of it, or shorten the chains"
            )
        call.held = pool.seat(call)
        self._waiting.append(call)

    def queued(self, call: EngineCall) -> bool:
        if not self._waiting and len(self._running) < self._rows:
            return False
        self.add(call)
        return True

    def drop(self, call: EngineCall) -> None:
        call.dropped = self._any_dropped = True

    def release(self, chain: ChainId) -> None:
        """vLLM is not told that a chain is over: its blocks are taken as they get old."""

    def idle(self, chain: ChainId) -> bool | None:
        return None

    def release_in_run(self, chain: ChainId, steps: int) -> None:
        """As `release`."""

    # -- scheduling

    def schedule(self) -> StepShape | None:
        self._fed.clear()
        if self._any_dropped:
            self._any_dropped = False
            for call in [call for call in self._running if call.dropped]:
                self._leave(call)
        need = self._growth.next()
        self._preempted = need > self._pool.blocks - self._pool.used
        if self._preempted:
            self._preempt(need)
        if not self._waiting and self._partial is None:
            return None
        rows = self._batch.size
        if rows and not self._ahead:
            if need:
                self._pool.take(need)
            self._ahead = 1
        budget = self._step_tokens - rows
        if self._partial is not None:
            budget = self._feed(self._partial, budget)
        if not self._preempted:
            self._admit(budget)
        return self._shape() if self._fed else None

    def _admit(self, budget: int) -> None:
        waiting, running, pool, most_rows = self._waiting, self._running, self._pool, self._rows
        while waiting and budget > 0 and len(running) < most_rows:
            call = waiting[0]
            if call.dropped:
                waiting.popleft()
                continue
            seat: Seat = call.held
            if not pool.fits(seat):
                return
            most = (call.context_tokens if call.kind == "score" else seat.full) - 1
            if not self._chunked and self._fed and seat.full - pool.hit(seat, most) > budget:
                return
            waiting.popleft()
            pool.sit(seat, most)
            self._count(call, seat)
            self._admissions += 1
            seat.order = self._admissions
            running[call] = None
            budget = self._feed(call, budget)

    def _count(self, call: EngineCall, seat: Seat) -> None:
        """Write down what of the call's context is cached; a call that comes back adds what it computes again."""
        chain, cached = seat.chain, seat.tokens
        if chain.seen > seat.stable:
            chain.seen = seat.stable
        seen, context = chain.seen, call.context_tokens
        if seat.prompt.seen > seen:
            seen = seat.prompt.seen
        if call.t_start_s is None:
            call.t_start_s = self._clock.now
            call.tokens_cached = cached if cached < context else context
            call.tokens_prefilled = context - call.tokens_cached
            seat.stable = _ALL
        else:
            context = seat.full
        if cached < seen and cached < context:
            call.tokens_recomputed += (seen if seen < context else context) - cached

    def _feed(self, call: EngineCall, budget: int) -> int:
        """Feed the call as much as the budget allows; returns what is left of it."""
        seat: Seat = call.held
        start, end = seat.tokens, seat.full
        if self._chunked and end - start > budget:
            end = start + budget
        self._pool.feed(seat, end, call.prompt_tokens)
        self._fed.append((call, start, end))
        fed = end - start
        self._prefilled += fed
        self._partial = call if end < seat.full else None
        return budget - fed

    def _shape(self) -> StepShape:
        rows, kept, longest = self._batch.shape()
        new = logits = rows
        kept = pairs = kept + rows
        longest, longest_new = (longest + 1, 1) if rows else (0, 0)
        for call, start, end in self._fed:
            feed = end - start
            new += feed
            kept += end
            pairs += feed * start + feed * (feed + 1) // 2
            if end > longest:
                longest = end
            if feed > longest_new:
                longest_new = feed
            wanted = 1
            if call.kind == "score":
                first = call.context_tokens - 1
                wanted = end - (start if start > first else first)
            logits += wanted if wanted > 1 else 1
        return StepShape(rows + len(self._fed), new, longest_new, kept, longest, logits, pairs)

    def passed(self) -> None:
        batch = self._batch
        self._ahead = 0
        if batch.size:
            batch.step += 1
            if done := batch.done():
                self._finish(done)
        for call, _, end in self._fed:
            seat: Seat = call.held
            if end == seat.full:
                left = seat.left = seat.left - 1
                if left > 0:
                    batch.join(call, end, left)
                    self._growth.join(call)
                else:
                    self._leave(call)
                    self._answer(call)

    # -- decoding

    def steps(self) -> int:
        batch = self._batch
        if not batch.size:
            return 0
        if self._preempted:
            self._preempted = False
            return 1
        return self._growth.steps_within(self._pool.available, batch.steps_left(), self._ahead)

    @property
    def waits(self) -> bool:
        pool = self._pool
        return bool(self._waiting) or self._partial is not None or self._growth.next() > pool.blocks - pool.used

    def cut(self, steps: int) -> None:
        more = steps - self._ahead
        if more:
            self._pool.take(self._growth.past(more))
        self._ahead = 0

    def decoded(self, steps: int) -> None:
        self.cut(steps)
        self._finish(self._batch.done())

    def _finish(self, done: list[EngineCall]) -> None:
        if len(done) > 1:
            done.sort(key=lambda call: call.held.order)
        for call in done:
            self._leave(call)
            self._answer(call)

    def _preempt(self, need: int) -> None:
        """Put back whom the next decode step, which needs so many blocks, has none for; the others then have theirs. As
        vLLM, which goes from row to row, it takes what there is before it puts somebody back."""
        pool, taken = self._pool, 0
        while need > taken + pool.available:
            taken += pool.available
            pool.take(pool.available)
            call = next(reversed(self._running))
            tokens = self._leave(call)
            seat: Seat = call.held
            if tokens >= seat.full:
                seat.left -= tokens - seat.full
                seat.full = tokens + 1
            self._waiting.appendleft(call)
            self._preemptions += 1
            need = self._growth.next()
        pool.take(need - taken)
        self._ahead = 1

    def _leave(self, call: EngineCall) -> int:
        """The call runs no longer; returns the tokens that were computed of its chain."""
        seat: Seat = call.held
        pool = self._pool
        tokens = seat.tokens
        if call.joined >= 0:
            self._growth.leave(call)
            tokens = self._batch.leave(call)
            seat.blocks = -(-tokens // pool.size) - seat.prompt_blocks
        elif call is self._partial:
            self._partial = None
        del self._running[call]
        pool.leave(seat, tokens)
        return tokens
