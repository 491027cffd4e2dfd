"""Chains over time: a row a chain, coloured by what it did or waited for; how many calls each engine served below."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from atts_runtime.profiler.perfetto import Sample
from atts_runtime.profiler.spans import SPAN_KINDS, Span, SpanKind, level, to_ns
from atts_runtime.report.amounts import percent
from atts_runtime.report.facts import RunFacts
from atts_runtime.report.shown import Shown
from atts_runtime.report.theme import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    MUTED,
    OLIVE,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    drawing,
    inline_svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS: dict[SpanKind, str] = {
    "draft": SKY,
    "score": GREEN,
    "takeover": BLUE,
    "queue": GREY,
    "grade": OLIVE,
    "failed": INK,
    "dropped": MUTED,
    "barrier": RED,
    "bank": ORANGE,
    "admission": FAINT,
    "driver": PURPLE,
}
_GROUPS: tuple[tuple[str, tuple[SpanKind, ...]], ...] = (
    ("in service", ("draft", "score", "takeover", "grade")),
    ("in a queue", ("queue",)),
    ("stalled", ("barrier", "bank")),
    ("between commands", ("driver",)),
    ("in failed calls", ("failed",)),
    ("in calls given up", ("dropped",)),
)
_WIDTH_PT = 700
_LEAST_PT = 0.15  # narrower spans are not seen
_BINS = 500
_NAME = 18  # characters of a question


def gantt(run: RunFacts, name: str, most_rows: int) -> Shown:
    """The run's first chains in up to `most_rows` rows."""
    shown = run.spans[:most_rows]
    begin = min((s.t_start_s for spans in shown for s in spans if s.kind != "admission"), default=0.0)
    end = max((spans[-1].t_end_s for spans in shown if spans), default=begin)
    end = end if end > begin else begin + 1e-9
    roles = sorted({call.engine for record in run.records for call in record.calls})
    kept = [s for s in run.telemetry if s.metric == "kv" and begin <= s.t_s <= end]
    heights = [0.25 + 0.12 * len(shown), *(0.42 for _ in roles), *([0.42] if kept else [])]
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        figure = Figure(figsize=(8.4, 0.9 + sum(heights)), layout="constrained")
        rows, *strips = (
            figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False).ravel().tolist()
        )
        _rows(rows, shown, (begin, end))
        _questions(rows, run, len(shown))
        for axes, role in zip(strips, roles, strict=False):
            _strip(axes, run, role, (begin, end))
        if kept:
            _kv(strips[-1], kept)
        [rows, *strips][-1].set_xlabel("seconds since the run began")
        rows.set_xlim(begin, end)
        kinds = [kind for kind in SPAN_KINDS if any(s.kind == kind for spans in shown for s in spans)]
        handles = [Patch(color=_COLORS[kind], label=kind) for kind in kinds]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(kinds), columnspacing=1.2, handlelength=1.2)
        svg = inline_svg(figure, name, f"Chains of {run.label} over time")
    note = f"The first {len(shown)} of {len(run.spans)} chains." if len(shown) < len(run.spans) else "All chains."
    note += " Below: calls in service at each engine, of all chains"
    note += ", and the KV that it holds. Measured." if kept else ". Measured."
    return Shown(_finding(run), svg, note)


def _rows(axes: Axes, shown: Sequence[Sequence[Span]], window: tuple[float, float]) -> None:
    """One path for each kind of span: its rectangles, those next to each other in one."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    begin, end = window
    least = _LEAST_PT / _WIDTH_PT * (end - begin)
    corners: dict[SpanKind, list[tuple[float, float]]] = defaultdict(list)
    for place, spans in enumerate(shown):
        for span in spans:
            start, stop = max(span.t_start_s, begin), min(span.t_end_s, end)
            if stop - start >= least:
                low, high = place - 0.42, place + 0.42
                corners[span.kind] += [(start, low), (start, high), (stop, high), (stop, low), (start, low)]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for kind, points in corners.items():
        path = Path(points, codes * (len(points) // 5))
        axes.add_patch(PathPatch(path, facecolor=_COLORS[kind], lw=0, clip_on=False))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False)


def _questions(axes: Axes, run: RunFacts, rows: int) -> None:
    """A tick at each question's first chain."""
    firsts: dict[int, int] = {}
    for place, record in enumerate(run.records[:rows]):
        firsts.setdefault(record.question, place)
    names = [f"{question}: {' '.join(run.records[place].question_id.split())}" for question, place in firsts.items()]
    axes.set_yticks(
        list(firsts.values()), [name if len(name) <= _NAME else name[: _NAME - 3] + "..." for name in names]
    )
    for place in list(firsts.values())[1:]:
        axes.axhline(place - 0.5, color=INK, lw=0.5)


def _strip(axes: Axes, run: RunFacts, role: str, window: tuple[float, float]) -> None:
    """Mean number of calls in service in each of a few hundred stretches of time."""
    begin, end = window
    calls = [
        (to_ns(call.t_start_s), to_ns(call.t_end_s))
        for record in run.records
        for call in record.calls
        if call.engine == role and call.t_start_s is not None and call.t_end_s is not None
    ]
    edges = np.linspace(begin, end, _BINS + 1)
    times, counts = level(calls)
    seconds = times / 1e9
    # The integral of the step function, read off at the edges.
    integral = np.concatenate([[0.0], np.cumsum(counts[:-1] * np.diff(seconds))]) if len(seconds) else np.zeros(0)
    at = np.interp(edges, seconds, integral) if len(seconds) else np.zeros(len(edges))
    means = np.diff(at) / np.diff(edges)
    axes.stairs(means, edges, fill=True, color=_engine_color(role), lw=0)
    axes.set_ylabel(role, rotation=0, ha="right", va="center")
    axes.set_ylim(bottom=0)
    axes.set_yticks([0, max(1, round(float(means.max(initial=0.0))))])


def _kv(axes: Axes, kept: Sequence[Sample]) -> None:
    """Tokens of KV that each engine holds, as sampled."""
    for engine in dict.fromkeys(sample.engine for sample in kept):
        points = [(sample.t_s, sample.value) for sample in kept if sample.engine == engine]
        axes.plot(*zip(*points, strict=True), ".-", color=_engine_color(engine), lw=1, markersize=3)
    axes.set_ylabel("KV, tokens", rotation=0, ha="right", va="center")
    axes.set_ylim(bottom=0)
    axes.set_yticks([0, max(1, round(max(sample.value for sample in kept)))])


def _engine_color(engine: str) -> str:
    return SKY if engine == "draft" else BLUE


def _finding(run: RunFacts) -> str:
    by_kind: dict[SpanKind, float] = defaultdict(float)
    for span in chain.from_iterable(run.spans):
        by_kind[span.kind] += span.duration_s
    total = run.chain_s or 1.0
    shares = [(name, sum(by_kind[kind] for kind in kinds) / total) for name, kinds in _GROUPS]
    told = [f"{percent(share, 0)} {name}" for name, share in shares if share >= 0.005]
    return f"Chains of {run.label} spend their time in flight {', '.join(told)}"
