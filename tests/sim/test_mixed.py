"""vLLM's discipline, by hand: every step takes a second, so that times count steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control.events import ChainId
from atts_runtime.errors import InputError
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, Paged, SimEngine
from atts_sim.clock import ARRIVAL, Clock, Tick
from atts_sim.cost import Cost, Phase, StepShape
from atts_sim.engine import BatchingEngine
from atts_sim.plain import plain_engine

MAKES = [BatchingEngine, plain_engine]
EVERYTHING = 1 << 30


@dataclass(frozen=True)
class Second(AffineCost):
    """A second a step; the shapes of passes are written down."""

    overhead_s: float = 1.0
    passes: list[StepShape] = field(default_factory=list)

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        if phase == "append":
            self.passes.append(shape)
        return Cost(1.0, inside=True)


def call(
    chain: int,
    tokens: int,
    *,
    full: int = 8,
    prompt: int = 8,
    kind: Literal["draft", "score"] = "draft",
    question: int = 0,
) -> EngineCall:
    context = full - tokens if kind == "score" else full
    return EngineCall(
        kind, ChainId(question, chain), 0, question, prompt, full, context, EVERYTHING, tokens, False, lambda _: None
    )


def run(
    make: Callable[..., SimEngine], spec: EngineSpec, calls: list[EngineCall], *, apart: bool = False
) -> tuple[SimEngine, Second]:
    """All calls at once, or each after the one before."""
    clock, cost = Clock(), Second()
    engine = make(clock, spec, cost)
    for asked in calls:
        engine.submit(asked)
        if apart:
            clock.run()
    clock.run()
    return engine, cost


def paged(
    rows: int = 8, budget: int = 64, size: int = 4, blocks: int | None = None, chunked: bool = True
) -> EngineSpec:
    return EngineSpec(rows, budget, paged=Paged(size, blocks, chunked))


@pytest.mark.parametrize("make", MAKES)
def test_a_prefill_draws_the_first_token(make: Callable[..., SimEngine]) -> None:
    calls = [call(0, 5)]
    _, cost = run(make, paged(), calls)
    assert calls[0].t_end_s == 5.0
    assert [(shape.rows, shape.new_tokens, shape.logit_rows) for shape in cost.passes] == [(1, 8, 1)]


@pytest.mark.parametrize("make", MAKES)
def test_chains_of_a_question_share_the_full_blocks_of_its_prompt_in_one_step(make: Callable[..., SimEngine]) -> None:
    calls = [call(i, 1, full=10, prompt=10) for i in range(3)]
    engine, cost = run(make, paged(), calls)
    # The first is fed 10 tokens; the others find two blocks of 4 and are fed 2.
    assert [shape.new_tokens for shape in cost.passes] == [14]
    assert [asked.tokens_cached for asked in calls] == [0, 8, 8]
    assert engine.totals.kv_peak_tokens == (2 + 3) * 4


@pytest.mark.parametrize("make", MAKES)
def test_a_score_is_fed_from_the_token_before_its_segment_and_full_blocks_only_are_kept(
    make: Callable[..., SimEngine],
) -> None:
    first, then = call(0, 6), call(0, 6, full=20, kind="score")
    _, cost = run(make, paged(), [first, then], apart=True)
    # 8 + 6 tokens, of which the last has no KV: 13, of which 12 in full blocks; the segment begins at 14.
    assert then.tokens_cached == 12
    assert (then.tokens_prefilled, then.tokens_recomputed) == (2, 1)
    assert (cost.passes[-1].new_tokens, cost.passes[-1].logit_rows) == (8, 7)


@pytest.mark.parametrize("make", MAKES)
def test_decodes_come_first_and_a_prefill_is_cut_to_what_is_left(make: Callable[..., SimEngine]) -> None:
    calls = [call(0, 30), call(1, 1, full=40, prompt=40, question=1)]
    _, cost = run(make, paged(rows=4, budget=10), calls)
    # 8 tokens and 2; then a decode beside 9, 9, 9, 9 and 2.
    assert [shape.new_tokens for shape in cost.passes] == [10, 10, 10, 10, 10, 3]
    assert calls[1].t_end_s == 6.0


@pytest.mark.parametrize("make", MAKES)
def test_without_chunking_a_prefill_waits_for_a_step_with_room_for_all_of_it(
    make: Callable[..., SimEngine],
) -> None:
    calls = [call(i, 2, full=6, prompt=6, question=i) for i in range(2)] + [call(2, 2, full=30, prompt=30, question=2)]
    _, cost = run(make, paged(rows=4, budget=10, chunked=False), calls)
    assert [shape.new_tokens for shape in cost.passes] == [6, 1 + 6, 1 + 30]


@pytest.mark.parametrize("make", MAKES)
def test_waiting_calls_are_let_in_in_their_order_while_there_are_blocks(make: Callable[..., SimEngine]) -> None:
    calls = [call(i, 4, full=full, prompt=full, question=i) for i, full in enumerate((12, 16, 4))]
    run(make, paged(size=4, blocks=6), calls)
    # Blocks: 3, then 4 that do not fit beside them; the third, which would fit, waits its turn.
    starts = [asked.t_start_s for asked in calls]
    assert starts == [0.0, 4.0, 4.0]


@pytest.mark.parametrize("make", MAKES)
def test_who_came_last_goes_back_when_blocks_run_out_and_computes_again(make: Callable[..., SimEngine]) -> None:
    calls = [call(i, 20, full=8, prompt=8, question=i) for i in range(2)]
    engine, _ = run(make, paged(size=4, blocks=8), calls)
    assert engine.totals.preemptions >= 1
    assert engine.totals.kv_peak_tokens <= 32
    ends = [asked.t_end_s or 0.0 for asked in calls]
    assert ends[0] == 20.0
    assert ends[1] > 20.0
    assert calls[1].tokens_recomputed > 0
    assert calls[0].tokens_recomputed == 0


@pytest.mark.parametrize("make", MAKES)
def test_cached_blocks_are_taken_where_there_are_no_others(make: Callable[..., SimEngine]) -> None:
    calls = [call(i, 1, full=16, prompt=16, question=i) for i in (0, 1, 0)]
    engine, _ = run(make, paged(size=4, blocks=6), calls, apart=True)
    # The second takes two free blocks and two of the first's four, from its tail.
    assert calls[2].tokens_cached == 8
    assert engine.totals.evictions >= 2


@pytest.mark.parametrize("make", MAKES)
def test_a_call_that_no_memory_would_hold_is_refused(make: Callable[..., SimEngine]) -> None:
    with pytest.raises(InputError, match="KV blocks"):
        run(make, paged(size=4, blocks=3), [call(0, 6)])


@pytest.mark.parametrize("make", MAKES)
def test_a_call_that_nobody_waits_for_frees_its_row(make: Callable[..., SimEngine]) -> None:
    clock = Clock()
    engine = make(clock, paged(rows=1), Second())
    calls = [call(0, 50), call(1, 2)]
    for asked in calls:
        engine.submit(asked)
    Tick(clock, 10.5, ARRIVAL, lambda tick: engine.cancel(calls[0]))
    clock.run()
    assert calls[0].t_end_s is None
    assert (calls[1].t_start_s, calls[1].t_end_s) == (11.0, 13.0)


@given(st.integers(1, 40), st.integers(1, 40))
def test_limits_that_make_no_engine_are_refused(rows: int, budget: int) -> None:
    if budget < rows:
        with pytest.raises(ValueError, match="no room"):
            paged(rows=rows, budget=budget)
    else:
        assert paged(rows=rows, budget=budget).step_tokens == budget
