"""The rules that a trace must keep to be drawn as meant; viewers drop or misplace what breaks them without a word.

1. Each event has the fields of its kind, with a name and a time that is a number from 0 on.
2. The slices (`X`) of a thread nest: of two, one holds the other or they do not overlap.
3. Asynchronous slices begin (`b`) and end (`e`) in pairs, the end no earlier; no two pairs share an id.
4. A flow's id has one start (`s`) and one finish (`f`, with ``"bp": "e"``), in this order of time, each inside a slice
   of its thread. A slice holds its start but not its end, unless they are one.
5. The times of a counter rise.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

_FIELDS: dict[str, tuple[str, ...]] = {
    "M": ("name", "pid", "args"),
    "X": ("name", "pid", "tid", "ts", "dur"),
    "b": ("name", "cat", "pid", "id", "ts"),
    "e": ("name", "cat", "pid", "id", "ts"),
    "s": ("name", "cat", "pid", "tid", "id", "ts"),
    "f": ("name", "cat", "pid", "tid", "id", "ts", "bp"),
    "i": ("name", "pid", "tid", "ts", "s"),
    "C": ("name", "pid", "ts", "args"),
}

_Slices = Mapping[tuple[int, int], list[tuple[int, int]]]


def validate(trace: Any) -> list[str]:
    """What is wrong with a trace, a line each; nothing if it keeps the rules. n log n in its events."""
    events = trace.get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list):
        return ["the trace has no list traceEvents"]
    complaints = []
    by_phase: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for place, event in enumerate(events):
        flaw = _flaw(event)
        if flaw is None:
            by_phase[event["ph"]].append((place, event))
        else:
            complaints.append(f"event {place}: {flaw}")
    slices: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for _, event in by_phase["X"]:
        start = _ns(event["ts"])
        slices[event["pid"], event["tid"]].append((start, start + _ns(event["dur"])))
    for of_thread in slices.values():
        of_thread.sort(key=lambda slice_: (slice_[0], -slice_[1]))
    complaints += _nesting(slices)
    complaints += _pairs(by_phase["b"], by_phase["e"])
    complaints += _flows(by_phase["s"], by_phase["f"], slices)
    complaints += _counters(by_phase["C"])
    return complaints


def _ns(time_us: float) -> int:
    return round(time_us * 1000)


def _flaw(event: Any) -> str | None:
    """What is wrong with one event by itself."""
    if not isinstance(event, dict) or event.get("ph") not in _FIELDS:
        return f"no known phase: {event!r}"
    missing = [field for field in _FIELDS[event["ph"]] if field not in event]
    if missing:
        return f"phase {event['ph']} lacks {', '.join(missing)}"
    if not isinstance(event["name"], str) or not event["name"]:
        return f"no name: {event['name']!r}"
    for field in ("pid", "tid"):
        if type(event.get(field, 0)) is not int:
            return f"{field} is no whole number: {event[field]!r}"
    for field in ("ts", "dur"):
        if not _is_number(event.get(field, 0)) or event.get(field, 0) < 0:
            return f"{field} is no number from 0 on: {event[field]!r}"
    if not isinstance(event.get("id", 0), int | str):
        return f"id is neither a number nor a text: {event['id']!r}"
    if event["ph"] == "C" and not (
        isinstance(event["args"], dict) and event["args"] and all(map(_is_number, event["args"].values()))
    ):
        return f"a counter's args are no numbers: {event['args']!r}"
    if event["ph"] == "f" and event["bp"] != "e":
        return f"a flow's finish has bp {event['bp']!r}, not 'e'"
    return None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _nesting(slices: _Slices) -> list[str]:
    complaints = []
    for (pid, tid), of_thread in slices.items():
        open_ends: list[int] = []
        for start, end in of_thread:
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            if open_ends and end > open_ends[-1]:
                complaints.append(f"thread {pid}/{tid}: the slice of {start}..{end} ns overlaps one to {open_ends[-1]}")
            open_ends.append(end)
    return complaints


def _pairs(begins: list[tuple[int, dict[str, Any]]], ends: list[tuple[int, dict[str, Any]]]) -> list[str]:
    complaints = []
    opened: dict[tuple[Any, ...], int] = {}
    for place, event in begins:
        if _key(event) in opened:
            complaints.append(f"event {place}: asynchronous id {event['id']!r} begins twice")
        opened[_key(event)] = _ns(event["ts"])
    closed = set()
    for place, event in ends:
        if _key(event) not in opened or _key(event) in closed:
            complaints.append(f"event {place}: asynchronous id {event['id']!r} ends without a beginning")
        elif _ns(event["ts"]) < opened[_key(event)]:
            complaints.append(f"event {place}: asynchronous id {event['id']!r} ends before it begins")
        closed.add(_key(event))
    never = opened.keys() - closed
    return complaints + [f"asynchronous id {key[-1]!r} never ends" for key in sorted(never, key=repr)]


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["pid"], event["cat"], event["name"], event["id"]


def _flows(
    starts: list[tuple[int, dict[str, Any]]], finishes: list[tuple[int, dict[str, Any]]], slices: _Slices
) -> list[str]:
    complaints = []
    ends: dict[str, dict[Any, int]] = {"s": {}, "f": {}}
    holds = {thread: _Holds(of_thread) for thread, of_thread in slices.items()}
    for place, event in starts + finishes:
        time = _ns(event["ts"])
        if event["id"] in ends[event["ph"]]:
            complaints.append(f"event {place}: flow {event['id']!r} has two events {event['ph']}")
        ends[event["ph"]][event["id"]] = time
        thread = event["pid"], event["tid"]
        if thread not in holds or not holds[thread].any(time):
            complaints.append(f"event {place}: flow {event['id']!r} is in no slice at {time} ns")
    for flow in sorted(ends["s"].keys() ^ ends["f"].keys(), key=repr):
        complaints.append(f"flow {flow!r} has only one end")
    for flow in ends["s"].keys() & ends["f"].keys():
        if ends["f"][flow] < ends["s"][flow]:
            complaints.append(f"flow {flow!r} finishes before it starts")
    return complaints


class _Holds:
    """Whether any slice of a thread holds a time."""

    def __init__(self, sorted_slices: list[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in sorted_slices]
        self._latest_end = list(accumulate((end for _, end in sorted_slices), max))

    def any(self, time: int) -> bool:
        before = bisect_right(self._starts, time) - 1
        return before >= 0 and (self._latest_end[before] > time or self._starts[before] == time)


def _counters(counters: list[tuple[int, dict[str, Any]]]) -> list[str]:
    complaints = []
    last: dict[tuple[int, str], int] = {}
    for place, event in counters:
        counter, time = (event["pid"], event["name"]), _ns(event["ts"])
        if time <= last.get(counter, -1):
            complaints.append(f"event {place}: counter {event['name']!r} goes back in time")
        last[counter] = time
    return complaints
