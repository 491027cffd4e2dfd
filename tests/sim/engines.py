"""Random work for simulated engines: closed loops of calls on one or two engines, cancellations, releases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from hypothesis import strategies as st

from atts_runtime.control.events import ChainId
from atts_runtime.profiler.stepfit import CallCosts
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, Paged, PerCall, SimEngine, Totals
from atts_sim.clock import ARRIVAL, Clock, Tick
from atts_sim.cost import StepCost
from atts_sim.device import Device


class MakeEngine(Protocol):
    def __call__(self, clock: Clock, spec: EngineSpec, cost: StepCost, device: Device | None = None, /) -> SimEngine:
        """An engine."""


LONGEST = 20 + 6 * (24 + 9)  # a prompt, and what six calls feed and write


@dataclass(frozen=True)
class Ask:
    """A chain's next call, `pause_s` after the answer to the one before: on engine `at`, `tokens` to write or score.
    `keep`: the share of the text that the engine held, and that still is the chain's. `drop_s`: when it is cancelled,
    counted from its making; the chain then goes on with its next call."""

    at: int
    kind: Literal["draft", "score"]
    tokens: int
    feed: int
    keep: float
    ends: bool
    pause_s: float
    drop_s: float | None


@dataclass(frozen=True)
class Work:
    """Engines, and what each chain asks of them in turn; `released`: chains that are released at a time; `shared`: the
    engines share a device."""

    specs: tuple[EngineSpec, ...]
    costs: tuple[AffineCost, ...]
    prompts: tuple[int, ...]
    chains: tuple[tuple[int, tuple[Ask, ...]], ...]
    released: tuple[tuple[int, float], ...]
    shared: bool


def works(*, exact: bool) -> st.SearchStrategy[Work]:
    """Any work. `exact`: all times are sums of a few powers of two, so that many coincide and none is rounded."""

    def times(low: float, high: float) -> st.SearchStrategy[float]:
        if exact:
            return st.integers(round(low * 64), round(high * 64)).map(lambda n: n / 64)
        return st.floats(low, high).map(lambda x: x + 1 / 7919)

    def cost(scale: float) -> st.SearchStrategy[AffineCost]:
        small = times(0, 1 / 16).map(lambda x: x * scale)
        return st.builds(
            AffineCost,
            overhead_s=times(1 / 16, 1.0).map(lambda x: x * scale),
            row_s=small,
            token_s=small,
            attention_s=st.just(0.0) if exact else small.map(lambda x: x / 64),
            weights_s=times(0, 1.0).map(lambda x: x * scale),
            kept_s=small.map(lambda x: x / 16),
            logit_s=small,
            block=st.sampled_from([0, 4, 16]),
            padded_s=small.map(lambda x: x / 64),
            rows_measured=st.none() | st.integers(1, 5),
            row_stops=st.sampled_from([(), (5,), (4, 8, 12, 20)]),
            group_s=small,
        )

    per_kind = st.builds(CallCosts, times(0, 1 / 8), times(0, 1 / 16))
    specs = st.builds(
        EngineSpec,
        max_rows=st.integers(1, 5),
        step_tokens=st.sampled_from([4, 16, 64]),
        kv_budget_tokens=st.none() | st.integers(1, 120),
        per_call=st.none() | st.builds(PerCall, per_kind, per_kind, end_s=st.just(0.0)),
    )
    paged = st.builds(
        EngineSpec,
        max_rows=st.integers(1, 5),
        step_tokens=st.sampled_from([5, 16, 64]),
        paged=st.tuples(st.sampled_from([1, 4, 16]), st.none() | st.integers(0, 40), st.booleans()).map(in_blocks),
    )
    specs |= paged
    scales = (1.0, 0.5) if exact else (1.0, 0.7310585786300049)
    asks = st.builds(
        Ask,
        at=st.integers(0, 1),
        kind=st.sampled_from(["draft", "draft", "score"]),
        tokens=st.integers(1, 24),
        feed=st.integers(0, 9),
        keep=st.just(1.0) | st.floats(0, 1),
        ends=st.booleans(),
        pause_s=st.just(0.0) | times(0, 8),
        drop_s=st.none() | st.none() | times(0, 12),
    )
    prompts = st.lists(st.integers(1, 20), min_size=1, max_size=3)
    chains = st.lists(st.tuples(st.integers(0, 2), st.lists(asks, min_size=1, max_size=6).map(tuple)), max_size=8)
    return st.builds(
        Work,
        specs=st.tuples(specs, specs),
        costs=st.tuples(cost(scales[0]), cost(scales[1])),
        prompts=prompts.map(tuple),
        chains=chains.map(tuple),
        released=st.lists(st.tuples(st.integers(0, 7), times(0, 60)), max_size=3).map(tuple),
        shared=st.booleans(),
    )


def in_blocks(drawn: tuple[int, int | None, bool]) -> Paged:
    """Blocks of a size, so many more than the longest call needs (None: no bound)."""
    size, more, chunked = drawn
    return Paged(size, None if more is None else -(-LONGEST // size) + more, chunked)


@dataclass
class Done:
    """Calls in the order in which they were made, who was answered in which order, and the engines' totals."""

    calls: list[EngineCall]
    answers: list[tuple[ChainId, int]]
    totals: tuple[Totals, ...]
    events: int


def carry_out(work: Work, make: MakeEngine) -> Done:
    """Do the work on engines of one make."""
    clock = Clock()
    device = Device(clock) if work.shared else None
    engines = [make(clock, spec, cost, device) for spec, cost in zip(work.specs, work.costs, strict=True)]
    done = Done([], [], (), 0)

    def start(index: int) -> None:
        prompt, asks = work.chains[index]
        prompt %= len(work.prompts)
        chain = ChainId(prompt, index)
        first = work.prompts[prompt]
        text = first

        def ask(turn: int) -> None:
            nonlocal text
            if turn == len(asks):
                engines[0].release(chain)
                return
            want = asks[turn]
            score = want.kind == "score"
            text += want.feed
            context = text
            full = context + want.tokens if score else context
            stable = max(first, round(want.keep * text))

            def answered(call: EngineCall) -> None:
                nonlocal text
                done.answers.append((chain, turn))
                text = full if score else full + want.tokens - want.ends
                go_on()

            def go_on() -> None:
                later(asks[turn + 1].pause_s if turn + 1 < len(asks) else 0.0, lambda: ask(turn + 1))

            call = EngineCall(
                want.kind, chain, turn, prompt, first, full, context, stable, want.tokens, want.ends, answered
            )
            call.t_queued_s = clock.now
            done.calls.append(call)
            engines[want.at].submit(call)
            if want.drop_s is not None:

                def drop() -> None:
                    if call.t_end_s is None:
                        engines[want.at].cancel(call)
                        call.on_done = lambda _: None
                        go_on()

                later(want.drop_s, drop)

        later(asks[0].pause_s, lambda: ask(0))

    def later(delay_s: float, then: Callable[[], None]) -> Any:
        return Tick(clock, delay_s, ARRIVAL, lambda tick: then())

    for index in range(len(work.chains)):
        start(index)
    for index, time in work.released:
        if index < len(work.chains):
            prompt = work.chains[index][0] % len(work.prompts)
            later(time, partial(engines[1].release, ChainId(prompt, index)))
    while clock.peek() != float("inf"):
        clock.step()
        done.events += 1
        assert done.events < 100_000
    done.totals = tuple(engine.totals for engine in engines)
    return done
