"""Turn by turn: what chains waited for, and how often the target took over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from atts_runtime.accuracy import wilson
from atts_runtime.profiler.spans import Span, seconds_by_turn
from atts_runtime.records import STALL_CAUSES
from atts_runtime.report.amounts import fixed, percent, seconds
from atts_runtime.report.facts import RunFacts
from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import BLUE, GREY, INK, ORANGE, RED, drawing, inline_svg, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {"barrier": RED, "bank": ORANGE}
_MOST_PANELS = 12
_COLUMNS = 4


def stall(runs: Sequence[RunFacts]) -> Shown:
    """Chain-seconds of stall by turn and cause, a panel a run."""
    stalled = [run for run in runs if run.stall_s > 0]
    if not stalled:
        return nothing("No chain waited for another one")
    shown = stalled[:_MOST_PANELS]
    with drawing():
        from matplotlib.patches import Patch

        figure, panels = _panels(len(shown), sharey=True)
        for axes, run in zip(panels, shown, strict=True):
            by_kind = seconds_by_turn(_spans(run))
            bottom = [0.0] * len(by_kind["barrier"])
            for cause in STALL_CAUSES:
                axes.bar(range(len(bottom)), by_kind[cause], bottom=bottom, color=_COLORS[cause], width=0.8)
                bottom = [low + more for low, more in zip(bottom, by_kind[cause], strict=True)]
            axes.set(title=f"{wrapped(run.label)}\n{seconds(run.stall_s)}", xlabel="turn")
            axes.locator_params(axis="x", integer=True)
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("stall, chain-seconds")
        causes = [cause for cause in STALL_CAUSES if any(s.kind == cause for run in shown for s in _spans(run))]
        handles = [Patch(color=_COLORS[cause], label=cause) for cause in causes]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        svg = inline_svg(figure, "stall", "Stall by turn and cause")
    return Shown(
        _stall_finding(runs),
        svg,
        "Measured, summed over chains; a wait counts for the turn before it." + _left(stalled),
    )


def _spans(run: RunFacts) -> Iterator[Span]:
    return chain.from_iterable(run.spans)


def takeovers(runs: Sequence[RunFacts]) -> Shown:
    """Takeover rate by turn with 95% intervals, the number of decisions, and alpha; a panel a run that decides."""
    deciding = [run for run in runs if run.decisions]
    if not deciding:
        return nothing("No run here decides on takeovers")
    shown = deciding[:_MOST_PANELS]
    with drawing():
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        figure, panels = _panels(len(shown), sharey=True)
        for axes, run in zip(panels, shown, strict=True):
            _rates(axes, run)
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("takeover rate")
        handles = [
            Line2D([], [], color=BLUE, marker="o", label="rate, 95% Wilson interval"),
            Patch(color=GREY, alpha=0.35, lw=0, label="decisions, in proportion"),
        ]
        if any(run.alpha is not None for run in shown):
            handles.insert(1, Line2D([], [], color=INK, ls="--", label="alpha, nominal"))
        if any(map(_adaptive, shown)):
            handles.append(Patch(color=ORANGE, alpha=0.35, lw=0, label="range of alpha_t"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        svg = inline_svg(figure, "takeovers", "Takeover rate by turn against alpha")
    note = "Measured. Intervals take decisions for independent: they are too narrow where chains of a question agree."
    note += "".join(f" {said}" for said in map(_adaptive, shown) if said)
    return Shown(_takeover_finding(deciding), svg, note + _left(deciding))


def _adaptive(run: RunFacts) -> str:
    """What an adaptive calibrator did; nothing for others, whose alpha stays."""
    told = run.calibration
    if told is None or told.alarms is None:
        return ""
    range_ = f"alpha_t ran from {fixed(told.alpha_low)} to {fixed(told.alpha_high)} (below 0 nothing is taken over)"
    cohort = f"{percent(told.fallback_rate)} of the decisions had no cohort"
    return f"{run.label}: {range_}, {cohort}, and the monitors raised {told.alarms} alarms."


def _rates(axes: Axes, run: RunFacts) -> None:
    turns = [turn for turn, (verdicts, _) in enumerate(run.decisions) if verdicts]
    told = [run.decisions[turn] for turn in turns]
    most = max(verdicts for verdicts, _ in told)
    axes.bar(turns, [0.25 * verdicts / most for verdicts, _ in told], color=GREY, alpha=0.35, width=0.8)
    adaptive = run.calibration
    if adaptive and adaptive.alarms is not None and adaptive.alpha_low is not None and adaptive.alpha_high is not None:
        axes.axhspan(max(0.0, adaptive.alpha_low), min(1.0, adaptive.alpha_high), color=ORANGE, alpha=0.2, lw=0)
    if run.alpha is not None:
        axes.axhline(run.alpha, color=INK, ls="--", lw=1)
    rates = [taken / verdicts for verdicts, taken in told]
    intervals = [wilson(rate, verdicts) for rate, (verdicts, _) in zip(rates, told, strict=True)]
    below = [max(0.0, rate - low) for rate, (low, _) in zip(rates, intervals, strict=True)]
    above = [max(0.0, high - rate) for rate, (_, high) in zip(rates, intervals, strict=True)]
    axes.errorbar(turns, rates, yerr=[below, above], fmt="o-", color=BLUE, lw=1.2, elinewidth=0.9, markersize=4)
    axes.set(title=wrapped(run.label), xlabel=f"turn (decisions: {told[0][0]:,} to {told[-1][0]:,})")
    axes.set_ylim(-0.02, 1.02)
    axes.locator_params(axis="x", integer=True)


def _panels(number: int, *, sharey: bool) -> tuple[Figure, list[Axes]]:
    """A grid of at least two columns; places without a panel stay empty."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, max(2, number))
    rows = -(-number // columns)
    figure = Figure(figsize=(8.4, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=sharey, squeeze=False).ravel().tolist()
    for axes in grid[number:]:
        axes.remove()
    return figure, grid[:number]


def _left(runs: Sequence[RunFacts]) -> str:
    return f" The first {_MOST_PANELS} of {len(runs)} runs are drawn." if len(runs) > _MOST_PANELS else ""


def _stall_finding(runs: Sequence[RunFacts]) -> str:
    ranked = sorted(runs, key=lambda run: run.stall_s / run.chain_s if run.chain_s else 0.0, reverse=True)
    most, least = ranked[0], ranked[-1]
    share = percent(most.stall_s / most.chain_s if most.chain_s else 0.0, 0)
    told = f"Chains of {most.label} stall for {share} of their time in flight ({seconds(most.stall_s)})"
    if most is least:
        return told
    share = percent(least.stall_s / least.chain_s if least.chain_s else 0.0, 0)
    return f"{told}, those of {least.label} for {share} ({seconds(least.stall_s)})"


def _takeover_finding(runs: Sequence[RunFacts]) -> str:
    told = []
    for run in runs[:3]:
        alpha = "" if run.alpha is None else f" at alpha {run.alpha:g}"
        alarms = run.calibration.alarms if run.calibration else None
        alarmed = "" if alarms is None else f", {alarms} alarms"
        told.append(f"{fixed(run.takeover_rate)} of the segments of {run.label}{alpha}{alarmed}")
    more = f"; and {len(runs) - 3} more" if len(runs) > 3 else ""
    return f"The target takes over {'; '.join(told)}{more}"
