"""Whether work piles up: how many wait, averaged over time, and over either half of it.

A system that keeps up has as long a queue in the second half of its time as in the first; one that does not has a
queue that grows all the time, three times as long in the second half if it grows evenly from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many there are at a time, on average over all of a time span, its first half and its second."""

    mean: float
    first_half: float
    second_half: float


def backlog(waits: Iterable[tuple[float, float]], until_s: float) -> Backlog | None:
    """Of waits (from, to), over the time from 0 to `until_s`; None where that is no time. Waits may overlap, and what
    of them lies beyond does not count: with arrivals, take the last one, as what comes after it only drains."""
    if not until_s > 0:
        return None
    half = until_s / 2
    early = late = 0.0
    for start, end in waits:
        if start < half:
            early += (end if end < half else half) - start
        if end > half and start < until_s:
            late += (end if end < until_s else until_s) - (start if start > half else half)
    return Backlog((early + late) / until_s, early / half, late / half)
