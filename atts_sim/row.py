"""A row of results: one point of a study, its figures, where they come from, and what is doubtful about them.

Rows are written as JSON lines while a sweep runs and as one Parquet table when it ends. They hold nothing of the
machine or the hour, so that the same study comes to the same bytes.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from atts_runtime.records import STALL_CAUSES
from atts_runtime.untrusted import json_of
from atts_sim.metrics import Metrics
from atts_sim.options import ROLES, Value

QUANTILES = ("p50", "p95", "p99", "max")
_USE = ("busy_s", "idle_s", "append_s", "steps", "rows", "prefilled_tokens", "evictions", "kv_peak_tokens")
OF_METRICS: tuple[str, ...] = (
    "makespan_s",
    "questions",
    "chains",
    "requests",
    *(f"latency_s.{q}" for q in QUANTILES),
    *(f"first_answer_s.{q}" for q in QUANTILES),
    "questions_per_s",
    "tokens_per_s",
    "goodput_per_s",
    "takeover_rate",
    "takeovers_in_flight",
    "tokens.draft",
    "tokens.scored",
    "tokens.score_prefix_recomputed",
    "tokens.takeover",
    *(f"queue_s.{kind}" for kind in ("draft", "score", "takeover")),
    *(f"stall_s.{cause}" for cause in STALL_CAUSES),
    "admission_s",
    "lower_bound_s",
    "answered",
    "accuracy",
    "voted",
    "pass_at_m",
    *(f"{role}.{name}" for role in ROLES for name in _USE),
)
"""Figures of `atts_sim.metrics.Metrics`, by dotted name."""

BESIDE: tuple[str, ...] = (
    *(f"{role}.{name}" for role in ROLES for name in ("utilisation", "outside_share", "kv_share")),
    "devices",
    "device_s",
    "usd",
    "energy_bound_j",
    "load",
    "stall_s.all",
    "T_c_s",
    "T_m_s",
    "r",
)
"""What a row has beside them: shares of time and memory, what devices cost, how fast questions come beside how fast
they can be worked off (`saturation`), r and its terms."""

FIGURES = OF_METRICS + BESIDE
_TEXTS = ("verdict", "bottleneck")
WITH_ERROR = ("makespan_s", "latency_s.p50", "latency_s.p95", "takeover_rate", "answered", "accuracy", "voted", "usd")
"""Figures whose standard error is stated where a point was repeated, as NAME.se."""


@dataclass(frozen=True, slots=True)
class Row:
    """`point`: its place in the study; `fingerprint`: of all that its figures hang on. `error`: why there are none.

    figures       by name (`FIGURES`), means over repeats; None: not known. Also `verdict` and `bottleneck`
    by_turn       takeover rates
    sources       where each kind of number comes from
    warnings      what makes figures doubtful
    """

    point: int
    fingerprint: str
    parameters: Mapping[str, Value | None]
    figures: Mapping[str, float | int | str | None] = field(default_factory=dict)
    by_turn: tuple[float | None, ...] = ()
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def to_line(self) -> bytes:
        """As a line of JSON; floats come back bit for bit."""
        return json.dumps(asdict(self), allow_nan=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str) -> Row:
        """Raises ValueError, KeyError or TypeError where the line is no row."""
        entries = json_of(line)
        for name in ("by_turn", "sources", "warnings"):
            if not isinstance(entries[name], list):
                raise ValueError(f"{name} is no list")
            entries[name] = tuple(entries[name])
        row = cls(**entries)
        _check(row)
        return row


def _check(row: Row) -> None:
    """Raises ValueError where a field has another type than it says, or a number is none that `to_line` writes."""
    if type(row.point) is not int or not isinstance(row.parameters, dict) or not isinstance(row.figures, dict):
        raise ValueError("no row")
    numbers = [value for name, value in row.figures.items() if name not in _TEXTS] + list(row.by_turn)
    told = [row.error, *(row.figures.get(name) for name in _TEXTS)]
    texts = [row.fingerprint, *row.sources, *row.warnings, *(text for text in told if text is not None)]
    free = [value for value in row.parameters.values() if not isinstance(value, str)]
    if not all(map(_is_number, numbers + free)) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a row of other things than numbers and texts")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max)


def flat_metrics(metrics: Metrics) -> dict[str, float | int | None]:
    """Figures by the names of `OF_METRICS`."""
    told = asdict(metrics)
    found: dict[str, float | int | None] = {}
    for name in OF_METRICS:
        head, _, rest = name.partition(".")
        if head in ROLES:
            found[name] = told["engines"].get(head, {}).get(rest)
        elif rest:
            found[name] = None if told[head] is None else told[head].get(rest)
        else:
            found[name] = told[head]
    return found


def mean_figures(repeats: Sequence[Mapping[str, float | int | None]]) -> dict[str, float | int | str | None]:
    """Means over repeats, with standard errors beside those of `WITH_ERROR`; what one repeat lacks is not known."""
    if len(repeats) == 1:
        return dict(repeats[0])
    found: dict[str, float | int | str | None] = {}
    for name in repeats[0]:
        values = [figures[name] for figures in repeats]
        known = [float(value) for value in values if value is not None]
        whole = len(known) == len(values)
        mean = math.fsum(known) / len(known) if whole else None
        found[name] = mean
        if name in WITH_ERROR:
            spread = None if mean is None else math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
            found[f"{name}.se"] = None if spread is None else math.sqrt(spread / len(known))
    return found


def mean_by_turn(repeats: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    """Means over the repeats that have the turn."""
    turns = max(map(len, repeats), default=0)
    by_turn = [[r[t] for r in repeats if t < len(r) and r[t] is not None] for t in range(turns)]
    return tuple(math.fsum(v for v in values if v is not None) / len(values) if values else None for values in by_turn)
