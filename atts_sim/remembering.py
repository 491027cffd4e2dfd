"""An engine that knows texts whoever wrote them, as vLLM does its blocks and its adapter the scores (`engines.vllm`).

Chains of a question often write the same segment. It is scored once: the others have its score at once, or when the one
who asked has it, and what the engine drew itself needs no scoring. Its KV is there for all. A replay does not know what
was written: segments of the same question, place and length with the same score are taken to be the same, and of KV
there is what was there in the run. Where all of it was there, the segment's included, but not its score, vLLM was asked
anew without its cache.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from atts_runtime.control import ChainId, Scored
from atts_runtime.records import ChainRecord
from atts_sim.calls import EngineCall, SimEngine
from atts_sim.clock import ARRIVAL, Clock
from atts_sim.desk import Request


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """What the engines of a run knew because another chain had written the same. `asked`: question and score of the
    segments that the target was fed with to score them; the others it knew. `cached`: tokens that it held of a call's
    context, by chain, turn and kind, of first attempts. `anew`: chain and turn of scores for which it computed all of a
    context that it had computed before.
    """

    asked: frozenset[tuple[int, float]]
    cached: Mapping[tuple[ChainId, int, str], int]
    anew: frozenset[tuple[ChainId, int]] = frozenset()

    @classmethod
    def of(cls, records: Collection[ChainRecord]) -> KnownTexts:
        calls = [(record.chain, call) for record in records for call in record.calls if not call.attempt]
        scored = [(chain, call) for chain, call in calls if call.kind == "score" and call.tokens_prefilled]
        return cls(
            frozenset((chain.question, call.ell) for chain, call in scored if call.ell is not None),
            {(chain, call.turn, call.kind): call.tokens_cached or 0 for chain, call in calls},
            frozenset(
                (chain, call.turn)
                for chain, call in scored
                if call.tokens_cached == 0 and call.tokens_recomputed == call.tokens_prefilled
            ),
        )


class Remembering:
    """A `SimEngine` before another one."""

    def __init__(self, clock: Clock, engine: SimEngine, texts: KnownTexts) -> None:
        self.spec, self.totals, self.device = engine.spec, engine.totals, engine.device
        self._clock, self._engine, self._texts = clock, engine, texts
        self._known: set[Hashable] = set()
        self._open: dict[Hashable, list[Request]] = {}  # who waits for the one who has asked

    def submit(self, call: EngineCall) -> None:
        call.shared_tokens = self._texts.cached.get((call.chain, call.turn, call.kind), 0)
        if not (isinstance(call, Request) and isinstance(call.event, Scored)):
            self._engine.submit(call)
            return
        call.skips_cache = (call.chain, call.turn) in self._texts.anew
        segment = (call.chain.question, call.event.ell)
        key = (*segment, call.full_tokens, call.new_tokens)
        if key in self._known or segment not in self._texts.asked:
            self._clock.call(0.0, ARRIVAL, lambda number: self._recall(call))
        elif key in self._open:
            self._open[key].append(call)
        else:
            self._ask(key, call)

    def cancel(self, call: EngineCall) -> None:
        for key, (asking, *waiting) in self._open.items():
            if call is asking:
                del self._open[key]
                self._engine.cancel(call)
                if waiting:
                    self._ask(key, *waiting)
                return
            if call in waiting:
                self._open[key] = [asking, *(other for other in waiting if other is not call)]
                return
        call.dropped = True
        self._engine.cancel(call)

    def release(self, chain: ChainId) -> None:
        self._engine.release(chain)

    def _ask(self, key: Hashable, call: Request, *waiting: Request) -> None:
        self._open[key] = [call, *waiting]
        answered = call.on_done

        def done(of: EngineCall) -> None:
            self._known.add(key)
            answered(of)
            for other in self._open.pop(key)[1:]:
                self._recall(other)

        call.on_done = done
        self._engine.submit(call)

    def _recall(self, call: Request) -> None:
        if not call.dropped:
            call.t_start_s, call.t_end_s = call.t_queued_s, self._clock.now
            call.tokens_cached, call.remembered = call.context_tokens, True
            call.on_done(call)
