"""The asyncio driver: carries out the controller's commands on real engines and writes down what happened.

All decisions are the controller's. The driver owns what the controller must not know: text, clocks, engines,
retries. A chain that an earlier session finished is not run again: its commands are answered from its record,
so that policies in which chains depend on each other see the same events as before.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from atts_runtime.answering import Answering
from atts_runtime.calls import Calls
from atts_runtime.chain import KINDS, ChainState, Progress, attempt_of, replayed
from atts_runtime.config import RunConfig
from atts_runtime.control import (
    Admit,
    Alarmed,
    Call,
    ChainId,
    Command,
    Controller,
    Decided,
    Draft,
    Event,
    Failed,
    Finish,
    Fork,
    Grade,
    Hold,
    Keep,
    Knobs,
    Score,
    TakeOver,
    Wake,
)
from atts_runtime.engines.base import Engine, EngineError
from atts_runtime.records import AlarmRecord, CallRecord, ChainRecord, Kind
from atts_runtime.tasks.base import Task


class Driver:
    """Runs one configuration over a task to its end.

    Args:
        engines: by role, ``draft`` and ``target``; one object under both names where they share a model.
        knobs: what the policy is told (None: the configuration's).
        finished: records of chains that need not run again.
        on_finish: called with each newly finished chain's record.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        engines: dict[str, Engine],
        *,
        knobs: Knobs | None = None,
        finished: Iterable[ChainRecord] = (),
        on_finish: Callable[[ChainRecord], None],
    ) -> None:
        self.config, self.task, self.engines = config, task, engines
        self.policy = config.recipe(knobs or config.knobs)
        self.controller = Controller(self.policy, config.limits, questions=len(task.questions), chains=config.chains)
        self._admitted_s: dict[int, float] = {}
        self._on_finish = on_finish
        self._replays = {record.chain: record for record in finished}
        self.policy.action.finished_before(self._replays)
        self._rung = {(alarm.monitor, alarm.kind) for record in self._replays.values() for alarm in record.alarms}
        self._ungraded = len(task.questions) * config.chains - len(self._replays)
        self.progress = Progress(len(task.questions) * config.chains, len(self._replays))
        self._before_s = max((record.t_end_s for record in self._replays.values()), default=0.0)
        self._chains = {
            ChainId(q, i): self._open(ChainId(q, i)) for q in range(len(task.questions)) for i in range(config.chains)
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[ChainId, asyncio.Task[None]] = {}
        self._answering = Answering(config, task, self.policy)
        self._calls = Calls(config, task, engines, self._answering)
        self._inbox: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def _open(self, chain: ChainId) -> ChainState:
        question = self.task.questions[chain.question]
        record = ChainRecord(chain.question, chain.index, question.id)
        return ChainState(record, question.prompt, replay=self._replays.get(chain))

    @property
    def zero_s(self) -> float:
        """The run's zero on `time.perf_counter`."""
        return self._calls.zero_s

    @property
    def now_s(self) -> float:
        """Seconds since the run began, earlier sessions included up to their last finished chain."""
        return time.perf_counter() - self.zero_s

    async def run(self) -> float:
        """Drive every chain to its end; returns the wall seconds of the run. Cancelling it cancels all calls."""
        self._calls.zero_s = time.perf_counter() - self._before_s
        try:
            self._apply(self.controller.start())
            while self._ungraded:
                event = await self._inbox.get()
                if isinstance(event, Exception):
                    raise event
                if event is not None and self.controller.awaits(event.call):
                    self._apply(self.controller.handle(event))
            return self.now_s
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- commands

    def _apply(self, commands: Iterable[Command]) -> None:
        queue = deque(commands)
        while queue:
            command = queue.popleft()
            match command:
                case Draft() | Score() | TakeOver() | Grade():
                    chain = self._chains[command.chain]
                    self._end_hold(chain)
                    if chain.replay is None:
                        self._ask(command, chain)
                    elif self.controller.awaits(command.call):  # what was replayed before it may have stopped it
                        queue.extend(self.controller.handle(replayed(command, chain.replay)))
                case Keep(chain=chain_id, attempt=attempt):
                    if (chain := self._chains[chain_id]).replay is None:
                        chain.keep(attempt)
                case Fork():
                    self._fork(command)
                case Wake(question=question, after_s=after_s):
                    self._start(self._wake(question, after_s))
                case Decided():
                    self._decided(command)
                case Alarmed():
                    self._alarmed(command)
                case Hold(chain=chain_id, cause=cause):
                    self._end_hold(self._chains[chain_id])
                    self._chains[chain_id].hold = (cause, self.now_s)
                case Admit(question=question):
                    self._admitted_s[question] = self.now_s
                case Finish():
                    self._finish(command)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ask(self, command: Call, chain: ChainState) -> None:
        kind, role = KINDS[type(command)]
        call = CallRecord(command.turn, kind, role, attempt=attempt_of(command), t_queued_s=self.now_s)
        chain.record.calls.append(call)
        self._under_way[command.chain] = self._start(self._carry_out(command, chain, call))

    def _fork(self, fork: Fork) -> None:
        chain, source = self._chains[fork.chain], self._chains[fork.source]
        if chain.replay is not None:
            return
        chain.copy(source, fork.turn, fork.upto)

    async def _wake(self, question: int, after_s: float) -> None:
        """Tell the controller when a question's time is up."""
        await asyncio.sleep(after_s)
        try:
            self._apply(self.controller.wake(question))
        except Exception as error:
            self._inbox.put_nowait(error)

    def _end_hold(self, chain: ChainState) -> None:
        hold = chain.end_hold(self.now_s)
        if hold is not None and hold.cause != "admission":
            self.progress.stall_s += hold.t_end_s - hold.t_start_s

    def _decided(self, decided: Decided) -> None:
        chain = self._chains[decided.chain]
        self.progress.decisions += 1
        self.progress.takeovers += decided.taken_over
        kind: Kind = "draft" if decided.ell is None else "score"
        judged = (chain.replay or chain.record).call(decided.turn, kind, decided.attempt)
        assert judged is not None
        if chain.replay is not None:
            # One that was stopped while it waited for the verdict has none on record.
            if judged.outcome != decided.outcome and judged.outcome is not None:
                raise RuntimeError(f"chain {decided.chain} turn {decided.turn}: the verdict differs from the record's")
            return
        judged.p_value, judged.alpha, judged.bank = decided.p_value, decided.alpha, decided.bank
        judged.rejected, judged.outcome, judged.taken_over = decided.rejected, decided.outcome, decided.taken_over
        judged.forked_from, judged.forked_upto = decided.source, decided.upto

    def _alarmed(self, alarmed: Alarmed) -> None:
        """Record an alarm. In a resumed run the monitors see the finished chains again: what rang then is on record."""
        chain, alarm = self._chains[alarmed.chain], alarmed.alarm
        record = AlarmRecord(alarmed.turn, str(alarm.key), alarm.kind, alarm.after)
        if (record.monitor, record.kind) in self._rung and (chain.replay is not None or record.kind == "ville"):
            return
        (chain.replay or chain.record).alarms.append(record)

    def _finish(self, finish: Finish) -> None:
        chain = self._chains[finish.chain]
        if chain.replay is not None:
            return
        self._end_hold(chain)
        record = chain.record
        record.reason, record.detail, record.turns = finish.reason, finish.detail, finish.turns
        record.text, record.t_end_s, record.weight = chain.text, self.now_s, finish.weight
        record.t_admitted_s = self._admitted_s.get(finish.chain.question)
        call = self._under_way.get(finish.chain)
        if finish.reason == "stopped" and call is not None and not call.done():
            record.calls[-1].dropped, record.calls[-1].t_end_s = True, record.t_end_s
            call.cancel()
        self._start(self._over(finish.chain, chain))

    async def _over(self, chain_id: ChainId, chain: ChainState) -> None:
        """Drop what is still under way, find and check the answer, then hand the record over."""
        try:
            record, call = chain.record, self._under_way.pop(chain_id, None)
            if call is not None:
                await asyncio.wait([call])
            for engine in {id(e): e for e in self.engines.values()}.values():
                engine.release(chain_id)
            chain.pieces, chain.turns, chain.drafts = [], [], []
            if record.reason != "failed":
                record.answer, record.correct = await self._answering.graded(record, chain.mark)
            self.progress.chains_done += 1
            self._on_finish(record)
        except Exception as error:
            self._inbox.put_nowait(error)
        self._ungraded -= 1
        if not self._ungraded:
            self._inbox.put_nowait(None)

    # -- calls

    async def _carry_out(self, command: Call, chain: ChainState, call: CallRecord) -> None:
        """One command to its event, whatever happens on the way."""
        try:
            event = await self._calls.answer(command, chain, call)
        except EngineError as error:
            call.t_end_s = self.now_s
            event = Failed(command.call, f"{call.kind}: {error}")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours must end the run, not hang it
            self._inbox.put_nowait(error)
            return
        self._inbox.put_nowait(event)
