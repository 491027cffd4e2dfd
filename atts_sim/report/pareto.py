"""The Pareto front of accuracy, latency and cost: nothing simulated is better in one without being worse in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import BLUE, GREY, INK, RED, drawing, inline_svg
from atts_sim.objective import Front
from atts_sim.report.figures import column_title, told
from atts_sim.row import Row

_MOST_NAMED = 12


def pareto(rows: Sequence[Row], front: Front, best: Row | None) -> Shown:
    """A panel for each figure against the first, dominated points pale, the front's numbered by point."""
    names = [name for name, _ in front.figures]
    if len(names) < 2 or not any(front.members):
        return nothing("There is no front to show: no two of accuracy, latency and cost are known of any row")
    first, others = names[0], names[1:]
    usable = [row for row in rows if row.error is None and all(_at(row, name) is not None for name in names)]
    members = [row for row, member in zip(rows, front.members, strict=True) if member]
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.3 * len(others), 3.4), layout="constrained")
        panels = figure.subplots(1, len(others), squeeze=False)[0]
        for place, (panel, other) in enumerate(zip(panels, others, strict=True)):
            _scatter(panel, usable, other, first, GREY, 14)
            _scatter(panel, members, other, first, BLUE, 32)
            for row in members[:_MOST_NAMED]:
                at = (_at(row, other) or 0.0, _at(row, first) or 0.0)
                panel.annotate(str(row.point), at, (4, 4), textcoords="offset points", fontsize=7.5, color=INK)
            if best is not None and _at(best, other) is not None:
                _scatter(panel, [best], other, first, RED, 70, marker="x")
            panel.set_xlabel(f"{column_title(other)}{_unit(other)}")
            panel.set_ylabel(f"{column_title(first)}{_unit(first)}" if not place else "")
            if (
                (values := [_at(row, other) or 0.0 for row in usable])
                and min(values) > 0
                and max(values) > 20 * min(values)
            ):
                panel.set_xscale("log")
        svg = inline_svg(figure, "pareto", f"{len(members)} points of the Pareto front among {len(usable)}")
    compared = ", ".join(column_title(name) for name in names)
    top = max(members, key=lambda row: front.figures[0][1] * -(_at(row, first) or 0.0))
    finding = (
        f"{len(members)} of {len(usable)} points are on the front of {compared}; "
        f"{column_title(first)} goes up to {told(first, _at(top, first))}"
    )
    note = "Blue: the front, by number of point; grey: beaten by another point; cross: the best settings. Simulated."
    return Shown(finding, svg, note)


def _scatter(panel: Any, rows: Sequence[Row], x: str, y: str, color: str, size: int, *, marker: str = "o") -> None:
    panel.scatter([_at(r, x) for r in rows], [_at(r, y) for r in rows], s=size, c=color, marker=marker, linewidths=1.2)


def _at(row: Row, name: str) -> float | None:
    value = row.figures.get(name)
    return float(value) if isinstance(value, int | float) else None


def _unit(name: str) -> str:
    return ", s" if name.endswith("_s") or "_s." in name else ", $" if name == "usd" else ""
