"""A budget in chains: the alpha that spends it, and the cap that no order of takeovers exceeds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atts_runtime.conformal import TakeoverCap, alpha_for_budget


@settings(deadline=None)
@given(
    chains=st.integers(1, 500), budget=st.floats(-1, 501) | st.integers(-1, 501) | st.sampled_from([math.nan, math.inf])
)
def test_a_budget_is_the_alpha_that_spends_it_in_expectation_or_refused(chains: int, budget: float) -> None:
    if 0 < budget < chains:
        assert alpha_for_budget(budget, chains) * chains == pytest.approx(budget)
    else:
        with pytest.raises(ValueError, match="strictly between 0"):
            alpha_for_budget(budget, chains)


class CapAgainstASet(RuleBasedStateMachine):
    """Any interleaving of takeovers that begin and end."""

    @initialize(limit=st.integers(0, 4))
    def made(self, limit: int) -> None:
        self.cap, self.limit, self.holders = TakeoverCap(limit), limit, set[int]()

    @rule(holder=st.integers(0, 7))
    def acquire(self, holder: int) -> None:
        if holder in self.holders:
            with pytest.raises(ValueError, match="already takes over"):
                self.cap.acquire(holder)
            return
        room = len(self.holders) < self.limit
        assert self.cap.acquire(holder) is room
        if room:
            self.holders.add(holder)

    @rule(holder=st.integers(0, 7))
    def release(self, holder: int) -> None:
        self.cap.release(holder)
        self.holders.discard(holder)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert len(self.cap) == len(self.holders) <= self.limit


TestAnyCap = CapAgainstASet.TestCase
TestAnyCap.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_a_negative_cap_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        TakeoverCap(-1)
