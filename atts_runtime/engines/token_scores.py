"""Remembered log-likelihoods of tokens, each under everything that stands before it.

A server's prefix cache holds the KV of what another chain wrote alike, and no logits: what has been scored, or drawn
with its likelihood, need not be computed again, and mostly cannot be, short of computing the whole prefix. The KV is
there before the likelihoods are, so a call may also wait for those that another one has asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

END = -1
"""Stands for an end of text, whichever of the model's tokens draws it."""


class TokenScores:
    """Negative log-likelihoods by a hash of all ids up to the token; the oldest go first."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self._capacity = capacity
        self._nll: dict[int, float] = {}
        self._asked: dict[int, asyncio.Event] = {}

    @staticmethod
    def keys(ids: Iterable[int], start: int) -> list[int]:
        """Keys of the ids from `start` on."""
        return list(accumulate(ids, lambda before, token: hash((before, token)), initial=0))[1 + start :]

    def known(self, keys: Sequence[int]) -> list[float]:
        """Those of the leading keys that are all known."""
        found = []
        for key in keys:
            nll = self._nll.get(key)
            if nll is None:
                break
            found.append(nll)
        return found

    async def settled(self, keys: Sequence[int]) -> list[float]:
        """As `known`, once no request for all of them is under way: a chain that reads alike waits for the other."""
        while len(known := self.known(keys)) < len(keys) and await self.answered(keys[-1]):
            pass
        return known

    def add(self, keys: Sequence[int], nll: Sequence[float]) -> None:
        """Remember, but for what is known: texts that are alike have scores that are alike to the last bit."""
        for key, value in zip(keys, nll, strict=True):
            self._nll.setdefault(key, value)
        while len(self._nll) > self._capacity:
            del self._nll[next(iter(self._nll))]

    @contextlib.contextmanager
    def asking(self, keys: Iterable[int]) -> Iterator[None]:
        """A request for these is under way."""
        answered = asyncio.Event()
        mine = [key for key in keys if self._asked.setdefault(key, answered) is answered]
        try:
            yield
        finally:
            for key in mine:
                del self._asked[key]
            answered.set()

    async def answered(self, key: int) -> bool:
        """Until no request for it is under way; whether there was one. It may have failed."""
        asked = self._asked.get(key)
        if asked is not None:
            await asked.wait()
        return asked is not None

    def clear(self) -> None:
        """Forget all."""
        self._nll.clear()
