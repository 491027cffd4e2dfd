"""The roofline: where each engine's phases stand under what the device can do (Williams, Waterman, Patterson, 2009)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atts_runtime.report.amounts import percent, scaled, short
from atts_runtime.report.facts import EngineFacts, Phase, RunFacts
from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import INK, MUTED, SERIES, drawing, inline_svg

_MARKERS = {"prefill": "s", "score": "^", "decode": "o"}


@dataclass(frozen=True, slots=True)
class Point:
    """A phase of an engine: FLOP/byte, FLOP/s while busy, and the share of the roof there (None: no profile)."""

    run: RunFacts
    engine: EngineFacts
    name: str
    phase: Phase
    intensity: float
    flops_per_s: float
    share: float | None


def points(runs: Sequence[RunFacts]) -> list[Point]:
    """The phases whose intensity and speed are known."""
    return [
        Point(run, engine, name, phase, x, y, share_of_roof(run, phase))
        for run in runs
        for engine in run.engines
        for name, phase in engine.phases.items()
        if (x := phase.intensity_flop_per_byte) and (y := phase.flops_per_s) and x > 0 and y > 0
    ]


def share_of_roof(run: RunFacts, phase: Phase) -> float | None:
    """Achieved FLOP/s over the roof at the phase's intensity."""
    if run.hardware is None or not phase.intensity_flop_per_byte or phase.flops_per_s is None:
        return None
    roof = run.hardware.roof(phase.intensity_flop_per_byte)
    return phase.flops_per_s / roof if roof else None


def roofline(runs: Sequence[RunFacts]) -> Shown:
    """FLOP/s against FLOP/byte: a colour a run (or, of many runs, a policy), a marker a phase, hollow for the draft."""
    found = points(runs)
    if not found:
        return nothing("The roofline is unknown: no run here counted FLOPs and bytes by phase")
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        figure = Figure(figsize=(8.4, 4.3), layout="constrained")
        axes = figure.subplots()
        axes.set(xscale="log", yscale="log", xlabel="intensity, FLOP/byte (analytic)")
        axes.set_ylabel("FLOP/s (analytic over measured busy seconds)")
        axes.xaxis.set_major_formatter(lambda x, _: short(x))
        axes.yaxis.set_major_formatter(lambda y, _: scaled(y, ""))
        axes.minorticks_off()
        balances = _roofs(axes, runs, found)
        named = _names(_told(found))
        colors = {name: SERIES[place % len(SERIES)] for place, name in enumerate(dict.fromkeys(named.values()))}
        for point in found:
            color = colors[named[point.run.label]]
            axes.plot(
                point.intensity,
                point.flops_per_s,
                _MARKERS.get(point.name, "D"),
                color=color,
                markerfacecolor="none" if point.engine.name == "draft" else color,
                markersize=7,
            )
        keys = [Line2D([], [], ls="", marker="o", color=color, label=name) for name, color in colors.items()]
        for name in dict.fromkeys(point.name for point in found):
            keys.append(Line2D([], [], ls="", marker=_MARKERS.get(name, "D"), color=MUTED, label=name))
        keys.append(Line2D([], [], ls="", marker="o", color=MUTED, markerfacecolor="none", label="hollow: draft"))
        if balances:
            keys.append(Line2D([], [], color=INK, label="roof of the device"))
        figure.legend(handles=keys, loc="outside right upper")
        svg = inline_svg(figure, "roof", "Roofline of every engine and phase")
    return Shown(_finding(found), svg, _note(runs))


def _roofs(axes: object, runs: Sequence[RunFacts], found: Sequence[Point]) -> list[float]:
    """A line for each profile of the runs; returns their machine balances in FLOP/byte."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    rates = {
        (hardware.flops_per_s, hardware.bytes_per_s): hardware
        for run in runs
        if (hardware := run.hardware) and hardware.flops_per_s and hardware.bytes_per_s
    }
    balances = [flops / moved for flops, moved in rates if flops and moved]
    edges = [point.intensity for point in found] + balances
    low, high = min(edges) / 3, max(edges) * 3
    for (flops, moved), hardware in rates.items():
        assert flops is not None
        assert moved is not None
        axes.plot([low, flops / moved, high], [moved * low, flops, flops], color=INK, lw=1.4)
        axes.annotate(
            f"{hardware.name}: {scaled(flops, 'FLOP/s')}, {scaled(moved, 'B/s')} ({hardware.kind})",
            (high, flops),
            ha="right",
            va="bottom",
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xlim(low, high)
    return balances


def _told(found: Sequence[Point]) -> list[RunFacts]:
    return list({point.run.label: point.run for point in found}.values())


def _names(runs: Sequence[RunFacts]) -> dict[str, str]:
    """What a run's points are coloured by: the run, or its policy where there are more runs than colours."""
    return {run.label: run.label if len(runs) <= len(SERIES) else run.policy for run in runs}


def _finding(found: Sequence[Point]) -> str:
    point = max(found, key=lambda p: p.phase.busy_s or 0.0)
    what = f"{point.name.capitalize()} of the {point.engine.name} in {point.run.label}, the busiest phase,"
    if point.share is None:
        at = f"{scaled(point.flops_per_s, 'FLOP/s')} at {short(point.intensity)} FLOP/byte"
        return f"{what} makes {at}; how far from the roof is unknown without a hardware profile"
    hardware = point.run.hardware
    assert hardware is not None
    assert hardware.flops_per_s is not None
    assert hardware.bytes_per_s is not None
    memory = point.intensity < hardware.flops_per_s / hardware.bytes_per_s
    bound = "below the machine balance, where memory sets the roof" if memory else "where arithmetic sets the roof"
    return f"{what} reaches {percent(point.share)} of its roof, {bound}"


def _note(runs: Sequence[RunFacts]) -> str:
    kinds = {run.hardware.kind if run.hardware else None for run in runs}
    note = "A point below the line loses time to launches, Python and small batches, not to the device."
    if None in kinds:
        note += " A run without a hardware profile has no roof: make one with atts-runtime profile."
    if kinds & {"datasheet"}:
        note += " A roof from a data sheet is more than any program reaches."
    return note
