"""Whether a configuration keeps up with its load, and what holds it up.

All questions there at once: the study is `closed`. It ends when its work is done, so there is no backlog to grow.

Questions that arrive over time (open), by these rules, in this order:

    overloaded   over the second half of the arrivals, questions that are not done grow by more than `_GROWTH` of those
                 that arrive, by least squares, and more are open at the last arrival than at the middle one: latency is
                 then a matter of how long one looks
    saturated    the busier engine is in steps for `_SATURATED` of the time or more
    stable       otherwise; None where fewer than `_FEWEST` arrivals say too little

The bottleneck is the busier engine where it is busy for `_BOUND` of the time or more, else `questions_in_flight` where
questions wait for admission, else `latency`: chains wait for their own next answer, and neither engine is full.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GROWTH = 0.1
_SATURATED = 0.95
_BOUND = 0.8
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Saturation:
    """`verdict`: closed, stable, saturated or overloaded; None: too few arrivals to say."""

    verdict: str | None
    bottleneck: str


def saturation(
    arrived_s: Sequence[float], ended_s: Sequence[float], utilisation: Mapping[str, float], *, admission_s: float
) -> Saturation:
    """From when questions came and when each was done (in any order), busy shares by engine, and the seconds that
    chains waited for admission."""
    busiest = max(utilisation, key=lambda role: utilisation[role])
    busy = utilisation[busiest]
    bottleneck = busiest if busy >= _BOUND else "questions_in_flight" if admission_s > 0 else "latency"
    if not any(arrived_s):
        return Saturation("closed", bottleneck)
    if len(arrived_s) < _FEWEST:
        return Saturation(None, bottleneck)
    if grows(arrived_s, ended_s):
        return Saturation("overloaded", bottleneck)
    return Saturation("saturated" if busy >= _SATURATED else "stable", bottleneck)


def grows(arrived_s: Sequence[float], ended_s: Sequence[float]) -> bool:
    """Whether the backlog grows over the second half of the arrivals; the module's text has the rule."""
    ended = sorted(ended_s)
    half = len(arrived_s) // 2
    times = arrived_s[half:]
    # Open just after each arrival: those that came less those that were done.
    backlog = [half + i + 1 - bisect_right(ended, time) for i, time in enumerate(times)]
    n = len(times)
    middle = (n - 1) / 2
    mean = sum(backlog) / n
    slope = sum((i - middle) * (b - mean) for i, b in enumerate(backlog)) / sum((i - middle) ** 2 for i in range(n))
    return slope > _GROWTH and backlog[-1] > backlog[0]
