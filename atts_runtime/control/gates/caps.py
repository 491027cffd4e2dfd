"""Hard bounds on the takeovers in flight: by question, and over all of them."""

from __future__ import annotations

from atts_runtime.conformal import TakeoverCap
from atts_runtime.control.events import ChainId


class Caps:
    """At most `budget` takeovers at a time of each of `questions`, and `together` of all of them (None: no bound)."""

    def __init__(self, questions: int, budget: int | None, together: int | None) -> None:
        self._caps = [] if budget is None else [TakeoverCap(budget) for _ in range(questions)]
        self._all = None if together is None else TakeoverCap(together)

    def acquire(self, chain: ChainId) -> bool:
        """Take a place under both bounds, if there is one."""
        own = self._caps[chain.question] if self._caps else None
        if own is not None and not own.acquire(chain):
            return False
        if self._all is None or self._all.acquire(chain):
            return True
        if own is not None:
            own.release(chain)
        return False

    def release(self, chain: ChainId) -> None:
        """Give the chain's places back, if it has any."""
        if self._caps:
            self._caps[chain.question].release(chain)
        if self._all is not None:
            self._all.release(chain)
