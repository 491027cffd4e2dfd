"""The embedded engine's scheduling: an append and a decode pass alternate.

The rules are those of `atts_runtime.engines.worker`, in tokens: scores are always let in, generating calls while there
are rows; prompts are computed once; KV is kept by chain (`memory`). `reference.ReferenceEngine` states them plainly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from atts_runtime.control.events import ChainId
from atts_sim.batch import DecodeBatch
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import Clock
from atts_sim.cost import StepShape
from atts_sim.memory import Held, KvLedger


class _Prompt:
    """A bare prompt to compute, that no call waits for by itself."""

    __slots__ = ("dropped", "full_tokens", "held", "kind")

    def __init__(self, full_tokens: int, held: Held) -> None:
        self.kind: Literal["prompt"] = "prompt"
        self.full_tokens, self.held, self.dropped = full_tokens, held, False


class Alternating:
    """A `Discipline`: the embedded engine's."""

    decodes_after_pass = True

    def __init__(
        self, clock: Clock, spec: EngineSpec, batch: DecodeBatch, answer: Callable[[EngineCall], None]
    ) -> None:
        self._clock, self._batch, self._answer = clock, batch, answer
        self._rows, self._step_tokens, self._per_call = spec.max_rows, spec.step_tokens, spec.per_call
        self.taken_s = 0.0
        self._let_in: list[EngineCall] = []
        self._kv = KvLedger(spec.kv_budget_tokens)
        self._scores: deque[EngineCall] = deque()
        self._generates: deque[EngineCall] = deque()
        self._appending: list[EngineCall | _Prompt] = []
        self._pass: list[EngineCall | _Prompt] = []
        self._fed_to: list[int] = []
        self._any_dropped = False
        self._prefilled = 0
        self._grown = 0

    def state(self, totals: Totals) -> None:
        kv = self._kv
        totals.prefilled_tokens = self._prefilled
        totals.evictions, totals.kv_tokens, totals.kv_peak_tokens = kv.evictions, kv.tokens, kv.peak

    # -- messages

    def add(self, call: EngineCall) -> None:
        (self._scores if call.kind == "score" else self._generates).append(call)

    def queued(self, call: EngineCall) -> bool:
        if call.kind == "score" or self._batch.size < self._rows:
            return False
        self._generates.append(call)
        return True

    def drop(self, call: EngineCall) -> None:
        call.dropped = self._any_dropped = True

    def release(self, chain: ChainId) -> None:
        held = self._kv.holder(chain)
        decoding = None
        if held is not None and held.busy:
            decoding = next((call for call in self._batch.rows if call.held is held), None)
        self._kv.release(chain, None if decoding is None else decoding.offset + self._batch.step)

    def idle(self, chain: ChainId) -> bool | None:
        held = self._kv.holder(chain)
        return None if held is None else not held.busy

    def release_in_run(self, chain: ChainId, steps: int) -> None:
        self._kv.grow(steps - self._grown)
        self._grown = steps
        self._kv.release(chain)

    # -- scheduling

    def schedule(self) -> StepShape | None:
        if self._kv.awaited:
            self._kv.awaited.clear()
        if self._scores:
            self._admit(self._scores, len(self._scores))
        if self._generates:
            room = self._rows - self._batch.size
            if room and self._appending:
                room -= sum(call.kind != "score" and call.kind != "prompt" for call in self._appending)
            self._admit(self._generates, room)
        if self._per_call is not None:
            self.taken_s = self._per_call.let_in(self._let_in)
            self._let_in.clear()
        return self._append() if self._appending else None

    def _admit(self, queue: deque[EngineCall], room: int) -> None:
        blocked = []
        now = self._clock.now
        for _ in range(min(room, len(queue))):
            call = queue.popleft()
            if call.dropped:
                continue
            held, prompt = self._kv.attach(call)
            if held is None:
                if prompt is not None:
                    self._appending.append(_Prompt(call.prompt_tokens, prompt))
                blocked.append(call)
                continue
            call.held = held
            call.t_start_s = now
            if self._per_call is not None:
                self._let_in.append(call)
            if call.full_tokens - held.tokens > (call.kind != "score"):
                self._appending.append(call)
            else:
                self._fed(call, held)
        if blocked:
            queue.extendleft(reversed(blocked))

    def _fed(self, call: EngineCall, held: Held) -> None:
        """All of the call's tokens are held."""
        if call.kind != "score":
            left = call.new_tokens - (held.tokens == call.full_tokens)
            if left:
                self._kv.join(held)
                self._batch.join(call, held.tokens, left)
                return
        self._kv.park(held)
        self._answer(call)

    def _append(self) -> StepShape | None:
        """The shape of an append pass; None where everybody who wanted one has left."""
        if self._any_dropped:
            for call in self._appending:
                if call.dropped:
                    self._kv.park(call.held)
            self._appending = [call for call in self._appending if not call.dropped]
        most = self._step_tokens
        chosen: list[EngineCall | _Prompt] = []
        width = 0
        for call in self._appending:
            unfed = call.full_tokens - call.held.tokens
            wider = width if unfed <= width else unfed if unfed < most else most
            if chosen and wider * (len(chosen) + 1) > most:
                break
            chosen.append(call)
            width = wider
        if not chosen:
            return None
        kept = new = longest = longest_new = pairs = 0
        fed: list[int] = []
        self._pass, self._fed_to = chosen, fed
        for call in chosen:
            start: int = call.held.tokens
            end = call.full_tokens
            if end > start + width:
                end = start + width
            fed.append(end)
            feed = end - start
            kept += end
            new += feed
            pairs += feed * start + feed * (feed + 1) // 2
            if end > longest:
                longest = end
            if feed > longest_new:
                longest_new = feed
        self._prefilled += new
        return StepShape(len(chosen), new, longest_new, kept, longest, new, pairs)

    def passed(self) -> None:
        done = []
        for call, tokens in zip(self._pass, self._fed_to, strict=True):
            self._kv.append(call.held, tokens)
            if tokens == call.full_tokens:
                done.append(call)
        if len(done) == len(self._appending):
            self._appending.clear()
        else:
            for call in done:
                self._appending.remove(call)
        for call in done:
            if isinstance(call, _Prompt):
                self._kv.park(call.held, prompt=True)
            else:
                self._fed(call, call.held)

    # -- decoding

    def steps(self) -> int:
        batch = self._batch
        if self._any_dropped:
            self._any_dropped = False
            for call in reversed(batch.rows):
                if call.dropped:
                    self._kv.leave(call.held, batch.leave(call))
        if not batch.size:
            self._kv.settle()
            return 0
        self._grown = 0
        if self._scores or self._appending or (self._generates and batch.size < self._rows):
            return 1
        return batch.steps_left()

    @property
    def waits(self) -> bool:
        return bool(self._scores or self._generates or self._appending)

    def cut(self, steps: int) -> None:
        self._kv.grow(steps - self._grown)

    def decoded(self, steps: int) -> None:
        kv, batch = self._kv, self._batch
        kv.grow(steps - 1 - self._grown)
        kv.tokens += kv.growing  # the budget is kept to when those who are done have left
        done = batch.done()
        if len(done) > 1:
            done.sort(key=lambda call: -call.row)
        for call in done:
            call.held.logits = call.ends
            kv.leave(call.held, batch.leave(call))
            self._answer(call)
        kv.settle()
