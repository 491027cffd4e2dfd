"""Actions: what becomes of a rejected segment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from atts_runtime.control.commands import Outcome
from atts_runtime.control.events import ChainId, Settled
from atts_runtime.control.knobs import Knobs


class Step(NamedTuple):
    """What to do now. `attempt`: the one to keep; `source`, `upto`: the turns of a chain to copy, as in `Fork`."""

    outcome: Outcome
    attempt: int | None = None
    source: ChainId | None = None
    upto: int | None = None


TAKE_OVER, REDRAFT = Step("takeover"), Step("redraft")


class Action:
    """What all of them do. `replace`: a takeover writes in the segment's place; `takes_over`: the target writes at all;
    `listens`: it wants to hear of every verdict; `retries`: it drafts again."""

    name: ClassVar[str]
    about: ClassVar[str]
    replace: ClassVar[bool] = False
    takes_over: ClassVar[bool] = True
    retries: ClassVar[bool] = False
    listens: ClassVar[bool] = False

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs

    def finished_before(self, chains: Iterable[ChainId]) -> None:
        """Announce the chains that an earlier session finished: what they wrote by turns is not known any more."""

    def rejected(self, chain: ChainId, turn: int, attempt: int, ell: float | None, settled: Settled | None) -> Step:
        """The segment of an attempt was rejected."""
        return TAKE_OVER

    def stands(self, chain: ChainId, turn: int, ell: float | None) -> None:
        """The segment of the turn stands: it was not rejected, or it is kept."""

    def left(self, chain: ChainId) -> None:
        """The chain is over."""


class Continue(Action):
    """The target goes on after the segment (the paper's choice)."""

    name = "continue"
    about = "the target writes on after the segment"


class Resample(Action):
    """The target writes in the segment's place."""

    name = "resample"
    about = "the target writes in the segment's place"
    replace = True


class Redraft(Action):
    """The draft tries again, up to `Knobs.attempts` times a turn; where all are rejected, the best scored is kept."""

    name = "redraft"
    about = "the draft tries again, the best attempt is kept"
    takes_over = False
    retries = True

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._tried: dict[ChainId, list[float]] = defaultdict(list)

    def rejected(self, chain: ChainId, turn: int, attempt: int, ell: float | None, settled: Settled | None) -> Step:
        tried = self._tried[chain]
        del tried[attempt:]
        assert ell is not None
        tried.append(ell)
        return REDRAFT if attempt + 1 < self.knobs.attempts else self._last(chain, turn, tried, settled)

    def _last(self, chain: ChainId, turn: int, tried: list[float], settled: Settled | None) -> Step:
        return Step("keep", attempt=min(range(len(tried)), key=tried.__getitem__))

    def left(self, chain: ChainId) -> None:
        self._tried.pop(chain, None)


class Fork(Redraft):
    """As `redraft`, but where all attempts of a turn are rejected the chain goes on from a copy of the best of its
    question's chains: that whose last segment scored best, better by more than `Knobs.fork_gap` than the best attempt,
    among those that are alive and were not forked from `Knobs.fork_width` times, so that not all become one. Chains
    that an earlier session finished are not forked from."""

    name = "fork"
    about = "the draft tries again, then the chain goes on from a copy of its best peer"
    listens = True

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._last_ells: dict[int, dict[ChainId, tuple[float, int]]] = defaultdict(dict)
        self._copies: dict[ChainId, int] = defaultdict(int)
        self._finished_before: frozenset[ChainId] = frozenset()

    def finished_before(self, chains: Iterable[ChainId]) -> None:
        self._finished_before = frozenset(chains)

    def stands(self, chain: ChainId, turn: int, ell: float | None) -> None:
        if ell is not None and chain not in self._finished_before:
            self._last_ells[chain.question][chain] = ell, turn + 1

    def left(self, chain: ChainId) -> None:
        super().left(chain)
        self._last_ells[chain.question].pop(chain, None)

    def _last(self, chain: ChainId, turn: int, tried: list[float], settled: Settled | None) -> Step:
        if settled is not None:
            if settled.source is None:
                return super()._last(chain, turn, tried, settled)
            return self._copied(chain, ChainId(chain.question, settled.source), settled.upto or 0)
        peers = self._last_ells[chain.question]
        able = [c for c in peers if c != chain and self._copies[c] < self.knobs.fork_width]
        best = min(able, key=lambda peer: (peers[peer][0], peer), default=None)
        if best is None or not min(tried) - peers[best][0] > self.knobs.fork_gap:
            return super()._last(chain, turn, tried, settled)
        return self._copied(chain, best, peers[best][1])

    def _copied(self, chain: ChainId, source: ChainId, upto: int) -> Step:
        self._copies[source] += 1
        self._last_ells[chain.question].pop(chain, None)  # its last segment is no longer in its text
        return Step("fork", source=source, upto=upto)
