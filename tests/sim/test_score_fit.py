"""The scores' model: as many of those that are drawn exceed a threshold as did on record, whoever comes to a turn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from atts_sim.generative import Ells, Scores
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


def chains(
    ell: Ell, goes_on: Callable[[int, float], bool], *, turns: int, seed: int, times: int = 1, after: float = 0.0
) -> list[Scored]:
    """Every chain's scores until it does not go on, by question and the last score. A score above 1 is taken over, and
    the next is stranger by `after`."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(QUESTIONS * CHAINS * times):
        question, of_chain = number % QUESTIONS, float(rng.normal())
        taken_over = False
        for turn in range(turns):
            value = ell(question, turn, of_chain, float(rng.normal()) + taken_over * after / TRUE_NOISE_SD)
            made.append(Scored(question, number, turn, taken_over, False, value))
            taken_over = value > 1
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


@pytest.mark.parametrize("cut", [0.6, 0.8])
def test_what_is_found_does_not_hang_on_who_is_left(cut: float) -> None:
    """Where most chains end after a score or two, those that are left lie low and scatter little."""
    recorded = chains(true_ell, lambda _, ell: ell < cut, turns=8, seed=0, times=4)
    scores, strange = fit(recorded)
    few, others = (np.mean(np.array(strange)[kind == FEW_ARE_STRANGE]) for kind in (2.0, -0.5))
    assert few - others == pytest.approx(2.5, abs=0.25)
    assert scores.chain_sd == pytest.approx(TRUE_CHAIN_SD, abs=0.1)
    assert scores.chain_sd**2 + scores.noise_sd**2 == pytest.approx(1.0)


@pytest.mark.parametrize("after", [0.0, 0.4])
def test_stranger_scores_after_a_takeover_are_told_from_chains_that_are_strange(after: float) -> None:
    recorded = chains(true_ell, lambda _, ell: True, turns=5, seed=0, times=2, after=after)
    scores, _ = fit(recorded)
    assert scores.after_takeover == pytest.approx(after, abs=0.08)


@pytest.mark.parametrize("ell", [lambda q, c: 1.0, lambda q, c: float(q), lambda q, c: float(c)])
@pytest.mark.parametrize("turns", [1, 3])
def test_scores_that_say_little_give_effects_of_ordinary_size(ell: Callable[[int, int], float], turns: int) -> None:
    """All alike, all of a question alike, all different in one way."""
    made = [Scored(q, q * 4 + c, t, False, False, ell(q, c)) for q in range(10) for c in range(4) for t in range(turns)]
    scores, strange = fit(made)
    assert np.abs(strange).max() < 10
    assert all(abs(z) < 30 for turn in scores.kinds[0].bounds for z in turn)
    assert set(by_turn(made)[0]) >= {scores.kinds[0].at(0, z) for z in (-40.0, 0.0, 40.0)}


def test_a_score_alone_is_drawn_whatever_z() -> None:
    scores, _ = fit([Scored(0, 0, 0, False, False, 0.7)])
    assert {scores.kinds[0].at(turn, z) for turn in (0, 5) for z in (-9.0, 0.0, 9.0)} == {0.7}


def test_scores_give_way_at_their_bounds() -> None:
    ells = Ells(((1.0, 2.0, 3.0), (4.0,)), ((-0.5, 0.5), ()))
    assert [ells.at(0, z) for z in (-9.0, -0.5, 0.0, 0.5, 9.0)] == [1.0, 2.0, 2.0, 3.0, 3.0]
    assert ells.at(7, 0.0) == 4.0
