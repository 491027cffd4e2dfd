"""The scores' model: as many of those that are drawn exceed a threshold as did on record, whoever comes to a turn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from atts_sim.generative import Scores
from atts_sim.score_fit import Scored, fit_scores

QUESTIONS, CHAINS = 50, 24
FEW_ARE_STRANGE = np.where(np.arange(QUESTIONS) % 5 == 0, 2.0, -0.5)
TRUE_CHAIN_SD, TRUE_NOISE_SD = 0.6, 0.8
Ell = Callable[[int, int, float, float], float]
"""Of a question and turn, with its chain's and its own standard normal number."""


def true_ell(question: int, turn: int, of_chain: float, noise: float) -> float:
    return math.exp(FEW_ARE_STRANGE[question] + TRUE_CHAIN_SD * of_chain + TRUE_NOISE_SD * noise)


def drawn_ell(scores: Scores, strange: Sequence[float]) -> Ell:
    def ell(question: int, turn: int, of_chain: float, noise: float) -> float:
        return scores.kinds[0].at(turn, strange[question] + scores.chain_sd * of_chain + scores.noise_sd * noise)

    return ell


def fit(made: Sequence[Scored]) -> tuple[Scores, Sequence[float]]:
    scores, strange = fit_scores(made, QUESTIONS)
    assert scores is not None
    return scores, strange.tolist()


def never(question: int, ell: float) -> bool:
    return False


def chains(ell: Ell, goes_on: Callable[[int, float], bool], *, turns: int, seed: int, times: int = 1) -> list[Scored]:
    """Every chain's scores until it does not go on, by question and the last score."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(QUESTIONS * CHAINS * times):
        question, of_chain = number % QUESTIONS, float(rng.normal())
        for turn in range(turns):
            value = ell(question, turn, of_chain, float(rng.normal()))
            made.append(Scored(question, number, turn, False, False, value))
            if not goes_on(question, value):
                break
    return made


def by_turn(made: Sequence[Scored]) -> list[np.ndarray]:
    found: dict[int, list[float]] = defaultdict(list)
    for scored in made:
        found[scored.turn].append(scored.ell)
    return [np.array(found[turn]) for turn in sorted(found)]


def test_where_few_questions_are_strange_as_many_scores_are_high_as_were() -> None:
    """What there is to score is then not normal: a fifth lies far above the others."""
    recorded = chains(true_ell, never, turns=1, seed=0)
    drawn = chains(drawn_ell(*fit(recorded)), never, turns=1, seed=1, times=10)
    (was,), (now,) = by_turn(recorded), by_turn(drawn)
    for share in (0.1, 0.4, 0.7):
        assert np.mean(now >= np.quantile(was, 1 - share)) == pytest.approx(share, abs=0.015)


def test_where_high_scores_end_chains_the_others_are_as_high_as_they_were() -> None:
    """Who comes to a later turn is of a chain whose scores are low."""

    def goes_on(_: int, ell: float) -> bool:
        return ell < 1.5

    recorded = chains(true_ell, goes_on, turns=4, seed=0)
    drawn = chains(drawn_ell(*fit(recorded)), goes_on, turns=4, seed=1, times=10)
    for was, now in zip(by_turn(recorded), by_turn(drawn), strict=True):
        assert len(now) / 10 == pytest.approx(len(was), rel=0.05)
        assert np.mean(now >= 1.5) == pytest.approx(np.mean(was >= 1.5), abs=0.02)
