"""Claims about spans: every second of a chain has one cause, and an engine's busy and idle time make up the wall."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import POLICIES, ChainId
from atts_runtime.errors import InputError
from atts_runtime.profiler.spans import (
    Span,
    chain_spans,
    check_tiling,
    engine_use,
    level,
    seconds_by_turn,
    to_ns,
)
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord
from atts_runtime.session import run_once
from tests.runtime.profiler.made import call, chain_records, runs
from tests.runtime.scripted import Fault, drive, open_run, pair, record_run, settings, task_of


def two_turns() -> ChainRecord:
    """A chain that waits for everything there is, in quarters of a second."""
    return ChainRecord(
        0,
        1,
        "q",
        calls=[
            call("draft", 1.0, 1.25, 2.0),
            call("score", 2.25, 2.25, 2.5),
            call("takeover", 4.0, 4.5, 5.0),
            call("draft", 6.0, None, 7.0, turn=1),
        ],
        holds_s=[
            HoldRecord("admission", 0.5, 1.0),
            HoldRecord("bank", 2.75, 3.0),
            HoldRecord("admission", 3.0, 3.75),
            HoldRecord("barrier", 5.0, 6.0),
        ],
        t_end_s=7.25,
    )


# -- spans


def test_a_chain_is_told_second_by_second() -> None:
    told = [(span.kind, span.turn, span.t_start_s, span.t_end_s, span.call) for span in chain_spans(two_turns())]
    assert told == [
        ("admission", 0, 0.5, 1.0, None),
        ("queue", 0, 1.0, 1.25, 0),
        ("draft", 0, 1.25, 2.0, 0),
        ("driver", 0, 2.0, 2.25, None),
        ("score", 0, 2.25, 2.5, 1),
        ("driver", 0, 2.5, 2.75, None),
        ("bank", 0, 2.75, 3.0, None),
        ("admission", 0, 3.0, 3.75, None),
        ("driver", 0, 3.75, 4.0, None),
        ("queue", 0, 4.0, 4.5, 2),
        ("takeover", 0, 4.5, 5.0, 2),
        ("barrier", 0, 5.0, 6.0, None),
        ("failed", 1, 6.0, 7.0, 3),
        ("driver", 1, 7.0, 7.25, None),
    ]


@given(chain_records())
def test_the_spans_of_any_chain_tile_its_life(record: ChainRecord) -> None:
    spans = chain_spans(record)
    check_tiling(record, spans)
    assert [span.turn for span in spans] == sorted(span.turn for span in spans)
    served = [span.call for span in spans if span.kind in ("draft", "score", "takeover", "failed")]
    assert served == list(range(len(record.calls)))


@pytest.mark.parametrize("changes", [{}, {"questions_in_flight": 1, "takeover": "resample"}])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_spans_of_a_run_tile_its_chains_under_every_policy(policy: str, changes: dict[str, Any]) -> None:
    faults = {ChainId(0, 1): Fault("error", "generate", first=1), ChainId(1, 2): Fault("nan", "score")}
    outcome = drive(settings(policy, **changes), pair(target={"faults": faults}))
    for record in outcome.records.values():
        check_tiling(record, chain_spans(record))
    use = engine_use(outcome.records.values(), outcome.wall_s)
    assert all(engine.busy_ns + engine.idle_ns == to_ns(outcome.wall_s) for engine in use.values())


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_tiles_too_and_its_clock_goes_on(policy: str, tmp_path: Path) -> None:
    config = settings(policy)

    async def stopped() -> None:
        run_dir = open_run(tmp_path, config)
        add = run_dir.add

        def counted(record: ChainRecord) -> None:
            add(record)
            if len(run_dir.finished) == 5:
                running.cancel()

        run_dir.add = counted  # type: ignore[method-assign]
        running = asyncio.create_task(run_once(config, task_of(config), pair(), run_dir, lambda _: None))
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(stopped())
    before = [ChainRecord.from_line(line) for line in (tmp_path / "chains.jsonl").read_bytes().splitlines()]
    summary = record_run(tmp_path, config, resume=True)
    records = [ChainRecord.from_line(line) for line in (tmp_path / "chains.jsonl").read_bytes().splitlines()]
    kept = {record.chain for record in before}
    for record in records:
        spans = chain_spans(record)
        check_tiling(record, spans)
        assert record.chain in kept or spans[0].t_start_s >= max(r.t_end_s for r in before)
    use = engine_use(records, summary["wall_s"])
    assert all(engine.busy_ns + engine.idle_ns == to_ns(summary["wall_s"]) for engine in use.values())


@pytest.mark.parametrize("policy", POLICIES)
def test_stall_by_turn_adds_up_to_the_summary_s(policy: str, tmp_path: Path) -> None:
    summary = record_run(tmp_path, settings(policy))
    records = [ChainRecord.from_line(line) for line in (tmp_path / "chains.jsonl").read_bytes().splitlines()]
    by_turn = seconds_by_turn(span for record in records for span in chain_spans(record))
    for cause, seconds in summary["stall_by_cause_s"].items():
        assert sum(by_turn[cause]) == pytest.approx(seconds, abs=1e-12)


def test_a_chain_without_a_command_has_no_spans() -> None:
    record = ChainRecord(0, 0, "q", t_end_s=3.0)
    assert chain_spans(record) == []
    check_tiling(record, [])


def test_a_call_that_was_tried_again_waited_in_the_queue_until_its_last_attempt() -> None:
    record = ChainRecord(0, 0, "q", calls=[call("draft", 0.0, 5.0, 6.0, attempts=3)], t_end_s=6.0)
    assert [(span.kind, span.duration_s) for span in chain_spans(record)] == [("queue", 5.0), ("draft", 1.0)]


@pytest.mark.parametrize(
    ("flaw", "named"),
    [
        ({"t_end_s": 6.5}, "ends at 6.5 s, before its last command's 7.0 s"),
        ({"t_end_s": float("nan")}, "times of its end"),
        ({"holds_s": [HoldRecord("barrier", 1.5, 3.0)]}, "overlaps"),
        ({"holds_s": [HoldRecord("barrier", 3.0, 2.5)]}, "times of its wait"),
        ({"holds_s": [HoldRecord("lunch", 3.0, 3.5)]}, "unknown cause 'lunch'"),
        ({"calls": [call("draft", 1.0, 0.5, 2.0)]}, "times of its draft"),
        ({"calls": [call("draft", 0.0, 1.0, "2")]}, "times of its draft"),  # type: ignore[arg-type]
        ({"calls": [CallRecord(0, "draft", "draft")]}, "times of its draft"),
        ({"calls": [call("nap", 0.0, 1.0, 2.0)]}, "unknown kind 'nap'"),  # type: ignore[arg-type]
    ],
)
def test_times_that_do_not_follow_one_another_are_named(flaw: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"chain 1 of question 0: .*{named}"):
        chain_spans(replace(two_turns(), **flaw))


@given(chain_records(), st.data())
def test_the_check_finds_any_span_that_was_dropped_moved_or_renamed(record: ChainRecord, data: st.DataObject) -> None:
    spans = [span for span in chain_spans(record) if span.duration_s > 0]
    if not spans:
        return
    place = data.draw(st.integers(0, len(spans) - 1))
    span = spans[place]
    changed: list[Span] = data.draw(
        st.sampled_from(
            [
                [],
                [span, span],
                [replace(span, t_end_s=span.t_end_s + 1)],
                [replace(span, t_start_s=span.t_start_s - 1)],
                [replace(span, kind="bank" if span.kind == "barrier" else "barrier")],
                [replace(span, chain=ChainId(7, 7))],
            ]
        )
    )
    with pytest.raises(ValueError, match=r"follow|end|calls and waits"):
        check_tiling(record, [*spans[:place], *changed, *spans[place + 1 :]])


# -- totals


def test_seconds_are_summed_over_chains_by_kind_and_turn() -> None:
    found = seconds_by_turn(chain_spans(two_turns()) + chain_spans(replace(two_turns(), index=2)))
    assert found == {
        "draft": [1.5, 0.0],
        "score": [0.5, 0.0],
        "takeover": [1.0, 0.0],
        "grade": [0.0, 0.0],
        "queue": [1.5, 0.0],
        "failed": [0.0, 2.0],
        "dropped": [0.0, 0.0],
        "bank": [0.5, 0.0],
        "barrier": [2.0, 0.0],
        "admission": [2.5, 0.0],
        "driver": [1.5, 0.5],
    }


@given(runs())
def test_the_totals_are_the_lives_of_the_chains(records: list[ChainRecord]) -> None:
    spans = [span for record in records for span in chain_spans(record)]
    lived = sum(s[-1].t_end_s - s[0].t_start_s for s in map(chain_spans, records) if s)
    assert sum(map(sum, seconds_by_turn(spans).values())) == pytest.approx(lived)


# -- engines


def test_an_engine_s_time_is_told_by_the_number_of_calls_in_service() -> None:
    calls = [call("draft", 0, 1, 4), call("draft", 0, 2, 6), call("draft", 0, 8, 9), call("draft", 0, None, 10)]
    use = engine_use([ChainRecord(0, i, "q", calls=[c]) for i, c in enumerate(calls)], wall_s=10.0)["draft"]
    assert [ns / 1e9 for ns in use.at_ns] == [4.0, 4.0, 2.0]
    assert (use.busy_ns, use.idle_ns, use.wall_ns) == (6 * 10**9, 4 * 10**9, 10**10)


def test_roles_that_share_an_engine_are_busy_together_once() -> None:
    record = ChainRecord(0, 0, "q", calls=[call("draft", 0, 0, 4), call("score", 0, 2, 6)])
    apart = engine_use([record], 8.0)
    shared = engine_use([record], 8.0, {"draft": "both", "target": "both"})
    assert {name: use.busy_ns for name, use in apart.items()} == {"draft": 4 * 10**9, "target": 4 * 10**9}
    assert {name: use.at_ns for name, use in shared.items()} == {"both": (2 * 10**9, 4 * 10**9, 2 * 10**9)}


@given(runs(), st.floats(0, 100))
def test_busy_and_idle_make_up_the_wall_exactly_and_service_is_conserved(
    records: list[ChainRecord], more_s: float
) -> None:
    wall_s = max((record.t_end_s for record in records), default=0.0) + more_s
    for name, use in engine_use(records, wall_s).items():
        assert use.busy_ns + use.idle_ns == use.wall_ns == to_ns(wall_s)
        assert all(ns >= 0 for ns in use.at_ns)
        served = [c for r in records for c in r.calls if c.engine == name and c.t_start_s is not None]
        in_service = sum(to_ns(c.t_end_s or 0.0) - to_ns(c.t_start_s or 0.0) for c in served)
        assert sum(k * ns for k, ns in enumerate(use.at_ns)) == in_service


def test_a_call_after_the_wall_is_refused() -> None:
    with pytest.raises(ValueError, match="after the wall"):
        engine_use([ChainRecord(0, 0, "q", calls=[call("draft", 0, 1, 4)])], 3.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda ends: (min(ends), max(ends)))))
def test_the_level_is_the_number_of_open_intervals(intervals: list[tuple[int, int]]) -> None:
    times, counts = level(intervals)
    assert times.tolist() == sorted({end for interval in intervals for end in interval})
    for time, number in zip(times, counts, strict=True):
        assert number == sum(start <= time < end for start, end in intervals)
