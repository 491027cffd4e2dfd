"""Which segments are wrong: nobody says so, but scores and the ends of chains do. A hidden Markov model of each chain.

Its state is whether an error stands that would make the answer wrong. It begins clean; then, by turn, with
probabilities of their own for pieces that hold an answer,

    a draft     clean -> wrong with logit P = level[turn] + hard_q + answering * [it holds an answer],
                wrong -> wrong with probability `stands`
    its score   is distributed by what it leaves: a clean chain, an error that arises, or one that stood before
    the target  from the state before the draft that it replaces, or from that which it continues, after a draft or
                alone: wrong -> clean with probability `mends`, clean -> wrong with probability `spoils`
    the end     an answer is right where no error stands

Parameters maximise the posterior under loose priors, which speak where few chains are wrong, by the EM algorithm of
Baum, Petrie, Soules and Weiss (1970). Scores are binned alike in all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import Errors
from atts_sim.regression import logistic_regression

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_BINS = 20  # of scores, with and without an answer each
_ROUNDS = 500
_STRANGE = 100.0  # scores of errors that arise which the prior counts for, most of them high
_STEEP = 8  # power of a score's rank by which an error that arises is guessed at first
# Priors as counts of events seen and not seen, without and with an answer: stands, mends, spoils.
_SEEN = np.array([[20.0, 200.0], [2.0, 1.0], [0.05, 0.05]])
_NOT_SEEN = np.array([[1.0, 0.5], [1.0, 10.0], [5.0, 5.0]])
_LEVEL = -3.0  # at first


class Step(NamedTuple):
    """A chain's turn. `draft`: None where the target writes alone, else whether it holds an answer; `ell`: its score,
    if it was scored; `target`: None where the target did not write, else whether that holds an answer."""

    draft: bool | None
    ell: float | None
    target: bool | None


class Outcome(NamedTuple):
    """A chain; `right` None: not known, or it did not answer."""

    question: int
    right: bool | None
    steps: Sequence[Step]


class Found(NamedTuple):
    """The model; how hard each question is; [chains, turns, 4], the chances that an error stood before the draft, that
    one stands after it, and the same of what the target wrote; 0 where there is none."""

    errors: Errors
    hard: Floats
    wrong: Floats


def fit_errors(outcomes: Sequence[Outcome], questions: int, *, replaces: bool) -> Found | None:
    """`replaces`: what the target writes stands for the draft. None where nothing is known of any chain's end."""
    known = [outcome.right for outcome in outcomes if outcome.right is not None]
    if not known:
        return None
    seen = _Arrays(outcomes, replaces)
    levels, answering, hard = np.full(seen.draft.shape[1], _LEVEL), 0.0, np.zeros(questions)
    shares = _SEEN / (_SEEN + _NOT_SEEN)
    rising = np.tile(np.linspace(0.0, 1.0, _BINS) ** _STEEP + 0.01, 2)
    marks = _by_kind(np.array([1.1 - rising, rising, np.ones(2 * _BINS)]))
    prior = np.array([np.full(2 * _BINS, 0.5), _STRANGE * marks[1], np.full(2 * _BINS, 0.5)])
    for _ in range(_ROUNDS):
        before = np.append(shares, levels)
        logits = levels + hard[seen.question, None] + answering * seen.answers
        drafts, turned = seen.posterior(1 / (1 + np.exp(-logits)), shares, marks)
        levels, answering, hard = _arising(seen, drafts[:, :, 0].sum(axis=2), drafts[:, :, 0, 1], questions)
        events = (
            (drafts, 1, 1, seen.answers),
            (turned, 1, 0, seen.target_answers),
            (turned, 0, 1, seen.target_answers),
        )
        for i, (chances, start, end, answers) in enumerate(events):
            for kind in (0, 1):
                mine = chances[answers == kind]
                seen_so = mine[:, start, end].sum() + _SEEN[i, kind]
                shares[i, kind] = seen_so / (mine[:, start].sum() + _SEEN[i, kind] + _NOT_SEEN[i, kind])
        left = drafts[seen.scored]
        chances = np.stack([left[:, 0, 0] + left[:, 1, 0], left[:, 0, 1], left[:, 1, 1]])
        marks = _ordered(np.stack([np.bincount(seen.mark[seen.scored], c, 2 * _BINS) for c in chances]) + prior)
        if np.abs(np.append(shares, levels) - before).max() < 2e-4:
            break
    stands, mends, spoils = ((float(share[0]), float(share[1])) for share in shares)
    by_turn = tuple(float(level) for level in levels)
    errors = Errors(by_turn, answering, stands, mends, spoils, len(known), known.count(False))
    states = [state for of in (drafts, turned) for state in (of[:, :, 1].sum(axis=2), of[:, :, :, 1].sum(axis=2))]
    return Found(errors, hard, np.stack(states, axis=2))


def _by_kind(marks: Floats) -> Floats:
    """Distributions over the bins without an answer, and over those with one."""
    apart = marks.reshape(len(marks), 2, _BINS)
    whole: Floats = (apart / apart.sum(axis=2, keepdims=True)).reshape(marks.shape)
    return whole


def _ordered(counts: Floats) -> Floats:
    """Distributions under which the odds of an error, of either sort, do not fall where the score rises (isotonic
    regression: Dykstra, Kochar and Robertson, JASA 1995)."""
    from scipy.optimize import isotonic_regression

    marks = counts.copy()
    for sort in (1, 2):
        for kind in (slice(0, _BINS), slice(_BINS, 2 * _BINS)):
            both = counts[sort, kind] + counts[0, kind]
            share = isotonic_regression(counts[sort, kind] / both, weights=both).x
            marks[sort, kind] = counts[0, kind] * share / (1 - share)
    return _by_kind(marks)


def _arising(seen: _Arrays, trials: Floats, failed: Floats, questions: int) -> tuple[Floats, float, Floats]:
    """Level by turn, slope of answers, and how hard each question is, by [chains, turns] of drafts that failed."""
    turns = seen.draft.shape[1]
    cell = (seen.question[:, None] * turns + np.arange(turns)) * 2 + seen.answers
    cells, of = np.unique(cell[seen.draft], return_inverse=True)
    hits, tries = (np.bincount(of, values[seen.draft]).astype(np.float64) for values in (failed, trials))
    answers = (cells % 2).astype(np.float64)[:, None]
    levels, slopes, hard = logistic_regression(
        hits, tries, cells // 2 % turns, cells // 2 // turns, answers, questions, turns=turns
    )
    return levels, float(slopes[0]), hard


class _Arrays:
    """Chains side by side, [chains, turns]; those that are over do nothing."""

    def __init__(self, outcomes: Sequence[Outcome], replaces: bool) -> None:
        shape = len(outcomes), max(len(outcome.steps) for outcome in outcomes)
        self.question = np.array([outcome.question for outcome in outcomes], np.int64)
        self.right = np.array([-1 if o.right is None else int(o.right) for o in outcomes], np.int64)
        self.draft, self.target, self.scored = (np.zeros(shape, bool) for _ in range(3))
        self.answers, self.target_answers = np.zeros(shape, bool), np.zeros(shape, bool)
        ell = np.zeros(shape)
        for i, outcome in enumerate(outcomes):
            for t, step in enumerate(outcome.steps):
                self.draft[i, t], self.target[i, t] = step.draft is not None, step.target is not None
                self.answers[i, t], self.target_answers[i, t] = bool(step.draft), bool(step.target)
                if step.ell is not None:
                    self.scored[i, t], ell[i, t] = True, step.ell
        self.replaced = self.draft & self.target & replaces
        self.mark: Ints = np.zeros(shape, np.int64)
        for kind in (0, 1):
            mine = self.scored & (self.answers == kind)
            if mine.any():
                edges = np.quantile(ell[mine], 1 - 0.85 ** np.arange(1, _BINS))
                self.mark[mine] = kind * _BINS + np.searchsorted(edges, ell[mine])

    def posterior(self, rates: Floats, shares: Floats, marks: Floats) -> tuple[Floats, Floats]:
        """Chances of [chains, turns, state before, state after] for drafts and for what the target writes, 0 where
        there are none. `rates`: [chains, turns], of an error."""
        chains, turns = self.draft.shape
        stands, mends, spoils = shares
        writing = np.array([[1 - spoils, spoils], [mends, 1 - mends]])  # by state before, after, and kind of piece
        kernels = np.empty((turns, chains, 2, 2, 2))  # by state before, after the draft, after the target
        forward = np.empty((turns + 1, chains, 2))
        forward[0] = (1.0, 0.0)
        for t in range(turns):
            drafting = np.empty((chains, 2, 2))
            drafting[:, 0] = np.stack([1 - rates[:, t], rates[:, t]], axis=1)
            still = stands[self.answers[:, t].astype(int)]
            drafting[:, 1] = np.stack([1 - still, still], axis=1)
            drafting[~self.draft[:, t]] = np.eye(2)
            clean, arising, standing = np.where(self.scored[:, t], marks[:, self.mark[:, t]], 1.0)
            drafting *= np.stack([clean, arising, clean, standing], axis=1).reshape(-1, 2, 2)
            written = np.moveaxis(writing, 2, 0)[self.target_answers[:, t].astype(int)]
            wrote = np.where(self.target[:, t, None, None], written, np.eye(2))
            ends_in = np.where(self.replaced[:, t, None, None, None], wrote[:, :, None, :], wrote[:, None, :, :])
            kernels[t] = drafting[:, :, :, None] * ends_in
            forward[t + 1] = _normal(np.einsum("cs,csde->ce", forward[t], kernels[t]))
        backward = np.stack([self.right != 0, self.right != 1], axis=1).astype(np.float64)
        drafts, turned = np.zeros((2, chains, turns, 2, 2))
        for t in reversed(range(turns)):
            all_three = _normal(np.einsum("cs,csde,ce->csde", forward[t], kernels[t], backward))
            drafts[:, t] = all_three.sum(axis=3)
            turned[:, t] = np.where(self.replaced[:, t, None, None], all_three.sum(axis=2), all_three.sum(axis=1))
            backward = _normal(np.einsum("csde,ce->cs", kernels[t], backward))
        return drafts * self.draft[..., None, None], turned * self.target[..., None, None]


def _normal(chances: Floats) -> Floats:
    """So that each chain's sum to 1."""
    scaled: Floats = chances / chances.sum(axis=tuple(range(1, chances.ndim)), keepdims=True)
    return scaled
