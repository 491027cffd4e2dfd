"""Spans: where every second of every chain went, and how long each engine had calls in service.

A chain's spans tile its life, from its first command (a call or a wait) to its end, without gap or overlap:

    draft score            in service at an engine: from the step that let the call in to its answer. Other calls
    takeover grade         share those steps, so this is time, not work.
    queue                  from the driver's request to the engine's start: for a slot, for a row of the batch, for a
                           prompt to be fed. Where a call was tried again, its earlier attempts and the pauses between
                           them are in here: the records keep the times of the last attempt only.
    failed                 a call that no engine answered; the records do not tell its queue from its service.
    dropped                a call that nobody waited for any more, because its chain was stopped; likewise.
    barrier bank           stall: held by the policy, for the other chains or for the pre-sampled bank.
    admission              held until the chain's question was let in flight.
    driver                 what is left between an answer and the next command: event loop, controller, extraction of
                           answers, all in Python.

There is no span `kv`. The embedded engine never lets a call wait for KV room; it drops idle chains, and what is then
computed again lies inside the next service (`tokens_recomputed`). For an engine that does make calls wait, the
records cannot tell that wait from `queue`: `Usage` would need the time at which a call had all but its room.

Times are seconds on the run's clock, which goes on over sessions. A resumed run has no record of what an earlier
session did for chains that it did not finish.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from atts_runtime.control import ChainId
from atts_runtime.control.commands import Cause
from atts_runtime.errors import InputError
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord, Kind

SpanKind = Kind | Cause | Literal["queue", "failed", "dropped", "driver"]
WORK: tuple[Kind, ...] = get_args(Kind)
CAUSES: tuple[Cause, ...] = get_args(Cause)
SPAN_KINDS: tuple[SpanKind, ...] = (*WORK, "queue", "failed", "dropped", *CAUSES, "driver")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a chain's life. `turn` is that of the call, or of the last call before a wait (0: none yet);
    `call` is the call's place among the chain's calls, None for what is no part of a call."""

    chain: ChainId
    turn: int
    kind: SpanKind
    t_start_s: float
    t_end_s: float
    call: int | None = None

    @property
    def duration_s(self) -> float:
        return self.t_end_s - self.t_start_s


def lifetime_s(record: ChainRecord) -> tuple[float, float]:
    """A chain's first command and its end; both are its end where it had no command."""
    starts = [hold.t_start_s for hold in record.holds_s[:1]] + [call.t_queued_s for call in record.calls[:1]]
    return min(starts, default=record.t_end_s), record.t_end_s


def chain_spans(record: ChainRecord) -> list[Span]:
    """The spans of a chain in order; n log n in its calls and waits. Waits of no length are left out.

    Raises InputError where the record's times do not follow one another.
    """
    _check_times(record)
    cursor, end = lifetime_s(record)
    turn = record.calls[0].turn if record.calls else 0
    spans: list[Span] = []

    def until(time_s: float, kind: SpanKind, call: int | None = None, *, always: bool = False) -> None:
        nonlocal cursor
        if time_s > cursor or always:
            spans.append(Span(record.chain, turn, kind, cursor, time_s, call))
        cursor = time_s

    for start, stop, step in _steps(record):
        if start < cursor or stop < start:
            raise InputError(f"chain {_name(record)}: what begins at {start!r} s overlaps what ends at {cursor!r} s")
        until(start, "driver")
        if isinstance(step, HoldRecord):
            until(stop, cast(Cause, step.cause))
            continue
        call = record.calls[step]
        turn = call.turn
        if call.t_start_s is None:
            until(stop, _lost(call), step, always=True)
        else:
            until(call.t_start_s, "queue", step)
            until(stop, call.kind, step, always=True)
    if end < cursor:
        raise InputError(f"chain {_name(record)}: it ends at {end!r} s, before its last command's {cursor!r} s")
    until(end, "driver")
    return spans


def _steps(record: ChainRecord) -> list[tuple[float, float, int | HoldRecord]]:
    """Calls (by their place) and waits in the order of time."""
    steps: list[tuple[float, float, int | HoldRecord]] = [(h.t_start_s, h.t_end_s, h) for h in record.holds_s]
    steps += [(call.t_queued_s, _end_s(call), place) for place, call in enumerate(record.calls)]
    return sorted(steps, key=lambda step: step[:2])


def _lost(call: CallRecord) -> Literal["failed", "dropped"]:
    """Of a call whose service is not known: it never began, or nobody waited for its end."""
    return "dropped" if call.dropped else "failed"


def _end_s(call: CallRecord) -> float:
    assert call.t_end_s is not None  # `_check_times` saw to it
    return call.t_end_s


def _name(record: ChainRecord) -> str:
    return f"{record.index} of question {record.question}"


def _check_times(record: ChainRecord) -> None:
    """Raises InputError unless every time is a number that fits its neighbours within a call or wait."""
    for hold in record.holds_s:
        if hold.cause not in CAUSES:
            raise InputError(f"chain {_name(record)}: unknown cause {hold.cause!r} of a wait")
        _ordered(record, "wait", hold.t_start_s, hold.t_end_s)
    for call in record.calls:
        if call.kind not in WORK:
            raise InputError(f"chain {_name(record)}: unknown kind {call.kind!r} of a call")
        middle = () if call.t_start_s is None else (call.t_start_s,)
        _ordered(record, call.kind, call.t_queued_s, *middle, call.t_end_s)
    _ordered(record, "end", record.t_end_s)


def _ordered(record: ChainRecord, what: str, *times_s: float | None) -> None:
    numbers = [t for t in times_s if isinstance(t, int | float) and math.isfinite(t) and t >= 0]
    if len(numbers) < len(times_s) or numbers != sorted(numbers):
        raise InputError(f"chain {_name(record)}: the times of its {what} are no rising seconds: {list(times_s)}")


def check_tiling(record: ChainRecord, spans: Sequence[Span]) -> None:
    """Raises ValueError unless the spans tile the chain's life exactly and say of each call and wait what it says."""
    start, end = lifetime_s(record)
    edges = [start, *(span.t_end_s for span in spans)]
    for span, before in zip(spans, edges, strict=False):
        if span.t_start_s != before or span.t_end_s < span.t_start_s or span.chain != record.chain:
            raise ValueError(f"{span} does not follow on {before!r} s")
    if edges[-1] != end:
        raise ValueError(f"the spans of chain {_name(record)} end at {edges[-1]!r} s, the chain at {end!r} s")
    told = [(s.kind, s.t_start_s, s.t_end_s) for s in spans if s.kind != "driver" and s.t_end_s > s.t_start_s]
    due: list[tuple[str, float, float]] = [(h.cause, h.t_start_s, h.t_end_s) for h in record.holds_s]
    for call in record.calls:
        if call.t_start_s is None:
            due.append((_lost(call), call.t_queued_s, _end_s(call)))
        else:
            due += [("queue", call.t_queued_s, call.t_start_s), (call.kind, call.t_start_s, _end_s(call))]
    if sorted(told) != sorted(wait for wait in due if wait[2] > wait[1]):
        raise ValueError(f"the spans of chain {_name(record)} are not its calls and waits")


def seconds_by_turn(spans: Iterable[Span]) -> dict[SpanKind, list[float]]:
    """Seconds of each kind of span by turn, summed over chains: stall by cause and turn, and all else."""
    parts: dict[tuple[SpanKind, int], list[float]] = defaultdict(list)
    for span in spans:
        parts[span.kind, span.turn].append(span.duration_s)
    turns = 1 + max((turn for _, turn in parts), default=-1)
    return {kind: [math.fsum(parts.get((kind, turn), ())) for turn in range(turns)] for kind in SPAN_KINDS}


# -- engines

Times = NDArray[np.int64]


def to_ns(time_s: float) -> int:
    """Seconds as whole nanoseconds, the clock's own grain: their sums are exact."""
    return round(time_s * 1e9)


@dataclass(frozen=True, slots=True)
class EngineUse:
    """How an engine's time goes by calls in service: `at_ns[k]` is the time with exactly k of them.

    The engine is *busy* while it has any call in service. `EngineStats.busy_s` is another number: the time in which
    the engine's thread ran a step. That leaves out the pauses between steps under load and includes steps that serve
    no started call: the prompts that calls wait for, calls that failed or were dropped, and other sessions' chains.
    """

    at_ns: tuple[int, ...]

    @property
    def wall_ns(self) -> int:
        return sum(self.at_ns)

    @property
    def busy_ns(self) -> int:
        return sum(self.at_ns[1:])

    @property
    def idle_ns(self) -> int:
        return self.at_ns[0]


def engine_use(
    records: Iterable[ChainRecord], wall_s: float, engines: Mapping[str, str] | None = None
) -> dict[str, EngineUse]:
    """Use of each engine over the run's [0, `wall_s`]; busy and idle add up to the wall exactly, in nanoseconds.

    `engines` names the engine behind a role (default: the role), for roles that share one. Calls without a start are
    not in service. n log n in the calls. Raises ValueError where a call ends after the wall.
    """
    names = engines or {}
    served: dict[str, list[tuple[int, int]]] = {name: [] for name in names.values()}
    for record in records:
        for call in record.calls:
            of_engine = served.setdefault(names.get(call.engine, call.engine), [])
            if call.t_start_s is not None:
                of_engine.append((to_ns(call.t_start_s), to_ns(_end_s(call))))
    return {name: _use(intervals, to_ns(wall_s)) for name, intervals in served.items()}


def _use(intervals: Sequence[tuple[int, int]], wall_ns: int) -> EngineUse:
    times, counts = level(intervals)
    if len(times) and times[-1] > wall_ns:
        raise ValueError(f"a call ends at {times[-1]} ns, after the wall's {wall_ns} ns")
    edges = np.concatenate([[0], times, [wall_ns]])
    at = np.zeros(1 + int(counts.max(initial=0)), dtype=np.int64)
    np.add.at(at, np.concatenate([[0], counts]), np.diff(edges))
    return EngineUse(tuple(int(ns) for ns in at))


def level(intervals: Sequence[tuple[int, int]]) -> tuple[Times, Times]:
    """How many [start, end) intervals, in whole nanoseconds, are open from each distinct time on. n log n."""
    ends = np.asarray(intervals, dtype=np.int64).reshape(-1, 2)
    times, place = np.unique(ends.ravel(), return_inverse=True)
    change = np.zeros(len(times), dtype=np.int64)
    np.add.at(change, place.ravel(), np.tile(np.array([1, -1], dtype=np.int64), len(ends)))
    return times, np.cumsum(change)
