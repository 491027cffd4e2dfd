"""What an engine's passes take in runs beyond what its profile says: one phase's correction, and its fit.

With `profile` the profile's seconds of a batch of `rows` rows, a pass takes until the next one

    ((factor(rows) + recent * f) * profile + step_s + grown_s * grown)
        * (1 + contention * [the other engine is in a pass as this one begins]) + contention_s * [it is]
        + begin_s * [calls that begin] + end_s * [calls that end]

none of them negative and the factor at least .3, with the generating calls that join the batch before it and leave
after it. Engines of one process share its cores, which takes a share of a pass, and Python's interpreter, which takes
what it takes to begin as many operations, however large. The factor is piecewise linear in the logarithm of the rows,
between `ROWS`: a machine is faster or slower than the profiled one by another factor at one row than at 64, as memory
and compute are not slowed alike. What batches cost at sizes that the runs did not reach is still the profile's
statement, by the factor of the nearest size that they did. A row that has just joined a decode batch makes it slower,
as its keys and values are in no cache yet: f is the mean over the rows of exp(-n / 1.5) in a row's n-th pass, from 0 on
(`Recency`), and 0 in append passes. An append pass that is larger than any before it in the run, as most of those of
many rows are in a short one, works in memory that the system has yet to hand out: `grown` is by how many positions, its
rows times those of the longest (`Growth`).

Weighted least squares, a pass's weight being one over what the profile says it takes, so that what is fitted adds up to
the time that passed. A pass that took much longer than its kind was held up by something else on the machine, and
counts for less (Huber's weights).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from atts_sim.measured import Floats

ROWS = tuple(1 << k for k in range(9))
_SMOOTH = 0.05  # weight of a difference between neighbouring factors, beside all steps' weight together
_CONTENTION = np.linspace(0.0, 3.0, 61)
_DIFFERENT = 0.05  # standard deviation of the share beside the other engine from which on contention is told
_FEWEST = 30  # steps of a phase below which nothing is fitted and the profile's word stands
_FORGOTTEN = 1.5  # decode passes in which what a new row costs falls to 1/e
_LEAST = 0.3  # of the profile's time, that a pass takes whatever calls are said to cost
_HELD_UP = 0.6  # relative residual above which a pass weighs less: what predicts m = 8 from m = 4 (docs/simulator.md)
_HELD_UP_OWN = 2.0  # the same beside a profile that is of the runs themselves, which was judged with it
_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Correction:
    """Of a phase; see the module's text. `factors` are those at `ROWS`. The default corrects nothing."""

    factors: tuple[float, ...] = (1.0,) * len(ROWS)
    step_s: float = 0.0
    contention: float = 0.0
    recent: float = 0.0
    grown_s: float = 0.0
    contention_s: float = 0.0

    def factor(self, rows: int) -> float:
        """Of the profile's seconds, for a step of so many rows; beyond the last of `ROWS` its factor."""
        return float(np.interp(math.log2(rows), range(len(ROWS)), self.factors))

    def seconds(self, profile_s: float, rows: int, f: float = 0.0, shared: float = 0.0, grown: int = 0) -> float:
        """Of a step that shares so much of its time with the other engine's; `f`, `grown`: see the module's text."""
        alone = (self.factor(rows) + self.recent * f) * profile_s + self.step_s + self.grown_s * grown
        return alone * (1 + self.contention * shared) + self.contention_s * shared


class Recency:
    """How new the rows of an engine's decode batch are, pass by pass: the f of the module's text."""

    def __init__(self) -> None:
        self._rows = 0
        self._new = 0.0  # summed over the rows

    def of(self, rows: int, joined: int) -> float:
        """Of the next decode pass, `joined` of whose rows were not in the last. Who left was as new as who stays."""
        stayed = self._new * (rows - joined) / self._rows if self._rows else 0.0
        self._rows, self._new = rows, joined + stayed * math.exp(-1 / _FORGOTTEN)
        return self._new / rows


class Growth:
    """By how much an engine's append passes are larger than all before them: `grown` of the module's text."""

    def __init__(self) -> None:
        self._largest = 0

    def of(self, rows: int, longest: int) -> int:
        """Of the next append pass, whose longest row then keeps so many positions."""
        grown = max(0, rows * longest - self._largest)
        self._largest += grown
        return grown


@dataclass(frozen=True, slots=True)
class CallFit:
    """What a generating call costs besides its passes when it begins and when it ends."""

    begin_s: float = 0.0
    end_s: float = 0.0

    def times(self, factor: float) -> CallFit:
        """All of it dearer by a factor."""
        return CallFit(*(factor * cost for cost in astuple(self)))


@dataclass(frozen=True, slots=True)
class FitError:
    """How a fit did on a phase: steps, what they took in sum, and by how much the predicted sum differs, relatively;
    median absolute relative error of a step."""

    steps: int
    measured_s: float
    sum_error: float
    median_error: float

    @classmethod
    def of(cls, seconds: Floats, predicted: Floats) -> FitError | None:
        if not len(seconds):
            return None
        whole = float(seconds.sum())
        relative: NDArray[np.float64] = np.abs(predicted / seconds - 1)
        return cls(len(seconds), whole, float(predicted.sum()) / whole - 1, float(np.median(relative)))


@dataclass(frozen=True, slots=True)
class Samples:
    """Steps of a phase in a run: what they took, what the profile says, rows, share beside the other engine's (of those
    of one process 1 or 0, as that was in one when they began), calls that came and went as in `measured.StepLog`, and f
    and `grown` of the module's text."""

    seconds: Floats
    profile: Floats
    rows: Floats
    shared: Floats
    calls: Floats
    recent: Floats
    grown: Floats

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def predicted(self, c: Correction, of_calls: CallFit) -> Floats:
        alone: Floats = (self.between() @ c.factors + c.recent * self.recent) * self.profile + c.step_s
        alone += c.grown_s * self.grown
        return alone * (1 + c.contention * self.shared) + c.contention_s * self.shared + self.of_calls(of_calls)

    def of_calls(self, costs: CallFit) -> Floats:
        """Seconds of calls that came and went."""
        seconds: Floats = self.calls @ astuple(costs)
        return seconds

    def between(self) -> Floats:
        """[steps, ROWS] how much of each step's factor is that of each size."""
        place = np.minimum(np.log2(self.rows), len(ROWS) - 1)
        weights: Floats = np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(len(ROWS))))
        return weights


def fit(parts: Sequence[Samples], known: CallFit | None = None, *, own: bool = False) -> tuple[Correction, CallFit]:
    """The correction that fits best, and what calls cost (`known`, where that is); none from too few steps.

    `own`: the profile is of such runs itself, and tells batches of different sizes apart: one factor, no seconds.
    """
    if sum(len(part.seconds) for part in parts) < _FEWEST:
        return Correction(), known or CallFit()
    samples = Samples.joined(parts)
    found = _weighted(samples, np.ones(len(samples.seconds)), known, own=own)
    limit = _HELD_UP_OWN if own else _HELD_UP
    for _ in range(_ROUNDS):
        residual = np.abs(samples.seconds / np.maximum(samples.predicted(*found), 1e-9) - 1)
        found = _weighted(samples, np.minimum(1.0, limit / np.maximum(residual, 1e-12)), known, own=own)
    return found


def _weighted(samples: Samples, weights: Floats, known: CallFit | None, *, own: bool) -> tuple[Correction, CallFit]:
    from scipy.optimize import nnls

    unit = float(np.median(samples.profile))  # so that the unknowns are of one size
    between = np.ones((len(weights), 1)) if own else samples.between()
    sizes = between.shape[1]
    root = np.sqrt(weights / samples.profile)[:, None]
    scaled = np.column_stack([between, samples.recent]) * samples.profile[:, None]
    most = max(1.0, float(samples.grown.max()))
    alone = root * np.column_stack([scaled, np.full(len(root), 0.0 if own else unit), unit / most * samples.grown])
    told = float(samples.shared.std()) > _DIFFERENT
    beside = samples.shared[:, None] * (told and not own)
    besides = root * unit * np.hstack([beside, samples.calls[:, : 2 if known is None else 0]])
    wanted = root[:, 0] * (samples.seconds - samples.of_calls(known or CallFit()))
    # Beside the other engine all of a pass by itself is slower by 1 + c: normal equations for every c at once.
    terms = np.hstack([alone, besides])
    slowed = np.hstack([alone * samples.shared[:, None], np.zeros_like(besides)])
    squares = [terms.T @ terms, terms.T @ slowed + slowed.T @ terms, slowed.T @ slowed]
    sides = [terms.T @ wanted, slowed.T @ wanted]
    differences = np.diff(np.eye(sizes, terms.shape[1]), axis=0)
    smooth = _SMOOTH * float((weights * samples.profile).sum()) * differences.T @ differences
    least = np.where(np.arange(terms.shape[1]) < sizes, _LEAST, 0.0)
    best, found = math.inf, (Correction(), known or CallFit())
    for c in _CONTENTION if told else (0.0,):
        normal = squares[0] + c * squares[1] + c * c * squares[2] + smooth
        side = sides[0] + c * sides[1]
        factor = np.linalg.cholesky(normal + 1e-12 * np.trace(normal) * np.eye(len(normal))).T
        x = least + nnls(factor, np.linalg.solve(factor.T, side - normal @ least))[0]
        cost = float(x @ normal @ x - 2 * side @ x)
        if cost < best:
            best, values = cost, [float(value) for value in x]
            factors = tuple(values[:sizes]) * (len(ROWS) // sizes)
            recent, step, grown, beside_s, *of_calls = values[sizes:]
            correction = Correction(factors, step * unit, float(c), recent, grown * unit / most, beside_s * unit)
            found = correction, known or CallFit(*of_calls).times(unit)
    return found
