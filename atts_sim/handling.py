"""From an engine's answer to the next pass: what the runtime's event loop and an engine's thread take, and their fit.

The loop comes to an answer a while after it was given, as it has to be woken; those that came meanwhile it handles
right after it, one after the other. An engine that has nothing to do sleeps: from the first call that comes until it
begins a pass a while goes by too, and what comes meanwhile is in that pass.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from atts_runtime.records import CallRecord, ChainRecord
from atts_sim.measured import StepLog


@dataclass(frozen=True, slots=True)
class Handling:
    """latency_s: from an answer until a driver that waits has handled it; each_s: for one that was there before the
    last was handled, from then on. Raises ValueError for what is negative or no number."""

    latency_s: float = 0.0
    each_s: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.latency_s < math.inf and 0 <= self.each_s < math.inf):
            raise ValueError(f"no time that answers take: {self}")

    @classmethod
    def one_at_a_time(cls, seconds: float) -> Handling:
        """Each answer takes so long, and the next one waits meanwhile."""
        return cls(seconds, seconds)

    def after(self, now_s: float, last_s: float) -> float:
        """When an answer that comes now is handled, the one before it being handled at `last_s`."""
        return last_s + self.each_s if last_s > now_s else now_s + self.latency_s


AT_ONCE = Handling()
"""A driver that takes no time."""


def fit_handling(runs: Iterable[Sequence[ChainRecord]]) -> Handling:
    """What runs' chains say, in medians. An answer found the driver waiting where the last was handled before it
    came."""
    alone: list[float] = []
    together: list[float] = []
    for records in runs:
        last_s = -math.inf
        for handled_s, came_s in sorted(each for record in records for each in _handled(record)):
            if last_s > came_s:
                together.append(handled_s - last_s)
            else:
                alone.append(handled_s - came_s)
            last_s = handled_s
    latency_s = statistics.median(alone) if alone else 0.0
    return Handling(latency_s, statistics.median(together) if together else latency_s)


def _handled(record: ChainRecord) -> Iterable[tuple[float, float]]:
    """When answers were handled, and when they came: the chain then made its next request, or was held."""
    held = [hold.t_start_s for hold in record.holds_s]
    for call, after in zip(record.calls, record.calls[1:], strict=False):
        came_s, asked_s = call.t_end_s, after.t_queued_s
        if came_s is not None and asked_s >= came_s:
            yield min([asked_s, *(start for start in held if start >= came_s)]), came_s


def fit_wake_s(logs: Iterable[tuple[StepLog, Sequence[CallRecord]]]) -> float:
    """Seconds until an engine that has nothing to do begins a pass for a call, of an engine's steps and calls in runs:
    the median over passes for which one call came alone, else over those for which several came; 0 where none did."""
    alone: list[float] = []
    all_of_them: list[float] = []
    for log, calls in logs:
        queued = np.append(np.sort([call.t_queued_s for call in calls]), [math.inf, math.inf])
        done = np.sort([call.t_end_s for call in calls if call.t_end_s is not None])
        ends, starts = (log.start_s + log.duration_s)[:-1], log.start_s[1:]
        first = np.searchsorted(queued, ends, "right")
        idle = (np.searchsorted(done, starts, "right") == first) & (queued[first] <= starts)
        one = queued[np.minimum(first + 1, len(queued) - 1)] > starts
        waits = starts - queued[first]
        alone += waits[idle & one].tolist()
        all_of_them += waits[idle].tolist()
    return statistics.median(alone or all_of_them or [0.0])
