"""KV memory of the fast engine: the embedded engine's rules with running totals in place of sums over chains.

What the rows of the decode batch hold grows with every step; the ledger knows how fast and adds it up when asked. Idle
chains are evicted least recently used first; a heap by time of last use, whose stale entries are skipped, finds them.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush

from atts_runtime.control.events import ChainId
from atts_sim.calls import EngineCall

_Heap = list[tuple[int, int, "Held"]]


class Held:
    """KV of a chain or of a bare prompt; see `atts_runtime.engines.chains.Held`.

    `tokens` of a chain in the decode batch are those at which it joined. `counted`: the ledger counts it or, while it
    is `shared`, will. `used`: when it was last asked for.
    """

    __slots__ = ("busy", "counted", "logits", "seen", "shared", "tokens", "used")

    def __init__(self, tokens: int = 0, logits: bool = False, seen: int = 0, shared: bool = False) -> None:
        self.tokens, self.logits, self.seen, self.shared = tokens, logits, seen, shared
        self.busy, self.counted, self.used = False, True, 0


class KvLedger:
    """Chains and prompts of one engine, and how many KV tokens they hold together: `tokens`, at most `peak`.

    `growing` rows of the decode batch add a token each a step.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.tokens = self.peak = self.growing = self.evictions = 0
        self.awaited: set[Held] = set()
        self._chains: dict[ChainId, Held] = {}
        self._prompts: dict[Hashable, Held] = {}
        self._idle: tuple[_Heap, _Heap] = ([], [])  # prompts go before chains
        self._uses = 0

    def attach(self, call: EngineCall) -> tuple[Held | None, Held | None]:
        """The chain's KV, cropped to what it shares with the call, and None; or None and, where the call must wait for
        a prompt that nobody computes yet, the prompt's."""
        self._uses += 1
        held = self._chains.get(call.chain)
        if held is not None:
            held.used = self._uses
        if held is None or not held.tokens:
            prompt = self._prompts.get(call.prompt)
            if prompt is None:
                prompt = self._prompts[call.prompt] = Held()
            prompt.used = self._uses
            if prompt.busy or not prompt.tokens:
                self.awaited.add(prompt)
                if prompt.busy:
                    return None, None
                prompt.busy = True
                return None, prompt
            seen = prompt.tokens if held is None else max(prompt.tokens, held.seen)
            held = self._chains[call.chain] = Held(prompt.tokens, prompt.logits, seen, shared=True)
            held.used = self._uses
            self.park(prompt, prompt=True)  # idle as before, but just used
        elif held.busy:
            return None, None
        self._crop(held, call)
        held.busy = True
        context, kept = call.context_tokens, held.tokens
        call.tokens_cached = kept if kept < context else context
        if kept < context:
            call.tokens_prefilled = context - kept
            if held.seen > kept:
                call.tokens_recomputed = min(held.seen, context) - kept
        return held, None

    def _crop(self, held: Held, call: EngineCall) -> None:
        before = held.tokens
        kept = min(before, call.stable_tokens, call.full_tokens)
        if kept < before:
            held.seen = kept
            held.logits = False
        context = call.context_tokens
        if kept > context or (kept == context and not held.logits):
            kept = context - 1
            held.logits = False
        held.tokens = kept
        if held.counted and not held.shared:
            self.tokens -= before - kept

    def release(self, chain: ChainId, tokens_now: int | None = None) -> None:
        """Forget a chain; `tokens_now`: what it holds by now, where it is in the decode batch."""
        held = self._chains.pop(chain, None)
        if held is None:
            return
        held.counted = False
        if not held.shared:
            self.tokens -= held.tokens if tokens_now is None else tokens_now
            self.growing -= tokens_now is not None

    def holder(self, chain: ChainId) -> Held | None:
        """The chain's KV, if any is known."""
        return self._chains.get(chain)

    def append(self, held: Held, tokens: int) -> None:
        """`held` was fed up to `tokens`, from where it stood or from a shared prompt on."""
        if held.counted:
            self.tokens += tokens if held.shared else tokens - held.tokens
        held.tokens, held.logits, held.shared = tokens, True, False
        if tokens > held.seen:
            held.seen = tokens

    def join(self, held: Held) -> None:
        """`held` enters the decode batch."""
        held.logits = False
        if held.counted and not held.shared:
            self.growing += 1

    def leave(self, held: Held, tokens: int) -> None:
        """`held` leaves the decode batch with `tokens`."""
        if held.counted:
            if held.shared:
                self.tokens += tokens
            else:
                self.growing -= 1
        held.tokens, held.shared = tokens, False
        if tokens > held.seen:
            held.seen = tokens
        self.park(held)

    def park(self, held: Held, *, prompt: bool = False) -> None:
        """`held` is idle from now on."""
        held.busy = False
        if self.budget is not None and held.tokens and not held.shared:
            self._uses += 1  # breaks ties of entries
            heappush(self._idle[not prompt], (held.used, self._uses, held))

    def grow(self, steps: int) -> None:
        """Decode steps, after each of which the budget is kept to."""
        budget = self.budget
        if not steps:
            return
        if budget is not None:
            while steps and self.tokens + self.growing * steps > budget:
                over = max(1, (budget - self.tokens) // self.growing + 1) if self.growing else 1
                run = min(steps, over)
                self.tokens += self.growing * run
                steps -= run
                self.settle()
                if self.tokens > budget:
                    break  # nobody idle is left
        self.tokens += self.growing * steps
        if self.tokens > self.peak:
            self.peak = self.tokens

    def settle(self) -> None:
        """Keep to the budget at the end of a step."""
        if self.tokens > self.peak:
            self.peak = self.tokens
        if self.budget is not None and self.tokens > self.budget:
            for heap in self._idle:
                self._evict(heap, self.budget)

    def _evict(self, heap: _Heap, budget: int) -> None:
        spared = []
        while heap and self.tokens > budget:
            entry = heappop(heap)
            used, _, held = entry
            if held.used != used or held.busy or not held.tokens or held.shared or not held.counted:
                continue
            if held in self.awaited:
                spared.append(entry)
                continue
            self.tokens -= held.tokens
            held.tokens, held.logits = 0, False
            self.evictions += 1
        for entry in spared:
            heappush(heap, entry)
