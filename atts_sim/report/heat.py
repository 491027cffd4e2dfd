"""A figure over two swept parameters, at the best of all the others."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from atts_runtime.report.shown import Shown, nothing
from atts_runtime.report.theme import INK, ON_SERIES, drawing, inline_svg
from atts_sim.axes import Axis
from atts_sim.options import Value
from atts_sim.report.figures import column_title, parameter_title, told
from atts_sim.row import Row
from atts_sim.study import Study

_MOST_VALUES = 24  # of a parameter
_LABEL = 12  # characters on a line below a cell
_SHADES = (0.0, 0.55)  # of the colour map: those on which dark text is read, in light mode and dark


def heat_map(study: Study, rows: Sequence[Row]) -> Shown:
    """The objective's figure by the two swept parameters with the most values, of those with few enough."""
    axes = sorted(
        (a for a in study.axes if 1 < len(_values(a, rows)) <= _MOST_VALUES), key=lambda a: -len(_values(a, rows))
    )
    if len(axes) < 2 or study.method != "grid":
        return nothing("A heat map needs a grid over two parameters or more")
    across, down = axes[0], axes[1]
    figure_name, sign = study.objective.figure, study.objective.sign
    best: dict[tuple[Value, Value], float] = {}
    for row in rows:
        value = row.figures.get(figure_name)
        if study.objective.score(row) is not None and isinstance(value, int | float):
            cell = (row.parameters[across.name], row.parameters[down.name])
            known = best.get(cell)  # type: ignore[arg-type]
            if known is None or sign * value < sign * known:
                best[cell] = float(value)  # type: ignore[index]
    if not best:
        return nothing(f"No point is admissible, so there is no {column_title(figure_name)} to show")
    xs, ys = _values(across, rows), _values(down, rows)
    with drawing():
        import numpy as np
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm, Normalize
        from matplotlib.figure import Figure

        cells = np.array([[best.get((x, y), np.nan) for x in xs] for y in ys])
        low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
        norm = LogNorm(low, high) if low > 0 and high > 10 * low else Normalize(low, high)
        shades = ListedColormap(colormaps["YlGnBu"](np.linspace(*_SHADES, 64)))
        figure = Figure(figsize=(1.6 + 0.8 * len(xs), 1.2 + 0.38 * len(ys)), layout="constrained")
        panel = figure.subplots()
        panel.grid(visible=False)
        panel.pcolormesh(np.ma.masked_invalid(cells), cmap=shades, norm=norm, edgecolors="none")
        for i in range(len(ys)):
            for j in range(len(xs)):
                known_here = not np.isnan(cells[i, j])
                text = told(figure_name, float(cells[i, j])) if known_here else "none"
                color = ON_SERIES if known_here else INK
                panel.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7.5, color=color)
        panel.set_xticks([j + 0.5 for j in range(len(xs))], [textwrap.fill(_short(x), _LABEL) for x in xs])
        panel.set_yticks([i + 0.5 for i in range(len(ys))], [_short(y) for y in ys])
        panel.set_xlabel(_name(across))
        panel.set_ylabel(_name(down))
        svg = inline_svg(figure, "heat", f"{figure_name} by {_name(across)} and {_name(down)}")
    at = min(best, key=lambda cell: sign * best[cell])
    finding = (
        f"{column_title(figure_name)} is {'least' if sign > 0 else 'greatest'}, {told(figure_name, best[at])}, at "
        f"{_name(across)} = {_short(at[0])} and {_name(down)} = {_short(at[1])}"
    )
    others = [_name(axis) for axis in study.axes if axis not in (across, down)]
    notes = [f"Each cell is at the best {', '.join(others)}."] if others else []
    if len(best) < len(xs) * len(ys):
        notes.append("None: no such point can be simulated and is within the bounds.")
    return Shown(finding, svg, " ".join(notes))


def _values(axis: Axis, rows: Sequence[Row]) -> list[Value]:
    """Those of the axis, in its order; a path by its name would not tell two of one name apart."""
    there = {row.parameters.get(axis.name) for row in rows}
    return [value for value in axis.values if value in there]


def _name(axis: Axis) -> str:
    return parameter_title(axis.name)


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[-24:]
