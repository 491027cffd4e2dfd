"""The simulated driver: carries out the controller's commands on simulated engines and writes down what happened.

It does what `atts_runtime.driver` does, in the same order, with the same controller and policies. What is real there
comes from elsewhere here: time from the clock and the engines, text from the workload. Calls do not fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

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
    Fork,
    Grade,
    Graded,
    Hold,
    Keep,
    Limits,
    Policy,
    Score,
    Scored,
    TakenOver,
    TakeOver,
    Wake,
)
from atts_runtime.errors import InputError
from atts_runtime.records import Kind
from atts_sim.calls import EngineCall, SimEngine
from atts_sim.clock import ARRIVAL, Clock
from atts_sim.collector import no_collection
from atts_sim.desk import Desk, Request, Role
from atts_sim.handling import AT_ONCE, Handling
from atts_sim.simrun import SimRun
from atts_sim.text import Text
from atts_sim.workload import Workload, Written


class SimDriver:
    """Runs one policy over a workload to its end.

    Args:
        engines: by role, of the same clock; one object under both names where they share a model.
        handling: what the runtime's Python takes for answers.
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
        handling: Handling = AT_ONCE,
        arrivals_s: Sequence[float] | None = None,
        watch: Callable[[Command], None] | None = None,
    ) -> None:
        arrivals = (0.0,) * workload.questions if arrivals_s is None else tuple(arrivals_s)
        if len(arrivals) != workload.questions or any(b < a for a, b in pairwise((0.0, *arrivals))):
            raise ValueError(f"{workload.questions} questions need as many times of arrival, ascending from 0 on")
        self._workload, self._clock, self._handling, self._watch = workload, clock, handling, watch
        self._controller = Controller(policy, limits, questions=workload.questions, chains=workload.chains)
        self._desks: dict[Role, Desk] = {}
        self._owners: list[Role] = []  # of the engines, by their places: the first role of each
        for role, engine in engines.items():
            known = next((desk for desk in self._desks.values() if desk.engine is engine), None)
            self._desks[role] = known or Desk(len(self._owners), engine)
            if known is None:
                self._owners.append(role)
        self._texts: dict[ChainId, Text] = {}
        self._under_way: dict[ChainId, Request] = {}
        self._remembers = policy.action.retries  # what texts came to, for what is kept or copied
        self._policy, self._reads = policy, policy.gate.judges == "text"
        self._handled_s = -math.inf  # the last answer
        self.run_record = run = SimRun(workload.questions, workload.chains, arrived_s=arrivals)
        shared = {engine.device for engine in engines.values()}
        run.vote = policy.vote
        run.one_device = len(shared) == 1 and None not in shared
        self._carry_out: dict[type[Command], Callable[[Any], None]] = {
            Draft: self._draft,
            Score: self._score,
            TakeOver: self._take_over,
            Decided: run.decided.append,
            Hold: self._hold,
            Finish: self._finish,
            Grade: self._grade,
            Keep: self._keep,
            Fork: self._fork,
            Wake: self._wake,
            Admit: self._admit,
            Alarmed: run.alarms.append,
        }

    def run(self) -> SimRun:
        """Drive every chain to its end. Raises RuntimeError where the work stops before that: a fault of an engine."""
        run, clock = self.run_record, self._clock
        with no_collection():
            arrived = sum(time == 0 for time in run.arrived_s)
            for time in run.arrived_s[arrived:]:
                clock.call(time, ARRIVAL, lambda number: self._apply(self._controller.arrive()))
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
        if any(finish.reason == "stopped" for finish, _ in finished):
            run.requests = [request for request in run.requests if not request.void]
        run.totals = {role: desk.engine.totals for role, desk in self._desks.items()}
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
        if command.reason == "stopped":
            self._stop(chain)
        elif command.reason == "answered" and self._policy.asks_for_answers and self._texts[chain].answer is None:
            raise InputError(
                f"{self._policy.name} compares answers, which the workload does not know; replay a run, or fit to runs "
                "that know what is right"
            )
        self._end_hold(chain, self._text(chain))
        for role in self._owners:
            self._desks[role].engine.release(chain)
        run.finished.append((command, self._clock.now))
        run.correct[chain] = self._workload.correct(chain)
        run.answers[chain] = self._texts[chain].answer
        del self._texts[chain]

    def _stop(self, chain: ChainId) -> None:
        """Drop the chain's call, if it has one that is not answered."""
        request = self._under_way.get(chain)
        if request is not None and request.t_end_s is None:
            request.void = True
            self._desks[request.role].drop(request)

    def _keep(self, command: Keep) -> None:
        self._texts[command.chain].keep(command.attempt)
        self._workload.keep(command)

    def _fork(self, command: Fork) -> None:
        self._texts[command.chain].copy(self._texts[command.source], command.turn, command.upto)
        self._workload.fork(command)

    def _wake(self, command: Wake) -> None:
        wake, question = self._controller.wake, command.question
        self._clock.call(command.after_s, ARRIVAL, lambda number: self._apply(wake(question)))

    def _text(self, chain: ChainId) -> Text:
        text = self._texts.get(chain)
        if text is None:
            prompts = [self._workload.prompt_tokens(chain.question, role) for role in self._owners]
            text = self._texts[chain] = Text(prompts)
        return text

    def _end_hold(self, chain: ChainId, text: Text) -> None:
        if text.hold is not None:
            cause, start = text.hold
            text.hold = None
            self.run_record.holds.append((chain, cause, start, self._clock.now))

    def _draft(self, command: Draft) -> None:
        written, text = self._workload.written(command), self._text(command.chain)
        if command.attempt:
            text.withdraw()
        if self._reads and written.cue is None:
            raise InputError(
                f"{self._policy.name} reads cues in the text, which the workload does not know; replay a run of it"
            )
        event = Drafted(
            command.call, written.answered, written.ended, written.answer, written.tokens, bool(written.cue)
        )
        self._ask(command, "draft", "draft", text, 0, written.tokens, written.eos, event, written)

    def _take_over(self, command: TakeOver) -> None:
        written, text = self._workload.written(command), self._text(command.chain)
        if command.replace:
            text.withdraw()
        event = TakenOver(command.call, written.answered, written.ended, written.answer, written.tokens)
        self._ask(command, "takeover", "target", text, 0, written.tokens, written.eos, event, written)

    def _score(self, command: Score) -> None:
        text = self._text(command.chain)
        segment, eos = text.sides[self._desks["target"].at].piece, text.eos
        if segment + eos == 0:
            self._handle_soon(Failed(command.call, "score: empty segment: there is nothing to score"))
            return
        event = Scored(command.call, self._workload.ell(command))
        self._ask(command, "score", "target", text, segment, segment + eos, eos, event, None)

    def _grade(self, command: Grade) -> None:
        text = self._text(command.chain)
        side = text.sides[self._desks["target"].at]
        graded = side.full - side.prompt if command.whole else side.piece
        event = Graded(command.call, self._workload.grade(command))
        self._ask(command, "score", "target", text, graded, graded + text.eos, text.eos, event, None)

    def _ask(
        self,
        command: Draft | Score | TakeOver | Grade,
        kind: Kind,
        role: Role,
        text: Text,
        segment: int,
        tokens: int,
        eos: bool,
        event: Event,
        written: Written | None,
    ) -> None:
        chain, desk = command.chain, self._desks[role]
        if text.hold is not None:
            self._end_hold(chain, text)
        side = text.sides[desk.at]
        request = Request(
            kind,
            chain,
            command.turn,
            chain.question,
            side.prompt,
            side.full,
            side.full - segment,
            text.seen(desk.at),
            tokens,
            eos,
            self._answered,
            self._clock.now,
            role=role,
            event=event,
            written=written,
        )
        self.run_record.requests.append(request)
        self._under_way[chain] = request
        desk.send(request)

    # -- answers

    def _answered(self, call: EngineCall) -> None:
        assert isinstance(call, Request)
        if call.void:  # the engine answers in this very step
            return
        desk = self._desks[call.role]
        desk.done()
        if call.written is not None:
            self._texts[call.chain].add(call.written, desk.at, call.turn if self._remembers else None)
        if self._handling != AT_ONCE:
            self._handle_soon(call.event)
        else:
            self._apply(self._controller.handle(call.event))

    def _handle_soon(self, event: Event) -> None:
        """Handle an event when the driver comes to it."""
        now = self._clock.now
        self._handled_s = self._handling.after(now, self._handled_s)
        self._clock.call(self._handled_s - now, ARRIVAL, lambda number: self._handle(event))

    def _handle(self, event: Event) -> None:
        if self._controller.awaits(event.call):  # its chain may have been stopped since
            self._apply(self._controller.handle(event))
