"""The embedded engine in tokens, one event a pass: the plain statement of its rules.

`atts_runtime.engines.worker` and `chains`, line by line, with counts in place of ids, KV and logits. `atts_sim.engine`
must give the same results, faster; a test holds it to that, and another holds this to the real worker's passes.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from atts_runtime.control.events import ChainId
from atts_runtime.profiler.padding import grouped
from atts_sim.calls import EngineCall, EngineSpec
from atts_sim.clock import Clock
from atts_sim.cost import StepCost, StepShape
from atts_sim.device import Device
from atts_sim.stepping import Passes, Stepping


@dataclass(slots=True, eq=False)
class _Held:
    """KV of a chain or a bare prompt: how many tokens, and whether the logits that follow them were kept."""

    tokens: int = 0
    logits: bool = False
    seen: int = 0
    busy: bool = False
    shared: bool = False

    def crop(self, tokens: int) -> None:
        if tokens < self.tokens:
            self.tokens, self.logits = tokens, False


@dataclass(slots=True, eq=False)
class _Job:
    """Tokens to feed; `call` is None where it computes a prompt. `left`: tokens still to draw."""

    full: int
    call: EngineCall | None
    held: _Held = field(default_factory=_Held)
    left: int = 0

    @property
    def unfed(self) -> int:
        return self.full - self.held.tokens

    @property
    def generates(self) -> bool:
        return self.call is not None and self.call.kind != "score"

    @property
    def dropped(self) -> bool:
        return self.call is not None and self.call.dropped


class ReferenceEngine(Stepping):
    """The embedded engine's discipline. Raises ValueError where the limits are a paged engine's."""

    def __init__(self, clock: Clock, spec: EngineSpec, cost: StepCost, device: Device | None = None) -> None:
        if spec.paged is not None:
            raise ValueError("this states the embedded engine; of a paged one, take mixed_reference.MixedReference")
        super().__init__(clock, spec, cost, device)
        self._scores: deque[_Job] = deque()
        self._generates: deque[_Job] = deque()
        self._appending: list[_Job] = []
        self._rows: list[_Job] = []
        self._chains: OrderedDict[ChainId, _Held] = OrderedDict()
        self._prompts: OrderedDict[Hashable, _Held] = OrderedDict()
        self._awaited: list[_Held] = []
        self._let_in: list[EngineCall] = []
        self._joined = 0

    def _add(self, call: EngineCall) -> None:
        (self._scores if call.kind == "score" else self._generates).append(_Job(call.full_tokens, call))

    def _forget(self, chain: ChainId) -> None:
        self._chains.pop(chain, None)

    @property
    def _has_work(self) -> bool:
        return bool(self._scores or self._generates or self._appending or self._rows)

    def _step(self) -> Passes:
        self._schedule()
        if self.spec.per_call is not None:
            yield self._spend(self.spec.per_call.let_in(self._let_in))
        yield from self._append()
        yield from self._decode()
        self._let_in.clear()
        self._settle()

    # -- scheduling

    def _schedule(self) -> None:
        self._awaited.clear()
        self._admit(self._scores, len(self._scores))
        joining = sum(job.generates for job in self._appending)
        self._admit(self._generates, self.spec.max_rows - len(self._rows) - joining)

    def _admit(self, queue: deque[_Job], room: int) -> None:
        blocked = []
        for _ in range(min(room, len(queue))):
            job = queue.popleft()
            if job.dropped:
                continue
            if not self._attach(job):
                blocked.append(job)
                continue
            if job.unfed > job.generates:
                self._appending.append(job)
            else:
                self._fed(job)
        queue.extendleft(reversed(blocked))

    def _attach(self, job: _Job) -> bool:
        call = job.call
        assert call is not None
        held = self._chains.get(call.chain)
        if held is not None:
            self._chains.move_to_end(call.chain)
        if held is None or not held.tokens:
            prompt = self._prompts.setdefault(call.prompt, _Held())
            self._prompts.move_to_end(call.prompt)
            if not prompt.tokens or prompt.busy:
                if not prompt.busy:
                    prompt.busy = True
                    self._appending.append(_Job(call.prompt_tokens, None, prompt))
                self._awaited.append(prompt)
                return False
            seen = held.seen if held is not None else 0
            held = _Held(prompt.tokens, prompt.logits, max(prompt.tokens, seen), shared=True)
            self._chains[call.chain] = held
        elif held.busy:
            return False
        shared = min(held.tokens, call.stable_tokens, call.full_tokens)
        if shared < held.tokens:
            held.seen = shared
        held.crop(shared)
        if shared > call.context_tokens or (shared == call.context_tokens and not held.logits):
            held.crop(call.context_tokens - 1)
        held.busy = True
        job.held = held
        call.t_start_s = self._clock.now
        call.tokens_cached = min(held.tokens, call.context_tokens)
        call.tokens_prefilled = max(0, call.context_tokens - held.tokens)
        call.tokens_recomputed = max(0, min(held.seen, call.context_tokens) - held.tokens)
        self._let_in.append(call)
        return True

    def _fed(self, job: _Job) -> None:
        if not job.generates:
            job.held.busy = False
            if job.call is not None:
                self._answer(job.call)
            return
        assert job.call is not None
        job.left = job.call.new_tokens - (not job.unfed)
        if not job.left:
            job.held.busy = False
            self._answer(job.call)
            return
        job.held.logits = False
        self._rows.append(job)
        self._joined += 1

    # -- passes

    def _append(self) -> Passes:
        for job in self._appending:
            if job.dropped:
                job.held.busy = False
        self._appending = [job for job in self._appending if not job.dropped]
        batch: list[_Job] = []
        width = 0
        for job in self._appending:
            wider = max(width, min(job.unfed, self.spec.step_tokens))
            if batch and wider * (len(batch) + 1) > self.spec.step_tokens:
                break
            batch.append(job)
            width = wider
        if not batch:
            return
        feeds = [min(width, job.unfed) for job in batch]
        kept = [job.held.tokens + feed for job, feed in zip(batch, feeds, strict=True)]
        pairs = sum(n * (k - n) + n * (n + 1) // 2 for n, k in zip(feeds, kept, strict=True))
        shape = StepShape(len(batch), sum(feeds), max(feeds), sum(kept), max(kept), sum(feeds), pairs)
        cost = self._cost.cost("append", shape)
        self.totals.append_s += cost.seconds
        self.totals.prefilled_tokens += sum(feeds)
        yield self._pass(cost)
        for job, tokens in zip(batch, kept, strict=True):
            held = job.held
            held.tokens, held.logits, held.shared = tokens, True, False
            held.seen = max(held.seen, tokens)
        for job in batch:
            if not job.unfed:
                self._appending.remove(job)
                if job.call is None:
                    job.held.busy = False
                else:
                    self._fed(job)

    def _decode(self) -> Passes:
        for row in reversed(range(len(self._rows))):
            if self._rows[row].dropped:
                self._leave(row)
        if not self._rows:
            return
        kept = [job.held.tokens + 1 for job in self._rows]
        totals = self.totals
        totals.decode_steps += 1
        totals.decode_rows += len(kept)
        rows = len(kept)
        joined, of = min(self._joined, rows), grouped(self._cost.row_stops, kept)
        shape = StepShape(rows, rows, 1, sum(kept), max(kept), rows, sum(kept), joined, *of)
        self._joined = 0
        yield self._pass(self._cost.cost("decode", shape))
        for job in self._rows:
            job.held.tokens += 1
            job.left -= 1
        end_s = 0.0 if self.spec.per_call is None else self.spec.per_call.end_s
        for row in reversed(range(len(self._rows))):
            job = self._rows[row]
            if not job.left:
                assert job.call is not None
                job.held.logits = job.call.ends
                self._leave(row)
                if end_s:  # one is answered after the other
                    yield self._spend(end_s)
                self._answer(job.call)

    def _leave(self, row: int) -> None:
        held, last = self._rows[row].held, self._rows.pop()
        held.seen, held.shared, held.busy = max(held.seen, held.tokens), False, False
        if row < len(self._rows):
            self._rows[row] = last

    # -- memory

    def _settle(self) -> None:
        own = sum(held.tokens for held in self._chains.values() if not held.shared)
        tokens = own + sum(held.tokens for held in self._prompts.values())
        totals, budget = self.totals, self.spec.kv_budget_tokens
        totals.kv_peak_tokens = max(totals.kv_peak_tokens, tokens)
        for entries in (self._prompts, self._chains):
            for held in entries.values():
                if budget is None or tokens <= budget:
                    break
                if held.busy or not held.tokens or held.shared or held in self._awaited:
                    continue
                tokens -= held.tokens
                held.tokens, held.logits, held.shared = 0, False, False
                totals.evictions += 1
        totals.kv_tokens = tokens
