"""Where each engine's wall time went: the roof's, overhead, idle."""

from __future__ import annotations

from collections.abc import Sequence

from atts_runtime.report.amounts import percent
from atts_runtime.report.facts import EngineFacts, RunFacts
from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import GREEN, GREY, ON_SERIES, ORANGE, SKY, drawing, inline_svg

_PARTS = (
    ("T_roof_s", "roof: the larger of T_c and T_m, step by step", SKY),
    ("T_overhead_s", "T_overhead: a step's time above the roof, handling", ORANGE),
    ("T_idle_s", "idle", GREY),
)
_ROUGH = (("busy_s", "busy, not split: no profile or no counts", GREEN), ("idle_s", "idle", GREY))


def parts(engine: EngineFacts) -> tuple[tuple[str, float, str], ...]:
    """(what, seconds, colour) that tile the engine's wall time as finely as the run tells."""
    for names in (_PARTS, _ROUGH):
        told = [(label, getattr(engine, name), color) for name, label, color in names]
        if all(value is not None for _, value, _ in told):
            return tuple(told)
    return ()


def time_spent(runs: Sequence[RunFacts]) -> Shown:
    """A stacked bar for each run and engine."""
    rows = [(run, engine, parts(engine)) for run in runs for engine in run.engines if parts(engine)]
    if not rows:
        return nothing("Where the engines' time went is unknown: no run here has the engines' counters")
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        figure = Figure(figsize=(8.4, 1.1 + 0.3 * len(rows)), layout="constrained")
        axes = figure.subplots()
        keys: dict[str, str] = {}
        for place, (_, _, split) in enumerate(rows):
            wall, left = sum(value for _, value, _ in split), 0.0
            for label, value, color in split:
                axes.barh(place, value, left=left, color=color, height=0.7)
                if wall > 0 and value / wall >= 0.05 and value / _longest(rows) >= 0.04:
                    share = f"{value / wall:.0%}"
                    axes.text(left + value / 2, place, share, ha="center", va="center", fontsize=8, color=ON_SERIES)
                left += value
                keys[label] = color
        axes.set_yticks(range(len(rows)), [f"{run.label}: {engine.name}" for run, engine, _ in rows])
        axes.set(xlabel="seconds of wall time", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        handles = [Patch(color=color, label=label) for label, color in keys.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        svg = inline_svg(figure, "time", "Wall time of each engine by what it went to")
    note = "Bars end at the wall. Roof: analytic FLOPs and bytes over the profile's rates; all else is measured."
    return Shown(_finding(rows), svg, note)


def _longest(rows: Sequence[tuple[RunFacts, EngineFacts, tuple[tuple[str, float, str], ...]]]) -> float:
    return max(sum(value for _, value, _ in split) for _, _, split in rows) or 1.0


def _finding(rows: Sequence[tuple[RunFacts, EngineFacts, tuple[tuple[str, float, str], ...]]]) -> str:
    run, engine, split = max(rows, key=lambda row: 1 - _shares(row[2]).get("idle", 0.0))
    shares = _shares(split)
    if len(split) == len(_PARTS):
        roof, overhead, _ = (share for share in shares.values())
        told = f"{percent(roof, 0)} of the wall at the roof's pace and {percent(overhead, 0)} on overhead"
        return f"The busiest engine, the {engine.name} of {run.label}, spends {told}"
    busy = percent(1 - shares["idle"], 0)
    return f"The busiest engine, the {engine.name} of {run.label}, works {busy} of the wall; the split is unknown"


def _shares(split: tuple[tuple[str, float, str], ...]) -> dict[str, float]:
    wall = sum(value for _, value, _ in split)
    return {label: value / wall if wall > 0 else 0.0 for label, value, _ in split}
