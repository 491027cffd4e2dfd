"""What an engine keeps of each chain between calls: fed ids, parked KV, the logits that come next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import torch

from atts_runtime.control.events import ChainId


@dataclass(slots=True, eq=False)
class Held:
    """KV of one chain (or of a bare prompt). `logits` predict the id after `ids`; None if they were not kept.

    `seen` is how many ids were ever fed, so that what is fed again can be counted as recomputed. `shared` marks
    KV that still is the prompt's own tensor and costs nothing extra.
    """

    ids: list[int] = field(default_factory=list)
    kv: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    seen: int = 0
    busy: bool = False
    shared: bool = False

    def crop(self, length: int) -> None:
        """Forget what lies behind the first `length` ids."""
        if length < len(self.ids):
            self.ids = self.ids[:length]
            self.kv = None if self.kv is None or length == 0 else self.kv[:, :, :, :length]
            self.logits = None

    def clear(self) -> None:
        """Forget all ids and their KV, but not how many there were."""
        self.ids, self.kv, self.logits, self.shared = [], None, None, False


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix."""
    if a == b[: len(a)]:
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))


class ChainStore:
    """Parked chains and prompts under a budget of KV tokens, least recently used out first.

    Only idle chains are evicted. A chain that comes back after its eviction is computed again, and counted.
    """

    def __init__(self, budget_tokens: int | None) -> None:
        self.budget_tokens = budget_tokens
        self.evictions = 0
        self.held_tokens = 0  # as of the last `settle`
        self.peak_tokens = 0
        self._chains: OrderedDict[ChainId, Held] = OrderedDict()
        self._prompts: OrderedDict[tuple[int, ...], Held] = OrderedDict()

    @property
    def tokens(self) -> int:
        """KV tokens held, a prompt that chains share counted once."""
        own = sum(len(held.ids) for held in self._chains.values() if not held.shared)
        return own + sum(len(held.ids) for held in self._prompts.values())

    def prompt(self, ids: tuple[int, ...]) -> Held:
        """The entry of a prompt, empty until its KV is computed."""
        held = self._prompts.setdefault(ids, Held())
        self._prompts.move_to_end(ids)
        return held

    def chain(self, chain: ChainId) -> Held | None:
        """The entry of a chain, if there is one; marks it as just used."""
        if chain in self._chains:
            self._chains.move_to_end(chain)
        return self._chains.get(chain)

    def open(self, chain: ChainId, prompt: Held | None) -> Held:
        """A new chain that starts from a computed prompt, sharing its KV."""
        held = Held()
        if prompt is not None:
            held = Held(list(prompt.ids), prompt.kv, prompt.logits, len(prompt.ids), shared=True)
        self._chains[chain] = held
        return held

    def drop(self, chain: ChainId) -> None:
        """Forget a chain."""
        self._chains.pop(chain, None)

    def settle(self, awaited: Collection[Held] = ()) -> None:
        """Keep to the budget: evict idle prompts that are long unused, then idle chains; not what calls wait for."""
        held = self.held_tokens = self.tokens
        self.peak_tokens = max(self.peak_tokens, held)
        if self.budget_tokens is None or held <= self.budget_tokens:
            return
        for entries in (self._prompts, self._chains):
            for entry in list(entries.values()):
                if held <= self.budget_tokens:
                    return
                if entry.busy or entry.kv is None or entry.shared or entry in awaited:
                    continue
                held -= len(entry.ids)
                entry.clear()
                self.evictions += 1
                self.held_tokens = held
