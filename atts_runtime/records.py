"""What a run remembers of each chain: one line per finished chain, enough to report on it and to replay it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_runtime.untrusted import json_of
from atts_runtime.wholenumbers import LARGEST_IN_TABLES

Kind = Literal["draft", "score", "takeover", "grade"]
STALL_CAUSES: tuple[Literal["barrier", "bank"], ...] = ("barrier", "bank")
"""Causes of a wait for other chains; waiting for admission is no stall."""

_T = TypeVar("_T")
_MOST_S = 2**63 / 1e9
"""Of a time: in nanoseconds, as `profiler.spans` counts them, it fits 64 bits."""
_MOST_REAL = 1e300
"""Of any other number: far above what is measured, and the sum over a run's calls is still finite."""


@dataclass(slots=True)
class CallRecord:
    """One engine call. Times in seconds since the run began; tokens in the engine's vocabulary.

    A score's row, or a draft's where the gate reads the text, also carries the verdict on its segment: `ell` in nats
    per token, `p_value` (None where the gate does not test), `alpha`, whether it was `rejected`, the `bank` that the
    p-value came from, its `outcome` (`control.commands.Outcome`), `taken_over` where that is the target's, and where it
    is a fork the chain (its index, `forked_from`) whose first turns, `forked_upto` of them, were copied. Draft and
    takeover rows carry what the driver read from the text. `attempt` counts the drafts of a turn, and their scores. A
    call that never reached its engine has no `t_start_s`; one that nobody waited for any more is `dropped`, and what it
    had written by then is not counted.

    `tokens_cached` and `tokens_recomputed` are None where a server does not say what it held (`engines.base.Usage`).
    `flops` and `bytes` are what its tokens demanded (`engines.base.Demand`), of which `prefill_flops` and
    `prefill_bytes` for its context; None where the engine does not count.
    """

    turn: int
    kind: Kind
    engine: str
    attempt: int = 0
    attempts: int = 1
    chars: int = 0
    tokens_new: int = 0
    tokens_cached: int | None = 0
    tokens_prefilled: int = 0
    tokens_recomputed: int | None = 0
    flops: int | None = None
    bytes: float | None = None
    prefill_flops: int | None = None
    prefill_bytes: float | None = None
    answered: bool | None = None
    ended: bool | None = None
    answer: str | None = None
    cue: bool | None = None
    ell: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    rejected: bool | None = None
    outcome: str | None = None
    taken_over: bool | None = None
    bank: str | None = None
    forked_from: int | None = None
    forked_upto: int | None = None
    dropped: bool = False
    t_queued_s: float = 0.0
    t_start_s: float | None = None
    t_end_s: float | None = None


@dataclass(slots=True)
class HoldRecord:
    """A wait for others: `cause` is bank, barrier or admission."""

    cause: str
    t_start_s: float
    t_end_s: float


@dataclass(slots=True)
class AlarmRecord:
    """A monitor's alarm that this chain set off in its `turn`: the `kind` of alarm, `after` how many of the monitor's
    scores."""

    turn: int
    monitor: str
    kind: str
    after: int


@dataclass(slots=True)
class ChainRecord:
    """A finished chain. `reason`: answered, ended (no answer), turns (ran out), stopped (by the rule that `detail`
    names), failed (`detail` says why). `correct` is None where the answer could not be checked. `weight`: of its vote,
    where votes are weighed.

    Everything that depends on the clock has a name in `_s`, `holds_s` too: who waits is a matter of who is last.
    """

    question: int
    index: int
    question_id: str
    reason: str = ""
    detail: str | None = None
    answer: str | None = None
    correct: bool | None = False
    weight: float | None = None
    turns: int = 0
    text: str = ""
    calls: list[CallRecord] = field(default_factory=list)
    alarms: list[AlarmRecord] = field(default_factory=list)
    holds_s: list[HoldRecord] = field(default_factory=list)
    t_admitted_s: float | None = None
    t_end_s: float = 0.0

    @property
    def chain(self) -> ChainId:
        return ChainId(self.question, self.index)

    def call(self, turn: int, kind: Kind, attempt: int = 0) -> CallRecord | None:
        """The call of a kind in a turn, if the chain made it."""
        return next((c for c in self.calls if c.turn == turn and c.kind == kind and c.attempt == attempt), None)

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(self, default=_by_name, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> ChainRecord:
        """Parse a line (bytes: UTF-8); raises InputError if it is not a chain record."""
        try:
            data: dict[str, Any] = json_of(line)
            parts = {name: _list(data, name, kind) for name, kind in _PARTS.items()}
            record = _checked(cls, data)
            record.calls, record.holds_s, record.alarms = parts["calls"], parts["holds_s"], parts["alarms"]
            _check_turns(record)
            return record
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"not a chain record: {error}") from error


_PARTS: dict[str, type[Any]] = {"calls": CallRecord, "holds_s": HoldRecord, "alarms": AlarmRecord}


def _list(data: dict[str, Any], name: str, kind: type[_T]) -> list[_T]:
    """Take the parts of a name out of a record's fields."""
    parts = data.pop(name)
    if not isinstance(parts, list):
        raise ValueError(f"{name} is no list")
    return [_checked(kind, part) for part in parts]


def _checked(kind: type[_T], data: dict[str, Any]) -> _T:
    """A record of these fields; raises ValueError where one has another type than it says, or is no such number."""
    record = kind(**data)
    limits = _LIMITS[kind]
    for name, value in data.items():
        most = limits[name].get(type(value))
        if most is None or (most and not -most <= value <= most):
            raise ValueError(f"{name} cannot be {value!r:.40}")
    return record


def _check_turns(record: ChainRecord) -> None:
    """Raises ValueError for a turn that the chain did not have: readers keep a row of each. A turn begins with a call,
    if the chain is not stopped before it."""
    if not 0 <= record.turns <= len(record.calls) + 1:
        raise ValueError(f"turns cannot be {record.turns} with {len(record.calls)} calls")
    for turn in [call.turn for call in record.calls] + [alarm.turn for alarm in record.alarms]:
        if not 0 <= turn <= record.turns:
            raise ValueError(f"turn cannot be {turn} in a chain of {record.turns} turns")


def _limits(name: str, hint: Any) -> dict[type, float]:
    """The types that JSON may give a field, and how far from 0 its numbers may be; 0: it is no number."""
    options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if float in options:
        most = _MOST_S if name.endswith("_s") else _MOST_REAL
        limits: dict[type, float] = {float: most, int: most}
    elif int in options:
        limits = {int: LARGEST_IN_TABLES}
    else:
        limits = {bool if bool in options else str: 0}
    return limits | ({NoneType: 0} if NoneType in options else {})


_KINDS: tuple[type[Any], ...] = (ChainRecord, CallRecord, HoldRecord, AlarmRecord)
_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in _KINDS}
_LIMITS = {
    cls: {name: _limits(name, hint) for name, hint in get_type_hints(cls).items() if name not in _PARTS}
    for cls in _KINDS
}


def _by_name(record: Any) -> dict[str, Any]:
    """A record's fields, for JSON. `dataclasses.asdict` would copy all that they hold, which takes most of the time."""
    names = _NAMES.get(type(record))
    if names is None:
        raise TypeError(f"a chain's record holds a {type(record).__name__}, which is not JSON")
    return {name: getattr(record, name) for name in names}
