"""Scheduling policies: who is taken over, and who may go on.

A policy is a pure state machine beside the controller. It hears that a chain's segment was scored
(`scored`), that a chain's turn ended (`turn_ended`) or that a chain is over (`left`), and answers with the
verdicts and the turn starts that are now due, for that chain or for others that waited on it. It knows no
clock, no engine and no text, so that the runtime and the simulator run the same objects.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

from atts_runtime.conformal import Bank, Counts, plain, smoothed
from atts_runtime.control.commands import Cause
from atts_runtime.control.events import ChainId

PreSample = Literal["none", "question", "all"]


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a policy may be told. `alpha` is the nominal takeover rate; `budget` (chains a turn) overrides it at a
    barrier; `replace` makes a takeover replace the segment instead of continuing after it; `tie_seed` smooths
    p-values with tie-breakers drawn from it (None: plain p-values, which ties make conservative)."""

    alpha: float
    budget: int | None = None
    replace: bool = False
    tie_seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie strictly between 0 and 1, got {self.alpha!r}")
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"budget must not be negative, got {self.budget!r}")


class Verdict(NamedTuple):
    """Whether the target takes over `chain`, and on what grounds."""

    chain: ChainId
    ell: float
    p_value: float | None
    taken_over: bool


class Due(NamedTuple):
    """What an event set free: verdicts on held segments, and chains that may start their next turn."""

    verdicts: tuple[Verdict, ...] = ()
    starts: tuple[ChainId, ...] = ()


class Policy:
    """A policy in which nobody waits and every segment stands; the others override what differs."""

    name: ClassVar[str]
    drafts: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    pre_sample: ClassVar[PreSample] = "none"
    hold_for_verdict: ClassVar[Cause] = "bank"
    hold_for_turn: ClassVar[Cause] = "barrier"

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs

    def expect(self, questions: int, chains: int) -> None:
        """Announce the run's size before anything else happens."""

    def scored(self, chain: ChainId, turn: int, ell: float) -> Due:
        return Due(verdicts=(Verdict(chain, ell, None, False),))

    def turn_ended(self, chain: ChainId, turn: int) -> Due:
        return Due(starts=(chain,))

    def left(self, chain: ChainId) -> Due:
        return Due()


class TargetOnly(Policy):
    """The target writes every segment: the reference for accuracy and cost."""

    name = "target-only"
    drafts = scores = False


class DraftOnly(Policy):
    """The draft writes every segment, unguarded."""

    name = "draft-only"
    scores = False


@dataclass(slots=True)
class _Turn:
    """A question's current turn at the barrier."""

    live: set[ChainId]
    ells: dict[ChainId, float] = field(default_factory=dict)
    ranked: bool = False
    ended: set[ChainId] = field(default_factory=set)


class Barrier(Policy):
    """Synchronous scaling: score all segments of a turn, take over the worst B, wait for everybody.

    B is `budget`, or `alpha` of the chains still alive, rounded.
    """

    name = "barrier"
    hold_for_verdict = "barrier"

    def expect(self, questions: int, chains: int) -> None:
        self._turns = {q: _Turn({ChainId(q, i) for i in range(chains)}) for q in range(questions)}

    def scored(self, chain: ChainId, turn: int, ell: float) -> Due:
        state = self._turns[chain.question]
        state.ells[chain] = ell
        return self._due(state)

    def turn_ended(self, chain: ChainId, turn: int) -> Due:
        state = self._turns[chain.question]
        state.ended.add(chain)
        return self._due(state)

    def left(self, chain: ChainId) -> Due:
        state = self._turns[chain.question]
        state.live.discard(chain)
        state.ended.discard(chain)
        if not state.ranked:
            state.ells.pop(chain, None)
        return self._due(state)

    def _due(self, state: _Turn) -> Due:
        if not state.live:
            return Due()
        if not state.ranked and state.ells.keys() == state.live:
            state.ranked = True
            return Due(verdicts=self._rank(state.ells))
        if state.ended == state.live:
            starts = tuple(sorted(state.ended))
            state.ells, state.ranked, state.ended = {}, False, set()
            return Due(starts=starts)
        return Due()

    def _rank(self, ells: dict[ChainId, float]) -> tuple[Verdict, ...]:
        budget = self.knobs.budget if self.knobs.budget is not None else round(self.knobs.alpha * len(ells))
        weights = _softmax(ells)
        worst_first = sorted(ells, key=lambda chain: (-weights[chain], -ells[chain], chain))
        return tuple(Verdict(chain, ells[chain], None, rank < budget) for rank, chain in enumerate(worst_first))


def _softmax(ells: dict[ChainId, float]) -> dict[ChainId, float]:
    """Each chain's share of strangeness among the scores of a turn (the published baseline's normalisation)."""
    top = max(ells.values())
    exps = {chain: math.exp(ell - top) for chain, ell in ells.items()}
    total = sum(exps.values())
    return {chain: value / total for chain, value in exps.items()}


@dataclass(slots=True)
class _PreSample:
    """Turn-0 scores that fill one bank, and how many are still to come."""

    missing: set[ChainId]
    ells: dict[ChainId, float] = field(default_factory=dict)
    bank: Bank = field(default_factory=Bank)


class _Async(Policy):
    """Conformal takeover against a bank of turn-0 scores, awaited once; after that no chain waits for another.

    A pre-sample is its chain's first segment, so that the bank costs no extra tokens. It is tested against
    the other pre-samples of its bank; every later segment against all of them.
    """

    def expect(self, questions: int, chains: int) -> None:
        self._banks: dict[int, _PreSample] = {}
        for q in range(questions):
            sample = self._banks.setdefault(self._key(q), _PreSample(set()))
            sample.missing |= {ChainId(q, i) for i in range(chains)}

    def _key(self, question: int) -> int:
        raise NotImplementedError

    def scored(self, chain: ChainId, turn: int, ell: float) -> Due:
        sample = self._banks[self._key(chain.question)]
        if turn > 0:
            return Due(verdicts=(self._verdict(chain, turn, ell, sample.bank.counts(ell)),))
        sample.missing.discard(chain)
        sample.ells[chain] = ell
        sample.bank.add(ell)
        return self._sealed(sample)

    def left(self, chain: ChainId) -> Due:
        sample = self._banks[self._key(chain.question)]
        if chain not in sample.missing:
            return Due()
        sample.missing.discard(chain)
        return self._sealed(sample)

    def _sealed(self, sample: _PreSample) -> Due:
        if sample.missing:
            return Due()
        ells, sample.ells = sample.ells, {}
        return Due(
            verdicts=tuple(
                self._verdict(chain, 0, ell, sample.bank.counts_of_member(ell)) for chain, ell in sorted(ells.items())
            )
        )

    def _verdict(self, chain: ChainId, turn: int, ell: float, counts: Counts) -> Verdict:
        seed = self.knobs.tie_seed
        p_value = plain(counts) if seed is None else smoothed(counts, tie_breaker(seed, chain, turn))
        return Verdict(chain, ell, p_value, p_value <= self.knobs.alpha)


class AsyncMarginal(_Async):
    """One bank for all questions: every question's turn 0 is pre-sampled before any decision."""

    name = "async-marginal"
    pre_sample = "all"

    def _key(self, question: int) -> int:
        return -1


class AsyncConditional(_Async):
    """One bank per question, of its own m pre-samples."""

    name = "async-conditional"
    pre_sample = "question"

    def _key(self, question: int) -> int:
        return question


POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (TargetOnly, DraftOnly, Barrier, AsyncMarginal, AsyncConditional)
}


def tie_breaker(seed: int, chain: ChainId, turn: int) -> float:
    """The tie-breaker of one verdict, uniform on (0, 1]; independent of the order in which verdicts fall."""
    return 1.0 - random.Random(f"{seed}/{chain}/{turn}").random()
