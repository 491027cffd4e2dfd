"""The gate of a budget: alpha from B, and never more takeovers in flight than B and the KV memory allow."""

from __future__ import annotations

import math
from dataclasses import replace

from atts_runtime.conformal import Counts, alpha_for_budget
from atts_runtime.control.events import ChainId
from atts_runtime.control.gates.base import Due, Segment, Verdict
from atts_runtime.control.gates.caps import Caps
from atts_runtime.control.gates.presampled import Marginal
from atts_runtime.control.knobs import Knobs


class Budget(Marginal):
    """As `marginal` with alpha = B over the chains, the expected takeovers a turn (Xiong et al. 2026, budget
    prediction). No more than B chains of a question, nor than `Knobs.takeovers_in_flight` of all, are taken over at a
    time, because each holds KV memory of the target: what is rejected beyond that stands, its p-value on record.

    Without a `Knobs.budget` alpha stays what it is, and the bound is alpha of the chains, rounded up.
    """

    name = "budget"
    about = "as marginal with alpha = B / m, and a hard bound on the takeovers in flight"
    order_free = False
    retries = False

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        if self.knobs.budget is not None:
            self.knobs = replace(self.knobs, alpha=alpha_for_budget(self.knobs.budget, chains))
        self._caps = Caps(questions, budget_of(self.knobs, chains), self.knobs.takeovers_in_flight)
        super().expect(questions, chains, turns, in_flight)

    def turn_ended(self, chain: ChainId, turn: int) -> None:
        self._caps.release(chain)

    def left(self, chain: ChainId) -> Due:
        self._caps.release(chain)
        return super().left(chain)

    def _verdict(self, segment: Segment, ell: float, counts: Counts) -> Verdict:
        verdict = super()._verdict(segment, ell, counts)
        before = segment.settled
        wanted = verdict.rejected if before is None else before.rejected
        allowed = wanted and self._caps.acquire(segment.chain)
        return verdict._replace(rejected=allowed if before is None else wanted)


def budget_of(knobs: Knobs, chains: int) -> int:
    """How many takeovers in flight a question with so many chains may have."""
    return math.ceil(knobs.alpha * chains) if knobs.budget is None else knobs.budget
