"""The fast engine gives the results of the plain one, which makes the passes of the real one."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given, settings

from atts_sim.calls import EngineCall, Totals
from atts_sim.engine import BatchingEngine
from atts_sim.reference import ReferenceEngine
from tests.sim.engines import Done, Work, carry_out, works

RELATIVE = 1e-9


def figures(call: EngineCall) -> dict[str, Any]:
    return {f.name: getattr(call, f.name) for f in fields(call) if f.name != "on_done"}


def assert_same(fast: Done, plain: Done) -> None:
    assert fast.answers == plain.answers
    assert len(fast.calls) == len(plain.calls)
    for ours, theirs in zip(fast.calls, plain.calls, strict=True):
        assert figures(ours) == pytest.approx(figures(theirs), rel=RELATIVE, abs=RELATIVE)
    for ours_of, theirs_of in zip(fast.totals, plain.totals, strict=True):
        assert asdict(ours_of) == pytest.approx(asdict(theirs_of), rel=RELATIVE, abs=RELATIVE)


@settings(max_examples=150)
@given(works(exact=True))
def test_runs_of_steps_in_one_event_change_nothing_where_times_coincide(work: Work) -> None:
    assert_same(carry_out(work, BatchingEngine), carry_out(work, ReferenceEngine))


@settings(max_examples=150)
@given(works(exact=False))
def test_runs_of_steps_in_one_event_change_nothing_at_any_times(work: Work) -> None:
    assert_same(carry_out(work, BatchingEngine), carry_out(work, ReferenceEngine))
