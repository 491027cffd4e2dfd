"""The synchronous baseline: everybody waits for everybody, twice a turn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atts_runtime.control.events import ChainId, Settled
from atts_runtime.control.policies import Due, Policy, Verdict


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

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        self._turns = {q: _Turn({ChainId(q, i) for i in range(chains)}) for q in range(questions)}

    def scored(self, chain: ChainId, turn: int, ell: float, settled: Settled | None) -> Due:
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
        return tuple(Verdict(chain, ells[chain], taken_over=rank < budget) for rank, chain in enumerate(worst_first))


def _softmax(ells: dict[ChainId, float]) -> dict[ChainId, float]:
    """Each chain's share of strangeness among the scores of a turn (the published baseline's normalisation)."""
    top = max(ells.values())
    exps = {chain: math.exp(ell - top) for chain, ell in ells.items()}
    total = sum(exps.values())
    return {chain: value / total for chain, value in exps.items()}
