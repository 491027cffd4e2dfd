"""What the runtime's Python takes between an answer and the next pass: in engines that step, and as runs tell it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from atts_runtime.control import ChainId
from atts_runtime.profiler.stepfit import CallCosts
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, PerCall
from atts_sim.clock import ARRIVAL, Clock
from atts_sim.device import Device
from atts_sim.engine import BatchingEngine
from atts_sim.handling import AT_ONCE, Handling, fit_handling, fit_wake_s
from atts_sim.measured import StepLog
from atts_sim.reference import ReferenceEngine

NONE = CallCosts(0.0, 0.0)
ENDS = EngineSpec(per_call=PerCall(NONE, NONE, end_s=0.25))
WAKES = EngineSpec(wake_s=0.5)


def ask(clock: Clock, engine: ReferenceEngine, at_s: float, chain: int, tokens: int) -> EngineCall:
    """A call to write so many tokens after a prompt of its own, coming at a time."""
    call = EngineCall("draft", ChainId(0, chain), 0, chain, 1, 1, 1, 1, tokens, False, lambda call: None, at_s)
    clock.call(at_s, ARRIVAL, lambda number: engine.submit(call))
    return call


def test_calls_that_end_in_one_pass_are_answered_one_after_the_other() -> None:
    clock = Clock()
    engine = ReferenceEngine(clock, ENDS, AffineCost(overhead_s=1.0))
    calls = [ask(clock, engine, 0.0, chain, tokens) for chain, tokens in enumerate((3, 3, 4))]
    clock.run()
    ends = sorted(call.t_end_s or math.nan for call in calls)
    assert ends[1] - ends[0] == pytest.approx(0.25)
    assert ends[2] - ends[1] == pytest.approx(1.25)  # one pass later, which begins when both are answered
    assert engine.totals.busy_s == pytest.approx(engine.totals.steps + 3 * 0.25)


def test_an_idle_engine_wakes_a_while_after_the_first_call_and_takes_in_what_came_meanwhile() -> None:
    clock = Clock()
    engine = ReferenceEngine(clock, WAKES, AffineCost(overhead_s=1.0))
    first, second = ask(clock, engine, 2.0, 0, 2), ask(clock, engine, 2.25, 1, 2)
    late, later = ask(clock, engine, 3.0, 2, 2), ask(clock, engine, 20.0, 3, 2)
    clock.run()
    assert (first.t_start_s, second.t_start_s) == (3.5, 3.5)  # after a pass over both prompts
    assert late.t_start_s == 5.5  # after that pass, and a step of its own prompt's and both rows: it needed no waking
    assert later.t_start_s == 21.5


def test_engines_that_do_not_step_or_share_a_device_refuse_to_sleep() -> None:
    clock, cost = Clock(), AffineCost(overhead_s=1.0)
    with pytest.raises(ValueError, match="for engines that step"):
        BatchingEngine(clock, WAKES, cost)
    with pytest.raises(ValueError, match="share a device wake at once"):
        ReferenceEngine(clock, WAKES, cost, Device(clock))
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="wake_s must be a time"):
            EngineSpec(wake_s=wrong)


def test_an_answer_waits_for_the_driver_and_not_for_the_latency_of_those_before_it() -> None:
    handling = Handling(1.0, 0.25)
    assert handling.after(10.0, -math.inf) == 11.0
    assert handling.after(10.0, 11.0) == handling.after(10.9, 11.0) == 11.25
    assert handling.after(20.0, 11.25) == 21.0
    one = Handling.one_at_a_time(0.5)
    assert (one.after(1.0, -math.inf), one.after(1.0, 1.5)) == (1.5, 2.0)
    with pytest.raises(ValueError, match="no time"):
        Handling(math.nan, 0.0)


def chain(index: int, *times: tuple[float, float], hold: tuple[float, float] | None = None) -> ChainRecord:
    """A chain of calls queued and answered at these times."""
    calls = [CallRecord(turn, "draft", "draft", t_queued_s=q, t_end_s=e) for turn, (q, e) in enumerate(times)]
    holds = [] if hold is None else [HoldRecord("barrier", *hold)]
    return replace(ChainRecord(0, index, "q", "answered"), calls=calls, holds_s=holds)


def test_latency_is_told_by_answers_that_found_the_driver_waiting_and_the_rest_by_those_behind_them() -> None:
    together = [chain(index, (0.0, 10.0), (10.3 + 0.01 * index, 12.0)) for index in range(4)]
    alone = [chain(4, (0.0, 20.0), (20.5, 21.0)), chain(5, (0.0, 30.0), (30.5, 31.0))]
    held = chain(6, (0.0, 40.0), (49.0, 50.0), hold=(40.6, 49.0))
    both, single = fit_handling([[*together, *alone, held]]), fit_handling([alone])
    assert (both.latency_s, both.each_s) == (pytest.approx(0.5, abs=1e-9), pytest.approx(0.01, abs=1e-9))
    assert single.latency_s == single.each_s == pytest.approx(0.5, abs=1e-9)
    assert fit_handling([[held]]).latency_s == pytest.approx(0.6, abs=1e-9)  # until it was held
    assert fit_handling([]) == AT_ONCE


def test_waking_is_told_by_passes_for_a_call_that_came_alone_to_an_engine_without_work() -> None:
    def call(queued_s: float, end_s: float) -> CallRecord:
        return CallRecord(0, "draft", "draft", t_queued_s=queued_s, t_end_s=end_s)

    start = np.array([0.5, 3.25, 6.0, 7.0, 12.5])
    ones = np.ones(len(start))
    log = StepLog(
        start,
        ones,
        ones,
        0 * ones,
        np.zeros((len(start), 2)),
        0 * ones,
        ones < 0,
        np.ones((len(start), 8), int),
        ones < 0,
    )
    calls = [
        call(0.0, 1.5),  # before the first pass, of which nothing says what the engine did before
        call(3.0, 4.25),  # alone: 0.25 s
        call(5.0, 7.5), call(5.5, 8.0),  # two that came together, and one pass after the other: the engine had work
        call(12.0, 13.5),  # alone: 0.5 s
    ]  # fmt: skip
    assert fit_wake_s([(log, calls)]) == pytest.approx(0.375)
    assert fit_wake_s([(log, calls[:1])]) == 0.0
    together = [call(0.0, 1.5), call(3.0, 4.25), call(3.1, 4.25)]
    assert fit_wake_s([(log, together)]) == pytest.approx(0.25)  # where none came alone
