"""When pieces hold an answer: penalised logistic regression with effects of questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import Stops, Writer
from atts_sim.workload import Written

Floats = NDArray[np.float64]
_ROUNDS = 30
_MOST_SD = 4.0  # of question effects on a logit, beyond which they say the same: always or never


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece that was written. `takeovers`: before it; `pending`: the draft that it takes over held an answer;
    `wrong`: an error stands after it."""

    writer: Writer
    question: int
    chain: int
    turn: int
    takeovers: int
    pending: bool
    written: Written
    wrong: bool = False


def fit_stops(pieces: Sequence[Piece], questions: int) -> tuple[Stops, Floats]:
    """One writer's stops, and each question's effect on them."""
    answered = np.array([piece.written.answered for piece in pieces], np.float64)
    turn = np.array([piece.turn for piece in pieces])
    question = np.array([piece.question for piece in pieces])
    more = np.array([[piece.takeovers, piece.pending, piece.wrong] for piece in pieces], np.float64)
    levels, slopes, effects = _logistic(answered, turn, question, more, questions)
    open_ = [piece.written.ended for piece in pieces if not piece.written.answered]
    closed = [piece.written.eos for piece in pieces if piece.written.answered]
    stops = Stops(
        tuple(float(level) for level in levels),
        float(slopes[0]),
        float(slopes[1]),
        float(slopes[2]),
        float(np.mean(open_)) if open_ else 0.0,
        float(np.mean(closed)) if closed else 0.0,
    )
    return stops, effects


def _logistic(
    y: Floats, turn: NDArray[np.int64], question: NDArray[np.int64], more: Floats, questions: int
) -> tuple[Floats, Floats, Floats]:
    """Levels [turns], slopes [more's columns] and effects [questions] of a logistic regression with random effects of
    questions: Laplace's approximation, whose variance is found by EM. Levels of neighbouring turns are held together
    loosely, so that a turn of few pieces follows them."""
    turns, columns = int(turn.max()) + 1, more.shape[1]
    size = turns + columns + questions
    design = np.zeros((len(y), size))
    design[np.arange(len(y)), turn] = 1.0
    design[:, turns : turns + columns] = more
    design[np.arange(len(y)), turns + columns + question] = 1.0
    penalty = np.diag([1e-2] * turns + [0.1] * columns + [1.0] * questions)
    for t in range(turns - 1):
        penalty[t : t + 2, t : t + 2] += 0.2 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    effects = slice(turns + columns, size)
    beta, variance = np.zeros(size), 1.0
    for _ in range(_ROUNDS):
        penalty[effects, effects] = np.eye(questions) / variance
        for _ in range(_ROUNDS):
            chance = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
            hessian = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty
            step = np.linalg.solve(hessian, design.T @ (y - chance) - penalty @ beta)
            beta = beta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-6:
                break
        spread = np.diag(np.linalg.inv(hessian))[effects]
        found = float(np.clip(np.mean(beta[effects] ** 2 + spread), 1e-4, _MOST_SD**2))
        if abs(found - variance) < 1e-3 * variance:
            break
        variance = found
    return beta[:turns], beta[turns : turns + columns], beta[effects]
