"""The fast engine gives the results of the plain one, which makes the passes of the real one."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from hypothesis import given, settings

from atts_sim.calls import EngineCall
from atts_sim.engine import BatchingEngine
from atts_sim.plain import plain_engine
from tests.sim.engines import Done, Work, carry_out, works

RELATIVE = 1e-9


def figures(call: EngineCall) -> dict[str, float]:
    """What engines write on a call; what has not happened is before all time."""
    names = ("t_queued_s", "t_start_s", "t_end_s", "tokens_cached", "tokens_prefilled", "tokens_recomputed", "dropped")
    return {name: -1.0 if getattr(call, name) is None else float(getattr(call, name)) for name in names}


def assert_same(fast: Done, plain: Done) -> None:
    assert fast.answers == plain.answers
    assert len(fast.calls) == len(plain.calls)
    for ours, theirs in zip(fast.calls, plain.calls, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), rel=RELATIVE, abs=RELATIVE)
    for ours_of, theirs_of in zip(fast.totals, plain.totals, strict=True):
        assert asdict(ours_of) == pytest.approx(asdict(theirs_of), rel=RELATIVE, abs=RELATIVE)


@settings(max_examples=80)
@given(works(exact=True))
def test_runs_of_steps_in_one_event_change_nothing_where_times_coincide(work: Work) -> None:
    assert_same(carry_out(work, BatchingEngine), carry_out(work, plain_engine))


@settings(max_examples=80)
@given(works(exact=False))
def test_runs_of_steps_in_one_event_change_nothing_at_any_times(work: Work) -> None:
    assert_same(carry_out(work, BatchingEngine), carry_out(work, plain_engine))
