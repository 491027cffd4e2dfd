"""Small claims that the laws of the calibrators rest on: what is compared with what, and what is learnt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atts_runtime.conformal import Adaptive, AdaptiveAlpha, Bank, Counts, Mondrian, Online, smoothed
from atts_runtime.conformal.budget import single_key_bound

ties = st.floats(0, 1, exclude_min=True)
streams = st.lists(st.tuples(st.integers(0, 4), ties), max_size=10)


def one_bank(question: int, turn: int) -> int:
    return 0


@settings(deadline=None)
@given(stream=streams, alpha=st.floats(0.05, 0.95))
def test_online_ranks_a_score_among_all_earlier_ones_and_not_itself(
    stream: list[tuple[int, float]], alpha: float
) -> None:
    calibrator = Online(alpha, one_bank, Mondrian())
    earlier: list[int] = []
    for score, u in stream:
        counts = Counts(sum(s > score for s in earlier), earlier.count(score), len(earlier))
        decision = calibrator.decide(0, 0, score, u)
        assert decision.p_value == smoothed(counts, u)
        assert decision.taken_over == (decision.p_value <= alpha)
        earlier.append(score)


@pytest.mark.parametrize("alpha", [0.001, 0.5, 0.999])
def test_online_learns_every_score_whether_taken_over_or_not(alpha: float) -> None:
    banks = Mondrian(Bank)
    calibrator = Online(alpha, one_bank, banks)
    verdicts = [calibrator.decide(0, 0, score, 0.5).taken_over for score in (0.0, 1.0, 2.0, 3.0, -1.0)]
    assert list(banks[0]) == [-1.0, 0.0, 1.0, 2.0, 3.0]
    assert any(verdicts) == (alpha > 0.1)


def test_adaptive_compares_a_cohorts_first_and_last_segment_with_the_same_reference() -> None:
    """Also where its last score completes it, which is when its reference is let go of."""
    calibrator = Adaptive(0.5, lag=1, window=1)
    for question, scores in enumerate([(1.0, 3.0), (2.0, 4.0), (0.0, 5.0)]):
        assert calibrator.expect(0, 2) == question
        decisions = [calibrator.decide(question, 0, score, 0.5) for score in scores]
        if question == 0:
            assert [(d.p_value, d.bank) for d in decisions] == [(0.5, "cold")] * 2
        elif question == 1:  # against 1 and 3
            assert [(d.p_value, d.bank) for d in decisions] == [(1.5 / 3, "cohort"), (0.5 / 3, "cohort")]
        else:  # against 2 and 4
            assert [(d.p_value, d.bank) for d in decisions] == [(2.5 / 3, "cohort"), (0.5 / 3, "cohort")]


@pytest.mark.parametrize(("u", "taken_over"), [(0.01, True), (0.99, False)])
def test_adaptive_learns_a_score_whether_taken_over_or_not(u: float, taken_over: bool) -> None:
    calibrator = Adaptive(0.5)
    calibrator.expect(0, 2)
    assert calibrator.decide(0, 0, 7.0, u).taken_over == taken_over
    assert calibrator.cohorts.scores(0, 0) == (7.0,)


@pytest.mark.parametrize("p_value", [0.0, 1.0])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.8])
def test_alpha_keeps_its_rate_on_p_values_that_could_not_be_worse(p_value: float, alpha: float) -> None:
    """Which takes an alpha below 0 and above 1."""
    budget = AdaptiveAlpha(alpha, 0.1)
    for _ in range(1000):
        budget.decide(p_value, ["all"])
    rate = budget.rate("all")
    assert rate is not None
    assert abs(rate - alpha) <= single_key_bound(alpha, 0.1, 1000)
