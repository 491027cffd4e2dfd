"""From a chain's request to its engine: what the driver's process does for a call, and the way to the engine's own.

vLLM's engine core is a process of its own. The driver's process prepares calls one after the other, so that of many
that come at once the first is at its engine, and a pass with it alone has begun, before the last is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from atts_runtime.control import ChainId
from atts_runtime.records import CallRecord
from atts_sim.calls import EngineCall, SimEngine
from atts_sim.clock import ARRIVAL, Clock
from atts_sim.measured import Floats, asked_of

_CALL_S = np.arange(0.0, 5e-3, 1e-4)
_WAY_S = np.arange(0.0, 5e-3, 1e-4)
_ALIKE_S = 5e-4  # calls of an engine that start within this start in one pass
_AT_REST_S = 20e-3  # after its last answer an engine may still be in a pass, with rows that nobody wants
_MOST_S = 5e-3  # a call that is off by more was held up by something else


@dataclass(frozen=True, slots=True)
class Sending:
    """`call_s`: of the driver's process for a call, which does one thing at a time; `way_s`: until the engine has it.
    An engine in the driver's own process has it at once."""

    call_s: float = 0.0
    way_s: float = 0.0


AT_ONCE = Sending()


class Sender:
    """The driver's process: it sends the calls to all engines, in the order in which they come."""

    def __init__(self, clock: Clock, sending: Sending) -> None:
        self._clock, self._sending = clock, sending
        self._free_s = 0.0

    def send(self, then: Callable[[int], None]) -> None:
        """Call `then` when the engine has the call."""
        now = self._clock.now
        self._free_s = max(now, self._free_s) + self._sending.call_s
        self._clock.call(self._free_s + self._sending.way_s - now, ARRIVAL, then)


class Distant:
    """A `SimEngine` in a process of its own: calls reach it through a sender."""

    def __init__(self, engine: SimEngine, sender: Sender) -> None:
        self.spec, self.totals, self.device = engine.spec, engine.totals, engine.device
        self._engine, self._sender = engine, sender
        self._on_the_way: dict[EngineCall, None] = {}

    def submit(self, call: EngineCall) -> None:
        self._on_the_way[call] = None
        self._sender.send(lambda number: self._arrive(call))

    def cancel(self, call: EngineCall) -> None:
        if call in self._on_the_way:
            del self._on_the_way[call]
        else:
            self._engine.cancel(call)

    def release(self, chain: ChainId) -> None:
        self._engine.release(chain)

    def _arrive(self, call: EngineCall) -> None:
        if call in self._on_the_way:
            del self._on_the_way[call]
            self._engine.submit(call)


def fit_sending(runs: Iterable[Iterable[CallRecord]]) -> Sending:
    """What fits best when calls started.

    A call that found its engine at rest starts when it is there. Of the others it is known that they were not there
    when the pass before theirs let calls in, and were when theirs did.
    """
    known = [_bounds(list(calls)) for calls in runs]
    errors = np.zeros((len(_CALL_S), len(_WAY_S)))
    for queued, least, most in known:
        for i, call_s in enumerate(_CALL_S.tolist()):
            there = _sent(queued, call_s)[:, None] + _WAY_S
            off = np.maximum(0.0, there - most[:, None]) + np.maximum(0.0, least[:, None] - there)
            errors[i] += np.minimum(off, _MOST_S).sum(axis=0)
    best = np.unravel_index(int(errors.argmin()), errors.shape)
    return Sending(float(_CALL_S[best[0]]), float(_WAY_S[best[1]]))


def _sent(queued: Floats, call_s: float) -> Floats:
    """When each call is sent, those before it first."""
    order = np.arange(1, len(queued) + 1) * call_s
    sent: Floats = np.maximum.accumulate(queued - order + call_s) + order
    return sent


def _bounds(calls: list[CallRecord]) -> tuple[Floats, Floats, Floats]:
    """Of each call in their order: when it was made, and from when to when it must have reached its engine."""
    told = sorted(asked_of(calls), key=lambda call: call.t_queued_s)
    queued = np.array([call.t_queued_s for call in told])
    started = np.array([call.t_start_s for call in told], np.float64)
    ended = np.array([np.inf if call.t_end_s is None else call.t_end_s for call in told])
    least = np.full(len(told), -np.inf)
    for engine in {call.engine for call in told}:
        mine = np.array([call.engine == engine for call in told])
        passes = np.unique(started[mine])
        before = np.searchsorted(passes, started[mine] - _ALIKE_S) - 1
        earlier = np.where(before >= 0, passes[np.maximum(before, 0)], -np.inf)
        answers = np.sort(ended[mine])
        answered = np.searchsorted(answers, queued[mine], "right")
        last = np.append(-np.inf, answers)[answered]
        at_rest = (answered == np.arange(mine.sum())) & (queued[mine] - last > _AT_REST_S)
        least[mine] = np.where(at_rest, started[mine], earlier)
    return queued, least, started
