"""Figures of a simulation, on runs small enough to know them by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import POLICIES, ChainId, Knobs, Limits, Policy
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.metrics import Metrics, measure, quantiles
from atts_sim.recorded import Prompt, Recorded, RecordedChain, follow_record
from atts_sim.simrun import SimRun
from atts_sim.workload import Written

SECOND = AffineCost(overhead_s=1.0)  # every pass takes a second


def recorded(*chains: list[RecordedChain]) -> Recorded:
    """Questions with their chains; prompts of three tokens."""
    named = {ChainId(q, i): chain for q, of in enumerate(chains) for i, chain in enumerate(of)}
    return Recorded([Prompt(3, 3)] * len(chains), named)


def chain(tokens: int, ell: float, takeover: int | None = None, *, correct: bool | None = None) -> RecordedChain:
    """One turn, which ends with an answer."""
    wrote = None if takeover is None else Written(takeover, answered=True)
    return RecordedChain([Written(tokens, answered=True)], [ell], [wrote], correct=correct)


def simulate(
    workload: Recorded, policy: Policy | None = None, *, shared: bool = False, in_flight: int | None = None
) -> SimRun:
    clock = Clock()
    draft = BatchingEngine(clock, EngineSpec(), SECOND)
    target = draft if shared else BatchingEngine(clock, EngineSpec(), SECOND)
    engines: Any = {"draft": draft, "target": target}
    limits = Limits(workload.turns, 600, 600, in_flight)
    return SimDriver(policy or follow_record(workload), limits, workload, engines, clock).run()


def figures(workload: Recorded, *args: Any, deadline_s: float | None = None, **more: Any) -> Metrics:
    return measure(simulate(workload, *args, **more), deadline_s=deadline_s)


def test_one_chain_by_hand() -> None:
    # The prompt is fed in a second, then its logits give the first of 5 tokens: 4 more steps. The target feeds the
    # prompt, then 5 tokens to score; what comes after those it knows, so its 3 tokens take 2 steps.
    m = figures(recorded([chain(5, 0.5, 3, correct=True)]), deadline_s=9.0)
    assert m.makespan_s == 1 + 4 + 1 + 1 + 2
    assert (m.requests, m.tokens.draft, m.tokens.scored, m.tokens.takeover) == (3, 5, 5, 3)
    assert m.latency_s is not None
    assert m.latency_s.max == 9.0
    assert m.first_answer_s == m.latency_s
    assert (m.engines["draft"].busy_s, m.engines["target"].busy_s, m.lower_bound_s) == (5.0, 4.0, 5.0)
    assert (m.engines["draft"].idle_s, m.engines["target"].append_s) == (4.0, 2.0)
    assert (m.takeover_rate, m.takeover_rate_by_turn, m.takeovers_in_flight) == (1.0, (1.0,), 1)
    assert (m.accuracy, m.pass_at_m, m.answered) == (1.0, 1.0, 1.0)
    assert m.goodput_per_s == 1 / 9
    assert (m.questions_per_s, m.tokens_per_s) == (1 / 9, 8 / 9)
    # A call starts once its prompt is there.
    assert m.queue_s == {"draft": 1.0, "score": 1.0, "takeover": 0.0}
    # The draft holds the prompt, its chain's prompt and 4 of 5 tokens; the last was never fed.
    assert m.engines["draft"].kv_peak_tokens == 3 + 3 + 4


def test_goodput_counts_only_what_is_in_time() -> None:
    assert figures(recorded([chain(5, 0.5, 3)]), deadline_s=8.5).goodput_per_s == 0.0
    assert figures(recorded([chain(5, 0.5, 3)])).goodput_per_s is None


def test_one_engine_for_both_models_is_busy_once() -> None:
    # Draft and target share the prompt and the text, but for the last token, which the score feeds with what it scores.
    m = figures(recorded([chain(5, 0.5, 3)]), shared=True)
    assert m.engines["draft"] == m.engines["target"]
    assert m.makespan_s == m.lower_bound_s == 1 + 4 + 1 + 2


def test_the_barrier_stalls_whoever_is_early() -> None:
    work = recorded([chain(2, 0.5), chain(8, 0.7)])
    m = figures(work, POLICIES["barrier"](Knobs(0.4, budget=0)))
    assert m.stall_s["bank"] == 0.0
    # The first is drafted 6 steps before the second, and its score takes a step for the prompt besides.
    assert m.stall_s["barrier"] == pytest.approx(6 - 1)
    assert m.takeover_rate == 0.0


def test_questions_that_wait_for_admission_are_timed_from_there() -> None:
    work = recorded([chain(5, 0.5)], [chain(5, 0.5)])
    one_at_a_time = figures(work, in_flight=1)
    assert one_at_a_time.latency_s is not None
    assert one_at_a_time.latency_s.max == one_at_a_time.makespan_s / 2
    assert one_at_a_time.admission_s == one_at_a_time.makespan_s / 2


def test_what_is_not_known_is_none() -> None:
    m = figures(recorded([chain(5, 0.5, correct=True), chain(5, 0.5)]))
    assert (m.accuracy, m.pass_at_m, m.deadline_s) == (None, None, None)
    m = figures(recorded([chain(5, 0.5)]), POLICIES["draft-only"](Knobs(0.4)))
    assert (m.takeover_rate, m.takeover_rate_by_turn, m.engines["target"].rows) == (None, (), None)


def test_figures_are_ready_for_json() -> None:
    m = figures(recorded([chain(5, 0.5, 3)]))
    assert json.loads(json.dumps(asdict(m), allow_nan=False))["tokens"]["takeover"] == 3


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_quantiles_are_numpys(values: list[float]) -> None:
    import numpy as np

    ours = quantiles(values)
    assert ours is not None
    assert [ours.p50, ours.p95, ours.p99, ours.max] == pytest.approx(list(np.quantile(values, [0.5, 0.95, 0.99, 1])))


def test_there_are_no_quantiles_of_nothing() -> None:
    assert quantiles([]) is None
