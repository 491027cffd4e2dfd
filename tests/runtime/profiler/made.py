"""Records made by hand and at random, whose times follow one another as a driver's do."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from atts_runtime.records import AlarmRecord, CallRecord, ChainRecord, HoldRecord, Kind

# Zero is in it often: waits of no length, calls that are answered at once.
STEPS_S = st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 1e-8), st.floats(1e3, 1e5))


def call(kind: Kind, queued: float, start: float | None, end: float, turn: int = 0, **more: Any) -> CallRecord:
    """A call on the engine of its kind."""
    engine = "draft" if kind == "draft" else "target"
    return CallRecord(turn, kind, engine, t_queued_s=queued, t_start_s=start, t_end_s=end, **more)


@st.composite
def chain_records(draw: st.DrawFn, question: int = 0, index: int = 0) -> ChainRecord:
    """A chain of any number of turns; its last call may have failed before or after it reached its engine."""
    now = draw(STEPS_S)

    def later() -> float:
        nonlocal now
        now += draw(STEPS_S)
        return now

    record = ChainRecord(question, index, draw(st.text(max_size=4)), reason="turns", text="secret")

    def wait() -> None:
        for cause in draw(st.lists(st.sampled_from(["barrier", "bank", "admission"]), max_size=2)):
            later()
            record.holds_s.append(HoldRecord(cause, now, later()))

    def add(kind: Kind, turn: int) -> None:
        wait()
        record.calls.append(call(kind, later(), later(), later(), turn, taken_over=kind == "score"))

    turns = draw(st.integers(0, 4))
    for turn in range(turns):
        add("draft", turn)
        if draw(st.booleans()):
            add("score", turn)
            if draw(st.booleans()):
                add("takeover", turn)
        if draw(st.booleans()):
            record.alarms.append(AlarmRecord(turn, "drift", "ville", 3))
    if turns and draw(st.booleans()):
        record.reason = "failed"
        record.calls.append(call("draft", later(), later() if draw(st.booleans()) else None, later(), turns))
    wait()
    record.t_end_s = later()
    return record


def runs(most: int = 4) -> st.SearchStrategy[list[ChainRecord]]:
    """Records of the chains of a run."""
    return st.integers(0, most).flatmap(
        lambda number: st.tuples(*(chain_records(question=i // 2, index=i % 2) for i in range(number))).map(list)
    )
