"""Takeovers follow the laws that the documentation states, on many draws and whatever finishes first.

A test against a law would fail a correct program for at most one seed in 1 / `DELTA`; seeds are fixed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from atts_runtime.conformal import Adaptive, CohortBank, Fallback, Mondrian, Online, PreSampled, SealedBank
from atts_runtime.conformal.laws import beta_binomial_pmf, rate_interval, smallest_ranks, takeovers_interval
from tests.runtime.conformal.arrivals import burst, p_value_or_u, stream

pytestmark = pytest.mark.slow

TESTS = 10  # that share a probability of one in a million
DELTA = 1e-6 / TESTS
ALPHA = 0.10
CHAINS = 59  # so that ALPHA (CHAINS + 1) is whole, and smoothed p-values follow the laws of plain ones
HAZARD = 0.9  # correlation of score and log duration


def law(m: int, n: int) -> NDArray[np.float64]:
    """Probability of each number of takeovers among `m` scores compared with one bank of `n`."""
    k = smallest_ranks(n, ALPHA)
    return np.array([float(beta_binomial_pmf(j, m, k, n)) for j in range(m + 1)])


def sum_interval(pmf: NDArray[np.float64], times: int, delta: float) -> tuple[int, int]:
    """What the sum of `times` independent draws stays within, each side missed with probability at most `delta` / 2.
    The law of the sum is computed, not approximated."""
    total, power = np.ones(1), pmf
    while times:
        if times % 2:
            total = np.convolve(total, power)
        times //= 2
        power = np.convolve(power, power)
    below = np.cumsum(total)
    return int(np.searchsorted(below, delta / 2)), int(np.searchsorted(below, below[-1] - delta / 2))


def test_the_law_of_a_sum_is_exact_where_it_is_known() -> None:
    """Sums of single scores, each with a bank of its own, are binomial."""
    low, high = takeovers_interval(500, ALPHA, 1 - 1e-6)
    assert sum_interval(law(1, CHAINS), 500, 1e-6) == (low, high)


# Independent decisions


def test_online_in_admission_order_takeovers_are_binomial() -> None:
    rng = np.random.default_rng(401)
    calibrator = Online(ALPHA, lambda question, turn: turn, Mondrian())
    taken, decisions = 0, 200_000
    for arrival in sorted(burst(rng, decisions, HAZARD)):
        taken += calibrator.decide(0, 0, arrival.score, 1 - rng.random()).taken_over
    assert takeovers_interval(decisions, ALPHA, 1 - DELTA).holds(taken)


def test_in_completion_order_they_are_not() -> None:
    """Negative control."""
    rng, taken, count = np.random.default_rng(402), 0, 1000
    for _ in range(count):
        calibrator = Online(ALPHA, lambda question, turn: turn, Mondrian())
        for arrival in burst(rng, CHAINS, HAZARD):
            taken += calibrator.decide(0, 0, arrival.score, 1 - rng.random()).taken_over
    assert rate_interval(taken, count * CHAINS, 1 - DELTA).low > 0.35


# Shared banks


def test_takeovers_of_one_frozen_bank_are_beta_binomial() -> None:
    """The largest distance of distribution functions, by the Dvoretzky-Kiefer-Wolfowitz-Massart inequality."""
    rng, banks, m = np.random.default_rng(403), 4000, 40
    seen = np.zeros(m + 1)
    for _ in range(banks):
        calibrator = PreSampled(ALPHA, SealedBank(rng.standard_normal(CHAINS)))
        seen[sum(calibrator.decide(0, 1, s, 1 - rng.random()).taken_over for s in rng.standard_normal(m))] += 1
    distance = np.max(np.abs(np.cumsum(seen) / banks - np.cumsum(law(m, CHAINS))))
    assert distance <= math.sqrt(math.log(2 / DELTA) / (2 * banks))


def test_pre_samples_among_themselves_are_taken_over_exactly_at_the_rate() -> None:
    """Without ties and with plain p-values their ranks are 1 to 60, in any order."""
    rng = np.random.default_rng(404)
    for _ in range(200):
        scores = rng.standard_normal(CHAINS + 1)
        calibrator = PreSampled(ALPHA, SealedBank(scores))
        assert sum(calibrator.decide(0, 0, score, 1.0).taken_over for score in scores) == ALPHA * (CHAINS + 1)


Judge = Callable[[int, float, float], float]  # burst, score, u -> p-value; learns the score


def by_cohort(count: int) -> Judge:
    bank = CohortBank(lag=1)
    for _ in range(count):
        bank.expect("all", CHAINS)

    def judge(cohort: int, score: float, u: float) -> float:
        p_value = p_value_or_u(bank.reference("all", cohort), score, u)
        bank.insert("all", cohort, score)
        return p_value

    return judge


def by_adaptive(count: int) -> Judge:
    calibrator = Adaptive(ALPHA, lag=1, window=1)
    for _ in range(count):
        calibrator.expect(0, CHAINS)
    return lambda question, score, u: calibrator.decide(question, 0, score, u).p_value


@pytest.mark.parametrize("judged", [by_cohort, by_adaptive])
def test_of_two_bursts_the_second_s_p_values_follow_the_law_of_a_frozen_bank(judged: Callable[[int], Judge]) -> None:
    """Every other burst is the bank of the one after it, so that the pairs are independent."""
    rng, pairs = np.random.default_rng(405), 1000
    judge, taken = judged(2 * pairs), 0
    for cohort in range(2 * pairs):
        p_values = [judge(cohort, arrival.score, 1 - rng.random()) for arrival in burst(rng, CHAINS, HAZARD)]
        taken += cohort % 2 * sum(p_value <= ALPHA for p_value in p_values)
    low, high = sum_interval(law(CHAINS, CHAINS), pairs, DELTA)
    assert low <= taken <= high
    assert high - low < 0.02 * CHAINS * pairs  # the interval says something


def test_the_pairs_would_notice_a_bank_of_finished_segments() -> None:
    """Negative control: each burst's first half to finish is the bank of its second."""
    rng, pairs, taken = np.random.default_rng(406), 1000, 0
    for _ in range(pairs):
        arrivals = burst(rng, 2 * CHAINS, HAZARD)
        bank = SealedBank([arrival.score for arrival in arrivals[:CHAINS]])
        for arrival in arrivals[CHAINS:]:
            taken += p_value_or_u(bank, arrival.score, 1 - rng.random()) <= ALPHA
    assert taken > sum_interval(law(CHAINS, CHAINS), pairs, DELTA)[1]


# Streams


def test_the_longer_the_lag_the_fewer_cohorts_of_a_stream_fall_back_and_the_rate_is_kept_at_any() -> None:
    """64 in flight, cohorts of 128. The bound on the rate is the tolerance that the documentation states."""
    size, cohorts, late = 128, 400, []
    for lag in (1, 2, 3, 4, 6):
        rng = np.random.default_rng(407)  # the same stream for each
        bank, taken, grounds = CohortBank(lag=lag), 0, Counter[Fallback | None]()
        for _ in range(cohorts):
            bank.expect("all", size)
        for arrival in stream(rng, size * cohorts, HAZARD, in_flight=64):
            reference = bank.reference("all", arrival.index // size)
            grounds[reference if isinstance(reference, Fallback) else None] += 1
            taken += p_value_or_u(reference, arrival.score, 1 - rng.random()) <= ALPHA
            bank.insert("all", arrival.index // size, arrival.score)
        assert taken / (size * cohorts) == pytest.approx(ALPHA, abs=0.01)
        assert grounds[Fallback.COLD] == lag * size
        late.append(grounds[Fallback.LATE] / (size * (cohorts - lag)))
    assert late == sorted(late, reverse=True)
    assert late[0] > 0.9  # a cohort starts while the one before it is at work
    assert late[2] < 0.05
    assert late[3] < 0.005
    assert late[4] == 0


def test_a_stream_of_adaptive_questions_keeps_the_rate_of_every_turn() -> None:
    """Two turns of different difficulty in one stream, eight chains a question, nine questions in flight."""
    rng = np.random.default_rng(408)
    chains, questions = 8, 1500
    calibrator = Adaptive(ALPHA, lag=18)
    for turn in range(2):
        for _ in range(questions):
            calibrator.expect(turn, chains)
    taken, small = Counter[int](), Counter[int]()
    for index, score in stream(rng, 2 * chains * questions, HAZARD, in_flight=9 * chains):
        question, turn = divmod(index // chains, 2)
        decision = calibrator.decide(question, turn, score + 2 * turn, 1 - rng.random())
        taken[turn] += decision.taken_over
        small[turn] += decision.p_value <= ALPHA
    for turn in range(2):
        assert taken[turn] / (chains * questions) == pytest.approx(ALPHA, abs=0.01)
        assert small[turn] / (chains * questions) == pytest.approx(ALPHA, abs=0.01)
