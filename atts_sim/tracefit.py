"""Costs for a published trace, which says of time only how long each chain took: fitted by simulating it.

The authors ran questions one after another, a question's chains at once, with so many calls let at each model
(`Slots`). Per model a step of the calls in it takes step_s + row_s * calls, and scoring a segment score_s plus
score_token_s a token of it and of what precedes it. Half of the questions are fitted, the others are predicted.
Token counts should be mended before (`tracetokens.at_cap`).

All times grow with all constants alike, so the sum of the questions' times is met exactly whatever else is fitted,
and the constants' ratios are what is searched. Minimised are the questions' relative errors, by the pseudo-Huber loss,
as some questions are off for reasons of their own, and lightly the chains'. A question lasts as long as its longest
chain, so the loss has kinks and many small dips, which a simplex steps over and finite differences do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.control import ChainId, Limits, Policy
from atts_runtime.errors import InputError
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.cost import Cost, DecodeLines, Phase, StepCost, StepShape
from atts_sim.desk import Role
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.recorded import Recorded, follow_record
from atts_sim.simrun import SimRun

Floats = NDArray[np.float64]
_STEP_TOKENS = 1 << 20  # what these engines feed at once is not known; enough for any
_SEGMENT_TOKENS = 1 << 20  # recorded lengths decide
_DRAFT_STEP_S = 0.008  # an 8B model's; the unit, as the scale is found exactly
_START = np.array([0.008, 1.5, 0.008, 4.0, 0.003])  # the other constants over it: orders of size
_EDGES = ((0.7, 0.3, 0.7, 0.7, 0.5), (0.4, 0.15, 0.4, 0.4, 0.3))  # of each round's first simplex, in logarithms
_SIMULATIONS_A_ROUND = 110
_OUTLYING = 0.05  # a relative error from which on the loss grows only linearly
_CHAIN_WEIGHT = 0.3  # of all the chains of a question together: there are many and they are alike


@dataclass(frozen=True, slots=True)
class Slots:
    """Calls that are let at each model at a time."""

    draft: int = 16
    target: int = 4


@dataclass(frozen=True, slots=True)
class TraceCost(StepCost):
    """A `cost.StepCost` of few constants; appends are scores."""

    step_s: float
    row_s: float
    score_s: float
    score_token_s: float

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        if phase == "append":
            return Cost(self.score_s * shape.rows + self.score_token_s * shape.kept_tokens, inside=True)
        return Cost(self.step_s + self.row_s * shape.rows, inside=True)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        return DecodeLines(((0.0, 0.0),), self.step_s + self.row_s * rows, None, inside=True)


@dataclass(frozen=True, slots=True)
class TraceCosts:
    """Of both models. `residual`: median absolute relative error of the fitted questions' times."""

    draft: TraceCost
    target: TraceCost
    slots: Slots
    residual: float

    def run(self, recorded: Recorded, policy: Policy, *, in_flight: int | None = 1) -> SimRun:
        """The recording's chains under a policy."""
        clock = Clock()
        engines: dict[Role, Any] = {
            "draft": BatchingEngine(
                clock, EngineSpec(self.slots.draft, _STEP_TOKENS, slots=self.slots.draft), self.draft
            ),
            "target": BatchingEngine(
                clock, EngineSpec(self.slots.target, _STEP_TOKENS, slots=self.slots.target), self.target
            ),
        }
        limits = Limits(recorded.turns, _SEGMENT_TOKENS, _SEGMENT_TOKENS, in_flight)
        return SimDriver(policy, limits, recorded, engines, clock).run()


@dataclass(frozen=True, slots=True)
class TraceErrors:
    """Predicted against recorded seconds of questions: in total, and absolute relative errors of single ones."""

    questions: int
    recorded_s: float
    predicted_s: float
    median: float
    p90: float

    @property
    def total(self) -> float:
        return self.predicted_s / self.recorded_s - 1


def fit_trace(recorded: Recorded, slots: Slots = Slots(), *, watch: Callable[[int], None] | None = None) -> TraceCosts:
    """The constants that come nearest to the recorded times of questions; see the module's text. Deterministic.

    `watch` is called with the number of simulations made so far. Raises InputError where the recording has no times.
    """
    from scipy.optimize import minimize

    chain_s = _durations(recorded)
    question_s = chain_s.max(axis=1)
    simulated = 0

    def scaled(ratios: Floats) -> tuple[Floats, Floats]:
        """The constants of such ratios that meet the total, and [questions, chains] seconds under them."""
        nonlocal simulated
        constants = _DRAFT_STEP_S * np.array([1.0, *np.exp(ratios)])
        ends = _ends(_costs(constants, slots, 0.0).run(recorded, follow_record(recorded)))
        simulated += 1
        if watch is not None:
            watch(simulated)
        scale = question_s.sum() / ends.max(axis=1).sum()
        return constants * scale, ends * scale

    def loss(ratios: Floats) -> float:
        ends = scaled(ratios)[1]
        chains = _huber(_CHAIN_WEIGHT * (ends / chain_s - 1) / ends.shape[1] ** 0.5)
        return float(_huber(ends.max(axis=1) / question_s - 1).sum() + chains.sum())

    best = np.log(_START)
    for edges in _EDGES:
        simplex = np.vstack([best, best + np.diag(edges)])
        options = {"initial_simplex": simplex, "maxfev": _SIMULATIONS_A_ROUND, "xatol": 0.01, "fatol": 1e-5}
        best = minimize(loss, best, method="Nelder-Mead", options={**options, "adaptive": True}).x
    constants, ends = scaled(best)
    return _costs(constants, slots, float(np.median(np.abs(ends.max(axis=1) / question_s - 1))))


def _huber(errors: Floats) -> Floats:
    """The pseudo-Huber loss: half the square of a small error."""
    loss: Floats = _OUTLYING**2 * (np.sqrt(1 + (errors / _OUTLYING) ** 2) - 1)
    return loss


def judge(recorded: Recorded, costs: TraceCosts) -> TraceErrors:
    """Predict a recording's times, its verdicts as they were."""
    question_s = _durations(recorded).max(axis=1)
    predicted = _ends(costs.run(recorded, follow_record(recorded))).max(axis=1)
    errors = np.abs(predicted / question_s - 1)
    return TraceErrors(
        len(question_s),
        float(question_s.sum()),
        float(predicted.sum()),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
    )


def halves(recorded: Recorded) -> tuple[Recorded, Recorded]:
    """Every other question, and the others."""
    if recorded.questions < 2:
        raise InputError("a trace of one question cannot be split into one to fit and one to predict")
    return recorded.part(range(0, recorded.questions, 2)), recorded.part(range(1, recorded.questions, 2))


def _costs(x: Sequence[float] | Floats, slots: Slots, residual: float) -> TraceCosts:
    draft_step, draft_row, target_step, target_row, score, score_token = (float(value) for value in x)
    # A draft's appends are what the target wrote: prefill, next to nothing beside hundreds of steps.
    return TraceCosts(
        TraceCost(draft_step, draft_row, 0.0, 0.0),
        TraceCost(target_step, target_row, score, score_token),
        slots,
        residual,
    )


def _durations(recorded: Recorded) -> Floats:
    """[questions, chains] seconds."""
    chains = [
        [recorded.recorded[ChainId(q, i)].duration_s for i in range(recorded.chains)] for q in range(recorded.questions)
    ]
    if any(duration is None or not duration > 0 for of_question in chains for duration in of_question):
        raise InputError("the trace does not say how long its chains took, so no costs can be fitted to it")
    return np.array(chains, np.float64)


def _ends(run: SimRun) -> Floats:
    """[questions, chains] seconds from a question's admission to each chain's end."""
    ends = np.zeros((run.questions, run.chains))
    for finish, end in run.finished:
        ends[finish.chain] = end - run.admitted_s[finish.chain.question]
    return ends
