"""Conformal p-values as pure functions of counts (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*).

Larger scores are stranger. With a bank of `n` exchangeable scores, of which `greater` exceed and `equal` match
the tested one::

    plain     p = (1 + greater + equal) / (n + 1)          P(p <= a) <= a
    smoothed  p = (greater + u * (equal + 1)) / (n + 1)    uniform on (0, 1] for u uniform on (0, 1], ties included

The tie-breaker `u` is an argument, so both are testable by enumeration and replayable from a log.
"""

from __future__ import annotations

import math
from typing import NamedTuple


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


def _checked(counts: Counts) -> Counts:
    if counts.greater < 0 or counts.equal < 0 or counts.greater + counts.equal > counts.n:
        raise ValueError(f"impossible counts: {counts}")
    return counts
