"""Banks of calibration scores, in nats per token: a live one that grows, and a sealed one that does not.

A live bank inserts and ranks in O(log n) on sortedcontainers; with a `window` it forgets the oldest insertion first.
What each p-value is then worth (`docs/conformal.md`): every one is exactly valid either way, since which scores are
kept does not depend on their values; without a window they are independent of each other as well, with one not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sortedcontainers import SortedList

from atts_runtime.conformal.pvalue import Counts, finite


class Bank:
    """Calibration scores kept sorted; `window` bounds how many (None: no bound).

    `counts` ranks a new score against the bank. `counts_of_member` ranks a score against the *others* in the
    bank, which is what a pre-sample needs: it is tested against a bank that it belongs to, and stays
    exchangeable with.
    """

    def __init__(self, scores: Iterable[float] = (), *, window: int | None = None) -> None:
        if window is not None and window < 1:
            raise ValueError(f"a window must hold at least 1 score, got {window}")
        self.window = window
        self._oldest_first: deque[float] | None = None if window is None else deque()
        self._scores: SortedList[float] = SortedList()
        if window is None:
            self._scores.update(finite(s) for s in scores)
        else:
            for score in scores:
                self.add(score)

    def __len__(self) -> int:
        return len(self._scores)

    def __iter__(self) -> Iterator[float]:
        return iter(self._scores)

    def add(self, score: float) -> None:
        """Insert one score, and forget the oldest where the window is full; raises ValueError if it is not finite."""
        self._scores.add(finite(score))
        if self._oldest_first is not None:
            self._oldest_first.append(float(score))
            if len(self._oldest_first) > (self.window or 0):
                self._scores.remove(self._oldest_first.popleft())

    def counts(self, score: float) -> Counts:
        """Rank of a score that is not in the bank."""
        score = finite(score)
        first, last = self._scores.bisect_left(score), self._scores.bisect_right(score)
        return Counts(greater=len(self) - last, equal=last - first, n=len(self))

    def counts_of_member(self, score: float) -> Counts:
        """Rank of a score among the other scores of a bank that holds it; raises ValueError if it does not."""
        return _without_itself(self.counts(score), score)

    def seal(self) -> SealedBank:
        """The bank as it is now, to stay so."""
        return SealedBank(list(self._scores))


class SealedBank:
    """A bank that no longer changes: an ascending float64 array. It ranks one score faster than a live one."""

    def __init__(self, scores: ArrayLike = ()) -> None:
        array = np.sort(np.asarray(scores, dtype=np.float64))
        if array.ndim != 1 or not np.all(np.isfinite(array)):
            raise ValueError("a bank is a list of finite scores")
        array.flags.writeable = False
        self.scores: NDArray[np.float64] = array
        self._ascending: list[float] = array.tolist()

    def __len__(self) -> int:
        return len(self._ascending)

    def counts(self, score: float) -> Counts:
        """Rank of a score that is not in the bank."""
        score = finite(score)
        first = bisect_left(self._ascending, score)
        last = bisect_right(self._ascending, score, first)
        return Counts(greater=len(self) - last, equal=last - first, n=len(self))

    def counts_of_member(self, score: float) -> Counts:
        """As in `Bank`."""
        return _without_itself(self.counts(score), score)


def _without_itself(counts: Counts, score: float) -> Counts:
    if counts.equal == 0:
        raise ValueError(f"score {score!r} is not in the bank")
    return Counts(counts.greater, counts.equal - 1, counts.n - 1)


class Mondrian:
    """One live bank per key. The key must be fixed before the score is known (a question, a turn, a task): a key that
    depends on the score voids the p-values, and nothing here can notice it."""

    def __init__(self, make: Callable[[], Bank] = Bank) -> None:
        self._make = make
        self._banks: dict[Hashable, Bank] = {}

    def __getitem__(self, key: Hashable) -> Bank:
        """The bank of a key; a new one for a new key."""
        if key not in self._banks:
            self._banks[key] = self._make()
        return self._banks[key]

    def __len__(self) -> int:
        return len(self._banks)
