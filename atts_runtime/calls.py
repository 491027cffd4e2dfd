"""A command's way through an engine: slots, deadlines, retries, seeds; from what the engine says to the event."""

from __future__ import annotations

import asyncio

from atts_runtime.answering import Answering
from atts_runtime.chain import ChainState
from atts_runtime.config import RunConfig
from atts_runtime.control import Call, Draft, Drafted, Event, Grade, Graded, Score, Scored, TakenOver, TakeOver
from atts_runtime.engines.base import Engine, EngineError, GenerateCall, Generated, Piece, ScoreCall, Usage
from atts_runtime.records import CallRecord
from atts_runtime.tasks.base import Task

_BACKOFF_S = 0.5
_IN_FLIGHT_PER_ROW = 4
_ROLE_SEEDS = {"draft": 0, "takeover": 1}
_ATTEMPT_SEEDS = 2  # apart: those of a turn's further drafts come after both roles'


class Calls:
    """Asks the engines, by role, for what commands want, and writes down what it cost.

    `zero_s`: the run's zero on `time.perf_counter`.
    """

    def __init__(self, config: RunConfig, task: Task, engines: dict[str, Engine], answering: Answering) -> None:
        self._config, self._task, self._engines, self._answering = config, task, engines, answering
        self._slots = {id(e): asyncio.Semaphore(config.max_rows * _IN_FLIGHT_PER_ROW) for e in engines.values()}
        self.zero_s = 0.0

    async def answer(self, command: Call, chain: ChainState, call: CallRecord) -> Event:
        """The command's event; raises EngineError where retries do not help."""
        engine = self._engines[call.engine]
        while True:
            try:
                async with self._slots[id(engine)], asyncio.timeout(self._config.call_deadline_s):
                    if isinstance(command, Score | Grade):
                        return await self._score(command, chain, call, engine)
                    result = await engine.generate(self._request(command, chain, call))
            except TimeoutError as error:
                failure = EngineError(f"no answer within {self._config.call_deadline_s:g} s", retryable=True)
                failure.__cause__ = error
            except EngineError as error:
                failure = error
                call.attempts += error.tries - 1
            else:  # no longer under the deadline: what is written must not be written again
                return await self._written(command, chain, call, result)
            if not failure.retryable or call.attempts > self._config.retries:
                raise failure
            await asyncio.sleep(_BACKOFF_S * 2 ** (call.attempts - 1))
            call.attempts += 1

    async def _score(self, command: Score | Grade, chain: ChainState, call: CallRecord, engine: Engine) -> Event:
        whole = isinstance(command, Grade) and command.whole
        pieces = (Piece.joined(chain.pieces),) if whole else tuple(chain.pieces)
        scored = await engine.score(ScoreCall(command.chain, chain.prompt, pieces))
        self._note(call, scored.usage)
        call.chars = len(pieces[-1].text)
        try:
            event = (Scored if isinstance(command, Score) else Graded)(command.call, scored.ell)
        except ValueError as error:
            raise EngineError(str(error)) from error
        call.ell = scored.ell
        return event

    def _request(self, command: Draft | TakeOver, chain: ChainState, call: CallRecord) -> GenerateCall:
        kept = chain.pieces[:-1] if _replaces(command) else chain.pieces
        role = _ROLE_SEEDS[call.kind] + _ATTEMPT_SEEDS * call.attempt
        seed = (self._config.seed, command.chain.question, command.chain.index, command.turn, role)
        return GenerateCall(
            command.chain, chain.prompt, tuple(kept), command.max_tokens, self._config.temperature,
            self._task.segment_stop, seed,
        )  # fmt: skip

    async def _written(
        self, command: Draft | TakeOver, chain: ChainState, call: CallRecord, result: Generated
    ) -> Event:
        self._note(call, result.usage)
        call.chars = len(result.piece.text)
        chain.add(result.piece, command.turn, replaces=_replaces(command))
        if isinstance(command, Draft):
            chain.drafts = [*chain.drafts[: command.attempt], result.piece]
            call.cue = self._answering.cue(result.piece.text)
        call.ended = result.piece.eos or result.full
        call.answered = self._answering.stands(command, chain, result)
        if call.answered or call.ended or command.turn + 1 == self._config.turns:
            call.answer = await self._answering.vote(command.chain.question, chain)
        said = call.answered, call.ended, call.answer, call.tokens_new
        return (
            Drafted(command.call, *said, bool(call.cue))
            if isinstance(command, Draft)
            else TakenOver(command.call, *said)
        )

    def _note(self, call: CallRecord, usage: Usage) -> None:
        call.tokens_new, call.tokens_cached = usage.tokens_new, usage.tokens_cached
        call.attempts += usage.tries - 1
        call.tokens_prefilled, call.tokens_recomputed = usage.tokens_prefilled, usage.tokens_recomputed
        call.t_start_s, call.t_end_s = usage.t_start_s - self.zero_s, usage.t_end_s - self.zero_s
        if usage.prefill is not None and usage.own is not None:
            call.prefill_flops, call.prefill_bytes = usage.prefill.flops, usage.prefill.bytes
            call.flops = usage.prefill.flops + usage.own.flops
            call.bytes = usage.prefill.bytes + usage.own.bytes


def _replaces(command: Draft | TakeOver) -> bool:
    """Whether what it writes stands in the last piece's place."""
    return command.replace if isinstance(command, TakeOver) else command.attempt > 0
