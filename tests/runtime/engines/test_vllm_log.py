"""What vLLM reports of its steps, as totals, steps and each call's cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from atts_runtime.engines.base import Usage
from atts_runtime.engines.request import Request
from atts_runtime.engines.vllm_log import VllmLog
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec

SPEC = ModelSpec(
    name="m", layers=2, width=8, heads=2, kv_heads=1, head_dim=4, ffn=16, vocab=32, tied=True,
    bytes_per_weight=4, bytes_per_kv_element=4,
)  # fmt: skip


@pytest.fixture
def log() -> VllmLog:
    log = VllmLog()
    log.rates, log.kv_capacity_tokens = Rates(SPEC), 640
    log.reset(counted=True)
    return log


def step(log: VllmLog, context: tuple[int, int], drawing: tuple[int, int], *, running: int = 1, **more: Any) -> None:
    """Report a step: requests and tokens that read, requests and tokens that drew."""
    details = SimpleNamespace(
        num_ctx_requests=context[0],
        num_ctx_tokens=context[1],
        num_generation_requests=drawing[0],
        num_generation_tokens=drawing[1],
        elapsed_ms=2.0,
        is_dummy=False,
    )
    scheduler = {
        "num_running_reqs": running,
        "num_waiting_reqs": 3,
        "kv_cache_usage": 0.25,
        "prefix_cache_stats": SimpleNamespace(queries=20, hits=16),
        "spec_decoding_stats": None,
        "perf_stats": SimpleNamespace(num_flops_per_gpu=1000),
        "iteration_details": details,
    }
    log.record(SimpleNamespace(**scheduler | more), SimpleNamespace(num_preempted_reqs=1))


def test_totals_are_those_that_vllm_reports(log: VllmLog) -> None:
    step(log, (2, 30), (0, 0))
    step(log, (1, 5), (2, 2), spec_decoding_stats=SimpleNamespace(num_draft_tokens=6, num_accepted_tokens=4))
    stats = log.stats()
    assert (stats.steps, stats.decode_steps, stats.decode_rows, stats.prefilled_tokens) == (2, 1, 2, 35)
    assert (stats.running, stats.waiting, stats.preemptions) == (1, 3, 2)
    assert (stats.prefix_queried_tokens, stats.prefix_hit_tokens) == (40, 32)
    assert (stats.speculated_tokens, stats.accepted_tokens) == (6, 4)
    assert (stats.kv_tokens, stats.kv_peak_tokens, stats.kv_capacity_tokens) == (160, 160, 640)
    assert stats.flops_executed == 2000
    assert stats.evictions is None


def test_what_vllm_does_not_say_is_none() -> None:
    stats = VllmLog().stats()
    assert (stats.phases, stats.flops_executed, stats.speculated_tokens, stats.kv_capacity_tokens) == (None,) * 4


def test_a_call_is_charged_what_its_tokens_need_whoever_shares_its_steps(log: VllmLog) -> None:
    usage = log.usage()
    log.opened(12)
    step(log, (1, 12), (0, 0))
    first_s = log._at_s[-1]
    for _ in range(3):
        step(log, (0, 0), (1, 1))
    asked = Request((1,), list(range(12)), 12)
    log.charge(usage, asked, cached=4, drawn=4, first_s=first_s, last_s=log._at_s[-1])
    rates = Rates(SPEC)
    assert usage.prefill is not None
    assert usage.own is not None
    assert (usage.prefill.tokens, usage.prefill.flops) == (8, rates.flops(8, 8 * 12, 1))
    assert (usage.own.tokens, usage.own.flops) == (3, rates.flops(3, 13 + 14 + 15, 3))
    weights = 3 * rates.weight_bytes(1, 1)
    assert usage.own.bytes == pytest.approx(weights + rates.kv_bytes * (13 + 14 + 15 + 3))
    phases = log.stats().phases
    assert phases is not None
    assert phases["decode"].flops == usage.own.flops
    assert phases["decode"].seconds == pytest.approx(0.006)


def test_a_scored_segment_is_charged_as_such_and_draws_nothing(log: VllmLog) -> None:
    usage = log.usage()
    log.opened(20)
    step(log, (1, 8), (0, 0))
    asked = Request((1,), list(range(20)), 15)
    log.charge(usage, asked, cached=12, drawn=1, first_s=log._at_s[-1], last_s=log._at_s[-1])
    rates = Rates(SPEC)
    assert usage.prefill is not None
    assert usage.own is not None
    assert (usage.prefill.tokens, usage.prefill.flops) == (3, rates.flops(3, 3 * 20, 1))
    assert (usage.own.tokens, usage.own.flops) == (5, rates.flops(5, 5 * 20, 5))
    total = usage.prefill.bytes + usage.own.bytes
    assert total == pytest.approx(rates.weight_bytes(8, 1) + rates.kv_bytes * (20 + 8))


def test_an_engine_is_busy_while_a_call_is_open(log: VllmLog, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 13.0, 18.0, 20.0])  # reset, opened, opened again, closed twice, asked
    monkeypatch.setattr("atts_runtime.engines.vllm_log.time.perf_counter", lambda: next(clock))
    log.reset(counted=True)
    log.opened(5)
    log.opened(5)
    log.closed(5, 0)
    log.closed(5, 0)
    stats = log.stats()
    assert stats.busy_s == 2.0
    assert stats.idle_s == pytest.approx(1.0 + 5.0)


def test_calls_from_before_a_reset_close_without_a_trace(log: VllmLog) -> None:
    log.opened(5)
    log.reset(counted=False)
    log.closed(5, 2)
    assert log.stats().busy_s == 0
    assert log.steps is None
    usage = log.usage()
    log.charge(usage, Request((1,), [1, 2], 2), cached=0, drawn=1, first_s=0.0, last_s=0.0)
    assert isinstance(usage, Usage)
    assert (usage.prefill, usage.own) == (None, None)


def test_a_steps_row_holds_what_is_known_of_it(log: VllmLog) -> None:
    log.opened(12)
    step(log, (1, 12), (0, 0))
    step(log, (0, 0), (1, 1))
    steps = log.steps
    assert steps is not None
    assert steps.column("append").tolist() == [1, 0]
    assert steps.column("new_tokens").tolist() == [12, 1]
    assert steps.column("kept_tokens").tolist() == [12, 13]
    assert steps.column("flops").tolist() == [Rates(SPEC).flops(12, 144, 1), Rates(SPEC).flops(1, 13, 1)]
    assert steps.column("duration_s").tolist() == [0.002, 0.002]
