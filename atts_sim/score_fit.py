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
    """The scores' model, and each question's effect on them; a chain's scores follow one another."""
    if not scores:
        return None, np.zeros(questions)
    turn, question, chain, kind = (
        np.array([getattr(scored, name) for scored in scores], np.int64)
        for name in ("turn", "question", "chain", "kind")
    )
    ell = np.array([scored.ell for scored in scores])
    after = np.array([scored.after for scored in scores])
    cell, cells_of = _cells(kind, turn)
    z = _normal_scores(ell, cell)
    counts = np.maximum(1, np.bincount(question, minlength=questions))
    in_cell = np.bincount(cell)
    enough = after.sum() >= FEW and ((turn > 0) & ~after).sum() >= FEW
    neighbours = np.flatnonzero(chain[:-1] == chain[1:])
    shift, of_chain, strange, centre = 0.0, 0.0, np.zeros(questions), np.zeros(len(in_cell))
    for _ in range(_SWEEPS):
        # Cell, question, chain and takeover effects by turns: who comes to a late turn is not as who began.
        free = z + centre[cell] - shift * after
        means = np.bincount(question, free, questions) / counts
        whole = float((free - means[question]).var())
        between = max(0.0, float(means.var()) - whole / float(counts.mean()))
        strange = means * between / (between + whole / counts) if between else 0 * means
        strange -= strange[question[turn == 0]].mean() if (turn == 0).any() else 0.0
        rest = free - strange[question]
        own = float(rest.var())
        if len(neighbours) >= FEW:
            of_chain = min(0.9 * own, max(0.0, float(np.mean(rest[neighbours] * rest[neighbours + 1]))))
        if enough:
            # Stranger chains are taken over more often, which is no effect of takeovers.
            expected = _expected(rest, chain, of_chain, own - of_chain)
            shift += float((rest - expected)[after].mean() - (rest - expected)[(turn > 0) & ~after].mean())
        centre = np.bincount(cell, strange[question] + shift * after) / in_cell
    known = strange[question] + shift * after
    spreads = [float(max(1e-6, own + known[cell == c].var()) ** 0.5) for c in range(len(in_cell))]
    pools = [tuple(thinned(ell[cell == c].tolist())) for c in range(len(in_cell))]
    kinds = [
        Ells(tuple(pools[c] for c in cells), tuple(float(centre[c]) for c in cells), tuple(spreads[c] for c in cells))
        for cells in (next(cells_of[k] for k in order if cells_of[k]) for order in _INSTEAD)
    ]
    noise = max(own - of_chain, 0.0) ** 0.5
    return Scores((kinds[0], kinds[1], kinds[2], kinds[3], kinds[4], kinds[5]), shift, of_chain**0.5, noise), strange


def _cells(kind: Ints, turn: Ints) -> tuple[Ints, list[list[int]]]:
    """Each score's cell, of its kind and pool of turns; and by kind the cell of every turn."""
    cell, cells_of, before = np.zeros(len(kind), np.int64), [], 0
    for k in range(len(_INSTEAD)):
        mine = kind == k
        cells = [before + pool for pool in spans(np.bincount(turn[mine]).tolist())]
        cell[mine] = np.array(cells, np.int64)[turn[mine]]
        cells_of.append(cells)
        before = cells[-1] + 1 if cells else before
    return cell, cells_of


def _normal_scores(ell: Floats, cell: Ints) -> Floats:
    """Within each cell, as a standard normal variable with the same ranks."""
    from scipy.stats import norm, rankdata

    z = np.zeros(len(ell))
    for c in np.unique(cell):
        mine = cell == c
        z[mine] = norm.ppf((rankdata(ell[mine]) - 0.5) / mine.sum())
    return z


def _expected(rest: Floats, chain: NDArray[np.int64], of_chain: float, noise: float) -> Floats:
    """A chain's effect as its earlier scores have it, for each score; they follow one another by chain."""
    expected = np.zeros(len(rest))
    total, count = 0.0, 0
    for i in range(1, len(rest)):
        total, count = (total + rest[i - 1], count + 1) if chain[i] == chain[i - 1] else (0.0, 0)
        expected[i] = of_chain * total / (noise + count * of_chain) if of_chain else 0.0
    return expected
