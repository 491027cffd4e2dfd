"""Calibrators decide as a reader of their definitions would by hand, and learn afterwards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from atts_runtime.conformal import (
    Adaptive,
    Alarm,
    Bank,
    Decision,
    Frozen,
    Mondrian,
    Online,
    PreSampled,
    SealedBank,
)
from atts_runtime.conformal.watch import AdmissionWatch, CompletionWatch

ROUNDING = 1e-9

scores = st.integers(0, 6).map(float) | st.floats(-9, 9)
banks = st.lists(scores, max_size=12)
ties = st.floats(0, 1, exclude_min=True)
alphas = st.sampled_from([0.1, 0.25, 0.5]) | st.floats(0.01, 0.99)
segments = st.tuples(st.integers(0, 2), st.integers(0, 1), scores, ties)  # question, turn, score, u

examples = settings(max_examples=60, deadline=None)


def by_hand(others: list[float], score: float, u: float) -> float:
    """The smoothed p-value of a score among others."""
    return (sum(s > score for s in others) + u * (1 + sum(s == score for s in others))) / (len(others) + 1)


# One bank for all


@examples
@given(alpha=alphas, bank=banks, stream=st.lists(segments, max_size=12))
def test_a_frozen_bank_never_changes(
    alpha: float, bank: list[float], stream: list[tuple[int, int, float, float]]
) -> None:
    calibrator = Frozen(alpha, SealedBank(bank))
    for question, turn, score, u in stream:
        p_value = by_hand(bank, score, u)
        assert calibrator.decide(question, turn, score, u) == Decision(p_value, alpha, p_value <= alpha, "frozen")


@pytest.mark.parametrize("make", [Bank, SealedBank])
@examples
@given(alpha=alphas, bank=st.lists(scores, min_size=1, max_size=12), stream=st.lists(segments, max_size=12))
def test_a_pre_sample_is_compared_with_the_others_and_a_later_segment_with_all(
    make: type[Bank | SealedBank], alpha: float, bank: list[float], stream: list[tuple[int, int, float, float]]
) -> None:
    calibrator = PreSampled(alpha, make(bank))
    for at, score in enumerate(bank):
        p_value = by_hand(bank[:at] + bank[at + 1 :], score, 0.5)
        assert calibrator.decide(at, 0, score, 0.5) == Decision(p_value, alpha, p_value <= alpha, "presample")
    for question, turn, score, u in stream:
        p_value = by_hand(bank, score, u)
        decision = calibrator.decide(question, turn + 1, score, u)
        assert decision == Decision(p_value, alpha, p_value <= alpha, "presample")


def test_a_pre_sample_that_is_not_in_the_bank_is_refused() -> None:
    with pytest.raises(ValueError, match="is not in the bank"):
        PreSampled(0.5, Bank([1.0, 2.0])).decide(0, 0, 1.5, 0.5)


@examples
@given(alpha=alphas, stream=st.lists(segments, max_size=30), window=st.none() | st.integers(1, 4))
def test_an_online_bank_holds_all_earlier_scores_of_its_key_those_taken_over_included(
    alpha: float, stream: list[tuple[int, int, float, float]], window: int | None
) -> None:
    calibrator = Online(alpha, lambda question, turn: (question, turn), Mondrian(lambda: Bank(window=window)))
    for at, (question, turn, score, u) in enumerate(stream):
        earlier = [s for q, t, s, _ in stream[:at] if (q, t) == (question, turn)]
        p_value = by_hand(earlier if window is None else earlier[-window:], score, u)
        assert calibrator.decide(question, turn, score, u) == Decision(p_value, alpha, p_value <= alpha, "online")


def test_the_key_of_an_online_bank_is_told_question_and_turn() -> None:
    calibrator = Online(0.5, lambda question, turn: 10 * question + turn, Mondrian())
    for question, turn in ((1, 2), (3, 4), (1, 2)):
        calibrator.decide(question, turn, 0.0, 0.5)
    assert [len(calibrator.banks[key]) for key in (12, 34, 21)] == [2, 1, 0]


# Adaptive

QUESTIONS, CHAINS, TURNS = 6, 3, 2


class AdaptiveByHand(RuleBasedStateMachine):
    """Segments of six questions that score or leave in any order, against lists that are searched from end to end."""

    @initialize(
        alpha=st.sampled_from([0.15, 0.34, 0.5]),
        gamma=st.sampled_from([0.1, 1.0]),
        lag=st.integers(1, 3),
        window=st.integers(1, 3),
        reserve=banks,
        threshold=st.sampled_from([1.01, 100.0]),  # the lower one rings soon
    )
    def announce(
        self, alpha: float, gamma: float, lag: int, window: int, reserve: list[float], threshold: float
    ) -> None:
        self.alpha, self.gamma, self.lag, self.window, self.reserve = alpha, gamma, lag, window, reserve
        self.calibrator = Adaptive(
            alpha, gamma=gamma, lag=lag, window=window, reserve=SealedBank(reserve), seed=3, threshold=threshold
        )
        for turn in range(TURNS):
            assert [self.calibrator.expect(turn, CHAINS) for _ in range(QUESTIONS)] == list(range(QUESTIONS))
        self.missing = {(q, t): CHAINS for q in range(QUESTIONS) for t in range(TURNS)}
        self.scores: dict[tuple[int, int], list[float]] = {cohort: [] for cohort in self.missing}
        self.references: dict[tuple[int, int], tuple[list[float], str]] = {}
        self.offsets: Counter[Hashable] = Counter()
        self.admission, self.completion = AdmissionWatch(threshold, 3), CompletionWatch(threshold)

    def reference(self, question: int, turn: int) -> tuple[list[float], str]:
        newest = question - self.lag
        seen = [(q, turn) for q in range(max(0, newest - self.window + 1), newest + 1)]
        scores = [score for cohort in seen for score in self.scores[cohort]]
        if newest < 0:
            return self.reserve, "cold"
        if any(self.missing[cohort] for cohort in seen):
            return self.reserve, "late"
        # Fewer than this many scores leave even the strangest segment's plain p-value above alpha.
        return (scores, "cohort") if 1 / (len(scores) + 1) <= self.alpha else (self.reserve, "thin")

    def sealed(self, question: int, turn: int) -> tuple[Alarm, ...]:
        self.missing[question, turn] -= 1
        if self.missing[question, turn]:
            return ()
        return self.admission.watch(question, turn, self.scores[question, turn])

    def open_cohort(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(st.sampled_from([cohort for cohort, missing in self.missing.items() if missing]))

    @precondition(lambda self: any(self.missing.values()))
    @rule(data=st.data(), score=scores, u=ties, recalled=st.booleans())
    def decide(self, data: st.DataObject, score: float, u: float, recalled: bool) -> None:
        question, turn = self.open_cohort(data)
        keys = ("all", ("turn", turn), ("question", question))
        alpha = self.alpha + sum(self.offsets[key] for key in keys)
        first = self.reference(question, turn)
        self.scores[question, turn].append(score)
        alarms = self.completion.watch(question, turn, score, u) + self.sealed(question, turn)
        if recalled:
            taken_over = u < 0.5
            self.calibrator.recall(question, turn, taken_over)
            assert self.calibrator.observe(question, turn, score, u) == alarms
        else:
            bank, label = self.references.setdefault((question, turn), first)
            p_value = by_hand(bank, score, u)
            decision = self.calibrator.decide(question, turn, score, u)
            taken_over = p_value <= decision.alpha
            assert decision == Decision(p_value, decision.alpha, taken_over, label, alarms)
            assert decision.alpha == pytest.approx(alpha, abs=ROUNDING)
        for key in keys:
            self.offsets[key] += self.gamma * (self.alpha - taken_over)
            assert self.calibrator.budget.offset(key) == pytest.approx(self.offsets[key], abs=ROUNDING)

    @precondition(lambda self: any(self.missing.values()))
    @rule(data=st.data(), all_of_it=st.booleans())
    def leave(self, data: st.DataObject, all_of_it: bool) -> None:
        question, turn = self.open_cohort(data)
        for _ in range(self.missing[question, turn] if all_of_it else 1):
            assert self.calibrator.leave(question, turn) == self.sealed(question, turn)

    @precondition(lambda self: any(self.missing.values()))
    @rule(data=st.data(), score=st.sampled_from([math.nan, math.inf]))
    def refuse_a_score_that_is_not_finite(self, data: st.DataObject, score: float) -> None:
        question, turn = self.open_cohort(data)
        self.references.setdefault((question, turn), self.reference(question, turn))
        before = self.calibrator.budget.offset("all")
        with pytest.raises(ValueError, match="must be finite"):
            self.calibrator.decide(question, turn, score, 0.5)
        assert self.calibrator.budget.offset("all") == before

    @rule()
    def read_the_account(self) -> None:
        assert self.calibrator.budget.offset("all") == pytest.approx(self.offsets["all"], abs=ROUNDING)


TestAnyOrder = AdaptiveByHand.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=QUESTIONS * CHAINS * TURNS, deadline=None)


def test_adaptive_names_each_reason_for_the_reserve() -> None:
    """Two chains a question, compared with the question before: cold has none, late none in time, thin too few. What
    holds for the first chain of a question holds for the second."""
    calibrator = Adaptive(0.34, lag=1, window=1, reserve=SealedBank([0.0, 4.0]))
    for _ in range(5):
        calibrator.expect(0, 2)
    late = calibrator.decide(1, 0, 1.0, 0.5)
    cold = [calibrator.decide(0, 0, 1.0, 0.5) for _ in range(2)]
    late_still = calibrator.decide(1, 0, 1.0, 0.5)
    cohort = [calibrator.decide(2, 0, 2.0, 0.5) for _ in range(2)]
    calibrator.leave(3, 0)
    calibrator.leave(3, 0)
    thin = [calibrator.decide(4, 0, 1.0, 0.5) for _ in range(2)]
    decisions = [late, *cold, late_still, *cohort, *thin]
    assert [d.bank for d in decisions] == ["late", "cold", "cold", "late", "cohort", "cohort", "thin", "thin"]
    # Between the reserve's two: (1 + .5) / 3; above both scores of question 1: .5 / 3.
    assert [d.p_value for d in decisions] == [1.5 / 3] * 4 + [0.5 / 3] * 2 + [1.5 / 3] * 2


def test_a_question_may_finish_after_all_those_that_could_have_been_compared_with_it() -> None:
    calibrator = Adaptive(0.5, lag=1, window=1)
    for _ in range(3):
        calibrator.expect(0, 1)
    assert [calibrator.decide(question, 0, 1.0, 0.5).bank for question in (2, 1, 0)] == ["late", "late", "cold"]


def test_without_a_reserve_a_segment_without_reference_has_its_tie_breaker_for_a_p_value() -> None:
    calibrator = Adaptive(0.5)
    calibrator.expect(0, 1)
    decision = calibrator.decide(0, 0, 7.0, 0.3125)
    assert (decision.p_value, decision.bank) == (0.3125, "cold")


def test_a_takeover_that_was_not_allowed_is_judged_as_none_and_made_up_for() -> None:
    calibrator = Adaptive(0.5, gamma=0.25)
    assert calibrator.judge(0, 0, 0.25, allowed=False) == (False, 0.5)
    assert calibrator.judge(0, 0, 0.875) == (True, 0.875)  # three keys, each .25 * .5 higher


def test_a_segment_that_nobody_announced_is_refused() -> None:
    calibrator = Adaptive(0.5)
    calibrator.expect(0, 1)
    calibrator.decide(0, 0, 1.0, 0.5)
    with pytest.raises(ValueError, match="expects no further member"):
        calibrator.observe(0, 0, 2.0, 0.5)
    with pytest.raises(ValueError, match="expects no further member"):
        calibrator.leave(0, 0)
