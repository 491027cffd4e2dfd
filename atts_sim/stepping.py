"""What the plain statements of engines have in common: messages, and steps one after the other, an event a pass."""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy

from atts_runtime.control.events import ChainId
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import Clock, Tick, begin_priority, end_priority
from atts_sim.cost import Cost, StepCost
from atts_sim.device import Device

Passes = Generator[simpy.Event, None, None]


class Stepping:
    """A `SimEngine` that steps through every pass, on a device of its own or a shared one."""

    def __init__(self, clock: Clock, spec: EngineSpec, cost: StepCost, device: Device | None = None) -> None:
        self.spec, self.totals, self.device = spec, Totals(), device
        self._clock, self._cost = clock, cost
        self._rank = clock.rank() if device is None else device.rank
        self._inbox: list[Callable[[], None]] = []
        self._wake: simpy.Event = clock.event()
        self._turn: simpy.Event = clock.event()
        if device is not None:
            if spec.wake_s:
                raise ValueError("engines that share a device wake at once: leave wake_s out")
            device.join(self)
        clock.process(self._run())

    def submit(self, call: EngineCall) -> None:
        self._post(lambda: self._add(call))

    def cancel(self, call: EngineCall) -> None:
        def drop() -> None:
            call.dropped = True

        self._post(drop)

    def release(self, chain: ChainId) -> None:
        self._post(lambda: self._forget(chain))

    def begin(self) -> None:
        self._turn.succeed()

    def give_way(self) -> None:
        """It makes one step at a time anyway."""

    def _post(self, message: Callable[[], None]) -> None:
        self._inbox.append(message)
        if not self._wake.triggered:
            self._wake.succeed()

    def _run(self) -> Passes:
        more = False
        while True:
            wake_s = 0.0
            if not (more or self._inbox):
                self._wake = self._clock.event()
                yield self._wake
                wake_s = self.spec.wake_s
            if self.device is None:
                yield Tick(self._clock, wake_s, begin_priority(self._rank), lambda tick: None)
                self._clock.begins(self._rank)
            else:
                self._turn = self._clock.event()
                if not more:
                    self.device.ask(self)
                yield self._turn
            for message in self._inbox:
                message()
            self._inbox.clear()
            yield from self._step()
            more = bool(self._inbox) or self._has_work
            if self.device is not None:
                self.device.ended(self, more=more)

    def _add(self, call: EngineCall) -> None:
        raise NotImplementedError

    def _forget(self, chain: ChainId) -> None:
        raise NotImplementedError

    def _step(self) -> Passes:
        raise NotImplementedError

    @property
    def _has_work(self) -> bool:
        raise NotImplementedError

    def _pass(self, cost: Cost) -> simpy.Event:
        self.totals.outside_s += 0.0 if cost.inside else cost.seconds
        self.totals.steps += 1
        return self._spend(cost.seconds)

    def _spend(self, seconds: float) -> simpy.Event:
        self.totals.busy_s += seconds
        return Tick(self._clock, seconds, end_priority(self._rank), lambda tick: None)

    def _answer(self, call: EngineCall) -> None:
        if not call.dropped:
            call.t_end_s = self._clock.now
            call.on_done(call)
