"""The simulated engine makes the passes that the real worker makes, one for one, on a real (tiny) model."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, GenerateCall, Generated, Piece, ScoreCall, Scored, Usage
from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.kv import ROW_STOPS
from atts_runtime.engines.worker import Worker
from atts_sim.calls import EngineCall, EngineSpec, SimEngine, Totals
from atts_sim.clock import Clock
from atts_sim.cost import Cost, DecodeLines, StepCost, StepShape
from atts_sim.engine import BatchingEngine
from atts_sim.reference import ReferenceEngine
from tests.runtime.engines.watching import Pass, watch

PROMPTS = ("37 (a)+45 " * 16 + "\n\n", "5 (a)-2\n\n")  # the first's chains outgrow what short rows attend over
ROWS, STEP_TOKENS = 3, 64


@dataclass(frozen=True)
class Want:
    """A chain's call: `feed` foreign tokens before it; `tokens` to write or (foreign ones) to score; `replace`: the
    last piece goes first."""

    kind: str
    tokens: int
    feed: int
    replace: bool


Made = tuple[bool, int, int, int, int, int | None, int]


@dataclass
class Seen:
    """Passes as (append, rows, new tokens, tokens kept, most kept by a row), what a decode's rows attended over and in
    how many groups; costs by chain and turn; totals."""

    passes: list[Made]
    costs: dict[tuple[ChainId, int], tuple[int, int, int]]
    evictions: int
    kv_peak_tokens: int


Script = dict[ChainId, list[Want]]


def script_of(seed: int) -> Script:
    draw = random.Random(seed)
    return {
        ChainId(i % 2, i): [
            Want(draw.choice(["draft", "score"]), draw.randint(1, 12), draw.randint(0, 4), draw.random() < 0.3)
            for _ in range(5)
        ]
        for i in range(6)
    }


def on_worker(lm: CausalLM, script: Script, budget: int | None) -> Seen:
    worker = Worker(lm, max_rows=ROWS, kv_budget_tokens=budget)
    seen = Seen([], {}, 0, 0)
    words = [i for i in range(len(lm.tokenizer)) if i not in lm.tokenizer.all_special_ids]

    def told(made: Pass) -> None:
        kept = [start + len(ids) for start, ids in zip(made.starts, made.fed, strict=True)]
        fed = sum(map(len, made.fed))
        seen.passes.append((made.append, len(kept), fed, sum(kept), max(kept), made.attended, made.groups))

    draws = random.Random(1)
    texts: dict[ChainId, list[Piece]] = {chain: [] for chain in script}

    def foreign(chain: ChainId, tokens: int, gone: Piece | None) -> Piece:
        taken = gone.ids[:1] if gone is not None else ()
        first = draws.choice([i for i in words if i not in taken])
        ids = (first, *draws.choices(words, k=tokens - 1))
        return Piece(lm.decode(list(ids)), ids, lm.vocab)

    def ask(chain: ChainId, turn: int) -> None:
        if turn == len(script[chain]):
            worker.store.drop(chain)
            return
        want, text = script[chain][turn], texts[chain]
        gone = text.pop() if want.replace and text else None
        if want.feed:
            text.append(foreign(chain, want.feed, gone))
            gone = None
        prompt, usage = PROMPTS[chain.question], Usage(0.0)

        def reply(result: Generated | Scored | EngineError) -> None:
            assert not isinstance(result, EngineError)
            if isinstance(result, Generated):
                assert not result.piece.eos
                text.append(result.piece)
            seen.costs[chain, turn] = (usage.tokens_cached, usage.tokens_prefilled, usage.tokens_recomputed)
            answered.append(lambda: ask(chain, turn + 1))

        if want.kind == "score":
            text.append(foreign(chain, want.tokens, gone))
            worker.add(ScoreCall(chain, prompt, tuple(text)), reply, usage)
        else:
            seed = (chain.index, turn)
            worker.add(GenerateCall(chain, prompt, tuple(text), want.tokens, 1.0, None, seed), reply, usage)

    answered: list[Callable[[], None]] = [lambda chain=chain: ask(chain, 0) for chain in script]  # type: ignore[misc]
    watch(lm, told)
    while answered or worker.has_work:
        due, answered[:] = list(answered), []
        for then in due:
            then()
        worker.step()
    seen.evictions, seen.kv_peak_tokens = worker.stats.evictions, worker.stats.kv_peak_tokens
    return seen


class Watched(StepCost):
    """Every pass takes a second and is written down; of a run of decode steps, the fast engine asks for lines only."""

    def __init__(self) -> None:
        self.passes: list[Made] = []

    def cost(self, phase: str, shape: StepShape, /) -> Cost:
        fed, kept, longest = shape.new_tokens, shape.kept_tokens, shape.longest_kept
        self.passes.append((phase == "append", shape.rows, fed, kept, longest, shape.attended, shape.groups))
        return Cost(1.0, inside=True)

    @property
    def row_stops(self) -> tuple[int, ...]:
        return ROW_STOPS

    def decode_lines(self, rows: int, longest_kept: int, /) -> DecodeLines:
        return DecodeLines(((0.0, 0.0),), 1.0, None, inside=True)


def simulated(make: Any, lm: CausalLM, script: Script, budget: int | None) -> tuple[Seen, Totals]:
    clock, cost = Clock(), Watched()
    engine: SimEngine = make(clock, EngineSpec(ROWS, STEP_TOKENS, budget), cost)
    seen = Seen(cost.passes, {}, 0, 0)
    pieces: dict[ChainId, list[int]] = {chain: [] for chain in script}

    def ask(chain: ChainId, turn: int) -> None:
        if turn == len(script[chain]):
            engine.release(chain)
            return
        want, text = script[chain][turn], pieces[chain]
        first = len(lm.encode_prompt(PROMPTS[chain.question]))
        known = 1 << 30
        if want.replace and text:
            text.pop()
            known = first + sum(text)
        if want.feed:
            text.append(want.feed)
        context = first + sum(text)
        if want.kind == "score":
            text.append(want.tokens)

        def done(call: EngineCall) -> None:
            if want.kind != "score":
                text.append(want.tokens)
            seen.costs[chain, turn] = (call.tokens_cached, call.tokens_prefilled, call.tokens_recomputed)
            ask(chain, turn + 1)

        kind: Any = want.kind
        engine.submit(
            EngineCall(
                kind, chain, turn, chain.question, first, first + sum(text), context, known, want.tokens, False, done
            )
        )

    for chain in script:
        ask(chain, 0)
    clock.run()
    totals = engine.totals
    seen.evictions, seen.kv_peak_tokens = totals.evictions, totals.kv_peak_tokens
    return seen, totals


@pytest.mark.parametrize("budget", [None, 60, 150])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_engines_make_the_passes_of_the_real_worker(tiny_target: Path, seed: int, budget: int | None) -> None:
    lm = CausalLM(str(tiny_target), "cpu")
    lm.step_tokens = STEP_TOKENS
    script = script_of(seed)
    real = on_worker(lm, script, budget)
    plain, _ = simulated(ReferenceEngine, lm, script, budget)
    assert plain.passes == real.passes
    assert plain.costs == real.costs
    fast, totals = simulated(BatchingEngine, lm, script, budget)
    assert fast.passes == [done for done in real.passes if done[0]]
    assert fast.costs == real.costs
    attended = [(rows, over) for append, rows, *_, over, _ in real.passes if not append]
    assert len({over // rows for rows, over in attended if over is not None and over % rows == 0}) > 1
    assert totals.decode_rows == sum(rows for append, rows, *_ in real.passes if not append)
    if budget is not None:  # without one the real worker counts only now and then
        assert (plain.evictions, plain.kv_peak_tokens) == (real.evictions, real.kv_peak_tokens)
        assert (fast.evictions, fast.kv_peak_tokens) == (real.evictions, real.kv_peak_tokens)
        assert real.evictions > 0 or budget > 60
