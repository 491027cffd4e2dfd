"""The monitors' capital is a martingale on online ranks, and their alarms are what the capital says."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from atts_runtime.conformal import Alarm, Counts, Monitor, SealedBank, SimpleJumper, smoothed, smoothed_batch
from atts_runtime.conformal.laws import rate_interval

NAN = float("nan")
DELTA = 1e-6  # of a bound that a correct program crosses with some probability

# Small p-values first among equals, so that the capital grows far enough to ring.
p_values = st.sampled_from([0.0, 0.01, 0.5, 1.0]) | st.floats(0, 1)
streams = st.lists(p_values, max_size=60)
jumps = st.sampled_from([0.01, 1.0]) | st.floats(0.001, 1)
ties = st.floats(0, 1, exclude_min=True)

examples = settings(max_examples=80, deadline=None)


def factor(jumper: SimpleJumper, p_value: float) -> float:
    """By what the next p-value would change the capital."""
    return copy.deepcopy(jumper).bet(p_value)


# The martingale


@examples
@given(jump=jumps, stream=streams, p_value=p_values)
def test_from_any_state_the_capital_is_the_same_in_expectation_after_a_uniform_p_value(
    jump: float, stream: list[float], p_value: float
) -> None:
    """A straight line in p has its mean over [0, 1] halfway between its ends."""
    jumper = SimpleJumper(jump)
    for earlier in stream:
        jumper.bet(earlier)
    at_0, at_1 = factor(jumper, 0.0), factor(jumper, 1.0)
    assert (at_0 + at_1) / 2 == pytest.approx(1, abs=1e-12)
    assert factor(jumper, p_value) == pytest.approx(at_0 + p_value * (at_1 - at_0), abs=1e-12)
    assert 0.5 <= min(at_0, at_1) <= max(at_0, at_1) <= 1.5


@settings(max_examples=30, deadline=None)
@given(jump=st.fractions(Fraction(1, 1000), 1), stream=st.lists(p_values, max_size=5))
def test_the_capital_is_that_of_a_gambler_who_jumps_between_three_bets(jump: Fraction, stream: list[float]) -> None:
    """The mean over all sequences of bets, where each is the last one or, with probability `jump`, drawn anew."""
    capital = Fraction(0)
    for bets in product((-1, 0, 1), repeat=len(stream)):
        worth = Fraction(1)
        for i, (bet, p_value) in enumerate(zip(bets, stream, strict=True)):
            kept = Fraction(1, 3) if i == 0 else (1 - jump) * (bet == bets[i - 1]) + jump / 3
            worth *= kept * (1 + bet * (Fraction(p_value) - Fraction(1, 2)))
        capital += worth
    jumper = SimpleJumper(float(jump))
    for p_value in stream:
        jumper.bet(p_value)
    assert jumper.log_capital == pytest.approx(math.log(capital), abs=1e-9)


@examples
@given(jump=jumps, stream=streams)
def test_the_capital_is_the_product_of_its_factors(jump: float, stream: list[float]) -> None:
    jumper = SimpleJumper(jump)
    capital = math.prod(jumper.bet(p_value) for p_value in stream)
    assert jumper.log_capital == pytest.approx(math.log(capital), abs=1e-9)


def test_a_capital_beyond_all_floats_still_has_a_logarithm() -> None:
    """Each p-value of 0 multiplies it by almost 1.5."""
    jumper, steps = SimpleJumper(), 2000
    for _ in range(steps):
        jumper.bet(0.0)
    assert math.log(1.48) * steps < jumper.log_capital < math.log(1.5) * steps
    assert jumper.log_capital > math.log(np.finfo(float).max)


# Alarms


@examples
@given(stream=streams, threshold=st.sampled_from([1.1, 2.0, 5.0, 100.0]))
def test_the_alarms_are_those_of_the_capital_and_of_its_largest_ratio_to_its_past(
    stream: list[float], threshold: float
) -> None:
    jumper, monitor = SimpleJumper(), Monitor(threshold, key="stream")
    capital = [0.0]  # logarithms
    since = 0
    rung = False
    for after, p_value in enumerate(stream, 1):
        jumper.bet(p_value)
        capital.append(jumper.log_capital)
        cusum = max(capital[-1] - past for past in capital[since:after])
        assume(all(abs(value - math.log(threshold)) > 1e-9 for value in (cusum, capital[-1])))
        expected = []
        if capital[-1] > math.log(threshold) and not rung:
            rung = True
            expected.append(Alarm("ville", "stream", after))
        if cusum > math.log(threshold):
            since = after
            expected.append(Alarm("cusum", "stream", after))
        assert monitor.bet(p_value) == tuple(expected)
        assert monitor.log_cusum == pytest.approx(0 if since == after else cusum, abs=1e-9)
        assert (monitor.seen, monitor.rung) == (after, rung)


def test_the_capital_rings_once_and_its_ratio_to_the_past_again_and_again() -> None:
    """On p-values of 0 the capital grows by up to one half a step: a hundredfold takes at least 12 steps."""
    monitor = Monitor(100.0)
    alarms = [alarm for _ in range(200) for alarm in monitor.bet(0.0)]
    ville = [alarm.after for alarm in alarms if alarm.kind == "ville"]
    cusum = [alarm.after for alarm in alarms if alarm.kind == "cusum"]
    assert ville == cusum[:1]
    assert len(cusum) > 10
    assert all(late - early >= 12 for early, late in zip([0, *cusum], cusum, strict=False))


# Ranks


@examples
@given(stream=st.lists(st.tuples(st.integers(0, 5) | st.floats(-9, 9), ties), max_size=40))
def test_a_score_is_ranked_among_those_before_it_and_then_remembered(stream: list[tuple[float, float]]) -> None:
    watching, betting = Monitor(2.0), Monitor(2.0)
    for at, (score, u) in enumerate(stream):
        earlier = [other for other, _ in stream[:at]]
        counts = Counts(sum(s > score for s in earlier), sum(s == score for s in earlier), at)
        assert watching.watch(score, u) == betting.bet(smoothed(counts, u))
        assert watching.martingale.log_capital == betting.martingale.log_capital


# What is refused


@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.0, -2.0, NAN])
def test_a_threshold_that_the_capital_has_from_the_start_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="must exceed 1"):
        Monitor(threshold)


@pytest.mark.parametrize("jump", [0.0, -0.1, 1.01, NAN])
def test_a_jump_that_is_no_positive_share_is_refused(jump: float) -> None:
    with pytest.raises(ValueError, match="jump must be in"):
        SimpleJumper(jump)


@pytest.mark.parametrize("p_value", [-1e-9, 1 + 1e-9, NAN, math.inf])
def test_what_is_no_p_value_is_refused_and_not_bet_on(p_value: float) -> None:
    monitor = Monitor()
    with pytest.raises(ValueError, match="a p-value lies in"):
        monitor.bet(p_value)
    assert (monitor.seen, monitor.log_cusum, monitor.martingale.log_capital) == (0, 0.0, 0.0)


@pytest.mark.parametrize(("score", "u"), [(NAN, 0.5), (math.inf, 0.5), (1.0, 0.0), (1.0, 1.5), (1.0, NAN)])
def test_a_score_that_cannot_be_ranked_is_not_remembered(score: float, u: float) -> None:
    refusing, fresh = Monitor(), Monitor()
    with pytest.raises(ValueError, match=r"must be (finite|in)"):
        refusing.watch(score, u)
    for later in (0.5, 1.0, 2.0):
        refusing.watch(later, 0.5)
        fresh.watch(later, 0.5)
    assert (refusing.seen, refusing.martingale.log_capital) == (fresh.seen, fresh.martingale.log_capital)


# False alarms and true ones

RUNS, SCORES = 300, 300


def test_false_alarms_are_no_more_frequent_than_ville_allows() -> None:
    rng = np.random.default_rng(20221)
    peaks = np.zeros(RUNS)
    for run in range(RUNS):
        monitor = Monitor()
        for score, u in zip(rng.standard_normal(SCORES), 1 - rng.random(SCORES), strict=True):
            monitor.watch(score, u)
            peaks[run] = max(peaks[run], monitor.martingale.log_capital)
    thresholds = np.array([5.0, 20.0, 100.0])
    false_alarms = np.sum(peaks[:, None] >= np.log(thresholds), axis=0)
    assert false_alarms[0] > 0  # the capital does move
    assert np.all(false_alarms <= stats.binom.ppf(1 - DELTA / 3, RUNS, 1 / thresholds))


def test_a_shift_by_half_a_deviation_is_noticed_within_two_hundred_scores() -> None:
    rng = np.random.default_rng(20222)
    before, most, delays = 200, 1000, []
    for _ in range(51):
        monitor = Monitor(100.0)
        scores = rng.standard_normal(before + most) + np.repeat([0.0, 0.5], [before, most])
        alarms = (a for s, u in zip(scores, 1 - rng.random(len(scores)), strict=True) for a in monitor.watch(s, u))
        delays.append(next((a.after - before for a in alarms if a.after > before), most))
    assert np.median(delays) < 200


def test_p_values_of_one_shared_bank_ring_far_too_often() -> None:
    """Negative control: a bank that happens to be low makes all its p-values small, which looks like a drift."""
    rng = np.random.default_rng(20223)
    false_alarms = 0
    for _ in range(RUNS):
        monitor, bank = Monitor(100.0), SealedBank(rng.standard_normal(50))
        for p_value in smoothed_batch(bank.scores, rng.standard_normal(SCORES), 1 - rng.random(SCORES)):
            monitor.bet(p_value)
        false_alarms += monitor.rung
    assert rate_interval(false_alarms, RUNS, 1 - 2 * DELTA).low > 5 / 100
