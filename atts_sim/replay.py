"""Replay a calibrator on recorded scores: which takeover rate would it have kept, by turn and by question?

A replay asks about calibration only. The scores are as recorded: a takeover that the recording had and the replay
has not, or the other way round, changes nothing in what follows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from atts_runtime.conformal import (
    Adaptive,
    Decision,
    Frozen,
    Mondrian,
    Online,
    PreSampled,
    SealedBank,
    laws,
    tie_breaker,
)
from atts_runtime.conformal.calibrators import Calibrator
from atts_runtime.errors import InputError
from atts_sim.trace import Scores

Order = Literal["admission", "completion"]
CALIBRATORS = {
    "frozen": "one bank that never changes: --bank, or the trace's own turn-0 scores",
    "marginal": "one live bank for everything, starting from --bank",
    "conditional": "one live bank a question",
    "turn": "one live bank a turn, turn 0 starting from --bank",
    "adaptive": "sealed cohorts by turn, adaptive alpha, monitors (policy async-adaptive); --bank is its reserve",
}
_BAND = 0.99


@dataclass(frozen=True, slots=True)
class Settings:
    """What to replay. `gamma`, `lag` and `window` concern `adaptive` only."""

    calibrator: str
    alpha: float = 0.4
    order: Order = "admission"
    bank: SealedBank | None = None
    seed: int = 0
    gamma: float = 0.1
    lag: int = 1
    window: int = 32

    def __post_init__(self) -> None:
        if self.calibrator not in CALIBRATORS:
            raise InputError(f"unknown calibrator {self.calibrator!r}; choose one of {', '.join(CALIBRATORS)}")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha must lie strictly between 0 and 1, got {self.alpha}")
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise InputError(f"gamma must be positive, got {self.gamma}")
        if self.order not in ("admission", "completion"):
            raise InputError(f"order must be admission or completion, got {self.order!r}")
        if self.lag < 1 or self.window < 1:
            raise InputError(f"lag and window must be at least 1, got {self.lag} and {self.window}")
        if self.bank is not None and self.calibrator == "conditional":
            raise InputError("the conditional calibrator has no use for --bank: each question has a bank of its own")


def decide(scores: Scores, settings: Settings) -> list[Decision]:
    """A decision for each score, listed in admission order, taken in the order of the settings."""
    calibrator = _calibrator(scores, settings)
    order = range(len(scores)) if settings.order == "admission" else np.argsort(scores.finished, kind="stable").tolist()
    decisions: list[Decision | None] = [None] * len(scores)
    for i in order:
        question, turn, chain, attempt = (
            int(a[i]) for a in (scores.question, scores.turn, scores.chain, scores.attempt)
        )
        # The first attempt's tie-breaker is the one that a policy would draw.
        u = tie_breaker(settings.seed, f"{question}.{chain}", turn, *([attempt] if attempt else []))
        decisions[i] = calibrator.decide(question, turn, float(scores.ell[i]), u, attempt)
    return [decision for decision in decisions if decision is not None]


def _calibrator(scores: Scores, settings: Settings) -> Calibrator:
    alpha, bank = settings.alpha, settings.bank
    match settings.calibrator:
        case "frozen":
            return PreSampled(alpha, SealedBank(scores.ell[scores.turn == 0])) if bank is None else Frozen(alpha, bank)
        case "marginal":
            return Online(alpha, lambda question, turn: None, _starting(None, bank))
        case "conditional":
            return Online(alpha, lambda question, turn: question, Mondrian())
        case "turn":
            return Online(alpha, lambda question, turn: turn, _starting(0, bank))
        case _:
            adaptive = Adaptive(
                alpha,
                gamma=settings.gamma,
                lag=settings.lag,
                window=settings.window,
                reserve=bank,
                seed=settings.seed,
            )
            members = Counter(zip(scores.turn.tolist(), scores.question.tolist(), strict=True))
            for turn in range(scores.turns):
                for question in range(scores.questions):
                    adaptive.expect(turn, members[turn, question])
            return adaptive


def _starting(key: int | None, bank: SealedBank | None) -> Mondrian:
    """Live banks, that of `key` starting from the scores of `bank`."""
    mondrian = Mondrian()
    for score in () if bank is None else bank.scores.tolist():
        mondrian[key].add(score)
    return mondrian


def summarize(scores: Scores, settings: Settings, decisions: Sequence[Decision]) -> dict[str, Any]:
    """The object that `--json` prints. Every rate comes with its count and its exact (Clopper-Pearson) 95% interval;
    `in_band` says whether a question's count lies in the central 99% of the binomial with its own number of scores.
    `alarms` is None for calibrators without monitors."""
    taken = np.array([decision.taken_over for decision in decisions])
    by_question = [
        _rate(taken[scores.question == q], question=q, problem=int(scores.problems[q]))
        | {"in_band": _in_band(taken[scores.question == q], settings.alpha)}
        for q in range(scores.questions)
    ]
    alphas = [decision.alpha for decision in decisions]
    alarms = [
        {"kind": alarm.kind, "monitor": alarm.key, "after": alarm.after, "question": int(q), "turn": int(t)}
        for decision, q, t in zip(decisions, scores.question, scores.turn, strict=True)
        for alarm in decision.alarms
    ]
    banks = Counter(decision.bank for decision in decisions)
    return {
        "trace": str(scores.path),
        "calibrator": settings.calibrator,
        "alpha": settings.alpha,
        "order": settings.order,
        "completion_times": scores.finished_from,
        "scores": len(scores),
        "missing_scores": scores.missing,
        "takeover": _rate(taken),
        "by_turn": [_rate(taken[scores.turn == t], turn=t) for t in np.unique(scores.turn).tolist()],
        "by_question": by_question,
        "questions_in_band": float(np.mean([row["in_band"] for row in by_question])),
        "alpha_t": {"min": min(alphas), "max": max(alphas)},
        "compared_with": dict(sorted(banks.items())),
        "alarms": alarms if settings.calibrator == "adaptive" else None,
    }


def _rate(taken: Any, **of: int) -> dict[str, Any]:
    m, k = len(taken), int(taken.sum())
    return {**of, "rate": k / m, "takeovers": k, "scores": m, "ci95": list(laws.rate_interval(k, m))}


def _in_band(taken: Any, alpha: float) -> bool:
    return laws.takeovers_interval(len(taken), alpha, _BAND).holds(int(taken.sum()))
