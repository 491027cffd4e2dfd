"""The Pareto front of accuracy, latency and cost: nothing simulated is better in one without being worse in another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import BLUE, GREY, INK, RED, drawing, inline_svg
from atts_sim.objective import Front
from atts_sim.report.figures import column_title, plain_log, told
from atts_sim.row import Row

_WIDE = 20.0
_ROOM = (22.0, 12.0)  # of a number, in pixels


def pareto(rows: Sequence[Row], front: Front, best: Row | None) -> Shown:
    """A panel for each figure against the first of those that differ, dominated points pale, the front's numbered."""
    signs = dict(front.figures)
    usable = [row for row in rows if row.error is None and all(_at(row, name) is not None for name in signs)]
    names = [name for name in signs if len({_at(row, name) for row in usable}) > 1]
    if len(names) < 2 or not any(front.members):
        return nothing("There is no front to show: of accuracy, latency and cost no two are known and differ")
    first, others = names[0], names[1:]
    members = [row for row, member in zip(rows, front.members, strict=True) if member]
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.3 * len(others), 3.4), layout="constrained")
        panels = figure.subplots(1, len(others), squeeze=False)[0]
        for place, (panel, other) in enumerate(zip(panels, others, strict=True)):
            _scatter(panel, usable, other, first, GREY, 14)
            _scatter(panel, members, other, first, BLUE, 32)
            if best is not None and _at(best, other) is not None:
                _scatter(panel, [best], other, first, RED, 70, marker="x")
            panel.set_xlabel(f"{column_title(other)}{_unit(other)}")
            panel.set_ylabel(f"{column_title(first)}{_unit(first)}" if not place else "")
            _scale(panel, usable, other, first)
            figure.draw_without_rendering()
            _name(panel, members, other, first)
        svg = inline_svg(figure, "pareto", f"{len(members)} points of the Pareto front among {len(usable)}")
    compared = " and ".join(filter(None, [", ".join(map(column_title, names[:-1])), column_title(names[-1])]))
    top = min(members, key=lambda row: signs[first] * (_at(row, first) or 0.0))
    verb = "falls to" if signs[first] > 0 else "goes up to"
    same = [
        f"; {column_title(name)} is {told(name, _at(usable[0], name))} everywhere"
        for name in signs
        if name not in names
    ]
    finding = (
        f"{len(members)} of {len(usable)} points are on the front of {compared}; "
        f"{column_title(first)} {verb} {told(first, _at(top, first))}{''.join(same)}"
    )
    note = "Blue: the front, by number of point; grey: beaten by another point; cross: the best settings. Simulated."
    return Shown(finding, svg, note)


def _scatter(panel: Any, rows: Sequence[Row], x: str, y: str, color: str, size: int, *, marker: str = "o") -> None:
    panel.scatter([_at(r, x) for r in rows], [_at(r, y) for r in rows], s=size, c=color, marker=marker, linewidths=1.2)


def _scale(panel: Any, rows: Sequence[Row], x: str, y: str) -> None:
    """Logarithmic where what is drawn spans more than a factor of `_WIDE`."""
    for name, axis, scale in ((x, panel.xaxis, panel.set_xscale), (y, panel.yaxis, panel.set_yscale)):
        values = [_at(row, name) or 0.0 for row in rows]
        if min(values) > 0 and max(values) > _WIDE * min(values):
            scale("log")
            plain_log(axis)


def _name(panel: Any, rows: Sequence[Row], x: str, y: str) -> None:
    """Numbers beside the points, of those that leave room for one."""
    taken: list[tuple[float, float]] = []
    for row in rows:
        at = (_at(row, x) or 0.0, _at(row, y) or 0.0)
        px, py = panel.transData.transform(at)
        if all(abs(px - qx) > _ROOM[0] or abs(py - qy) > _ROOM[1] for qx, qy in taken):
            taken.append((px, py))
            panel.annotate(str(row.point), at, (4, 4), textcoords="offset points", fontsize=7.5, color=INK)


def _at(row: Row, name: str) -> float | None:
    value = row.figures.get(name)
    return float(value) if isinstance(value, int | float) else None


def _unit(name: str) -> str:
    return ", s" if name.endswith("_s") or "_s." in name else ", $" if name == "usd" else ""
