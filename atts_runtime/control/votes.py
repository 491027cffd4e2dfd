"""Votes: how much the answer of a chain counts, and which answer wins."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

Grades = Literal["nothing", "piece", "chain"]


class Vote:
    """Every chain with an answer has one vote; the others override what differs. `grades`: what of the chain the target
    scores to weigh its vote; `adds_up`: votes for one answer add up, so that a majority can be ahead for good."""

    name: ClassVar[str] = "majority"
    about: ClassVar[str] = "the answer of most chains"
    paper: ClassVar[str | None] = "Wang et al. 2022, arXiv 2203.11171"
    grades: ClassVar[Grades] = "nothing"
    adds_up: ClassVar[bool] = True

    def winner(self, votes: Iterable[tuple[str, float]]) -> str | None:
        """The answer with the most weight; ties go to the one seen first. None where nobody votes."""
        sums: dict[str, float] = {}
        for answer, weight in votes:
            sums[answer] = sums.get(answer, 0.0) + weight
        return max(sums, key=sums.__getitem__, default=None)


class Confidence(Vote):
    """Votes weigh exp(-ell) of the piece that holds the answer: the geometric mean of the probabilities that the
    target gives its tokens, a confidence that needs no calibration set."""

    name = "confidence"
    about = "the answer with the most weight, exp(-ell) of the piece that holds it"
    paper = "Huang et al. 2025, arXiv 2503.00031"
    grades = "piece"


class Best(Vote):
    """The answer of the chain that the target finds most likely, token by token: best of n, with the target's
    likelihood as the verifier."""

    name = "best"
    about = "the answer of the chain that the target finds most likely"
    paper = "Cobbe et al. 2021, arXiv 2110.14168"
    grades = "chain"
    adds_up = False

    def winner(self, votes: Iterable[tuple[str, float]]) -> str | None:
        return max(votes, key=lambda vote: vote[1], default=(None, 0.0))[0]


def weight(ell: float) -> float:
    """A vote's weight, between 0 and 1 for tokens: the geometric mean of their probabilities."""
    return math.exp(-ell)
