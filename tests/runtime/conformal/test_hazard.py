"""The asynchronous hazard is real: banks of what has finished take over too often, and the remedies do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from itertools import pairwise

import numpy as np
import pytest

from atts_runtime.conformal import Adaptive, Bank, CohortBank, Decision, Fallback, Mondrian, Online, smoothed
from tests.runtime.conformal.arrivals import Arrival, burst, p_value_or_u, stream

ALPHA, CHAINS = 0.10, 64


def uniform(rng: np.random.Generator) -> float:
    return 1 - rng.random()


def bursts(seed: int, count: int, rho: float) -> tuple[np.random.Generator, list[list[Arrival]]]:
    rng = np.random.default_rng(seed)
    return rng, [burst(rng, CHAINS, rho) for _ in range(count)]


# The hazard


def rate_of_finished(rho: float, *, in_admission_order: bool = False) -> float:
    """Takeover rate where each segment of a burst is compared with those before it in the order given."""
    rng, all_bursts = bursts(1, 200, rho)
    taken = 0
    for arrivals in all_bursts:
        calibrator = Online(ALPHA, lambda question, turn: turn, Mondrian())
        for arrival in sorted(arrivals) if in_admission_order else arrivals:
            taken += calibrator.decide(0, 0, arrival.score, uniform(rng)).taken_over
    return taken / (CHAINS * len(all_bursts))


def test_a_bank_of_finished_segments_takes_over_the_more_too_often_the_slower_strange_ones_are() -> None:
    rates = [rate_of_finished(rho) for rho in (0.0, 0.3, 0.6, 0.9)]
    assert rates[0] == pytest.approx(ALPHA, abs=0.02)
    assert all(later > earlier + 0.03 for earlier, later in pairwise(rates))
    assert rates[-1] > 0.3


def test_where_strange_segments_are_faster_it_takes_over_too_rarely() -> None:
    assert rate_of_finished(-0.9) < ALPHA / 2


@pytest.mark.parametrize("all_scores", [True, False])
def test_a_bank_that_learns_only_what_stood_takes_over_ever_more(all_scores: bool) -> None:
    """It starts as a fair one of 200 scores; order and duration play no part."""
    rng = np.random.default_rng(2)
    bank, taken = Bank(rng.standard_normal(200)), []
    for score in rng.standard_normal(20_000):
        taken.append(smoothed(bank.counts(score), uniform(rng)) <= ALPHA)
        if all_scores or not taken[-1]:
            bank.add(score)
    blocks = [np.mean(taken[first:last]) for first, last in ((0, 200), (2000, 4000), (18_000, 20_000))]
    if all_scores:
        assert blocks == [pytest.approx(ALPHA, abs=0.05)] + [pytest.approx(ALPHA, abs=0.02)] * 2
    else:
        assert blocks[0] < 0.2
        assert blocks[0] + 0.1 < blocks[1] < blocks[2] - 0.02
        assert blocks[2] > 0.4


@pytest.mark.parametrize("mondrian", [True, False])
def test_tasks_of_different_difficulty_need_banks_of_their_own(mondrian: bool) -> None:
    """Two tasks a nat apart, which is five deviations, by turns: pooled, the harder one spends the easier one's."""
    rng = np.random.default_rng(3)
    alpha, each = 0.2, 4000

    def key(question: int, turn: int) -> Hashable:
        return question % 2 if mondrian else "all"

    calibrator, taken = Online(alpha, key, Mondrian()), Counter[int]()
    for question, score in enumerate(0.2 * rng.standard_normal(2 * each)):
        task = question % 2
        taken[task] += calibrator.decide(question, 0, task + score, uniform(rng)).taken_over
    easy, hard = taken[0] / each, taken[1] / each
    if mondrian:
        assert (easy, hard) == (pytest.approx(alpha, abs=0.02), pytest.approx(alpha, abs=0.02))
    else:
        assert easy < 0.01
        assert hard == pytest.approx(2 * alpha, abs=0.02)
        assert easy + hard == pytest.approx(2 * alpha, abs=0.02)  # the pooled rate hides it


# The remedies, at a correlation of .9


def test_comparing_in_admission_order_keeps_the_rate() -> None:
    assert rate_of_finished(0.9, in_admission_order=True) == pytest.approx(ALPHA, abs=0.01)


def rate_of_cohorts(rho: float) -> float:
    """Takeover rate where each burst is a cohort, compared with the one before."""
    rng, all_bursts = bursts(4, 600, rho)
    bank, taken = CohortBank(lag=1), []
    for arrivals in all_bursts:
        cohort = bank.expect("all", CHAINS)
        for arrival in arrivals:
            taken.append(p_value_or_u(bank.reference("all", cohort), arrival.score, uniform(rng)) <= ALPHA)
            bank.insert("all", cohort, arrival.score)
    return float(np.mean(taken))


def test_comparing_with_the_burst_before_keeps_the_rate() -> None:
    assert rate_of_cohorts(0.9) == pytest.approx(ALPHA, abs=0.01)


def adaptive_decisions(rho: float, count: int = 200) -> list[Decision]:
    """Of so many bursts, each a question."""
    rng, all_bursts = bursts(5, count, rho)
    calibrator, decisions = Adaptive(ALPHA, lag=1), []
    for arrivals in all_bursts:
        question = calibrator.expect(0, CHAINS)
        decisions += [calibrator.decide(question, 0, arrival.score, uniform(rng)) for arrival in arrivals]
    return decisions


def test_adaptive_keeps_the_rate_and_its_p_values_would_without_moving_alpha() -> None:
    decisions = adaptive_decisions(0.9)
    assert np.mean([d.taken_over for d in decisions]) == pytest.approx(ALPHA, abs=0.01)
    assert np.mean([d.p_value <= ALPHA for d in decisions]) == pytest.approx(ALPHA, abs=0.01)
    assert Counter(d.bank for d in decisions) == {"cold": CHAINS, "cohort": len(decisions) - CHAINS}
    # Within every burst strange segments come last, which is what its completion monitor is for.
    assert any(alarm.key == "completion/turn 0" for d in decisions for alarm in d.alarms)
    assert not any(alarm.key == "admission/turn 0" for d in decisions for alarm in d.alarms)


def test_in_a_steady_stream_a_lag_beyond_what_is_in_flight_keeps_the_rate_and_rarely_falls_back() -> None:
    """64 in flight span at most two cohorts of 128 unless one segment outlasts many."""
    rng = np.random.default_rng(6)
    size, cohorts, lag = 128, 240, 3
    bank, taken, grounds = CohortBank(lag=lag), [], Counter[Fallback | None]()
    for _ in range(cohorts):
        bank.expect("all", size)
    for arrival in stream(rng, size * cohorts, 0.9, in_flight=CHAINS):
        cohort = arrival.index // size
        reference = bank.reference("all", cohort)
        grounds[reference if isinstance(reference, Fallback) else None] += 1
        taken.append(p_value_or_u(reference, arrival.score, uniform(rng)) <= ALPHA)
        bank.insert("all", cohort, arrival.score)
    assert np.mean(taken) == pytest.approx(ALPHA, abs=0.01)
    assert grounds[Fallback.COLD] == lag * size
    assert grounds[Fallback.LATE] % size == 0  # a whole cohort or none of it
    assert grounds[Fallback.LATE] < 0.1 * len(taken)
    assert grounds.total() == len(taken) == size * cohorts


@pytest.mark.parametrize("latched", [True, False])
def test_a_segment_must_not_choose_its_reference_by_its_own_slowness(latched: bool) -> None:
    """Cohorts of 8 that start together: a reference is complete for the slowest segments of a cohort if for any, and
    those are the strange ones. Hence one choice for the whole cohort, when the first of it finishes."""
    size, rng, all_bursts = 8, *bursts(7, 400, 0.9)
    taken = []
    for arrivals in all_bursts:
        bank = CohortBank(lag=1)
        done = Counter[int]()
        finished: dict[int, list[float]] = {bank.expect("all", size): [] for _ in range(CHAINS // size)}
        for arrival in arrivals:
            cohort, u = arrival.index // size, uniform(rng)
            if latched:
                p_value = p_value_or_u(bank.reference("all", cohort), arrival.score, u)
            elif done[cohort - 1] == size:
                p_value = smoothed(Bank(finished[cohort - 1]).counts(arrival.score), u)
            else:
                p_value = u
            taken.append(p_value <= ALPHA)
            bank.insert("all", cohort, arrival.score)
            finished[cohort].append(arrival.score)
            done[cohort] += 1
    if latched:
        assert np.mean(taken) == pytest.approx(ALPHA, abs=0.02)
    else:
        assert np.mean(taken) > 1.3 * ALPHA
