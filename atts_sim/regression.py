"""Logistic regression on turns, with random effects of questions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ROUNDS = 30
MOST_SD = 4.0  # of question effects, beyond which they say the same: always or never


def level_penalty(turns: int) -> Floats:
    """[turns, turns], of levels by turn: loose, and those of neighbours held together."""
    penalty = 1e-2 * np.eye(turns)
    for t in range(turns - 1):
        penalty[t : t + 2, t : t + 2] += 0.2 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return penalty


def logistic_regression(
    hits: Floats,
    trials: Floats,
    turn: Ints,
    question: Ints,
    more: Floats,
    questions: int,
    turns: int | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Levels [turns], slopes [more's columns] and effects [questions] on the logit of a hit.

    Rows are cells of `trials` of which `hits` (neither need be whole) are hits, of one turn and question, with the
    columns `more`. Laplace's approximation, with the effects' variance found by EM; levels of neighbouring turns are
    held together loosely, so that a turn of few trials follows them. `turns`: how many levels, where cells need not
    reach the last turn: one without cells follows its neighbour.
    """
    turns, columns = turns or int(turn.max()) + 1, more.shape[1]
    size = turns + columns + questions
    design = np.zeros((len(hits), size))
    design[np.arange(len(hits)), turn] = 1.0
    design[:, turns : turns + columns] = more
    design[np.arange(len(hits)), turns + columns + question] = 1.0
    penalty = np.diag([0.0] * turns + [0.1] * columns + [1.0] * questions)
    penalty[:turns, :turns] = level_penalty(turns)
    effects = slice(turns + columns, size)
    beta, variance = np.zeros(size), 1.0
    for _ in range(_ROUNDS):
        penalty[effects, effects] = np.eye(questions) / variance
        for _ in range(_ROUNDS):
            chance = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
            hessian = design.T @ (design * (trials * chance * (1 - chance))[:, None]) + penalty
            step = np.linalg.solve(hessian, design.T @ (hits - trials * chance) - penalty @ beta)
            beta = beta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-6:
                break
        spread = np.diag(np.linalg.inv(hessian))[effects]
        found = float(np.clip(np.mean(beta[effects] ** 2 + spread), 1e-4, MOST_SD**2))
        if abs(found - variance) < 1e-3 * variance:
            break
        variance = found
    return beta[:turns], beta[turns : turns + columns], beta[effects]
