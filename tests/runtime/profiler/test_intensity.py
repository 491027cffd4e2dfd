"""r = T_c / (T_m + T_s) on records and engines made by hand, whose every second is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.engines.base import PHASES, Demand, EngineStats
from atts_runtime.engines.steps import Step, Steps
from atts_runtime.profiler.device import DevicePeak
from atts_runtime.profiler.intensity import EngineRun, Terms, run_intensity
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord, Kind


def peak(flops_per_s: float = 100.0, bytes_per_s: float = 10.0) -> DevicePeak:
    return DevicePeak("by hand", "cpu", "float32", 1, flops_per_s, bytes_per_s, "fake", "this test")


DEVICE = peak()


def call(turn: int, kind: Kind, start: float, end: float, flops: int, bytes_: float, **more: Any) -> CallRecord:
    engine = "draft" if kind == "draft" else "target"
    return CallRecord(
        turn, kind, engine, t_queued_s=start, t_start_s=start, t_end_s=end, flops=flops, bytes=bytes_, **more
    )


def chain(index: int, calls: list[CallRecord], holds: list[HoldRecord], end_s: float) -> ChainRecord:
    return ChainRecord(0, index, "q", calls=calls, holds_s=holds, t_end_s=end_s)


def step(duration_s: float, flops: int, bytes_: float) -> Step:
    return Step(0.0, duration_s, 0, 1, 1, 1, 1, 1, 1, flops, bytes_, flops, 1, 1)


def engine(busy_s: float, idle_s: float | None, *steps: Step, at: DevicePeak | None = DEVICE) -> EngineRun:
    log = Steps()
    for one in steps:
        log.add(one)
    flops, bytes_ = sum(one.flops for one in steps), math.fsum(one.bytes for one in steps)
    seconds = math.fsum(one.duration_s for one in steps)
    phases = {phase: Demand() for phase in PHASES} | {"decode": Demand(len(steps), flops, bytes_, seconds)}
    stats = EngineStats(busy_s=busy_s, idle_s=idle_s, phases=phases, flops_executed=2 * flops)
    return EngineRun(stats, log, at)


RECORDS = [
    chain(0, [call(0, "draft", 0, 1, 100, 20), call(0, "score", 1, 2, 200, 10)], [HoldRecord("barrier", 2, 5)], 5),
    chain(
        1,
        [call(0, "draft", 0, 2, 100, 20), call(0, "score", 2, 3, 200, 10), call(1, "takeover", 4, 5, 50, 30)],
        [HoldRecord("barrier", 3, 4)],
        5,
    ),
]
ENGINES = {
    "draft": engine(2.5, 2.5, step(2.0, 200, 40.0)),
    "target": engine(3.0, 2.0, step(1.0, 400, 10.0), step(1.5, 50, 40.0)),
}


def found(**more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"engines": ENGINES, "wall_s": 5.0, "whole": True}
    made = run_intensity(more.pop("records", RECORDS), **options | more)
    assert made is not None
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    return made


def test_r_is_compute_over_memory_and_the_stall_of_chains() -> None:
    made = found()
    assert made["T_c_s"] == pytest.approx(650 / 100)
    assert made["T_m_s"] == pytest.approx(90 / 10)
    assert made["T_s_s"] == pytest.approx(3 + 1)
    assert made["r"] == pytest.approx(6.5 / (9 + 4))
    assert made["intensity_flop_per_byte"] == pytest.approx(650 / 90)


def test_the_other_definition_takes_the_idle_time_of_engines() -> None:
    made = found()
    assert made["T_idle_s"] == pytest.approx(4.5)
    assert made["r_engine"] == pytest.approx(6.5 / (9 + 4.5))
    assert made["engines"]["target"]["r_engine"] == pytest.approx(4.5 / (5 + 2))


def test_without_a_wait_r_is_the_classic_intensity_over_the_balance() -> None:
    free = [chain(0, [call(0, "draft", 0, 1, 100, 20)], [], 1)]
    made = found(records=free)
    assert made["T_s_s"] == 0.0
    balance = made["engines"]["draft"]["machine_balance_flop_per_byte"]
    assert made["r"] == pytest.approx(made["intensity_flop_per_byte"] / balance)


def test_waiting_for_admission_is_no_synchronisation() -> None:
    late = [chain(0, [call(0, "draft", 2, 3, 100, 20)], [HoldRecord("admission", 0, 2)], 3)]
    assert found(records=late)["T_s_s"] == 0.0


def test_the_roof_is_taken_step_by_step_and_the_rest_of_busy_is_overhead() -> None:
    target = found()["engines"]["target"]
    assert target["T_roof_s"] == pytest.approx(max(4.0, 1.0) + max(0.5, 4.0))
    assert target["T_overhead_s"] == pytest.approx(3.0 - 8.0)
    assert found()["T_overhead_s"] == pytest.approx((2.5 - 4.0) + (3.0 - 8.0))


def test_an_engines_terms_close_on_the_wall() -> None:
    for role, run in ENGINES.items():
        part = found(wall_s=5.25)["engines"][role]
        assert part["T_roof_s"] + part["T_overhead_s"] + part["T_idle_s"] + part["unaccounted_s"] == pytest.approx(5.25)
        assert part["T_roof_s"] + part["T_overhead_s"] == pytest.approx(run.stats.busy_s)
        assert part["unaccounted_s"] == pytest.approx(0.25)


def test_an_engine_without_a_clock_of_its_own_idles_for_what_busy_leaves() -> None:
    engines = ENGINES | {"draft": engine(2.0, None, step(2.0, 200, 40.0))}
    assert found(engines=engines)["engines"]["draft"]["T_idle_s"] == pytest.approx(3.0)


def test_turns_add_up_to_the_run() -> None:
    made = found()
    for name in ("flops", "bytes", "T_c_s", "T_m_s", "T_s_s"):
        assert sum(turn[name] for turn in made["turns"]) == pytest.approx(made[name])
    assert [turn["T_s_s"] for turn in made["turns"]] == [4.0, 0.0]
    assert made["turns"][1]["r"] == pytest.approx(0.5 / 3)


def test_phases_say_what_was_achieved() -> None:
    phases = found()["engines"]["target"]["phases"]
    assert phases["decode"]["flops_per_s"] == pytest.approx(450 / 2.5)
    assert phases["decode"]["intensity_flop_per_byte"] == pytest.approx(450 / 50)
    assert phases["score"]["flops_per_s"] is None
    assert phases["score"]["intensity_flop_per_byte"] is None


def test_a_stall_belongs_to_the_phase_of_the_call_before_it() -> None:
    engines = found()["engines"]
    assert engines["target"]["phases"]["score"]["T_s_s"] == pytest.approx(4.0)
    assert sum(phase["T_s_s"] for part in engines.values() for phase in part["phases"].values()) == found()["T_s_s"]
    assert engines["target"]["phases"]["score"]["r"] == 0.0
    assert engines["target"]["phases"]["decode"]["r"] == pytest.approx(4.5 / 5)
    late = [chain(0, [*RECORDS[0].calls, call(0, "takeover", 2, 3, 1, 1)], [HoldRecord("barrier", 3, 5)], 5)]
    assert found(records=late)["engines"]["target"]["phases"]["decode"]["T_s_s"] == 2.0


def test_overhead_by_phase_is_that_of_its_steps() -> None:
    run = engine(9.0, 1.0, step(3.0, 100, 10.0), step(2.0, 300, 1.0)._replace(append=1))
    assert run.stats.phases is not None
    run.stats.phases |= {
        "decode": Demand(1, 100, 10.0, 3.0), "score": Demand(3, 200, 0.5, 1.5), "prefill": Demand(1, 100, 0.5, 0.5)
    }  # fmt: skip
    part = found(engines={"draft": ENGINES["draft"], "target": run})["engines"]["target"]
    overheads = {name: phase["T_overhead_s"] for name, phase in part["phases"].items()}
    assert overheads == pytest.approx({"decode": 3 - 1.0, "score": (2 - 3.0) * 0.75, "prefill": (2 - 3.0) * 0.25})


def test_what_no_recorded_call_needed_is_told() -> None:
    assert found()["unclaimed_flops"] == 0
    assert found(records=RECORDS[:1])["unclaimed_flops"] == 350


def test_an_engine_of_both_roles_counts_once() -> None:
    both = engine(4.0, 1.0, step(4.0, 650, 90.0))
    made = found(engines={"draft": both, "target": both})
    assert made["T_idle_s"] == pytest.approx(1.0)
    assert made["T_overhead_s"] == pytest.approx(4.0 - 9.0)
    assert made["unclaimed_flops"] == 0


def test_a_resumed_run_knows_its_calls_but_not_all_that_its_engines_did() -> None:
    made = found(whole=False)
    assert made["r"] == pytest.approx(6.5 / 13)
    assert made["turns"] == found()["turns"]
    unknown = ("r_engine", "T_idle_s", "T_overhead_s", "unclaimed_flops")
    assert [made[name] for name in unknown] == [None] * 4
    assert made["engines"] == {"draft": None, "target": None}


def test_calls_that_no_engine_answered_need_nothing() -> None:
    failed = CallRecord(0, "draft", "draft", t_queued_s=0.0, t_end_s=1.0)
    records = [*RECORDS, chain(2, [failed], [], 1.0)]
    assert found(records=records)["flops"] == 650


@pytest.mark.parametrize(
    "records",
    [
        [],
        [chain(0, [CallRecord(0, "draft", "draft", t_queued_s=0.0, t_start_s=0.0, t_end_s=1.0)], [], 1.0)],
    ],
)
def test_without_counts_there_is_no_intensity(records: list[ChainRecord]) -> None:
    assert run_intensity(records, ENGINES, 5.0, whole=True) is None


def test_engines_on_one_device_share_its_balance_and_others_do_not() -> None:
    made = found()
    assert made["hardware"]["kind"] == "fake"
    assert made["machine_balance_flop_per_byte"] == 10.0
    engines = ENGINES | {"draft": engine(2.5, 2.5, step(2.0, 200, 40.0), at=peak(50.0))}
    mixed = found(engines=engines)
    assert mixed["hardware"] is mixed["machine_balance_flop_per_byte"] is None
    assert mixed["engines"]["draft"]["hardware"]["flops_per_s"] == 50.0
    assert mixed["T_c_s"] == pytest.approx(200 / 50 + 450 / 100)


def test_a_device_of_ones_own_tells_joules_and_checks_the_counted_bytes() -> None:
    run = replace(ENGINES["draft"], joules=7.0, dram_bytes=50.0)
    part = found(engines=ENGINES | {"draft": run})["engines"]
    assert part["draft"]["joules"] == 7.0
    assert part["draft"]["dram_over_counted"] == pytest.approx(50 / 40 - 1)
    assert part["target"]["joules"] is part["target"]["dram_over_counted"] is None


def test_without_a_peak_there_is_no_intensity() -> None:
    engines = ENGINES | {"draft": engine(2.5, 2.5, step(2.0, 200, 40.0), at=None)}
    assert run_intensity(RECORDS, engines, 5.0, whole=True) is None


def test_where_an_engine_that_was_never_asked_does_not_count_there_is_no_intensity() -> None:
    drafts = [chain(0, [call(0, "draft", 0, 1, 100, 20)], [], 1)]
    idle = EngineRun(EngineStats(busy_s=0.0, idle_s=5.0), None, None)
    assert run_intensity(drafts, {"draft": ENGINES["draft"]}, 5.0, whole=True) is not None
    assert run_intensity(drafts, {"draft": ENGINES["draft"], "target": idle}, 5.0, whole=True) is None


whole_numbers = st.integers(0, 10**15)


@given(st.lists(st.tuples(whole_numbers, whole_numbers), min_size=1), st.floats(0, 1e6))
def test_terms_add_up_and_r_falls_as_waits_grow(parts: list[tuple[int, int]], stall_s: float) -> None:
    terms = [Terms.at(DEVICE, flops, bytes_) for flops, bytes_ in parts]
    total = Terms.total(terms)
    assert total.flops == sum(flops for flops, _ in parts)
    assert total.T_c_s == pytest.approx(total.flops / 100)
    assert total.T_m_s == pytest.approx(total.bytes / 10)
    here, later = total.r(stall_s), total.r(2 * stall_s + 1)
    assert later is not None
    if here is None:
        assert total.bytes == 0
    else:
        assert later <= here
