"""The synchronous baseline's gate: rank the scores of a turn, reject the worst."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atts_runtime.control.events import ChainId
from atts_runtime.control.gates.base import ATTS, NOTHING_DUE, Due, Gate, Segment, Verdict


@dataclass(slots=True)
class _Turn:
    """A question's current turn: its chains, and the scores that are in."""

    live: set[ChainId]
    turn: int = 0
    ells: dict[ChainId, float] = field(default_factory=dict)
    ranked: bool = False


class Worst(Gate):
    """Softmax-normalise the scores of all segments of a turn and reject the worst B: `budget`, or `alpha` of the chains
    still alive, rounded. It takes a schedule under which the chains of a question are in the same turn."""

    name = "worst"
    about = "the worst B of a question's segments of a turn"
    paper = ATTS
    retries = False
    hold = "barrier"

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        self._turns = {q: _Turn({ChainId(q, i) for i in range(chains)}) for q in range(questions)}

    def judge(self, segment: Segment) -> Due:
        assert segment.ell is not None
        state = self._turns[segment.chain.question]
        if segment.turn != state.turn:
            state.turn, state.ells, state.ranked = segment.turn, {}, False
        state.ells[segment.chain] = segment.ell
        return self._due(state)

    def left(self, chain: ChainId) -> Due:
        state = self._turns[chain.question]
        state.live.discard(chain)
        if not state.ranked:
            state.ells.pop(chain, None)
        return self._due(state)

    def _due(self, state: _Turn) -> Due:
        if not state.live or state.ranked or state.ells.keys() != state.live:
            return NOTHING_DUE
        state.ranked = True
        return Due(verdicts=self._rank(state.ells))

    def _rank(self, ells: dict[ChainId, float]) -> tuple[Verdict, ...]:
        budget = self.knobs.budget if self.knobs.budget is not None else round(self.knobs.alpha * len(ells))
        weights = _softmax(ells)
        worst_first = sorted(ells, key=lambda chain: (-weights[chain], -ells[chain], chain))
        return tuple(Verdict(chain, ells[chain], rejected=rank < budget) for rank, chain in enumerate(worst_first))


def _softmax(ells: dict[ChainId, float]) -> dict[ChainId, float]:
    """Each chain's share of strangeness among the scores of a turn (the published baseline's normalisation)."""
    top = max(ells.values())
    exps = {chain: math.exp(ell - top) for chain, ell in ells.items()}
    total = sum(exps.values())
    return {chain: value / total for chain, value in exps.items()}
