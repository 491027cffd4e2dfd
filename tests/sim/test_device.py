"""Engines on one device take turns, step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from atts_runtime.control.events import ChainId
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, SimEngine
from atts_sim.clock import ARRIVAL, Clock, Tick
from atts_sim.device import Device
from atts_sim.engine import BatchingEngine
from atts_sim.plain import plain_engine

MAKES = [BatchingEngine, plain_engine]


def draft(chain: int, tokens: int, done: Callable[[EngineCall], None]) -> EngineCall:
    return EngineCall("draft", ChainId(0, chain), 0, chain, 1, 1, 1, 1 << 30, tokens, False, done)


@pytest.mark.parametrize("make", MAKES)
def test_two_busy_engines_alternate_and_the_one_that_is_left_goes_on_alone(make: Callable[..., SimEngine]) -> None:
    clock = Clock()
    device = Device(clock)
    one, two = (make(clock, EngineSpec(), AffineCost(seconds), device) for seconds in (1.0, 10.0))
    ends: dict[int, float] = {}

    def done(call: EngineCall) -> None:
        ends[call.chain.index] = clock.now

    one.submit(draft(1, 4, done))
    two.submit(draft(2, 2, done))
    clock.run()
    # Each first feeds its prompt, whose logits give the first token: 4 steps of 1 s and 2 of 10 s, by turns while both
    # have work.
    assert ends == {2: 1 + 10 + 1 + 10, 1: 1 + 10 + 1 + 10 + 1 + 1}
    assert (one.totals.busy_s, two.totals.busy_s) == (4.0, 20.0)


@pytest.mark.parametrize("make", MAKES)
def test_a_run_of_steps_ends_with_the_step_in_which_the_other_engine_gets_work(
    make: Callable[..., SimEngine],
) -> None:
    clock = Clock()
    device = Device(clock)
    one, two = (make(clock, EngineSpec(), AffineCost(1.0), device) for _ in range(2))
    calls = [draft(1, 101, lambda call: None), draft(2, 2, lambda call: None)]
    one.submit(calls[0])
    Tick(clock, 50.5, ARRIVAL, lambda tick: two.submit(calls[1]))
    clock.run()
    assert calls[0].t_end_s == clock.now
    # It begins when step 51 of the other is over, and first has its prompt computed.
    assert 51 <= (calls[1].t_start_s or 0) <= 53
    assert (calls[1].t_end_s or 0) <= 56
    assert clock.now == one.totals.busy_s + two.totals.busy_s


@pytest.mark.parametrize("make", MAKES)
def test_an_engine_alone_on_a_device_does_as_on_its_own(make: Callable[..., SimEngine]) -> None:
    ends = []
    for shared in (False, True):
        clock = Clock()
        engine = make(clock, EngineSpec(), AffineCost(1.0), Device(clock) if shared else None)
        calls = [draft(i, 3 + i, lambda call: None) for i in range(3)]
        for call in calls:
            engine.submit(call)
        clock.run()
        ends.append([call.t_end_s for call in calls])
    assert ends[0] == ends[1]
