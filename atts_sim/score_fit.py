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
    counts = np.maximum(1, np.bincount(question, minlength=questions))
    enough = after.sum() >= FEW and ((turn > 0) & ~after).sum() >= FEW
    neighbours = np.flatnonzero(chain[:-1] == chain[1:])
    shift, of_chain, strange = 0.0, 0.0, np.zeros(questions)
    expected, spread = np.zeros(len(ell)), np.ones(len(ell))
    for _ in range(_SWEEPS):
        # Cell, question, chain and takeover effects by turns: who comes to a late turn is not as who began.
        z = np.empty(len(ell))
        for mine in cells:
            z[mine] = _quantiles(expected[mine], spread[mine], ranks[mine])
        free = z - shift * after
        means = np.bincount(question, free, questions) / counts
        whole = float((free - means[question]).var())
        between = max(0.0, float(means.var()) - whole / float(counts.mean()))
        strange = means * between / (between + whole / counts) if between else 0 * means
        strange -= strange[question[turn == 0]].mean() if (turn == 0).any() else 0.0
        rest = free - strange[question]
        unit = float(rest.std()) or 1.0
        strange, rest, shift = strange / unit, rest / unit, shift / unit
        if len(neighbours) >= FEW:
            of_chain = min(0.9, max(0.0, float(np.mean(rest[neighbours] * rest[neighbours + 1]))))
        from_before, spread = _expected(rest, chain, of_chain)
        if enough:
            # Stranger chains are taken over more often, which is no effect of takeovers.
            new = rest - from_before
            shift += float(new[after].mean() - new[(turn > 0) & ~after].mean())
        expected = strange[question] + shift * after + from_before
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


def _expected(rest: Floats, chain: Ints, of_chain: float) -> tuple[Floats, Floats]:
    """What a chain's earlier scores let expect of each score, mean and standard deviation; they follow one another by
    chain. `of_chain`: the variance of chains' effects, of 1 with the noise."""
    noise = 1 - of_chain
    expected, spread = np.zeros(len(rest)), np.ones(len(rest))
    total, count = 0.0, 0
    for i in range(1, len(rest)):
        total, count = (total + rest[i - 1], count + 1) if chain[i] == chain[i - 1] else (0.0, 0)
        known = noise + count * of_chain
        expected[i] = of_chain * total / known
        spread[i] = (noise + of_chain * noise / known) ** 0.5
    return expected, spread
