"""Conformal p-values as pure functions of counts (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*).

Larger scores are stranger. With a bank of `n` exchangeable scores, of which `greater` exceed and `equal` match
the tested one::

    plain     p = (1 + greater + equal) / (n + 1)          P(p <= a) <= a
    smoothed  p = (greater + u * (equal + 1)) / (n + 1)    uniform on (0, 1] for u uniform on (0, 1], ties included

The tie-breaker `u` is an argument, so both are testable by enumeration and replayable from a log. `plain_batch` and
`smoothed_batch` rank many scores at once against one sorted bank.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Counts(NamedTuple):
    """Where a score stands in a bank of `n`: how many are `greater`, how many `equal`."""

    greater: int
    equal: int
    n: int


def plain(counts: Counts) -> float:
    """The conservative p-value in [1/(n+1), 1]; it cannot reach `a` before n >= 1/a - 1."""
    greater, equal, n = _checked(counts)
    return (1 + greater + equal) / (n + 1)


def smoothed(counts: Counts, u: float) -> float:
    """The exact p-value, tie-broken by `u` in (0, 1]; for an empty bank it is `u`."""
    greater, equal, n = _checked(counts)
    if not 0 < u <= 1:
        raise ValueError(f"tie-breaker must be in (0, 1], got {u!r}")
    return (greater + u * (equal + 1)) / (n + 1)


def finite(score: float) -> float:
    """`score` itself; raises ValueError on NaN and infinities, which no bank may hold and no test may pass."""
    if not math.isfinite(score):
        raise ValueError(f"nonconformity score must be finite, got {score!r}")
    return float(score)


def plain_batch(bank: NDArray[np.float64], scores: ArrayLike) -> NDArray[np.float64]:
    """`plain` of every score in `scores` (k,) against an ascending `bank` (n,): (k,)."""
    bank, tested = _sorted(bank), _finite_array(scores)
    first = np.searchsorted(bank, tested, side="left")
    return (1.0 + (len(bank) - first)) / (len(bank) + 1)


def smoothed_batch(bank: NDArray[np.float64], scores: ArrayLike, u: ArrayLike) -> NDArray[np.float64]:
    """`smoothed` of every score in `scores` (k,), with its tie-breaker in `u` (k,) against an ascending
    `bank` (n,): (k,).

    Only scores that the bank holds are searched for twice.
    """
    bank, tested = _sorted(bank), _finite_array(scores)
    ties = np.asarray(u, dtype=np.float64)
    if ties.shape != tested.shape:
        raise ValueError(f"one tie-breaker a score: got {ties.shape} for {tested.shape}")
    if not np.all((ties > 0) & (ties <= 1)):
        raise ValueError("tie-breakers must be in (0, 1]")
    n = len(bank)
    first = np.searchsorted(bank, tested, side="left")
    equal = np.zeros(tested.shape, dtype=np.int64)
    if n:
        held = (first < n) & (bank[np.minimum(first, n - 1)] == tested)
        equal[held] = np.searchsorted(bank, tested[held], side="right") - first[held]
    return ((n - first - equal) + ties * (equal + 1)) / (n + 1)


def _sorted(bank: NDArray[np.float64]) -> NDArray[np.float64]:
    bank = _finite_array(bank)
    if np.any(bank[1:] < bank[:-1]):
        raise ValueError("the bank must be sorted in ascending order")
    return bank


def _finite_array(scores: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"scores must be one-dimensional, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise ValueError("nonconformity scores must be finite")
    return array


def _checked(counts: Counts) -> Counts:
    if counts.greater < 0 or counts.equal < 0 or counts.greater + counts.equal > counts.n:
        raise ValueError(f"impossible counts: {counts}")
    return counts
