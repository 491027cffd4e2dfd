"""KV in blocks, as a paged engine has it: who uses how many, and what of those nobody uses can still be hit.

Only full blocks can be hit: those of a prompt, which its chains share, and those of a chain behind its prompt. Blocks
of which nothing can be hit are taken first, then cached ones, least recently used first and each owner's from its tail.
(vLLM takes both by age; and it finds blocks by their content, where this knows whose they are.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from atts_runtime.control.events import ChainId
from atts_sim.calls import EngineCall, Paged

_UNBOUNDED = 1 << 62


class Cached:
    """Full blocks of a prompt, or of a chain behind its prompt; a chain's while a call uses them are the call's.

    users: calls on the prompt; seen: tokens that were computed at some time.
    """

    __slots__ = ("blocks", "seen", "users")

    def __init__(self) -> None:
        self.blocks = self.users = self.seen = 0


class Seat:
    """A call in a paged engine. `full`: tokens to feed before the next is drawn; `left`: tokens to draw; `tokens`: KV
    computed; `blocks`: its own, prompts' blocks that are yet to be computed included; `order`: of admissions."""

    __slots__ = ("blocks", "chain", "full", "left", "order", "prompt", "prompt_blocks", "stable", "tokens")

    def __init__(self, call: EngineCall, chain: Cached, prompt: Cached, prompt_blocks: int) -> None:
        self.chain, self.prompt, self.prompt_blocks = chain, prompt, prompt_blocks
        self.full, self.stable = call.full_tokens, call.stable_tokens
        self.left = 0 if call.kind == "score" else call.new_tokens
        self.tokens = self.blocks = self.order = 0


class BlockPool:
    """The blocks of one engine. `used`: by calls, at most `peak`; `evictions`: cached blocks that were taken."""

    def __init__(self, spec: Paged) -> None:
        self.size = spec.block_tokens
        self.blocks = _UNBOUNDED if spec.blocks is None else spec.blocks
        self.used = self.peak = self.evictions = 0
        self._idle: OrderedDict[Cached, None] = OrderedDict()
        self._idle_blocks = 0
        self._chains: dict[ChainId, Cached] = {}
        self._prompts: dict[Hashable, Cached] = {}

    @property
    def available(self) -> int:
        """Blocks that can be taken."""
        return self.blocks - self.used

    def seat(self, call: EngineCall) -> Seat:
        chain = self._chains.get(call.chain)
        if chain is None:
            chain = self._chains[call.chain] = Cached()
        prompt = self._prompts.get(call.prompt)
        if prompt is None:
            prompt = self._prompts[call.prompt] = Cached()
        return Seat(call, chain, prompt, call.prompt_tokens // self.size)

    def fits(self, seat: Seat) -> bool:
        """Whether all that the call must be fed has room now; what is cached is room too, unless others use it."""
        shared = seat.prompt.blocks if seat.prompt.users else 0
        return -(-seat.full // self.size) - shared <= self.blocks - self.used

    def hit(self, seat: Seat, most: int) -> int:
        """How many of the first `most` tokens of a call's prefix are cached."""
        size, blocks, own = self.size, seat.prompt.blocks, seat.chain.blocks
        if own and blocks == seat.prompt_blocks:
            own_stable = seat.stable // size - blocks
            if own_stable > 0:
                blocks += own if own < own_stable else own_stable
        most //= size
        return (blocks if blocks < most else most) * size

    def sit(self, seat: Seat, most: int) -> None:
        """Let a call that fits have its blocks, and begin with what is a hit."""
        chain, prompt, size = seat.chain, seat.prompt, self.size
        tokens = seat.tokens = self.hit(seat, most)
        if chain.blocks:
            self._wake(chain)
            chain.blocks = 0
        if not prompt.users:
            self._wake(prompt)
            self.used += prompt.blocks
        prompt.users += 1
        blocks = seat.blocks = -(-seat.full // size) - prompt.blocks
        own = tokens // size - seat.prompt_blocks
        if own > 0:
            self.used += own
            blocks -= own
        self.take(blocks)

    def feed(self, seat: Seat, end: int, prompt_tokens: int) -> None:
        """The call is fed up to `end` tokens: what fills the prompt's blocks may be hit from now on."""
        seat.tokens = end
        prompt = seat.prompt
        if prompt.blocks < seat.prompt_blocks:
            more = min(end // self.size, seat.prompt_blocks) - prompt.blocks
            if more > 0:
                prompt.blocks += more
                seat.blocks -= more
        if prompt.seen < prompt_tokens:
            prompt.seen = max(prompt.seen, min(end, prompt_tokens))

    def leave(self, seat: Seat, tokens: int) -> None:
        """The call goes, and `tokens` of its chain were computed."""
        chain, prompt = seat.chain, seat.prompt
        self.used -= seat.blocks
        if chain.blocks:  # of another call on the chain
            self._wake(chain)
        blocks = tokens // self.size - seat.prompt_blocks
        chain.blocks = blocks if blocks > 0 else 0
        if tokens > chain.seen:
            chain.seen = tokens
        self._rest(chain)
        prompt.users -= 1
        if not prompt.users:
            self.used -= prompt.blocks
            self._rest(prompt)

    def take(self, blocks: int) -> None:
        """Blocks for calls; there must be so many `available`."""
        self.used += blocks
        if self.used > self.peak:
            self.peak = self.used
        over = self.used + self._idle_blocks - self.blocks
        while over > 0:
            owner = next(iter(self._idle))
            taken = min(over, owner.blocks)
            owner.blocks -= taken
            self._idle_blocks -= taken
            self.evictions += taken
            over -= taken
            if not owner.blocks:
                del self._idle[owner]

    def _rest(self, owner: Cached) -> None:
        if owner.blocks:
            self._idle[owner] = None
            self._idle_blocks += owner.blocks

    def _wake(self, owner: Cached) -> None:
        if owner.blocks:
            del self._idle[owner]
            self._idle_blocks -= owner.blocks
