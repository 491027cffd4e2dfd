"""Banks with a window, and sealed ones: what they hold, how they rank, and how honest their p-values are."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atts_runtime.conformal import Bank, Counts, SealedBank
from tests.runtime.conformal.exact import tie_patterns, unfair_levels

NOT_FINITE = [float("nan"), float("inf"), -float("inf")]

scores = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0]) | st.floats(allow_nan=False, allow_infinity=False)


def brute(bank: list[float], score: float) -> Counts:
    return Counts(sum(s > score for s in bank), sum(s == score for s in bank), len(bank))


class WindowAgainstAList(RuleBasedStateMachine):
    """Any interleaving of insertions, queries and seals."""

    @initialize(window=st.integers(1, 5), first=st.lists(scores, max_size=8))
    def made_of(self, window: int, first: list[float]) -> None:
        self.window, self.everything = window, list(first)
        self.bank = Bank(first, window=window)
        self.sealed: list[tuple[SealedBank, list[float]]] = []

    @property
    def model(self) -> list[float]:
        return self.everything[-self.window :]

    @rule(score=scores)
    def add(self, score: float) -> None:
        self.bank.add(score)
        self.everything.append(score)

    @rule(score=scores)
    def rank(self, score: float) -> None:
        assert self.bank.counts(score) == brute(self.model, score)

    @precondition(lambda self: self.everything)
    @rule(data=st.data())
    def rank_a_member(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.model) - 1))
        others = self.model[:at] + self.model[at + 1 :]
        assert self.bank.counts_of_member(self.model[at]) == brute(others, self.model[at])

    @rule()
    def seal(self) -> None:
        self.sealed.append((self.bank.seal(), sorted(self.model)))

    @rule(score=st.sampled_from(NOT_FINITE))
    def refuse(self, score: float) -> None:
        with pytest.raises(ValueError, match="must be finite"):
            self.bank.add(score)

    @invariant()
    def holds_the_last_of_what_was_put_in(self) -> None:
        assert list(self.bank) == sorted(self.model)
        assert len(self.bank) == len(self.model) <= self.window

    @invariant()
    def what_was_sealed_stays_so(self) -> None:
        for bank, then in self.sealed:
            assert bank.scores.tolist() == then


TestAnyInterleaving = WindowAgainstAList.TestCase
TestAnyInterleaving.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_that_holds_nothing_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="must hold at least 1 score"):
        Bank(window=window)


@settings(deadline=None)
@given(bank=st.lists(scores), score=scores)
def test_a_sealed_bank_ranks_as_a_live_one_does(bank: list[float], score: float) -> None:
    sealed, live = SealedBank(bank), Bank(bank)
    assert len(sealed) == len(live)
    for tested in (score, *bank):
        assert sealed.counts(tested) == live.counts(tested)
    for member in bank:
        assert sealed.counts_of_member(member) == live.counts_of_member(member)
    if score not in bank:
        with pytest.raises(ValueError, match="is not in the bank"):
            sealed.counts_of_member(score)


@settings(deadline=None)
@given(bank=st.lists(scores, max_size=10), window=st.none() | st.integers(1, 12))
def test_a_bank_is_sealed_with_what_it_holds(bank: list[float], window: int | None) -> None:
    live = Bank(bank, window=window)
    assert live.seal().scores.tolist() == list(live)


def test_a_sealed_bank_cannot_be_changed() -> None:
    source = np.array([2.0, 1.0])
    bank = SealedBank(source)
    source[0] = 9.0
    with pytest.raises(ValueError, match="read-only"):
        bank.scores[0] = 9.0
    assert bank.scores.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("score", NOT_FINITE)
def test_a_sealed_bank_neither_holds_nor_ranks_a_score_that_is_not_finite(score: float) -> None:
    with pytest.raises(ValueError, match="a list of finite scores"):
        SealedBank([0.5, score, 1.0])
    for act in (SealedBank([0.5]).counts, SealedBank([0.5]).counts_of_member):
        with pytest.raises(ValueError, match="must be finite"):
            act(score)


@pytest.mark.parametrize("shaped", [[[0.5, 1.0]], [[]], 0.5])
def test_a_sealed_bank_is_made_of_a_list(shaped: object) -> None:
    with pytest.raises(ValueError, match=r"list of finite scores|out of bounds"):
        SealedBank(shaped)  # type: ignore[arg-type]


def online(order: tuple[int, ...], window: int | None) -> tuple[Counts, ...]:
    """Counts of every score against those before it, as the bank holds them."""
    bank = Bank(window=window)
    counts = []
    for score in order:
        counts.append(bank.counts(score))
        bank.add(score)
    return tuple(counts)


@pytest.mark.parametrize("window", [1, 2, 3, None])
@pytest.mark.parametrize("n", range(5))
def test_every_smoothed_p_value_of_a_window_is_exactly_uniform_under_every_pattern_of_ties(
    n: int, window: int | None
) -> None:
    for values in tie_patterns(n):
        for step in zip(*(online(order, window) for order in permutations(values)), strict=True):
            assert not unfair_levels(step)


def law_of_ranks(length: int, window: int | None) -> Counter[tuple[int, ...]]:
    """How many orders of `length` distinct scores give each sequence of ranks, 0 for the strangest."""
    return Counter(tuple(c.greater for c in online(order, window)) for order in permutations(range(length)))


@pytest.mark.parametrize(("window", "length"), [(w, n) for w in (1, 2, 3, None) for n in range(1, 7) if n <= (w or 6)])
def test_until_the_window_slides_its_ranks_are_independent(window: int | None, length: int) -> None:
    law = law_of_ranks(length, window)
    assert set(law) == set(product(*(range(size + 1) for size in range(length))))
    assert set(law.values()) == {1}


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_last_rank_before_a_window_slides_is_independent_of_all_earlier_ones(window: int) -> None:
    assert set(law_of_ranks(window + 1, window).values()) == {1}


@pytest.mark.parametrize(("window", "length"), [(1, 3), (1, 5), (2, 4), (2, 5), (3, 5), (3, 6)])
def test_once_the_window_has_slid_each_rank_is_uniform_but_they_are_not_independent(window: int, length: int) -> None:
    law = law_of_ranks(length, window)
    last = Counter[int]()
    for ranks, times in law.items():
        last[ranks[-1]] += times
    assert set(last.values()) == {math.factorial(length) // (window + 1)}
    sequences = list(product(*(range(min(size, window) + 1) for size in range(length))))
    assert {law[ranks] * len(sequences) for ranks in sequences} != {math.factorial(length)}
