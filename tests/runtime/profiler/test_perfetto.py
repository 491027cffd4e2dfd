"""Claims about traces: what they show, that they keep the rules, and that each broken rule is found."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from atts_runtime.control import POLICIES, ChainId
from atts_runtime.profiler.perfetto import CHAINS_PID, Sample, trace
from atts_runtime.profiler.spans import chain_spans, engine_use
from atts_runtime.profiler.validate import validate
from atts_runtime.records import AlarmRecord, ChainRecord, HoldRecord
from tests.runtime.profiler.made import call, runs
from tests.runtime.scripted import Fault, drive, pair, settings

Events = list[dict[str, Any]]


def by_hand() -> list[ChainRecord]:
    """Two chains: one drafts, is scored and taken over while the other, drafted at once, waits at a barrier."""
    worked = [
        call("draft", 0.0, 0.5, 1.0),
        call("score", 1.0, 1.0, 2.0, ell=3.5, p_value=0.02, alpha=0.1, taken_over=True, bank="presample"),
        call("takeover", 2.0, 2.25, 4.0, tokens_new=7),
    ]
    waited = [call("draft", 0.0, 0.5, 2.0)]
    holds = [HoldRecord("barrier", 2.0, 4.0)]
    return [
        ChainRecord(
            0, 0, 'q"1', "answered", answer="secret", text="secret", calls=worked,
            alarms=[AlarmRecord(0, "drift", "ville", 9)], t_end_s=4.0,
        ),
        ChainRecord(0, 1, 'q"1', "failed", "secret", calls=waited, holds_s=holds, t_end_s=4.0),
    ]  # fmt: skip


def events(made: dict[str, Any], phase: str, name: str | None = None) -> Events:
    return [e for e in made["traceEvents"] if e["ph"] == phase and name in (None, e["name"])]


def series(made: dict[str, Any], name: str) -> list[tuple[float, float]]:
    return [(e["ts"] / 1e6, *e["args"].values()) for e in events(made, "C", name)]


# -- what is shown


@given(runs())
def test_the_trace_of_any_run_keeps_the_rules_and_is_strict_json(records: list[ChainRecord]) -> None:
    made = trace(records)
    assert validate(made) == []
    assert json.loads(json.dumps(made, allow_nan=False)) == made


@pytest.mark.parametrize("policy", POLICIES)
def test_the_trace_of_a_run_keeps_the_rules_under_every_policy(policy: str) -> None:
    faults = {ChainId(0, 1): Fault("error", "generate", first=1), ChainId(1, 2): Fault("nan", "score")}
    records = list(drive(settings(policy), pair(target={"faults": faults})).records.values())
    made = trace(records)
    assert validate(made) == []
    calls = [c for record in records for c in record.calls]
    started = [c for c in calls if c.t_start_s is not None]
    assert len(events(made, "b")) == len(events(made, "e")) == len(started)
    assert Counter(e["name"] for e in events(made, "X") if e["cat"] == "service") == Counter(c.kind for c in started)
    flows = Counter(e["name"] for e in events(made, "s"))
    followed = [(a.kind, b.kind) for record in records for a, b in pairwise(record.calls) if b.t_start_s is not None]
    assert flows["draft to score"] == followed.count(("draft", "score"))
    assert flows["verdict to takeover"] == followed.count(("score", "takeover"))


def test_a_chain_holds_its_turns_and_they_their_spans() -> None:
    slices = [e for e in events(trace(by_hand()), "X") if e["tid"] == 1]
    assert [(e["name"], e["ts"] / 1e6, e["dur"] / 1e6) for e in slices] == [
        ('chain 0/0 q"1', 0.0, 4.0),
        ("turn 0", 0.0, 4.0),
        ("queue", 0.0, 0.5),
        ("draft", 0.5, 0.5),
        ("score", 1.0, 1.0),
        ("queue", 2.0, 0.25),
        ("takeover", 2.25, 1.75),
    ]
    assert slices[4]["args"].items() >= {"ell": 3.5, "p_value": 0.02, "alpha": 0.1, "bank": "presample"}.items()
    assert "ell" not in slices[3]["args"]


def test_flows_lead_from_draft_to_score_and_from_the_verdict_to_the_takeover() -> None:
    made = trace(by_hand())
    starts, finishes = events(made, "s"), events(made, "f")
    assert [(e["name"], e["ts"]) for e in starts] == [
        ("draft to score", 1e6 - 0.001),
        ("verdict to takeover", 2e6 - 0.001),
    ]
    assert [(e["id"], e["ts"], e["bp"]) for e in finishes] == [
        (starts[0]["id"], 1e6, "e"),
        (starts[1]["id"], 2.25e6, "e"),
    ]


def test_counters_tell_who_is_held_queued_and_in_service() -> None:
    made = trace(by_hand())
    assert series(made, "chains stalled: barrier") == [(2.0, 1), (4.0, 0)]
    pids = {e["args"]["name"]: e["pid"] for e in events(made, "M", "process_name")}
    assert pids.keys() == {"chains", "engine draft", "engine target"}
    of_draft = [e for e in events(made, "C") if e["pid"] == pids["engine draft"]]
    assert series({"traceEvents": of_draft}, "calls queued") == [(0.0, 2), (0.5, 0)]
    assert series({"traceEvents": of_draft}, "calls in service") == [(0.5, 2), (1.0, 1), (2.0, 0)]


def test_an_alarm_is_an_instant_at_its_turn_s_score() -> None:
    (alarm,) = events(trace(by_hand()), "i")
    assert (alarm["tid"], alarm["ts"], alarm["args"]["after"]) == (1, 2e6, 9)


def test_what_the_models_wrote_is_left_out_unless_asked_for() -> None:
    assert "secret" not in json.dumps(trace(by_hand()))
    assert json.dumps(trace(by_hand(), with_text=True)).count("secret") == 3


def test_telemetry_becomes_counters_and_running_totals_rates() -> None:
    readings = [("kv", 5.0, 9.0, "tokens"), ("busy", 0.5, 0.75, "s"), ("decode_rows", 10.0, 20.0, "rows")]
    samples = [
        Sample(t, "draft", metric, value, unit, "measured")
        for metric, *values, unit in readings
        for t, value in zip((0.5, 1.0), values, strict=True)  # type: ignore[arg-type]
    ]
    fake = Sample(0.5, "gpu", "power", 300.0, "W", "fake")
    made = trace(by_hand(), [*samples, fake])
    assert validate(made) == []
    assert series(made, "kv, tokens") == [(0.5, 5.0), (1.0, 9.0)]
    assert series(made, "thread busy, %") == [(1.0, pytest.approx(50.0))]
    assert series(made, "decoded rows/s") == [(1.0, pytest.approx(20.0))]
    assert series(made, "power, W (fake)") == [(0.5, 300.0)]


def test_roles_that_share_an_engine_share_a_process_and_its_telemetry_is_shown_once() -> None:
    samples = [Sample(t, role, "kv", 5.0, "tokens", "measured") for t in (0.5, 1.0) for role in ("draft", "target")]
    made = trace(by_hand(), samples, engines={"draft": "both", "target": "both"})
    assert validate(made) == []
    assert [e["args"]["name"] for e in events(made, "M", "process_name")] == ["engine both", "chains"]
    assert len(series(made, "kv, tokens")) == 2


@given(runs())
def test_the_counter_of_calls_in_service_is_the_engine_s_use(records: list[ChainRecord]) -> None:
    made = trace(records)
    use = engine_use(records, max((r.t_end_s for r in records), default=0.0))
    pids = {e["args"]["name"]: e["pid"] for e in events(made, "M", "process_name")}
    for name, of_engine in use.items():
        counts = [
            next(iter(e["args"].values()))
            for e in events(made, "C", "calls in service")
            if e["pid"] == pids[f"engine {name}"]
        ]
        assert max(counts, default=0) == len(of_engine.at_ns) - 1
        assert not counts or counts[-1] == 0


@given(runs())
def test_slices_last_as_long_as_their_spans(records: list[ChainRecord]) -> None:
    made = events(trace(records), "X")
    shown = [e for e in made if e["pid"] == CHAINS_PID and e["cat"] not in ("chain", "turn")]
    spans = [span for record in records for span in chain_spans(record)]
    assert [e["name"] for e in shown] == [span.kind for span in spans]
    assert [e["dur"] / 1e6 for e in shown] == pytest.approx([span.duration_s for span in spans], abs=2e-9)


# -- the rules


def broken(made: Events, phase: str, **changes: Any) -> None:
    next(e for e in made if e["ph"] == phase).update(changes)


def without(made: Events, phase: str) -> None:
    made.remove(next(e for e in made if e["ph"] == phase))


def again(made: Events, phase: str) -> None:
    made.append(copy.deepcopy(next(e for e in made if e["ph"] == phase)))


@pytest.mark.parametrize(
    ("mutate", "complaint"),
    [
        (lambda made: made.append("text"), "no known phase"),
        (lambda made: broken(made, "X", ph="Q"), "no known phase"),
        (lambda made: next(e for e in made if e["ph"] == "X").pop("dur"), "phase X lacks dur"),
        (lambda made: broken(made, "X", name=""), "no name"),
        (lambda made: broken(made, "X", pid="1"), "pid is no whole number"),
        (lambda made: broken(made, "X", ts=float("nan")), "ts is no number"),
        (lambda made: broken(made, "X", dur=-1.0), "dur is no number"),
        (lambda made: broken(made, "b", id=[1]), "id is neither"),
        (lambda made: broken(made, "C", args={"chains": "many"}), "args are no numbers"),
        (lambda made: broken(made, "f", bp="s"), "bp 's', not 'e'"),
        (lambda made: broken(made, "X", dur=2.1e6), "overlaps"),
        (lambda made: without(made, "e"), "never ends"),
        (lambda made: without(made, "b"), "ends without a beginning"),
        (lambda made: again(made, "b"), "begins twice"),
        (lambda made: again(made, "e"), "ends without a beginning"),
        (lambda made: broken(made, "e", ts=0.0), "ends before it begins"),
        (lambda made: broken(made, "e", id=99), "ends without a beginning"),
        (lambda made: without(made, "s"), "has only one end"),
        (lambda made: without(made, "f"), "has only one end"),
        (lambda made: again(made, "f"), "has two events f"),
        (lambda made: broken(made, "f", ts=0.0), "finishes before it starts"),
        (lambda made: broken(made, "s", ts=4e6), "is in no slice"),
        (lambda made: broken(made, "f", tid=9), "is in no slice"),
        (lambda made: broken(made, "C", ts=9e6), "goes back in time"),
    ],
)
def test_a_broken_rule_is_found(mutate: Callable[[Events], None], complaint: str) -> None:
    made = trace(by_hand())
    assert validate(made) == []
    mutate(made["traceEvents"])
    assert any(complaint in found for found in validate(made))


@pytest.mark.parametrize("nothing", [None, [], {}, {"traceEvents": {}}])
def test_what_is_no_trace_is_said_to_be_none(nothing: Any) -> None:
    assert validate(nothing) == ["the trace has no list traceEvents"]
