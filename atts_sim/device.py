"""A device that several engines share: their steps take turns on one clock.

The rule: one step at a time, whole (with the embedded discipline an append and a decode pass). When a step is over, of
the engines that have work the one goes on whose last step lies furthest back, at first the one that was made first. So
two busy models alternate step by step, and one alone runs as if the device were its own.
"""

from __future__ import annotations

from typing import Protocol

from atts_sim.clock import Clock, begin_priority


class Sharer(Protocol):
    """An engine on a shared device."""

    def begin(self) -> None:
        """It is the engine's turn: make one step, or more while nobody asks for the device; then call `ended`."""

    def give_way(self) -> None:
        """Another engine waits: end with the step that is on its way."""


class Device:
    """Give it to each engine that shares it. `rank` is the one that they all have on the clock."""

    def __init__(self, clock: Clock) -> None:
        self.rank = clock.rank()
        self._clock = clock
        self._last: dict[Sharer, int] = {}
        self._waiting: list[Sharer] = []
        self._holder: Sharer | None = None
        self._turns = 0
        self._due = False

    def join(self, engine: Sharer) -> None:
        """One more engine."""
        self._last[engine] = len(self._last) - (1 << 30)

    @property
    def wanted(self) -> bool:
        """Whether an engine waits for its turn."""
        return bool(self._waiting)

    def ask(self, engine: Sharer) -> None:
        """An engine that had nothing to do has work."""
        self._waiting.append(engine)
        if self._holder is not None:
            self._holder.give_way()
        elif not self._due:
            self._arrange()

    def ended(self, engine: Sharer, *, more: bool) -> None:
        """The engine's step is over; `more`: it has work for another one."""
        self._holder = None
        if more:
            self._waiting.append(engine)
        if self._waiting:
            self._arrange()

    def pass_on(self, engine: Sharer) -> None:
        """As `ended`, called when the next step is to begin at once; the engine has more work."""
        self._waiting.append(engine)
        self._next()

    def _on_turn(self, number: int) -> None:
        self._due = False
        self._next()

    def _next(self) -> None:
        engine = min(self._waiting, key=self._last.__getitem__)
        self._waiting.remove(engine)
        self._turns += 1
        self._last[engine] = self._turns
        self._holder = engine
        self._clock.begins(self.rank)
        engine.begin()

    def _arrange(self) -> None:
        self._due = True
        self._clock.call(0.0, begin_priority(self.rank), self._on_turn)
