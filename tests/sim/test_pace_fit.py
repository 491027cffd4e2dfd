"""Which chains are lost, and how questions differ, is found again in trials drawn from a known model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from atts_sim.draws import logistic
from atts_sim.pace_fit import Paced, Trials, _Chains, fit_pace

QUESTIONS, CHAINS, TURNS = 60, 24, 10
LEVEL, TREND = -1.0, 1.2  # of an average question
BETWEEN = (0.8, 0.4)  # standard deviations of questions' levels and trends
LOST, DELAY = 0.12, 4.0


@cache
def made(lost: float = LOST) -> tuple[Trials, np.ndarray]:
    """Chains that go on until they answer, and [questions, 2] effects; the only column that all share is `LEVEL`'s."""
    rng = np.random.default_rng(5)
    own = rng.normal(size=(QUESTIONS, 2)) * BETWEEN + (0.0, TREND)
    rows = []
    for question in range(QUESTIONS):
        for chain in range(CHAINS):
            delay = DELAY * (rng.random() < lost)
            for turn in range(TURNS):
                level, trend = own[question]
                hit = rng.random() < logistic(LEVEL + level + trend * np.log1p(turn) - delay)
                rows.append((hit, question, question * CHAINS + chain, np.log1p(turn)))
                if hit:
                    break
    hits, question, chain, time = (np.array(column) for column in zip(*rows, strict=True))
    fixed = np.column_stack([np.ones(len(rows)), time])
    varying = fixed.copy()
    return Trials(hits.astype(float), question, chain, fixed, 0.01 * np.eye(2), varying, QUESTIONS), own


def found(lost: float = LOST) -> Paced:
    return fit_pace(made(lost)[0])


def test_lost_chains_are_found() -> None:
    paced = found()
    assert paced.lost == pytest.approx(LOST, abs=0.03)
    assert paced.delay == pytest.approx(DELAY, abs=0.8)
    assert paced.fixed == pytest.approx((LEVEL, TREND), abs=0.35)


def test_where_no_chain_is_lost_none_is_far() -> None:
    paced = found(0.0)
    # Few, or not far: what they add to the longest chain's way.
    assert paced.lost * paced.delay < 0.15


def test_questions_are_as_unsure_as_they_are_off() -> None:
    """Errors over their posterior standard deviations are standard normal: 60 of each, a mean square of 1 +- 0.13."""
    paced, (_, own) = found(0.0), made(0.0)
    off = own - (0.0, TREND) - paced.effects
    off -= off.mean(axis=0)  # the common level is the fixed column's
    scaled = np.linalg.solve(paced.roots, off[:, :, None])
    assert float(np.mean(scaled**2)) == pytest.approx(1.0, abs=0.4)


def test_two_questions_of_many_chains_are_known_for_sure() -> None:
    """What they share is in the fixed coefficients, which are drawn with nobody's doubt."""
    trials, _ = made(0.0)
    two = trials.question < 2
    hits, question, fixed = trials.hits[two], trials.question[two], trials.fixed[two]
    many = 40
    chain = np.concatenate([trials.chain[two] + copy * QUESTIONS * CHAINS for copy in range(many)])
    several = Trials(
        np.tile(hits, many), np.tile(question, many), chain, np.tile(fixed, (many, 1)), trials.penalty,
        np.tile(fixed, (many, 1)), 2,
    )  # fmt: skip
    assert np.abs(fit_pace(several).roots).max() < 0.25


def test_newton_steps_know_the_marginal_likelihood() -> None:
    """The observed Hessian is that of the score, whose every component is moved on its own."""
    trials, _ = made()
    chains = _Chains(trials)
    theta = np.concatenate([(-0.5, 1.0), np.random.default_rng(1).normal(0, 0.3, 2 * QUESTIONS), (2.5, -2.0)])
    at = chains.at(theta)
    for place in (0, 1, 2, 3, 60, len(theta) - 2, len(theta) - 1):
        moved = np.zeros(len(theta))
        moved[place] = 1e-5
        before, after = chains.at(theta - moved), chains.at(theta + moved)
        assert at.score[place] == pytest.approx((after.log_density - before.log_density) / 2e-5, rel=1e-4, abs=1e-4)
        slope = (before.score - after.score) / 2e-5
        assert at.observed[place] == pytest.approx(slope, abs=1e-3 + 1e-5 * np.abs(slope).max())
    assert (np.diag(at.complete) >= np.diag(at.observed) - 1e-9).all()


def test_drawn_about_what_is_known_rare_answers_are_as_rare_as_they_were() -> None:
    """About the mode of a posterior that is skewed they would be more frequent."""
    rng = np.random.default_rng(2)
    questions, chains = 60, 60
    true = rng.normal(-4.0, 1.5, questions)
    question = np.repeat(np.arange(questions), chains)
    hits = (rng.random(len(question)) < 1 / (1 + np.exp(-true[question]))).astype(float)
    one = np.ones((len(hits), 1))
    paced = fit_pace(Trials(hits, question, np.arange(len(hits)), one, 0.01 * np.eye(1), one, questions))
    drawn = paced.fixed[0] + paced.effects + paced.roots[:, 0] * rng.normal(size=(questions, 2000))
    shares = [1 / (1 + np.exp(delay - drawn)) for delay in (0.0, paced.delay)]
    share = float(np.mean((1 - paced.lost) * shares[0] + paced.lost * shares[1]))
    assert share == pytest.approx(float(hits.mean()), rel=0.05)
