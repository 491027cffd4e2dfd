"""The laws of the p-values, exact: by enumeration over all orders of the scores, in fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import Bank, Counts, plain, smoothed
from tests.runtime.conformal.exact import exactly_smoothed, tie_patterns, unfair_levels

SIZES = range(6)

every_size = pytest.mark.parametrize("n", SIZES)


def every_order(scores: tuple[int, ...]) -> list[Counts]:
    """Counts of the last score against a bank of the others, for each of the equally likely orders."""
    return [Bank(bank).counts(tested) for *bank, tested in permutations(scores)]


@every_size
def test_without_ties_the_plain_p_value_is_at_most_a_with_probability_floor_of_a_n_plus_1(n: int) -> None:
    p_values = [plain(counts) for counts in every_order(tuple(range(n + 1)))]
    for k in range(1, n + 2):
        attained = k / (n + 1)
        assert Fraction(sum(p <= attained for p in p_values), len(p_values)) == Fraction(k, n + 1)
        below = math.nextafter(attained, 0)
        assert Fraction(sum(p <= below for p in p_values), len(p_values)) == Fraction(k - 1, n + 1)


@every_size
def test_the_plain_p_value_is_valid_under_every_pattern_of_ties(n: int) -> None:
    for scores in tie_patterns(n):
        p_values = [plain(counts) for counts in every_order(scores)]
        for k in range(1, n + 2):
            probability = Fraction(sum(p <= k / (n + 1) for p in p_values), len(p_values))
            assert probability <= Fraction(k, n + 1)
            if k / (n + 1) in p_values:
                assert probability == Fraction(k, n + 1)


@every_size
def test_the_smoothed_p_value_is_exactly_uniform_under_every_pattern_of_ties(n: int) -> None:
    for scores in tie_patterns(n):
        assert not unfair_levels(every_order(scores))


@every_size
def test_the_smoothed_p_value_grows_evenly_with_its_tie_breaker(n: int) -> None:
    for greater, equal in ((g, e) for g in range(n + 1) for e in range(n + 1 - g)):
        counts = Counts(greater, equal, n)
        for u in (Fraction(1, 7), Fraction(1, 3), Fraction(5, 6), Fraction(1)):
            assert exactly_smoothed(counts, u) == (greater + u * (equal + 1)) / Fraction(n + 1)


@every_size
def test_ranks_taken_before_insertion_are_uniform_and_independent(n: int) -> None:
    """Every sequence of ranks comes from exactly one order of the scores."""
    sequences = set()
    for scores in permutations(range(n + 1)):
        bank = Bank()
        ranks = []
        for score in scores:
            ranks.append(round(plain(bank.counts(score)) * (len(bank) + 1)))
            bank.add(score)
        sequences.add(tuple(ranks))
    assert sequences == set(product(*(range(1, size + 2) for size in range(n + 1))))


@settings(deadline=None)
@given(u=st.floats(0, 1, exclude_min=True))
def test_with_an_empty_bank_plain_is_1_and_smoothed_is_the_tie_breaker(u: float) -> None:
    assert plain(Counts(0, 0, 0)) == 1
    assert smoothed(Counts(0, 0, 0), u) == u


@settings(deadline=None)
@given(alpha=st.floats(0.01, 0.99), n=st.integers(0, 120))
def test_the_plain_p_value_cannot_reach_alpha_in_a_bank_that_is_too_small(alpha: float, n: int) -> None:
    assert (plain(Counts(0, 0, n)) <= alpha) == (1 / (n + 1) <= alpha)
    if n + 1 < 1 / Fraction(alpha) - 1:
        assert plain(Counts(0, 0, n)) > alpha


@settings(deadline=None)
@given(
    bank=st.lists(st.integers(0, 6)),
    scores=st.tuples(st.integers(-1, 7), st.integers(-1, 7)),
    u=st.floats(0, 1, exclude_min=True),
)
def test_a_stranger_score_never_has_a_larger_p_value(bank: list[int], scores: tuple[int, int], u: float) -> None:
    usual, strange = (Bank(bank).counts(score) for score in sorted(scores))
    assert plain(strange) <= plain(usual)
    assert smoothed(strange, u) <= smoothed(usual, u)


@settings(deadline=None)
@given(bank=st.lists(st.floats(-9, 9), min_size=1))
def test_a_score_stranger_than_the_whole_bank_has_the_smallest_p_value(bank: list[float]) -> None:
    n = len(bank)
    assert plain(Bank(bank).counts(10)) == 1 / (n + 1)
    assert plain(Bank(bank).counts(-10)) == 1


@settings(deadline=None)
@given(bank=st.lists(st.integers(0, 3)), score=st.integers(-1, 4))
def test_the_plain_p_value_is_the_smoothed_one_with_the_least_lucky_tie_breaker(bank: list[int], score: int) -> None:
    counts = Bank(bank).counts(score)
    assert plain(counts) == smoothed(counts, 1)


@pytest.mark.parametrize("u", [0.0, -0.1, 1.0000001, float("nan"), float("inf")])
def test_a_tie_breaker_outside_0_1_is_refused(u: float) -> None:
    with pytest.raises(ValueError, match="tie-breaker must be in"):
        smoothed(Counts(0, 0, 1), u)


@pytest.mark.parametrize("counts", [Counts(-1, 0, 3), Counts(0, -1, 3), Counts(2, 2, 3), Counts(0, 0, -1)])
def test_counts_that_no_bank_has_are_refused(counts: Counts) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        plain(counts)
    with pytest.raises(ValueError, match="impossible counts"):
        smoothed(counts, 0.5)
