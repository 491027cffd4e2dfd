"""Which segments are wrong: nobody says so, but scores and the ends of chains do. A hidden Markov model of each chain.

Its state is whether an error stands. It begins clean; then, by turn

    a draft     clean -> wrong with probability logistic(level[turn] + hard_q), wrong -> wrong with probability `stands`
    its mark    (whether it holds an answer, and the bin of its score) is distributed by the state that it leaves
    the target  from the state before the draft that it replaces, or from that which it continues, after a draft or
                alone: wrong -> clean with probability `mends`, clean -> wrong with probability `spoils`
    the end     an answer is right with probability right[state]

Parameters maximise the posterior under loose priors, which speak where few chains are wrong, by the EM algorithm of Baum,
Petrie, Soules and Weiss (1970). Scores are binned alike in all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import Errors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BINS = 12  # of scores, with and without an answer each
_ROUNDS = 200
_HARD_SD = 1.0  # of questions, and of turns about their mean
# Priors as counts of events seen and not seen: stands, mends, spoils, right if clean, right if wrong.
_SEEN = np.array([2.0, 4.0, 0.05, 19.0, 0.5])
_NOT_SEEN = np.array([1.0, 1.0, 5.0, 0.5, 9.5])
_LEVEL, _LEVEL_SD = -3.0, 3.0


class Step(NamedTuple):
    """A chain's turn. `draft`: None where the target writes alone, else whether it holds an answer; `ell`: its score,
    if it was scored; `target`: the target wrote in this turn."""

    draft: bool | None
    ell: float | None
    target: bool


class Outcome(NamedTuple):
    """A chain; `right` None: not known, or it did not answer."""

    question: int
    right: bool | None
    steps: Sequence[Step]


class Found(NamedTuple):
    """The model; how hard each question is; [chains, turns, 2], the chance that an error stands after the draft and
    after what the target wrote in that turn, 0 where there is none."""

    errors: Errors
    hard: Floats
    wrong: Floats


def fit_errors(outcomes: Sequence[Outcome], questions: int, *, replaces: bool) -> Found | None:
    """`replaces`: what the target writes stands for the draft. None where nothing is known of any chain's end."""
    known = [outcome.right for outcome in outcomes if outcome.right is not None]
    if not known:
        return None
    seen = _Arrays(outcomes, replaces)
    chance = _Chance(questions, seen.draft.shape[1])
    shares = _SEEN / (_SEEN + _NOT_SEEN)
    rising = np.linspace(0.1, 1.0, _BINS)
    marks = np.array([np.tile(rising[::-1] ** 2, 2), np.tile(rising**2, 2)])
    marks /= marks.sum(axis=1, keepdims=True)
    good, told = seen.right == 1, seen.right >= 0
    for _ in range(_ROUNDS):
        before = np.append(shares, chance.level)
        drafts, turned, ends = seen.posterior(chance.rates[seen.question], shares, marks)
        trials, failed = np.zeros((2, *chance.rates.shape))
        np.add.at(trials, seen.question, drafts[:, :, 0].sum(axis=2))
        np.add.at(failed, seen.question, drafts[:, :, 0, 1])
        chance.climb(trials, failed)
        hits = [drafts[:, :, 1, 1].sum(), turned[:, :, 1, 0].sum(), turned[:, :, 0, 1].sum(), *ends[good].sum(axis=0)]
        tries = [drafts[:, :, 1].sum(), turned[:, :, 1].sum(), turned[:, :, 0].sum(), *ends[told].sum(axis=0)]
        shares = (np.array(hits) + _SEEN) / (np.array(tries) + _SEEN + _NOT_SEEN)
        after = drafts.sum(axis=2)[seen.scored]
        for state in (0, 1):
            counts = np.bincount(seen.mark[seen.scored], after[:, state], 2 * _BINS) + 0.5
            marks[state] = counts / counts.sum()
        if np.abs(np.append(shares, chance.level) - before).max() < 1e-4:
            break
    stands, mends, spoils, if_clean, if_wrong = (float(share) for share in shares)
    levels = tuple(float(chance.level + late) for late in chance.late)
    errors = Errors(levels, stands, mends, spoils, (if_clean, if_wrong), len(known), known.count(False))
    wrong = np.stack([drafts[:, :, :, 1].sum(axis=2), turned[:, :, :, 1].sum(axis=2)], axis=2)
    return Found(errors, chance.hard, wrong)


class _Chance:
    """Of an error, by question and turn: logistic(level + hard + late)."""

    def __init__(self, questions: int, turns: int) -> None:
        self.level, self.hard, self.late = _LEVEL, np.zeros(questions), np.zeros(turns)

    @property
    def rates(self) -> Floats:
        rates: Floats = 1 / (1 + np.exp(-(self.level + self.hard[:, None] + self.late)))
        return rates

    def climb(self, trials: Floats, failed: Floats) -> None:
        """A step of Newton's to what [questions, turns] of drafts that failed say, under normal priors."""
        rates = self.rates
        gradient, curvature = failed - trials * rates, trials * rates * (1 - rates)
        level = (gradient.sum() - (self.level - _LEVEL) / _LEVEL_SD**2) / (curvature.sum() + 1 / _LEVEL_SD**2)
        self.level += float(np.clip(level, -1.0, 1.0))
        for axis, effects in ((1, self.hard), (0, self.late)):
            step = gradient.sum(axis=axis) - effects / _HARD_SD**2
            effects += np.clip(step / (curvature.sum(axis=axis) + 1 / _HARD_SD**2), -1.0, 1.0)
            self.level += float(effects.mean())
            effects -= effects.mean()


class _Arrays:
    """Chains side by side, [chains, turns]; those that are over do nothing."""

    def __init__(self, outcomes: Sequence[Outcome], replaces: bool) -> None:
        shape = len(outcomes), max(len(outcome.steps) for outcome in outcomes)
        self.question = np.array([outcome.question for outcome in outcomes], np.int64)
        self.right = np.array([-1 if o.right is None else int(o.right) for o in outcomes], np.int64)
        self.draft, self.target, self.scored = (np.zeros(shape, bool) for _ in range(3))
        ell, answered = np.zeros(shape), np.zeros(shape, np.int64)
        for i, outcome in enumerate(outcomes):
            for t, step in enumerate(outcome.steps):
                self.draft[i, t], self.target[i, t] = step.draft is not None, step.target
                if step.ell is not None:
                    self.scored[i, t], ell[i, t], answered[i, t] = True, step.ell, bool(step.draft)
        self.replaced = self.draft & self.target & replaces
        self.mark: Ints = np.zeros(shape, np.int64)
        for kind in (0, 1):
            mine = self.scored & (answered == kind)
            if mine.any():
                edges = np.quantile(ell[mine], np.arange(1, _BINS) / _BINS)
                self.mark[mine] = kind * _BINS + np.searchsorted(edges, ell[mine])

    def posterior(self, rates: Floats, shares: Floats, marks: Floats) -> tuple[Floats, Floats, Floats]:
        """Chances of [chains, turns, state before, state after] for drafts and for what the target writes, 0 where
        there are none; of [chains, state] at the end. `rates`: [chains, turns], of an error."""
        chains, turns = self.draft.shape
        stands, mends, spoils, *right = shares
        writing = np.array([[1 - spoils, spoils], [mends, 1 - mends]])
        kernels = np.empty((turns, chains, 2, 2, 2))  # by state before, after the draft, after the target
        forward = np.empty((turns + 1, chains, 2))
        forward[0] = (1.0, 0.0)
        for t in range(turns):
            drafting = np.empty((chains, 2, 2))
            drafting[:, 0] = np.stack([1 - rates[:, t], rates[:, t]], axis=1)
            drafting[:, 1] = (1 - stands, stands)
            drafting[~self.draft[:, t]] = np.eye(2)
            drafting *= np.where(self.scored[:, t, None], marks[:, self.mark[:, t]].T, 1.0)[:, None, :]
            wrote = np.where(self.target[:, t, None, None], writing, np.eye(2))
            ends_in = np.where(self.replaced[:, t, None, None, None], wrote[:, :, None, :], wrote[:, None, :, :])
            kernels[t] = drafting[:, :, :, None] * ends_in
            forward[t + 1] = _normal(np.einsum("cs,csde->ce", forward[t], kernels[t]))
        outcome = np.where(self.right[:, None] == 1, right, 1 - np.array(right))
        backward = np.where(self.right[:, None] < 0, 1.0, outcome)
        ends = _normal(forward[turns] * backward)
        drafts, turned = np.zeros((2, chains, turns, 2, 2))
        for t in reversed(range(turns)):
            all_three = _normal(np.einsum("cs,csde,ce->csde", forward[t], kernels[t], backward))
            drafts[:, t] = all_three.sum(axis=3)
            turned[:, t] = np.where(self.replaced[:, t, None, None], all_three.sum(axis=2), all_three.sum(axis=1))
            backward = _normal(np.einsum("csde,ce->cs", kernels[t], backward))
        return drafts * self.draft[..., None, None], turned * self.target[..., None, None], ends


def _normal(chances: Floats) -> Floats:
    """So that each chain's sum to 1."""
    scaled: Floats = chances / chances.sum(axis=tuple(range(1, chances.ndim)), keepdims=True)
    return scaled
