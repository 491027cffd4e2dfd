"""Simulated time: a SimPy environment that calls functions, in an order that does not hang on who asked first.

What happens at one and the same time goes by priority: what the outside does (`ARRIVAL`, SimPy's own default), then
the ends of engines' steps, then their begins, each in the order of the engines' ranks. So an engine that begins a step
has heard of everything that happened until then.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import simpy
from simpy.core import EmptySchedule
from simpy.events import NORMAL

ARRIVAL = NORMAL
_END, _BEGIN = 2, 1_000


class Tick(simpy.Event):
    """An event that was bound to happen, as SimPy's `Timeout`, with a priority: a process can wait for it."""

    _ok, _value = True, None

    def __init__(self, clock: Clock, delay_s: float, priority: int, then: Callable[[Tick], None]) -> None:
        self.callbacks = [then]
        heappush(clock._queue, (clock._now + delay_s, priority, next(clock._eid), self))  # type: ignore[misc]


class Clock(simpy.Environment):
    """Seconds from 0 on, and which engines have begun a step at this very time."""

    now = 0.0  # an attribute where SimPy has a property: it is read several times an event

    def __init__(self) -> None:
        super().__init__(0.0)
        self._begun_at, self._begun_rank = -1.0, -1
        self._ranks = 0

    def call(self, delay_s: float, priority: int, then: Callable[[int], None]) -> int:
        """Call `then` after `delay_s`, with the number that this returns. A `Tick` that nobody waits for, at half the
        cost: it stands in SimPy's queue by itself."""
        number = next(self._eid)
        heappush(self._queue, (self._now + delay_s, priority, number, then))  # type: ignore[misc]
        return number

    def step(self) -> None:
        """What comes next: a call, or an event, as SimPy does it."""
        queue = self._queue
        if not queue:
            raise EmptySchedule
        if isinstance(queue[0][3], simpy.Event):
            self.now = queue[0][0]
            super().step()
        else:
            time, _, number, then = heappop(queue)
            self._now = self.now = time
            then(number)

    def last(self, priority: int, then: Callable[[int], None]) -> None:
        """`call` without delay, as the last thing that an event does: at once, where nothing else comes before it."""
        queue = self._queue
        if queue and queue[0][:2] < (self._now, priority):
            self.call(0.0, priority, then)
        else:
            then(-1)

    def rank(self) -> int:
        """A rank for one more engine."""
        self._ranks += 1
        return self._ranks - 1

    def begins(self, rank: int) -> None:
        """The engine of this rank begins a step now."""
        now = self._now
        if self._begun_at != now:
            self._begun_at, self._begun_rank = now, rank
        elif rank > self._begun_rank:
            self._begun_rank = rank

    def has_begun(self, rank: int) -> bool:
        """Whether an engine of this rank would have begun by now a step that was due at this very time."""
        return self._begun_at == self._now and self._begun_rank >= rank


def end_priority(rank: int) -> int:
    """Of the end of an engine's step."""
    return _END + rank


def begin_priority(rank: int) -> int:
    """Of the begin of an engine's step."""
    return _BEGIN + rank
