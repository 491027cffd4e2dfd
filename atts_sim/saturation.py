"""Whether a configuration keeps up with its load, and what holds it up.

All questions there at once: the study is `closed`. It ends when its work is done, so there is no backlog to grow.

Questions that arrive over time (open): the *load* is the time that the configuration takes with all of them there at
once, over the time that they stand for (`arrivals.span_s`).

    saturated    the load is 1 or more: they come faster than they can be worked off, whatever the order of arrival.
                 The backlog then grows for as long as they come, and latency is a matter of how long one looks
    stable       otherwise; None where fewer than `_FEWEST` arrivals, or all at one later time, say too little

The time at once includes the last questions' own, when engines run empty: that errs on the side of `saturated`, by less
the more questions there are. A backlog itself is a poor witness: of 50 arrivals at a load of 0.7 it grows by chance.

The bottleneck is the busier engine where it is busy for `_BOUND` of the time or more, else `questions_in_flight` where
questions wait for admission, else `latency`: chains wait for their own next answer, and neither engine is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atts_sim.arrivals import span_s

_BOUND = 0.8
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Saturation:
    """`verdict`: closed, stable or saturated; None: too few arrivals to say. `load`: None where it is closed, or all
    came at one later time."""

    verdict: str | None
    bottleneck: str
    load: float | None = None


def saturation(
    arrived_s: Sequence[float], utilisation: Mapping[str, float], *, at_once_s: float | None, admission_s: float
) -> Saturation:
    """From when questions came, busy shares by engine, the makespan with all of them there at once (None: they are),
    and the seconds that chains waited for admission."""
    busiest = max(utilisation, key=lambda role: utilisation[role])
    busy = utilisation[busiest]
    bottleneck = busiest if busy >= _BOUND else "questions_in_flight" if admission_s > 0 else "latency"
    if at_once_s is None or not any(arrived_s):
        return Saturation("closed", bottleneck)
    span = span_s(arrived_s)
    if span is None:
        return Saturation(None, bottleneck)
    load = at_once_s / span
    if load >= 1:
        return Saturation("saturated", bottleneck, load)
    return Saturation("stable" if len(arrived_s) >= _FEWEST else None, bottleneck, load)
