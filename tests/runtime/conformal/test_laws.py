"""The laws of takeover counts agree with brute force, with SciPy, and with what an interval is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from atts_runtime.conformal import laws
from atts_runtime.conformal.laws import Interval

alphas = st.floats(0, 1, exclude_min=True, exclude_max=True)
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
ROUNDING = Fraction(1, 10**12)


def ranks_at_most(alpha: float, n: int) -> int:
    return sum(rank / (n + 1) <= alpha for rank in range(1, n + 2))


@settings(deadline=None)
@given(n=st.integers(0, 300), alpha=alphas)
@example(n=99, alpha=0.29)  # 0.29 * 100 < 29, but 29 / 100 <= 0.29
@example(n=9, alpha=math.nextafter(0.9, 0))  # 10 times this rounds to 9, but 9 / 10 exceeds it
@example(n=0, alpha=math.nextafter(1.0, 0.0))
def test_the_ranks_that_take_over_are_those_whose_p_value_is_at_most_alpha(n: int, alpha: float) -> None:
    assert laws.smallest_ranks(n, alpha) == ranks_at_most(alpha, n)


@settings(deadline=None)
@given(n=st.integers(1, 300), data=st.data())
def test_at_an_attainable_level_rounding_costs_no_rank_and_just_below_it_wins_none(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    assert laws.smallest_ranks(n, k / (n + 1)) == k
    assert laws.smallest_ranks(n, math.nextafter(k / (n + 1), 0)) == k - 1


@settings(deadline=None)
@given(m=st.integers(0, 30), n=st.integers(0, 60), data=st.data())
def test_the_beta_binomial_probabilities_sum_to_one_and_agree_with_scipy(m: int, n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n + 1))
    law = [laws.beta_binomial_pmf(count, m, k, n) for count in range(m + 1)]
    assert sum(law) == 1
    if 0 < k <= n:
        for count, probability in enumerate(law):
            assert float(probability) == pytest.approx(stats.betabinom.pmf(count, m, k, n + 1 - k), rel=0, abs=1e-12)
    else:
        assert law[m if k else 0] == 1


@pytest.mark.parametrize("takeovers", [-1, 4, 100])
def test_more_takeovers_than_scores_or_fewer_than_none_have_no_probability(takeovers: int) -> None:
    assert laws.beta_binomial_pmf(takeovers, 3, 2, 5) == 0


def assert_is_central(interval: Interval, law: list[Fraction], level: float) -> None:
    """Either tail is no larger than it may be, and would be if the end were moved inwards by one count."""
    tail = (1 - Fraction(level)) / 2
    low, high = int(interval.low), int(interval.high)
    assert (low, high) == interval
    assert sum(law[:low]) <= tail + ROUNDING
    assert sum(law[high + 1 :]) <= tail + ROUNDING
    assert sum(law[low : high + 1]) >= Fraction(level) - 2 * ROUNDING
    assert sum(law[: low + 1]) >= tail - ROUNDING
    assert sum(law[high:]) >= tail - ROUNDING


@settings(deadline=None, max_examples=60)
@given(m=st.integers(0, 60), alpha=st.floats(0.001, 0.999), level=levels)
def test_the_interval_of_independent_takeovers_is_the_central_one(m: int, alpha: float, level: float) -> None:
    a = Fraction(alpha)
    law = [math.comb(m, count) * a**count * (1 - a) ** (m - count) for count in range(m + 1)]
    assert_is_central(laws.takeovers_interval(m, alpha, level), law, level)


@settings(deadline=None, max_examples=60)
@given(m=st.integers(0, 60), bank=st.integers(0, 80), alpha=st.floats(0.001, 0.999), level=levels)
@example(m=10, bank=3, alpha=0.1, level=0.95)  # no rank takes over
def test_the_interval_of_takeovers_against_one_bank_is_the_central_one(
    m: int, bank: int, alpha: float, level: float
) -> None:
    k = laws.smallest_ranks(bank, alpha)
    law = [laws.beta_binomial_pmf(count, m, k, bank) for count in range(m + 1)]
    assert_is_central(laws.takeovers_interval(m, alpha, level, bank=bank), law, level)


def test_one_bank_makes_takeovers_vary_more_than_independent_ones() -> None:
    shared, independent = laws.takeovers_interval(1000, 0.1, bank=99), laws.takeovers_interval(1000, 0.1)
    assert shared.low < independent.low < 100 < independent.high < shared.high


@settings(deadline=None, max_examples=60)
@given(m=st.integers(1, 200), level=levels, data=st.data())
def test_the_interval_of_a_rate_is_clopper_and_pearsons(m: int, level: float, data: st.DataObject) -> None:
    takeovers = data.draw(st.integers(0, m))
    expected = stats.binomtest(takeovers, m).proportion_ci(confidence_level=level, method="exact")
    assert laws.rate_interval(takeovers, m, level) == pytest.approx((expected.low, expected.high), rel=0, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(0, 500), alpha=st.floats(0.001, 0.999), level=levels)
@example(n=5, alpha=0.1, level=0.95)  # no rank takes over
def test_the_interval_of_a_frozen_banks_rate_leaves_half_of_the_rest_on_either_side(
    n: int, alpha: float, level: float
) -> None:
    low, high = laws.frozen_rate_interval(n, alpha, level)
    k = laws.smallest_ranks(n, alpha)
    if k == 0:
        assert (low, high) == (0, 0)
    else:
        tail = (1 - level) / 2
        assert stats.beta.cdf(low, k, n + 1 - k) == pytest.approx(tail, abs=1e-9)
        assert stats.beta.sf(high, k, n + 1 - k) == pytest.approx(tail, abs=1e-9)


@pytest.mark.parametrize(("value", "inside"), [(0.1, True), (0.3, True), (0.2, True), (0.0999, False), (0.31, False)])
def test_an_interval_holds_its_ends_and_what_lies_between(value: float, inside: bool) -> None:
    assert Interval(0.1, 0.3).holds(value) == inside


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.1, math.nan, math.inf])
@pytest.mark.parametrize("law", [laws.smallest_ranks, laws.frozen_rate_interval, laws.takeovers_interval])
def test_an_alpha_that_is_no_probability_or_a_certainty_is_refused(law: Callable[..., object], alpha: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        law(10, alpha)


def test_a_count_below_zero_is_refused() -> None:
    for refused in (
        lambda: laws.smallest_ranks(-1, 0.1),
        lambda: laws.frozen_rate_interval(-1, 0.1),
        lambda: laws.takeovers_interval(-1, 0.1),
        lambda: laws.takeovers_interval(5, 0.1, bank=-1),
    ):
        with pytest.raises(ValueError, match="must not be negative"):
            refused()


@pytest.mark.parametrize(("takeovers", "m"), [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_counts_that_have_no_rate_are_refused(takeovers: int, m: int) -> None:
    with pytest.raises(ValueError, match="have no rate"):
        laws.rate_interval(takeovers, m)


@pytest.mark.parametrize("level", [-1.0, 1.5, math.nan])
@pytest.mark.parametrize(
    ("interval", "second"), [(laws.frozen_rate_interval, 0.3), (laws.takeovers_interval, 0.3), (laws.rate_interval, 5)]
)
def test_a_level_that_is_no_probability_is_refused(
    interval: Callable[..., Interval], second: float, level: float
) -> None:
    with pytest.raises(ValueError, match="level"):
        interval(3, second, level)
