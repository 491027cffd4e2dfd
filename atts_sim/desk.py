"""Requests to simulated engines, and how many a driver lets at one at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from atts_runtime.control import Event
from atts_sim.calls import EngineCall, SimEngine
from atts_sim.workload import Written

Role = Literal["draft", "target"]
_IN_FLIGHT_PER_ROW = 4  # calls that `atts_runtime.driver` lets at an engine, for each of its rows


@dataclass(slots=True, eq=False, kw_only=True)
class Request(EngineCall):
    """A call with the event that will answer it and what it writes (None: a score). `void`: its chain was stopped;
    `remembered`: it was a score that the engine knew."""

    role: Role
    event: Event
    written: Written | None
    void: bool = False
    remembered: bool = False


class Desk:
    """An engine as the driver sees it: its place among the engines, the calls that it may have at a time (`free` of
    them are not taken), and those that wait for one that is done."""

    __slots__ = ("at", "engine", "free", "queue")

    def __init__(self, at: int, engine: SimEngine) -> None:
        self.at, self.engine = at, engine
        self.free = engine.spec.slots or engine.spec.max_rows * _IN_FLIGHT_PER_ROW
        self.queue: deque[Request] = deque()

    def send(self, request: Request) -> None:
        """Ask the engine now or, where it has all that it may, when a call is done."""
        if self.free:
            self.free -= 1
            self.engine.submit(request)
        else:
            self.queue.append(request)

    def drop(self, request: Request) -> None:
        """Nobody waits for the request any more; it was sent, and is not answered."""
        if request in self.queue:
            self.queue.remove(request)
        else:
            self.engine.cancel(request)
            self.done()

    def done(self) -> None:
        """The engine has answered a call."""
        if self.queue:
            self.engine.submit(self.queue.popleft())
        else:
            self.free += 1
