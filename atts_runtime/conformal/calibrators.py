"""Calibrators: from a score to a verdict. Policies, simulator and `atts-sim replay` run the same objects.

A calibrator is told the question and turn of a segment, both fixed before its score, and its tie-breaker u. It
decides first and learns afterwards, so that a score is never compared with itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from atts_runtime.conformal.bank import Bank, Mondrian, SealedBank
from atts_runtime.conformal.budget import AdaptiveAlpha
from atts_runtime.conformal.cohorts import CohortBank, Fallback
from atts_runtime.conformal.monitor import Alarm
from atts_runtime.conformal.pvalue import Counts, smoothed
from atts_runtime.conformal.watch import AdmissionWatch, CompletionWatch


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and its grounds. `bank` names what the score was compared with: ``frozen``, ``online``, ``presample``,
    ``cohort``, or why it was the reserve instead of a cohort: ``cold``, ``late``, ``thin``."""

    p_value: float
    alpha: float
    taken_over: bool
    bank: str
    alarms: tuple[Alarm, ...] = ()


class Calibrator(Protocol):
    """What all of them do."""

    def decide(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> Decision:
        """Judge a segment, then learn its score. `attempt` counts the tries of a chain in one turn."""


class Frozen:
    """The published calibrator: one bank of turn-0 scores that never changes."""

    def __init__(self, alpha: float, bank: SealedBank) -> None:
        self.alpha, self.bank = alpha, bank

    def decide(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> Decision:
        p_value = smoothed(self.bank.counts(score), u)
        return Decision(p_value, self.alpha, p_value <= self.alpha, "frozen")


class PreSampled:
    """The same with the run's own turn-0 scores as the bank: each of them is tested against the others."""

    def __init__(self, alpha: float, bank: Bank | SealedBank) -> None:
        self.alpha, self.bank = alpha, bank

    def decide(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> Decision:
        counts = self.bank.counts_of_member(score) if turn == 0 else self.bank.counts(score)
        p_value = smoothed(counts, u)
        return Decision(p_value, self.alpha, p_value <= self.alpha, "presample")


class Online:
    """A live bank per `key(question, turn)` that grows by every score it has tested."""

    def __init__(self, alpha: float, key: Callable[[int, int], Hashable], banks: Mondrian) -> None:
        self.alpha, self.key, self.banks = alpha, key, banks

    def decide(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> Decision:
        bank = self.banks[self.key(question, turn)]
        p_value = smoothed(bank.counts(score), u)
        bank.add(score)
        return Decision(p_value, self.alpha, p_value <= self.alpha, "online")


class Adaptive:
    """Sealed cohorts by turn, an adaptive alpha, two monitors.

    A cohort is a question's segments of one turn. A segment is compared with the same turn of the `window` questions
    that lie `lag` questions back, or else with the reserve; alpha is moved for everything, for the turn and for the
    question at once.

    Args:
        gamma: step of alpha after each decision, for each of its three keys.
        lag: at least as many questions as are in flight together, for the reference to be complete in time.
        reserve: what a segment without reference is compared with; empty, its p-value is its tie-breaker, which
            takes over at the rate alpha and knows nothing.
        seed: of the monitors' tie-breakers.
        threshold: c of each monitor's Ville alarm; false with probability at most 1/c for both monitors each.
    """

    def __init__(
        self,
        alpha: float,
        *,
        gamma: float = 0.1,
        lag: int = 1,
        window: int = 32,
        reserve: Bank | SealedBank | None = None,
        seed: int = 0,
        threshold: float = 100.0,
    ) -> None:
        self.budget = AdaptiveAlpha(alpha, gamma)
        # A plain p-value can reach alpha only in a bank of 1/alpha - 1 scores; no bank has a thousand million.
        least = math.ceil(1 / max(alpha, 1e-9)) - 1
        self.cohorts = CohortBank(lag=lag, window=window, least=max(1, least))
        self.reserve: Bank | SealedBank = reserve if reserve is not None else SealedBank()
        self._admission = AdmissionWatch(threshold, seed)
        self._completion = CompletionWatch(threshold)

    def expect(self, turn: int, members: int) -> int:
        """Announce the next question's segments of a turn, at most `members`; returns the question's number."""
        question = self.cohorts.expect(turn, members)
        if not members:  # nothing will come that could tell the monitors to go on to the next question
            self._sealed(question, turn, ())
        return question

    def decide(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> Decision:
        """Judge a segment, then learn its score."""
        counts, bank = self.counts(question, turn, score)
        p_value = smoothed(counts, u)
        taken_over, alpha = self.judge(question, turn, p_value)
        return Decision(p_value, alpha, taken_over, bank, self.observe(question, turn, score, u, attempt))

    def counts(self, question: int, turn: int, score: float) -> tuple[Counts, str]:
        """The segment's rank in its reference, or in the reserve, and the name of which."""
        reference = self.cohorts.reference(turn, question)
        if isinstance(reference, Fallback):
            return self.reserve.counts(score), reference.value
        return reference.counts(score), "cohort"

    def judge(self, question: int, turn: int, p_value: float, *, allowed: bool = True) -> tuple[bool, float]:
        """Whether the target takes over, and at which alpha."""
        return self.budget.decide(p_value, self._keys(question, turn), allowed=allowed)

    def recall(self, question: int, turn: int, taken_over: bool) -> None:
        """Learn from a verdict that an earlier session gave."""
        self.budget.learn(taken_over, self._keys(question, turn))

    def observe(self, question: int, turn: int, score: float, u: float, attempt: int = 0) -> tuple[Alarm, ...]:
        """Learn a score that has been judged, or that is judged among its own bank; returns the alarms it raised.

        Attempts of a chain come one after another and resemble each other, so only the first is ranked by when it came.
        """
        complete = self.cohorts.insert(turn, question, score)
        alarms = () if attempt else self._completion.watch(question, turn, score, u)
        return alarms + self._sealed(question, turn, complete)

    def leave(self, question: int, turn: int) -> tuple[Alarm, ...]:
        """A segment that was expected will not come; returns the alarms that completing its cohort raised."""
        return self._sealed(question, turn, self.cohorts.leave(turn, question))

    def _sealed(self, question: int, turn: int, complete: tuple[float, ...] | None) -> tuple[Alarm, ...]:
        if complete is None:
            return ()
        self._completion.forget(question, turn)
        return self._admission.watch(question, turn, complete)

    @staticmethod
    def _keys(question: int, turn: int) -> tuple[Hashable, ...]:
        return ("all", ("turn", turn), ("question", question))
