"""Questions come when their arrival says, and are admitted no earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError
from atts_sim.affine import AffineCost
from atts_sim.arrivals import AllAtOnce, Bursts, Poisson, Recorded, arrivals_of, span_s
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.simrun import SimRun
from tests.runtime.scripted import settings
from tests.sim.made_runs import recorded_of

COST = AffineCost(overhead_s=0.01, token_s=1e-4)


def arriving(policy: str, times: Any, **changes: Any) -> SimRun:
    config, clock = settings(policy, **changes), Clock()
    engines: Any = {role: BatchingEngine(clock, EngineSpec(), COST) for role in ("draft", "target")}
    knobs, work = config.recipe(config.knobs), recorded_of(config)
    return SimDriver(knobs, config.limits, work, engines, clock, arrivals_s=times).run()


@pytest.mark.parametrize("policy", ["barrier", "async-conditional", "draft-only"])
def test_a_question_is_admitted_when_it_comes(policy: str) -> None:
    run = arriving(policy, (0.0, 100.0, 250.0))
    assert run.admitted_s == {0: 0.0, 1: 100.0, 2: 250.0}
    assert all(request.t_queued_s >= run.arrived_s[request.chain.question] for request in run.requests)


def test_a_question_that_has_come_waits_for_room_in_flight() -> None:
    run = arriving("barrier", (0.0, 1e-6, 1e-6), questions_in_flight=1)
    ends = {q: max(end for finish, end in run.finished if finish.chain.question == q) for q in range(3)}
    assert run.admitted_s == pytest.approx({0: 0.0, 1: ends[0], 2: ends[1]}, rel=1e-12)
    waits = [(start, end) for chain, cause, start, end in run.holds if cause == "admission" and chain.question == 1]
    assert waits == [(1e-6, ends[0])] * 4


@pytest.mark.parametrize("policy", sorted(name for name, policy in POLICIES.items() if policy.order_free))
def test_all_at_once_is_what_no_arrivals_are(policy: str) -> None:
    plain, at_once = arriving(policy, None), arriving(policy, (0.0, 0.0, 0.0))
    assert plain.wall_s == at_once.wall_s
    assert plain.finished == at_once.finished


def test_a_policy_that_begins_with_all_questions_takes_no_later_ones() -> None:
    with pytest.raises(ValueError, match="all must be there"):
        arriving("async-marginal", (0.0, 1.0, 2.0))


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 2.0, 1.0), (-1.0, 0.0, 1.0)])
def test_times_that_do_not_fit_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="times of arrival"):
        arriving("barrier", times)


@given(st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_a_rate_stretches_one_stream(per_s: float, seed: int) -> None:
    unit = Poisson(1.0).times_s(50, seed)
    assert Poisson(per_s).times_s(50, seed) == pytest.approx([time / per_s for time in unit], rel=1e-9)
    assert list(unit) == sorted(unit)


def test_poisson_gaps_have_the_mean_and_spread_of_their_rate() -> None:
    times = Poisson(2.0).times_s(20_000, 1)
    gaps = [b - a for a, b in zip((0.0, *times), times, strict=False)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.5, rel=0.03)  # standard error 0.7%
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("times_s", "spans_s"),
    [
        (Bursts(20, 60.0).times_s(40, 0), 120.0),
        (Bursts(20, 60.0).times_s(41, 0), 123.0),  # the last is a twentieth of one
        (Bursts(1, 5.0).times_s(30, 0), 150.0),
        ((7.0, 8.0, 9.0), 3.0),  # what comes late comes no more slowly
        ((0.0, *[100.0] * 19), 200.0),
        ((0.0, 0.0), None),
        ((3.0,), None),
    ],
)
def test_arrivals_stand_for_the_time_until_the_next_would_come(
    times_s: tuple[float, ...], spans_s: float | None
) -> None:
    assert span_s(times_s) == (None if spans_s is None else pytest.approx(spans_s))


@given(st.integers(1, 30), st.integers(31, 90), st.floats(1e-3, 1e3))
def test_bursts_stand_for_their_rate(size: int, questions: int, every_s: float) -> None:
    assert span_s(Bursts(size, every_s).times_s(questions, 0)) == pytest.approx(questions / size * every_s)


def test_poisson_arrivals_stand_for_their_rate() -> None:
    assert span_s(Poisson(4.0).times_s(10_000, 3)) == pytest.approx(10_000 / 4.0, rel=0.03)  # standard error 1%


def test_texts_name_patterns(tmp_path: Path) -> None:
    assert arrivals_of("all") == AllAtOnce()
    assert arrivals_of("poisson:0.5") == Poisson(0.5)
    assert arrivals_of("bursts:2:10") == Bursts(2, 10.0)
    assert Bursts(2, 10.0).times_s(5, 0) == (0.0, 0.0, 10.0, 10.0, 20.0)
    (tmp_path / "times").write_text("0\n1.5\n2\n")
    assert arrivals_of(f"trace:{tmp_path / 'times'}").times_s(2, 0) == (0.0, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("poison:1", "unknown arrivals"),
        ("poisson", "unknown arrivals"),
        ("poisson:x", "could not convert"),
        ("poisson:0", "must be positive"),
        ("poisson:nan", "must be positive"),
        ("bursts:2.5:1", "unknown arrivals"),
        ("bursts:0:1", "size of 1 or more"),
        ("trace:nowhere", "cannot read"),
    ],
)
def test_texts_that_name_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrivals_of(text)


def test_a_trace_of_times_must_ascend_and_suffice() -> None:
    with pytest.raises(InputError, match="ascend"):
        Recorded((1.0, 0.5))
    with pytest.raises(InputError, match="2 are given"):
        Recorded((0.0, 0.5)).times_s(3, 0)
