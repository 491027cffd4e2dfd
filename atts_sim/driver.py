"""The simulated driver: carries out the controller's commands on simulated engines and writes down what happened.

It does what `atts_runtime.driver` does, in the same order, with the same controller and policies. What is real there
comes from elsewhere here: time from the clock and the engines, text from the workload. Calls do not fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from simpy.core import EmptySchedule

from atts_runtime.control import (
    Admit,
    Alarmed,
    ChainId,
    Command,
    Controller,
    Decided,
    Draft,
    Drafted,
    Event,
    Failed,
    Finish,
    Hold,
    Limits,
    Policy,
    Score,
    Scored,
    TakenOver,
    TakeOver,
)
from atts_runtime.control.commands import Cause
from atts_runtime.records import Kind
from atts_sim.calls import EngineCall, SimEngine, Totals
from atts_sim.clock import ARRIVAL, Clock, Tick
from atts_sim.collector import no_collection
from atts_sim.workload import Workload, Written

Role = Literal["draft", "target"]
_IN_FLIGHT_PER_ROW = 4  # calls that `atts_runtime.driver` lets at an engine, for each of its rows
_ALL = 1 << 62


@dataclass(slots=True, eq=False, kw_only=True)
class Request(EngineCall):
    """A call with the event that will answer it and what it writes (None: a score)."""

    role: Role
    event: Event
    written: Written | None


class _Text:
    """A chain's text in tokens, by engine: all of it, the last piece's, and what the engine's KV can still be of."""

    __slots__ = ("eos", "full", "hold", "piece", "prompt", "stable")

    def __init__(self, prompt: list[int]) -> None:
        self.prompt, self.full = prompt, list(prompt)
        self.piece = [0] * len(prompt)
        self.stable = [_ALL] * len(prompt)
        self.eos = False
        self.hold: tuple[Cause, float] | None = None


@dataclass(slots=True)
class SimRun:
    """What a simulation left: requests in the order in which they were made, waits (chain, cause, from, to), verdicts,
    ends, times of arrival and admission by question; the engines' totals by role, one object under both where they
    share one. one_device: the engines' steps take turns."""

    questions: int
    chains: int
    wall_s: float = 0.0
    requests: list[Request] = field(default_factory=list)
    holds: list[tuple[ChainId, Cause, float, float]] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    finished: list[tuple[Finish, float]] = field(default_factory=list)
    arrived_s: tuple[float, ...] = ()
    admitted_s: dict[int, float] = field(default_factory=dict)
    alarms: list[Alarmed] = field(default_factory=list)
    totals: dict[Role, Totals] = field(default_factory=dict)
    correct: dict[ChainId, bool | None] = field(default_factory=dict)
    events: int = 0
    one_device: bool = False


class SimDriver:
    """Runs one policy over a workload to its end.

    Args:
        engines: by role, of the same clock; one object under both names where they share a model.
        handling_s: the driver handles one answer at a time, and each takes so long: what the runtime's Python costs.
        arrivals_s: when each question comes, in order (None: all at once, at 0). Raises ValueError where they do not
            ascend from 0 on, and in `run` where the policy begins with all questions.
        watch: called with every command, as it is issued.
    """

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        workload: Workload,
        engines: dict[Role, SimEngine],
        clock: Clock,
        *,
        handling_s: float = 0.0,
        arrivals_s: Sequence[float] | None = None,
        watch: Callable[[Command], None] | None = None,
    ) -> None:
        if not handling_s >= 0:
            raise ValueError(f"handling_s must not be negative, got {handling_s}")
        arrivals = (0.0,) * workload.questions if arrivals_s is None else tuple(arrivals_s)
        if len(arrivals) != workload.questions or any(b < a for a, b in pairwise((0.0, *arrivals))):
            raise ValueError(f"{workload.questions} questions need as many times of arrival, ascending from 0 on")
        self._workload, self._clock, self._handling_s, self._watch = workload, clock, handling_s, watch
        self._controller = Controller(policy, limits, questions=workload.questions, chains=workload.chains)
        self._engines: list[SimEngine] = []
        self._at: dict[Role, int] = {}
        self._role_at: list[Role] = []
        for role, engine in engines.items():
            if engine not in self._engines:
                self._engines.append(engine)
                self._role_at.append(role)
            self._at[role] = self._engines.index(engine)
        self._queues: list[deque[Request]] = [deque() for _ in self._engines]
        self._slots = [engine.spec.slots or engine.spec.max_rows * _IN_FLIGHT_PER_ROW for engine in self._engines]
        self._texts: dict[ChainId, _Text] = {}
        self._free_s = 0.0
        self.run_record = run = SimRun(workload.questions, workload.chains, arrived_s=arrivals)
        shared = {id(engine.device) for engine in self._engines if engine.device is not None}
        run.one_device = len(shared) == 1 and all(engine.device is not None for engine in self._engines)
        self._carry_out: dict[type[Command], Callable[[Any], None]] = {
            Draft: self._draft,
            Score: self._score,
            TakeOver: self._take_over,
            Decided: run.decided.append,
            Hold: self._hold,
            Finish: self._finish,
            Admit: self._admit,
            Alarmed: run.alarms.append,
        }

    def run(self) -> SimRun:
        """Drive every chain to its end. Raises RuntimeError where the work stops before that: a fault of an engine."""
        run, clock = self.run_record, self._clock
        with no_collection():
            arrived = sum(time == 0 for time in run.arrived_s)
            for time in run.arrived_s[arrived:]:
                Tick(clock, time, ARRIVAL, lambda tick: self._apply(self._controller.arrive()))
            self._apply(self._controller.start(arrived))
            of_all, finished = run.questions * run.chains, run.finished
            step, events = clock.step, 0
            try:
                while len(finished) < of_all:
                    step()
                    events += 1
            except EmptySchedule:
                raise RuntimeError("nothing is left to happen, but chains are not over") from None
            run.events = events
        run.wall_s = clock.now
        run.totals = {role: self._engines[at].totals for role, at in self._at.items()}
        return run

    # -- commands

    def _apply(self, commands: Iterable[Command]) -> None:
        carry_out = self._carry_out
        for command in commands:
            if self._watch is not None:
                self._watch(command)
            carry_out[type(command)](command)

    def _admit(self, command: Admit) -> None:
        self.run_record.admitted_s[command.question] = self._clock.now

    def _hold(self, command: Hold) -> None:
        text = self._text(command.chain)
        if text.hold is not None:
            self._end_hold(command.chain, text)
        text.hold = (command.cause, self._clock.now)

    def _finish(self, command: Finish) -> None:
        chain, run = command.chain, self.run_record
        self._end_hold(chain, self._text(chain))
        for engine in self._engines:
            engine.release(chain)
        run.finished.append((command, self._clock.now))
        run.correct[chain] = self._workload.correct(chain)
        del self._texts[chain]

    def _text(self, chain: ChainId) -> _Text:
        text = self._texts.get(chain)
        if text is None:
            prompt = [self._workload.prompt_tokens(chain.question, role) for role in self._role_at]
            text = self._texts[chain] = _Text(prompt)
        return text

    def _end_hold(self, chain: ChainId, text: _Text) -> None:
        if text.hold is not None:
            cause, start = text.hold
            text.hold = None
            self.run_record.holds.append((chain, cause, start, self._clock.now))

    def _draft(self, command: Draft) -> None:
        written = self._workload.written(command)
        text, at = self._text(command.chain), self._at["draft"]
        event = Drafted(command.call, written.answered, written.ended)
        self._ask(command, "draft", "draft", at, text, text.full[at], written.tokens, written.eos, event, written)

    def _take_over(self, command: TakeOver) -> None:
        written = self._workload.written(command)
        text, at = self._text(command.chain), self._at["target"]
        if command.replace:
            for i, piece in enumerate(text.piece):
                text.full[i] -= piece
                text.stable[i] = min(text.stable[i], text.full[i])
        event = TakenOver(command.call, written.answered, written.ended)
        self._ask(command, "takeover", "target", at, text, text.full[at], written.tokens, written.eos, event, written)

    def _score(self, command: Score) -> None:
        text, at = self._text(command.chain), self._at["target"]
        piece, eos = text.piece[at], text.eos
        if piece + eos == 0:
            self._handle_soon(Failed(command.call, "score: empty segment: there is nothing to score"))
            return
        event = Scored(command.call, self._workload.ell(command))
        self._ask(command, "score", "target", at, text, text.full[at] - piece, piece + eos, eos, event, None)

    def _ask(
        self,
        command: Draft | Score | TakeOver,
        kind: Kind,
        role: Role,
        at: int,
        text: _Text,
        context: int,
        tokens: int,
        eos: bool,
        event: Event,
        written: Written | None,
    ) -> None:
        chain = command.chain
        if text.hold is not None:
            self._end_hold(chain, text)
        request = Request(
            kind,
            chain,
            command.turn,
            chain.question,
            text.prompt[at],
            text.full[at],
            context,
            text.stable[at],
            tokens,
            eos,
            self._answered,
            self._clock.now,
            role=role,
            event=event,
            written=written,
        )
        text.stable[at] = _ALL
        self.run_record.requests.append(request)
        if self._slots[at]:
            self._slots[at] -= 1
            self._engines[at].submit(request)
        else:
            self._queues[at].append(request)

    # -- answers

    def _answered(self, call: EngineCall) -> None:
        assert isinstance(call, Request)
        at, written = self._at[call.role], call.written
        if self._queues[at]:
            self._engines[at].submit(self._queues[at].popleft())
        else:
            self._slots[at] += 1
        if written is not None:
            text = self._texts[call.chain]
            text.eos = written.eos
            kept = written.tokens - written.eos
            elsewhere = kept if written.elsewhere is None else written.elsewhere
            for i in range(len(text.full)):
                piece = text.piece[i] = kept if i == at else elsewhere
                text.full[i] += piece
        if self._handling_s:
            self._handle_soon(call.event)
        else:
            self._apply(self._controller.handle(call.event))

    def _handle_soon(self, event: Event) -> None:
        """Handle an event once those before it are handled."""
        now = self._clock.now
        self._free_s = max(now, self._free_s) + self._handling_s
        then = self._controller.handle
        Tick(self._clock, self._free_s - now, ARRIVAL, lambda tick: self._apply(then(event)))
