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

from atts_runtime.chain import KINDS, ChainState, Progress, replayed
from atts_runtime.config import RunConfig
from atts_runtime.control import (
    POLICIES,
    Admit,
    Alarmed,
    Call,
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
    Score,
    Scored,
    TakenOver,
    TakeOver,
)
from atts_runtime.engines.base import Engine, EngineError, GenerateCall, Generated, ScoreCall, Usage
from atts_runtime.records import AlarmRecord, CallRecord, ChainRecord
from atts_runtime.tasks.base import Task

_BACKOFF_S = 0.5
_IN_FLIGHT_PER_ROW = 4
_ROLE_SEEDS = {"draft": 0, "takeover": 1}


class Driver:
    """Runs one configuration over a task to its end.

    Args:
        engines: by role, ``draft`` and ``target``; one object under both names where they share a model.
        finished: records of chains that need not run again.
        on_finish: called with each newly finished chain's record.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        engines: dict[str, Engine],
        *,
        finished: Iterable[ChainRecord] = (),
        on_finish: Callable[[ChainRecord], None],
    ) -> None:
        self.config, self.task, self.engines = config, task, engines
        self.policy = POLICIES[config.policy](config.knobs)
        self.controller = Controller(self.policy, config.limits, questions=len(task.questions), chains=config.chains)
        self._admitted_s: dict[int, float] = {}
        self._on_finish = on_finish
        self._replays = {record.chain: record for record in finished}
        self._rung = {(alarm.monitor, alarm.kind) for record in self._replays.values() for alarm in record.alarms}
        self._ungraded = len(task.questions) * config.chains - len(self._replays)
        self.progress = Progress(len(task.questions) * config.chains, len(self._replays))
        self._before_s = max((record.t_end_s for record in self._replays.values()), default=0.0)
        self._chains = {
            ChainId(q, i): self._open(ChainId(q, i)) for q in range(len(task.questions)) for i in range(config.chains)
        }
        self._slots = {id(e): asyncio.Semaphore(config.max_rows * _IN_FLIGHT_PER_ROW) for e in engines.values()}
        self._tasks: set[asyncio.Task[None]] = set()
        self.zero_s = 0.0  # the run's zero on `time.perf_counter`
        self._inbox: asyncio.Queue[Event | Exception | None] = asyncio.Queue()

    def _open(self, chain: ChainId) -> ChainState:
        question = self.task.questions[chain.question]
        record = ChainRecord(chain.question, chain.index, question.id)
        return ChainState(record, question.prompt, replay=self._replays.get(chain))

    @property
    def now_s(self) -> float:
        """Seconds since the run began, earlier sessions included up to their last finished chain."""
        return time.perf_counter() - self.zero_s

    async def run(self) -> float:
        """Drive every chain to its end; returns the wall seconds of the run. Cancelling it cancels all calls."""
        self.zero_s = time.perf_counter() - self._before_s
        try:
            self._apply(self.controller.start())
            while self._ungraded:
                event = await self._inbox.get()
                if isinstance(event, Exception):
                    raise event
                if event is not None:
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
                case Draft() | Score() | TakeOver():
                    chain = self._chains[command.chain]
                    self._end_hold(chain)
                    if chain.replay is not None:
                        queue.extend(self.controller.handle(replayed(command, chain.replay)))
                    else:
                        self._start(self._carry_out(command, chain))
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

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end_hold(self, chain: ChainState) -> None:
        hold = chain.end_hold(self.now_s)
        if hold is not None and hold.cause != "admission":
            self.progress.stall_s += hold.t_end_s - hold.t_start_s

    def _decided(self, decided: Decided) -> None:
        chain = self._chains[decided.chain]
        self.progress.decisions += 1
        self.progress.takeovers += decided.taken_over
        score = (chain.replay or chain.record).call(decided.turn, "score")
        assert score is not None
        if chain.replay is not None:
            if score.taken_over != decided.taken_over:
                raise RuntimeError(f"chain {decided.chain} turn {decided.turn}: the verdict differs from the record's")
            return
        score.p_value, score.alpha, score.bank = decided.p_value, decided.alpha, decided.bank
        score.taken_over = decided.taken_over

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
        for engine in {id(e): e for e in self.engines.values()}.values():
            engine.release(finish.chain)
        record = chain.record
        record.reason, record.detail, record.turns = finish.reason, finish.detail, finish.turns
        record.text, record.t_end_s = chain.text, self.now_s
        record.t_admitted_s = self._admitted_s.get(finish.chain.question)
        chain.pieces = []
        self._start(self._grade(record, chain.mark))

    async def _grade(self, record: ChainRecord, mark: int) -> None:
        """Find and check the answer, then hand the record over."""
        try:
            if record.reason != "failed":
                record.answer = self.task.extract(record.text[mark:]) or self.task.extract(record.text)
                truth = self.task.questions[record.question].answer
                record.correct = await self._check(record.answer, truth)
            self.progress.chains_done += 1
            self._on_finish(record)
        except Exception as error:
            self._inbox.put_nowait(error)
        self._ungraded -= 1
        if not self._ungraded:
            self._inbox.put_nowait(None)

    async def _check(self, found: str | None, truth: str) -> bool | None:
        """The task's verdict; off the event loop where it may take long."""
        if self.task.answers.slow:
            return await asyncio.to_thread(self.task.is_correct, found, truth)
        return self.task.is_correct(found, truth)

    # -- calls

    async def _carry_out(self, command: Call, chain: ChainState) -> None:
        """One command to its event, whatever happens on the way."""
        kind, role = KINDS[type(command)]
        call = CallRecord(command.turn, kind, role, t_queued_s=self.now_s)
        chain.record.calls.append(call)
        try:
            event = await self._attempt(command, chain, call)
        except EngineError as error:
            call.t_end_s = self.now_s
            event = Failed(command.call, f"{kind}: {error}")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of ours must end the run, not hang it
            self._inbox.put_nowait(error)
            return
        self._inbox.put_nowait(event)

    async def _attempt(self, command: Call, chain: ChainState, call: CallRecord) -> Event:
        engine = self.engines[call.engine]
        while True:
            try:
                async with self._slots[id(engine)], asyncio.timeout(self.config.call_deadline_s):
                    if isinstance(command, Score):
                        return await self._score(command, chain, call, engine)
                    return await self._generate(command, chain, call, engine)
            except TimeoutError as error:
                failure = EngineError(f"no answer within {self.config.call_deadline_s:g} s", retryable=True)
                failure.__cause__ = error
            except EngineError as error:
                failure = error
            if not failure.retryable or call.attempts > self.config.retries:
                raise failure
            await asyncio.sleep(_BACKOFF_S * 2 ** (call.attempts - 1))
            call.attempts += 1

    async def _score(self, command: Call, chain: ChainState, call: CallRecord, engine: Engine) -> Event:
        scored = await engine.score(ScoreCall(command.chain, chain.prompt, tuple(chain.pieces)))
        self._note(call, scored.usage)
        call.chars = len(chain.pieces[-1].text)
        try:
            event = Scored(command.call, scored.ell)
        except ValueError as error:
            raise EngineError(str(error)) from error
        call.ell = scored.ell
        return event

    async def _generate(self, command: Call, chain: ChainState, call: CallRecord, engine: Engine) -> Event:
        assert isinstance(command, Draft | TakeOver)
        replaces = isinstance(command, TakeOver) and command.replace
        kept = chain.pieces[:-1] if replaces else chain.pieces
        seed = (self.config.seed, command.chain.question, command.chain.index, command.turn, _ROLE_SEEDS[call.kind])
        request = GenerateCall(
            command.chain, chain.prompt, tuple(kept), command.max_tokens, self.config.temperature,
            self.task.segment_stop, seed,
        )  # fmt: skip
        result = await engine.generate(request)
        self._note(call, result.usage)
        call.chars = len(result.piece.text)
        chain.pieces = [*kept, result.piece]
        call.ended = result.piece.eos or result.full
        call.answered = self._answered(command, chain, result)
        kind = Drafted if isinstance(command, Draft) else TakenOver
        return kind(command.call, answered=call.answered, ended=call.ended)

    def _answered(self, command: Call, chain: ChainState, result: Generated) -> bool:
        """Whether an answer stands. A takeover that goes on after a drafted answer withdraws it; one that replaced
        it has none to keep."""
        text = chain.text
        if isinstance(command, Draft):
            chain.draft_answered = self._found(text[chain.mark :], result)
            return chain.draft_answered
        replaced = isinstance(command, TakeOver) and command.replace
        withdrawn, chain.draft_answered = chain.draft_answered and not replaced, False
        if not withdrawn:
            return self._found(text[chain.mark :], result)
        start = len(text) - len(result.piece.text)
        if self._found(text[start:], result) or result.piece.eos:
            return True
        chain.mark = len(text)
        return False

    def _found(self, text: str, last: Generated) -> bool:
        """Whether the text answers; a model that has ended it says no more."""
        if last.piece.eos:
            return self.task.extract(text) is not None
        return self.task.answered(text, len(last.piece.text))

    def _note(self, call: CallRecord, usage: Usage) -> None:
        call.tokens_new, call.tokens_cached = usage.tokens_new, usage.tokens_cached
        call.attempts += usage.tries - 1
        call.tokens_prefilled, call.tokens_recomputed = usage.tokens_prefilled, usage.tokens_recomputed
        call.t_start_s, call.t_end_s = usage.t_start_s - self.zero_s, usage.t_end_s - self.zero_s
        if usage.prefill is not None and usage.own is not None:
            call.prefill_flops, call.prefill_bytes = usage.prefill.flops, usage.prefill.bytes
            call.flops = usage.prefill.flops + usage.own.flops
            call.bytes = usage.prefill.bytes + usage.own.bytes
