"""A live bank of calibration scores: O(log n) insertion and rank, on sortedcontainers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sortedcontainers import SortedList

from atts_runtime.conformal.pvalue import Counts, finite


class Bank:
    """Calibration scores in nats per token, kept sorted.

    `counts` ranks a new score against the bank. `counts_of_member` ranks a score against the *others* in the
    bank, which is what a pre-sample needs: it is tested against a bank that it belongs to, and stays
    exchangeable with.
    """

    def __init__(self, scores: Iterable[float] = ()) -> None:
        self._scores: SortedList[float] = SortedList(finite(s) for s in scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __iter__(self) -> Iterator[float]:
        return iter(self._scores)

    def add(self, score: float) -> None:
        """Insert one score; raises ValueError if it is not finite."""
        self._scores.add(finite(score))

    def counts(self, score: float) -> Counts:
        """Rank of a score that is not in the bank."""
        score = finite(score)
        first, last = self._scores.bisect_left(score), self._scores.bisect_right(score)
        return Counts(greater=len(self) - last, equal=last - first, n=len(self))

    def counts_of_member(self, score: float) -> Counts:
        """Rank of a score among the other scores of a bank that holds it; raises ValueError if it does not."""
        counts = self.counts(score)
        if counts.equal == 0:
            raise ValueError(f"score {score!r} is not in the bank")
        return Counts(counts.greater, counts.equal - 1, counts.n - 1)
