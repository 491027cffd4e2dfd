"""How strange drafts are to the target: distributions as recorded, and what makes scores alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atts_sim.generative import Ells, Scores, kind_of
from atts_sim.pooling import FEW, spans, thinned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_SWEEPS = 10
_GRID = 400  # points at which a mixture is known, over so many standard deviations on either side
_WIDE = 5
_SHARES = np.linspace(0.0, 0.9, 46)  # of the variance, that may be of chains
_MOST = 8.0  # of a question's effect, beyond which it says the same: always or never
_LEAST_UNIT = 0.05  # of z; where less is new in scores, they say nothing of a unit
# Whose scores serve a kind that was never scored: of the same state, of the other wrong one, of the clean one.
_INSTEAD = (
    (0, 1, 2, 4, 3, 5),
    (1, 0, 3, 5, 2, 4),
    (2, 4, 3, 5, 0, 1),
    (3, 5, 2, 4, 1, 0),
    (4, 2, 5, 3, 0, 1),
    (5, 3, 4, 2, 1, 0),
)


@dataclass(slots=True)
class Scored:
    """A draft's score. `after`: the turn before was taken over; `before`, `wrong`: an error stands before and after the
    draft."""

    question: int
    chain: int
    turn: int
    after: bool
    answered: bool
    ell: float
    before: bool = False
    wrong: bool = False

    @property
    def kind(self) -> int:
        """Its place in `Scores.kinds`."""
        return kind_of(self.before, self.wrong, self.answered)


def fit_scores(scores: Sequence[Scored], questions: int) -> tuple[Scores | None, Floats]:
    """The scores' model, and each question's effect on them; a chain's scores follow one another.

    The unit of z is what the effects of a question and of takeovers leave open: of a chain and of noise together."""
    if not scores:
        return None, np.zeros(questions)
    turn, question, chain, kind = (
        np.array([getattr(scored, name) for scored in scores], np.int64)
        for name in ("turn", "question", "chain", "kind")
    )
    ell = np.array([scored.ell for scored in scores])
    after = np.array([scored.after for scored in scores])
    cells, cells_of = _cells(kind, turn)
    ranks = _ranks(ell, cells)
    follows = np.flatnonzero(chain[:-1] == chain[1:]) + 1
    enough = min(after[follows].sum(), (~after[follows]).sum()) >= FEW
    shift, of_chain, strange = 0.0, 0.0, np.zeros(questions)
    expected, spread = np.zeros(len(ell)), np.ones(len(ell))
    for _ in range(_SWEEPS):
        z = np.empty(len(ell))
        for mine in cells:
            z[mine] = _quantiles(expected[mine], spread[mine], ranks[mine])
        free = z - shift * after
        strange = _of_questions(free, question, chain, of_chain, questions)
        strange -= strange[question[turn == 0]].mean() if (turn == 0).any() else 0.0
        rest = free - strange[question]
        if len(follows) >= FEW:
            of_chain = float(min(_SHARES, key=lambda share: _surprise(rest, chain, share)))
        before, spread = _expected(rest, chain, of_chain)
        # High scores end chains, so those that are left scatter less and lie lower; what is new in each score does not.
        new = (rest - before) / spread
        unit = float(np.mean(new**2)) ** 0.5
        unit = unit if unit > _LEAST_UNIT else 1.0
        before, shift = before / unit, shift / unit
        strange = np.clip(strange / unit, -_MOST, _MOST)
        if enough:
            shift += _after(rest / unit, before, after, follows)
        expected = strange[question] + shift * after + before
    ells = [_table(ell[mine], expected[mine], spread[mine]) for mine in cells]
    kinds = [
        Ells(*zip(*(ells[c] for c in of_kind), strict=True))
        for of_kind in (next(cells_of[k] for k in order if cells_of[k]) for order in _INSTEAD)
    ]
    chain_sd, noise_sd = of_chain**0.5, (1 - of_chain) ** 0.5
    return Scores((kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5]), shift, chain_sd, noise_sd), strange


def _cells(kind: Ints, turn: Ints) -> tuple[list[Ints], list[list[int]]]:
    """The scores of each cell, which is of a kind and a pool of turns; and by kind the cell of every turn."""
    cell, cells_of, before = np.zeros(len(kind), np.int64), [], 0
    for k in range(len(_INSTEAD)):
        mine = kind == k
        numbers = [before + pool for pool in spans(np.bincount(turn[mine]).tolist())]
        cell[mine] = np.array(numbers, np.int64)[turn[mine]]
        cells_of.append(numbers)
        before = numbers[-1] + 1 if numbers else before
    return [np.flatnonzero(cell == c) for c in range(before)], cells_of


def _ranks(ell: Floats, cells: Sequence[Ints]) -> Floats:
    """Each score's place in its cell, between 0 and 1."""
    from scipy.stats import rankdata

    ranks = np.empty(len(ell))
    for mine in cells:
        ranks[mine] = (rankdata(ell[mine]) - 0.5) / len(mine)
    return ranks


def _quantiles(means: Floats, spreads: Floats, shares: Floats) -> Floats:
    """The values below which such shares lie of all that is drawn from normal distributions, each as often."""
    from scipy.special import ndtr

    grid = np.linspace((means - _WIDE * spreads).min(), (means + _WIDE * spreads).max(), _GRID)
    below = [float(ndtr((value - means) / spreads).mean()) for value in grid]
    quantiles: Floats = np.interp(shares, below, grid)
    return quantiles


def _table(ell: Floats, expected: Floats, spread: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A cell's values, and the z at which one gives way to the next: those who came to it draw each as often."""
    values = thinned(ell.tolist())
    bounds = _quantiles(expected, spread, np.arange(1, len(values)) / len(values))
    return tuple(values), tuple(bounds.tolist())


def _of_questions(free: Floats, question: Ints, chain: Ints, of_chain: float, questions: int) -> Floats:
    """Effects of questions, shrunk as they are unlike; the scores of a chain tell of one chain, however many."""
    weights = 1 / (1 - of_chain + of_chain * np.bincount(chain)[chain])
    known = np.bincount(question, weights, questions)
    seen = known > 0
    least = np.where(seen, known, 1.0)
    means = np.bincount(question, free * weights, questions) / least
    between = max(0.0, float(means[seen].var() - (1 / least[seen]).mean()))
    effects: Floats = means * between / (between + 1 / least)
    return effects


def _after(rest: Floats, before: Floats, after: NDArray[np.bool_], follows: Ints) -> float:
    """How much stranger scores are after a takeover, compared with others whose chains let expect as much and had as
    strange a score just before: strange ones are taken over and followed by such, which is no effect of takeovers."""
    known = np.column_stack([after[follows], before[follows], rest[follows - 1], np.ones(len(follows))])
    return float(np.linalg.lstsq(known, rest[follows], rcond=None)[0][0])


def _surprise(rest: Floats, chain: Ints, of_chain: float) -> float:
    """Negative log-likelihood a score, each given those before it in its chain, whatever their unit."""
    before, spread = _expected(rest, chain, of_chain)
    return float(np.log(np.mean(((rest - before) / spread) ** 2) + _LEAST_UNIT**2) / 2 + np.log(spread).mean())


def _expected(rest: Floats, chain: Ints, of_chain: float) -> tuple[Floats, Floats]:
    """What a chain's earlier scores let expect of each score, mean and standard deviation; they follow one another by
    chain. `of_chain`: the variance of chains' effects, of 1 with the noise."""
    noise = 1 - of_chain
    first = np.flatnonzero(np.diff(chain, prepend=-1))
    lengths = np.diff(first, append=len(chain))
    count = np.arange(len(rest)) - np.repeat(first, lengths)
    before = np.cumsum(rest) - rest
    known = noise + count * of_chain
    expected: Floats = of_chain * (before - np.repeat(before[first], lengths)) / known
    return expected, np.sqrt(noise + of_chain * noise / known)
