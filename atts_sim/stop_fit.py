"""When pieces hold an answer, by who writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import WRITERS, Nearness, Pace, Stops, Writer
from atts_sim.pace_fit import Trials, fit_pace
from atts_sim.regression import level_penalty
from atts_sim.workload import Written

Floats = NDArray[np.float64]
_SLOPES = 3
_SLOPE_PENALTY = 0.1


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


def fit_stops(pieces: Sequence[Piece], questions: int) -> tuple[dict[Writer, Stops], list[Nearness], Pace]:
    """Every writer's stops, how near its answer each question is, and how its chains differ."""
    pieces = sorted(pieces, key=lambda piece: piece.chain)
    by_writer = {w: mine for w in WRITERS if (mine := [piece for piece in pieces if piece.writer == w])}
    turns = {writer: 1 + max(piece.turn for piece in mine) for writer, mine in by_writer.items()}
    first, size = {}, 0
    for writer in by_writer:
        first[writer] = size
        size += turns[writer] + _SLOPES
    design, penalty = np.zeros((len(pieces), size)), np.zeros((size, size))
    for row, piece in enumerate(pieces):
        at = first[piece.writer]
        slopes = at + turns[piece.writer]
        design[row, at + piece.turn] = 1.0
        design[row, slopes : slopes + _SLOPES] = piece.takeovers, piece.pending, piece.wrong
    for writer, at in first.items():
        slopes = at + turns[writer]
        penalty[at:slopes, at:slopes] = level_penalty(turns[writer])
        penalty[range(slopes, slopes + _SLOPES), range(slopes, slopes + _SLOPES)] = _SLOPE_PENALTY
    found = fit_pace(
        Trials(
            np.array([piece.written.answered for piece in pieces], np.float64),
            np.array([piece.question for piece in pieces]),
            np.array([piece.chain for piece in pieces]),
            design,
            penalty,
            np.array([(1.0, log1p(piece.turn)) for piece in pieces]),
            questions,
        )
    )
    stops = {
        writer: _stops(by_writer[writer], found.fixed[at : at + turns[writer] + _SLOPES])
        for writer, at in first.items()
    }
    near = [
        Nearness(float(level), float(trend), (float(root[0, 0]), float(root[1, 0]), float(root[1, 1])))
        for (level, trend), root in zip(found.effects, found.roots, strict=True)
    ]
    return stops, near, Pace(found.lost, found.delay)


def _stops(pieces: Sequence[Piece], fitted: Floats) -> Stops:
    open_ = [piece.written.ended for piece in pieces if not piece.written.answered]
    closed = [piece.written.eos for piece in pieces if piece.written.answered]
    levels, (per_takeover, pending, wrong) = fitted[:-_SLOPES], fitted[-_SLOPES:]
    return Stops(
        tuple(float(level) for level in levels),
        float(per_takeover),
        float(pending),
        float(wrong),
        float(np.mean(open_)) if open_ else 0.0,
        float(np.mean(closed)) if closed else 0.0,
    )
