"""Remembered log-likelihoods of tokens, each under everything that stands before it.

A server's prefix cache holds the KV of what another chain wrote alike, and no logits: what has been scored, or drawn
with its likelihood, need not be computed again, and mostly cannot be, short of computing the whole prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

END = -1
"""Stands for an end of text, whichever of the model's tokens draws it."""


class TokenScores:
    """Negative log-likelihoods by a hash of all ids up to the token; the oldest go first."""

    def __init__(self, capacity: int = 1 << 18) -> None:
        self._capacity = capacity
        self._nll: dict[int, float] = {}

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

    def add(self, keys: Sequence[int], nll: Sequence[float]) -> None:
        """Remember, but for what is known: texts that are alike have scores that are alike to the last bit."""
        for key, value in zip(keys, nll, strict=True):
            self._nll.setdefault(key, value)
        while len(self._nll) > self._capacity:
            del self._nll[next(iter(self._nll))]

    def clear(self) -> None:
        """Forget all."""
        self._nll.clear()
