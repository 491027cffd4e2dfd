"""When pieces hold an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import Stops, Writer
from atts_sim.regression import logistic_regression
from atts_sim.workload import Written

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Piece:
    """A piece that was written. `takeovers`: before it; `pending`: the draft that it takes over held an answer;
    `wrong`: an error stands before it."""

    writer: Writer
    question: int
    chain: int
    turn: int
    takeovers: int
    pending: bool
    written: Written
    wrong: bool = False


def fit_stops(pieces: Sequence[Piece], questions: int, known: Floats | None) -> tuple[Stops, Floats]:
    """One writer's stops, and each question's effect on them, which may be `known` from another's."""
    answered = np.array([piece.written.answered for piece in pieces], np.float64)
    turn = np.array([piece.turn for piece in pieces])
    question = np.array([piece.question for piece in pieces])
    more = np.array([[piece.takeovers, piece.pending, piece.wrong] for piece in pieces], np.float64)
    levels, slopes, effects = logistic_regression(
        answered, np.ones(len(pieces)), turn, question, more, questions, known
    )
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
