"""Which segments are wrong, from which chains came out right: nobody says so of a segment.

With w(z) = logistic(level + slope * z + hard_q) the chance that a draft of nonconformity z is wrong, a chain that
answers is right with probability

    product over drafts that stood of 1 - w(z)  *  over those taken over of mends * w(z) + (1 - spoils) * (1 - w(z))
    *  (1 - spoils) for each segment of the target alone

Parameters maximise the likelihood under loose normal priors, which is what speaks where few chains are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atts_sim.draws import logistic
from atts_sim.generative import Errors

Floats = NDArray[np.float64]
# Prior means and standard deviations of level, slope, logit mends, logit spoils.
_PRIOR = np.array([-3.0, 0.5, 1.0, -5.0]), np.array([3.0, 1.0, 1.5, 2.0])
_HARD_SD = 1.0
_ROUNDS = 3


class Segment(NamedTuple):
    """A draft: its nonconformity as a normal score, and whether it was taken over."""

    z: float
    taken_over: bool


Outcome = tuple[int, bool, Sequence[Segment], int]
"""Of a chain that answered: question, whether it is right, its drafts, and segments that the target wrote alone."""


def fit_errors(outcomes: Sequence[Outcome], questions: int) -> tuple[Errors | None, Floats]:
    """The error model, and how hard each question is; None where nothing is known of any chain."""
    from scipy.optimize import minimize

    hard = np.zeros(questions)
    if not outcomes:
        return None, hard
    right = np.array([outcome[1] for outcome in outcomes])
    alone = np.array([outcome[3] for outcome in outcomes], np.float64)
    owner = np.array([i for i, outcome in enumerate(outcomes) for _ in outcome[2]], np.int64)
    z = np.array([s.z for outcome in outcomes for s in outcome[2]])
    taken = np.array([s.taken_over for outcome in outcomes for s in outcome[2]], bool)
    question = np.array([outcome[0] for outcome in outcomes], np.int64)

    def loss_by_chain(x: Floats, of_question: Floats) -> Floats:
        mends, spoils = _sigmoid(x[2]), _sigmoid(x[3])
        wrong = _sigmoid(x[0] + x[1] * z + of_question[question][owner])
        good = np.where(taken, mends * wrong + (1 - spoils) * (1 - wrong), 1 - wrong)
        log_right = np.bincount(owner, np.log(np.maximum(good, 1e-12)), len(right)) + alone * np.log1p(-spoils)
        chance = np.clip(np.exp(log_right), 1e-9, 1 - 1e-9)
        losses: Floats = -np.where(right, np.log(chance), np.log1p(-chance))
        return losses

    def loss(x: Floats) -> float:
        return float(loss_by_chain(x, hard).sum() + (((x - _PRIOR[0]) / _PRIOR[1]) ** 2).sum() / 2)

    found = _PRIOR[0].copy()
    grid = np.linspace(-3, 3, 25) * _HARD_SD
    for _ in range(_ROUNDS):
        found = minimize(loss, found, method="L-BFGS-B", bounds=[(-12, 6), (0, 6), (-6, 6), (-12, 3)]).x
        losses = np.array(
            [
                np.bincount(question, loss_by_chain(found, np.full(questions, h)), questions) + (h / _HARD_SD) ** 2 / 2
                for h in grid
            ]
        )
        chances = np.exp(-(losses - losses.min(axis=0)))
        hard = (grid[:, None] * chances).sum(axis=0) / chances.sum(axis=0)
        hard -= hard.mean()
    level, slope, mends, spoils = (float(x) for x in found)
    return Errors(level, slope, logistic(mends), logistic(spoils), len(right), int((~right).sum())), hard


def _sigmoid(x: Floats | float) -> Floats:
    values: Floats = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    return values
