"""A bank ranks like a plain list that is searched from end to end."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atts_runtime.conformal import Bank, Counts

NOT_FINITE = [float("nan"), float("inf"), -float("inf")]

scores = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)


def brute(bank: list[float], score: float) -> Counts:
    return Counts(sum(s > score for s in bank), sum(s == score for s in bank), len(bank))


class BankAgainstAList(RuleBasedStateMachine):
    """Any interleaving of insertions and queries."""

    @initialize(first=st.lists(scores, max_size=5))
    def made_of(self, first: list[float]) -> None:
        self.bank, self.model = Bank(first), list(first)

    @rule(score=scores)
    def add(self, score: float) -> None:
        self.bank.add(score)
        self.model.append(score)

    @rule(score=scores)
    def rank(self, score: float) -> None:
        assert self.bank.counts(score) == brute(self.model, score)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def rank_a_member(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.model) - 1))
        others = self.model[:at] + self.model[at + 1 :]
        assert self.bank.counts_of_member(self.model[at]) == brute(others, self.model[at])

    @rule(score=scores)
    def rank_a_stranger_as_a_member(self, score: float) -> None:
        if score not in self.model:
            with pytest.raises(ValueError, match="is not in the bank"):
                self.bank.counts_of_member(score)

    @rule(score=st.sampled_from(NOT_FINITE))
    def refuse(self, score: float) -> None:
        for act in (self.bank.add, self.bank.counts, self.bank.counts_of_member):
            with pytest.raises(ValueError, match="must be finite"):
                act(score)

    @invariant()
    def holds_what_was_put_in(self) -> None:
        assert len(self.bank) == len(self.model)
        assert list(self.bank) == sorted(self.model)


TestAnyInterleaving = BankAgainstAList.TestCase
TestAnyInterleaving.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("n", range(1, 5))
def test_a_member_ranks_as_it_would_in_a_bank_made_of_the_others(n: int) -> None:
    for values in product(range(3), repeat=n):
        bank = Bank(values)
        for at, value in enumerate(values):
            assert bank.counts_of_member(value) == Bank(values[:at] + values[at + 1 :]).counts(value)


@pytest.mark.parametrize("score", NOT_FINITE)
def test_a_bank_is_never_made_of_a_score_that_is_not_finite(score: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Bank([0.5, score, 1.0])


@settings(deadline=None)
@given(first=st.lists(scores), rest=st.lists(scores))
def test_adding_one_by_one_makes_the_same_bank_as_giving_all_at_once(first: list[float], rest: list[float]) -> None:
    bank = Bank(first)
    for score in rest:
        bank.add(score)
    assert list(bank) == list(Bank(rest + first))
