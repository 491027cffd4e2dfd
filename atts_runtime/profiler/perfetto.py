"""A run as a trace for ui.perfetto.dev, in the Trace Event Format of Chrome.

    process `chains`       a thread a chain: the chain, in it its turns, in them its spans. Flows lead from a draft to
                           its score and from a score's verdict to the takeover. Counters: chains held, by cause.
                           Instants: alarms, at the score of the turn that set them off, or else at the chain's end
                           (the records have no closer time).
    a process an engine    calls in service as asynchronous slices, since they overlap; counters of calls queued and in
                           service, and what telemetry has: KV tokens, the thread's busy share, decoded rows a second.

Times are microseconds on the run's clock with three decimals: whole nanoseconds, so that neighbours meet exactly.
What a model wrote (text, answer, a failure's detail) is left out unless asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby, pairwise
from typing import Any

from atts_runtime.profiler.spans import CAUSES, WORK, Span, chain_spans, level, lifetime_s, to_ns
from atts_runtime.records import CallRecord, ChainRecord

Event = dict[str, Any]
CHAINS_PID = 1

_TOTALS = {"busy": ("thread busy, %", 100.0), "decode_rows": ("decoded rows/s", 1.0)}
"""Running totals of `EngineStats` in the telemetry, shown as rates: the counter's name, and the scale of its rate."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A telemetry reading: `metric` of an engine at `t_s` on the run's clock; `source` as measured or fake."""

    t_s: float
    engine: str
    metric: str
    value: float
    unit: str
    source: str


def trace(
    records: Sequence[ChainRecord],
    telemetry: Iterable[Sample] = (),
    *,
    engines: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
    with_text: bool = False,
) -> dict[str, Any]:
    """The trace of a run: an object for `json.dump`.

    Args:
        engines: the engine behind a role (default: the role), for roles that share one.
        about: what the run was; shown under the trace's information.
        with_text: put what the models wrote into the chains' arguments.

    Raises InputError where a record's times do not follow one another.
    """
    names = engines or {}
    processes = _Processes()
    events = _name(CHAINS_PID, "process_name", "chains")
    flows = count(1)
    for tid, record in enumerate(records, 1):
        label = f"{record.question}/{record.index} {record.question_id}"
        events += _name(CHAINS_PID, "thread_name", label, tid)
        events += _chain(record, tid, label, flows, with_text)
    events += _held(records)
    served: dict[str, list[tuple[ChainRecord, CallRecord]]] = defaultdict(list)
    for record in records:
        for call in record.calls:
            served[names.get(call.engine, call.engine)].append((record, call))
    ids = count(1)
    for engine in sorted(served):
        events += _engine(processes.pid(engine), served[engine], ids)
    events += _telemetry(telemetry, names, processes)
    return {"traceEvents": processes.names() + events, "displayTimeUnit": "ms", "otherData": dict(about or {})}


class _Processes:
    """A process id for each engine, in the order of first use."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}

    def pid(self, engine: str) -> int:
        return self._pids.setdefault(engine, CHAINS_PID + 1 + len(self._pids))

    def names(self) -> list[Event]:
        return [event for engine, pid in self._pids.items() for event in _name(pid, "process_name", f"engine {engine}")]


def _name(pid: int, what: str, name: str, tid: int = 0) -> list[Event]:
    return [{"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}]


def _us(time_ns: int) -> float:
    return time_ns / 1000


# -- chains


def _chain(record: ChainRecord, tid: int, label: str, flows: Iterator[int], with_text: bool) -> Iterator[Event]:
    at = {"pid": CHAINS_PID, "tid": tid}
    start, end = map(to_ns, lifetime_s(record))
    told: dict[str, Any] = {"question_id": record.question_id, "reason": record.reason, "correct": record.correct}
    if with_text:
        told |= {"text": record.text, "answer": record.answer, "detail": record.detail}
    yield _slice(at, f"chain {label}", "chain", start, end, told)
    spans = chain_spans(record)
    for turn, group in groupby(spans, key=lambda span: span.turn):
        of_turn = list(group)
        yield _slice(at, f"turn {turn}", "turn", to_ns(of_turn[0].t_start_s), to_ns(of_turn[-1].t_end_s), {})
        for span in of_turn:
            call = None if span.call is None else record.calls[span.call]
            args = {} if call is None else _told(call)
            yield _slice(at, span.kind, _category(span), to_ns(span.t_start_s), to_ns(span.t_end_s), args)
    yield from _flows(at, spans, flows)
    scored = {span.turn: to_ns(span.t_end_s) for span in spans if span.kind == "score"}
    for alarm in record.alarms:
        told = {"monitor": alarm.monitor, "kind": alarm.kind, "after": alarm.after}
        time = _us(scored.get(alarm.turn, end))
        yield {**at, "ph": "i", "s": "t", "name": f"alarm: {alarm.monitor}", "cat": "alarm", "ts": time, "args": told}


def _category(span: Span) -> str:
    return "service" if span.kind in WORK else "call" if span.call is not None else "wait"


def _slice(at: Mapping[str, int], name: str, category: str, start: int, end: int, args: Mapping[str, Any]) -> Event:
    return {
        **at,
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": _us(start),
        "dur": _us(end - start),
        "args": dict(args),
    }


def _told(call: CallRecord) -> dict[str, Any]:
    """What is known about a call; what is not is left out."""
    told: dict[str, Any] = {"engine": call.engine, "attempts": call.attempts}
    if call.t_start_s is not None:
        told |= {
            "tokens_new": call.tokens_new,
            "tokens_cached": call.tokens_cached,
            "tokens_prefilled": call.tokens_prefilled,
            "tokens_recomputed": call.tokens_recomputed,
        }
    more = {name: getattr(call, name) for name in ("flops", "bytes", "ell", "p_value", "alpha", "taken_over", "bank")}
    return told | {name: value for name, value in more.items() if value is not None}


def _flows(at: Mapping[str, int], spans: Sequence[Span], ids: Iterator[int]) -> Iterator[Event]:
    """Arrows between the calls of a turn. They leave in a slice's last nanosecond: its end belongs to the next."""
    served = [span for span in spans if span.kind in WORK]
    for one, other in pairwise(served):
        match one.kind, other.kind:
            case "draft", "score":
                name = "draft to score"
            case "score", "takeover":
                name = "verdict to takeover"
            case _:
                continue
        if one.turn != other.turn:
            continue
        flow = {**at, "name": name, "cat": "flow", "id": next(ids)}
        start, end = to_ns(one.t_start_s), to_ns(one.t_end_s)
        yield {**flow, "ph": "s", "ts": _us(max(start, end - 1))}
        yield {**flow, "ph": "f", "bp": "e", "ts": _us(to_ns(other.t_start_s))}


def _held(records: Sequence[ChainRecord]) -> Iterator[Event]:
    for cause in CAUSES:
        waits = [
            (to_ns(h.t_start_s), to_ns(h.t_end_s)) for record in records for h in record.holds_s if h.cause == cause
        ]
        name = "chains held: admission" if cause == "admission" else f"chains stalled: {cause}"
        yield from _level(CHAINS_PID, name, "chains", waits)


def _level(pid: int, name: str, unit: str, intervals: Sequence[tuple[int, int]]) -> Iterator[Event]:
    """A counter of how many intervals are open."""
    for time, number in zip(*level(intervals), strict=True):
        yield _counter(pid, name, unit, int(time), int(number))


def _counter(pid: int, name: str, unit: str, time_ns: int, value: float) -> Event:
    return {"ph": "C", "pid": pid, "name": name, "ts": _us(time_ns), "args": {unit: value}}


# -- engines


def _engine(pid: int, calls: Sequence[tuple[ChainRecord, CallRecord]], ids: Iterator[int]) -> Iterator[Event]:
    queued: list[tuple[int, int]] = []
    in_service: list[tuple[int, int]] = []
    for record, call in calls:
        if call.t_start_s is None or call.t_end_s is None:
            continue
        start, end = to_ns(call.t_start_s), to_ns(call.t_end_s)
        queued.append((to_ns(call.t_queued_s), start))
        in_service.append((start, end))
        about = {"pid": pid, "tid": 0, "cat": "engine", "name": call.kind, "id": next(ids)}
        args = {"chain": f"{record.question}/{record.index}", "turn": call.turn, **_told(call)}
        yield {**about, "ph": "b", "ts": _us(start), "args": args}
        yield {**about, "ph": "e", "ts": _us(end)}
    yield from _level(pid, "calls queued", "calls", queued)
    yield from _level(pid, "calls in service", "calls", in_service)


def _telemetry(samples: Iterable[Sample], names: Mapping[str, str], processes: _Processes) -> Iterator[Event]:
    """A counter for each metric of an engine. Roles that share an engine report the same: the first is shown."""
    series: dict[tuple[str, str, str, str], dict[str, dict[int, float]]] = {}
    for sample in samples:
        engine = names.get(sample.engine, sample.engine)
        by_role = series.setdefault((engine, sample.metric, sample.unit, sample.source), {})
        by_role.setdefault(sample.engine, {})[to_ns(sample.t_s)] = sample.value
    for (engine, metric, unit, source), by_role in series.items():
        readings = sorted(by_role[min(by_role)].items())
        name = f"{metric}, {unit}"
        if metric in _TOTALS:
            name, scale = _TOTALS[metric]
            readings = [
                (t, scale * 1e9 * (total - before) / (t - earlier))
                for (earlier, before), (t, total) in pairwise(readings)
            ]
        if source != "measured":
            name += f" ({source})"
        for time, value in readings:
            yield _counter(processes.pid(engine), name, unit, time, value)
