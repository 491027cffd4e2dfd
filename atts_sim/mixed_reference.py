"""vLLM's discipline in tokens and single blocks, one event a step: the plain statement of `mixed`'s rules.

`atts_sim.engine` must give the same results, faster; a test holds it to that, but for calls that end at a stop string
(`Paged.lengths`), which it lets go at once, texts that chains share (`EngineCall.shared_tokens`) and calls that read no
cache (`EngineCall.skips_cache`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from atts_runtime.control.events import ChainId
from atts_runtime.errors import InputError
from atts_runtime.profiler.padding import grouped
from atts_sim.calls import EngineCall, EngineSpec
from atts_sim.clock import Clock
from atts_sim.cost import Cost, StepCost, StepShape
from atts_sim.device import Device
from atts_sim.stepping import Passes, Stepping

_Key = tuple[str, Hashable, int]


@dataclass(slots=True, eq=False)
class _Block:
    """`key`: of what its full content is (None: nothing that can be hit); `users`: calls; `age`: when the last left."""

    key: _Key | None = None
    users: int = 0
    age: int = 0


@dataclass(slots=True, eq=False)
class _Request:
    """`full`: tokens known; `computed`: those with KV; `left`: to be drawn; `table`: its blocks, by place; `decodes`:
    since it was let in, all that was known then has been computed."""

    call: EngineCall
    full: int
    left: int
    stable: int | None
    computed: int = 0
    table: list[_Block] = field(default_factory=list)
    decodes: bool = False


class MixedReference(Stepping):
    """A `SimEngine` of a paged `EngineSpec`."""

    def __init__(self, clock: Clock, spec: EngineSpec, cost: StepCost, device: Device | None = None) -> None:
        if spec.paged is None:
            raise ValueError("a mixed step needs the limits of a paged engine")
        super().__init__(clock, spec, cost, device)
        self._paged, self._size = spec.paged, spec.paged.block_tokens
        self._blocks: list[_Block] = [] if spec.paged.blocks is None else [_Block() for _ in range(spec.paged.blocks)]
        self._cached: dict[_Key, _Block] = {}
        self._seen: dict[tuple[str, Hashable], int] = {}
        self._waiting: deque[_Request] = deque()
        self._running: list[_Request] = []
        self._leavings = 0
        self._decoded: set[_Request] = set()  # in the last pass that decoded only
        self._late: list[int] = []  # calls that are answered and still have a row in the next pass: tokens of each

    # -- what a call is

    def _add(self, call: EngineCall) -> None:
        score = call.kind == "score"
        most = call.full_tokens + (0 if score else call.new_tokens - 1)
        if self._paged.blocks is not None and -(-most // self._size) > self._paged.blocks:
            raise InputError(f"a call of {most} tokens does not fit into {self._paged.blocks} KV blocks")
        left = 1 if score else call.new_tokens
        self._waiting.append(_Request(call, call.full_tokens, left, call.stable_tokens))

    def _forget(self, chain: ChainId) -> None:
        """Nobody tells vLLM."""

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._running or self._late)

    def _key(self, request: _Request, place: int) -> _Key:
        call = request.call
        if place < call.prompt_tokens // self._size:
            return ("prompt", call.prompt, place)
        return ("chain", call.chain, place)

    # -- blocks

    def _free(self) -> int:
        if self._paged.blocks is None:
            return 1 << 62
        return sum(not block.users for block in self._blocks)

    def _take(self) -> _Block:
        free = [block for block in self._blocks if not block.users]
        if self._paged.blocks is None and all(block.key is not None for block in free):
            free = [_Block()]
            self._blocks += free
        block = min(free, key=lambda b: (b.key is not None, b.age, 0 if b.key is None else -b.key[2]))
        if block.key is not None:
            del self._cached[block.key]
            block.key = None
            self.totals.evictions += 1
        block.users = 1
        self._count_used()
        return block

    def _count_used(self) -> None:
        self.totals.kv_tokens = sum(block.users > 0 for block in self._blocks) * self._size
        self.totals.kv_peak_tokens = max(self.totals.kv_peak_tokens, self.totals.kv_tokens)

    def _leave(self, request: _Request) -> None:
        """Its full blocks stay to be hit, until they are taken."""
        call, shared = request.call, request.call.prompt_tokens // self._size
        for place in range(shared, request.computed // self._size):
            block = request.table[place]
            block.key = self._key(request, place)
            self._cached[block.key] = block
        known = ("chain", call.chain)
        self._seen[known] = max(self._seen.get(known, 0), request.computed)
        for places in (range(shared, len(request.table)), range(shared)):
            self._leavings += 1
            for place in places:
                block = request.table[place]
                block.users -= 1
                if not block.users:
                    block.age = self._leavings
        request.table = []
        self._running.remove(request)
        self._count_used()

    # -- a step

    def _step(self) -> Passes:
        for request in [request for request in self._running if request.call.dropped]:
            self._leave(request)
        preempted = self._grow()
        budget = self.spec.step_tokens
        feeds: list[tuple[_Request, int]] = []
        for request in self._running:
            budget -= self._feed(request, budget, feeds)
        while self._waiting and budget > 0 and len(self._running) < self.spec.max_rows and not preempted:
            request = self._waiting[0]
            if request.call.dropped:
                self._waiting.popleft()
                continue
            if not self._fits(request):
                break
            beside = any(not other.decodes for other, _ in feeds)
            if not self._paged.chunked and beside and request.full - self._hit(request) > budget:
                break
            self._waiting.popleft()
            self._let_in(request)
            budget -= self._feed(request, budget, feeds)
        late, self._late = self._late, []
        if not feeds and not late:
            return
        yield self._pass(self._price(feeds, late))
        for request, tokens in feeds:
            request.computed += tokens
            if request.computed == request.full:
                request.decodes = True
                request.left -= 1
                request.full += 1
                if not request.left:
                    self._leave(request)
                    if self._stops_late(request.call):
                        self._late.append(request.full)
                    self._answer(request.call)

    def _feed(self, request: _Request, budget: int, feeds: list[tuple[_Request, int]]) -> int:
        tokens = request.full - request.computed
        if self._paged.chunked:
            tokens = min(tokens, budget)
        feeds.append((request, tokens))
        call, end = request.call, request.computed + tokens
        for place in range(min(call.prompt_tokens, end) // self._size):
            block, key = request.table[place], self._key(request, place)
            if key not in self._cached:
                block.key = key
                self._cached[key] = block
        known = ("prompt", call.prompt)
        self._seen[known] = max(self._seen.get(known, 0), min(end, call.prompt_tokens))
        return tokens

    def _stops_late(self, call: EngineCall) -> bool:
        """Whether it ended at a stop string: neither with an end of text nor for its length."""
        lengths = self._paged.lengths
        return lengths is not None and not call.ends and call.new_tokens < lengths.get(call.kind, 0)

    def _price(self, feeds: list[tuple[_Request, int]], late: list[int]) -> Cost:
        call_of = [(request.call, request.computed, request.computed + tokens) for request, tokens in feeds]
        new = [end - start for _, start, end in call_of] + [1] * len(late)
        kept = [end for *_, end in call_of] + late
        logits = [
            max(1, end - max(start, call.context_tokens - 1)) if call.kind == "score" else 1
            for call, start, end in call_of
        ] + [1] * len(late)
        pairs = sum(n * (k - n) + n * (n + 1) // 2 for n, k in zip(new, kept, strict=True))
        shape = StepShape(len(new), sum(new), max(new), sum(kept), max(kept), sum(logits), pairs)
        totals = self.totals
        if all(request.decodes for request, _ in feeds):
            totals.decode_steps += 1
            totals.decode_rows += len(new)
            before, self._decoded = self._decoded, {request for request, _ in feeds}
            attended, groups = grouped(self._cost.row_stops, kept)
            shape = shape._replace(joined=len(self._decoded - before), attended=attended, groups=groups)
            return self._cost.cost("decode", shape)
        cost = self._cost.cost("append", shape)
        totals.append_s += cost.seconds
        totals.prefilled_tokens += sum(tokens for request, tokens in feeds if not request.decodes)
        return cost

    # -- admission

    def _shared(self, request: _Request) -> list[_Block]:
        """The prompt's blocks that are cached, from its first on."""
        call = request.call
        return [] if call.skips_cache else self._run_of(request, range(call.prompt_tokens // self._size))

    def _run_of(self, request: _Request, places: range) -> list[_Block]:
        found = []
        for place in places:
            block = self._cached.get(self._key(request, place))
            if block is None:
                break
            found.append(block)
        return found

    def _hit(self, request: _Request) -> int:
        """Tokens of the request's prefix that are cached."""
        call, shared = request.call, request.call.prompt_tokens // self._size
        if call.skips_cache:
            return 0
        blocks = len(self._shared(request))
        if blocks == shared:
            most = request.full if request.stable is None else min(request.full, request.stable)
            blocks += len(self._run_of(request, range(shared, most // self._size)))
        most = call.context_tokens - 1 if call.kind == "score" else request.full - 1
        return max(min(blocks, most // self._size), min(call.shared_tokens, most) // self._size) * self._size

    def _fits(self, request: _Request) -> bool:
        used = sum(block.users > 0 for block in self._shared(request))
        return -(-request.full // self._size) - used <= self._free()

    def _let_in(self, request: _Request) -> None:
        call, hit = request.call, self._hit(request)
        shared = call.prompt_tokens // self._size
        table = self._shared(request)
        table += self._run_of(request, range(shared, hit // self._size)) if hit // self._size > shared else []
        for block in table:
            block.users += 1
        # What the chain comes back without can be hit no more.
        for key in [key for key in self._cached if key[:2] == ("chain", call.chain)]:
            if self._cached[key] not in table:
                self._cached.pop(key).key = None
        while len(table) * self._size < request.full:
            table.append(self._take())
        request.table, request.computed, request.decodes = table, hit, False
        self._count_used()
        self._running.append(request)
        self._note(request, hit)

    def _note(self, request: _Request, hit: int) -> None:
        """What the call must compute again, and at first what is cached of its context."""
        call, known = request.call, ("chain", request.call.chain)
        own = self._seen.get(known, 0)
        if request.stable is not None:
            own = min(own, request.stable)
            if known in self._seen:
                self._seen[known] = own
        seen = max(own, self._seen.get(("prompt", call.prompt), 0))
        if call.t_start_s is None:
            call.t_start_s = self._clock.now
            call.tokens_cached = min(hit, call.context_tokens)
            call.tokens_prefilled = call.context_tokens - call.tokens_cached
            call.tokens_recomputed = max(0, min(seen, call.context_tokens) - hit)
        else:
            call.tokens_recomputed += max(0, min(seen, request.full) - hit)
        request.stable = None

    def _grow(self) -> bool:
        """A block for every row that needs one; whether somebody had to go back for it."""
        preempted = False
        for request in list(self._running):
            if request not in self._running or request.computed < len(request.table) * self._size:
                continue
            while not self._free():
                victim = self._running[-1]
                self._leave(victim)
                self._waiting.appendleft(victim)
                self.totals.preemptions += 1
                preempted = True
                if victim is request:
                    break
            if request in self._running:
                request.table.append(self._take())
        return preempted
