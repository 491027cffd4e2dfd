"""Outcomes of a sweep or a point in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from atts_runtime.config import RunConfig
from atts_runtime.report.amounts import UNKNOWN
from atts_sim.report.figures import FIGURES_TOLD, IN_BRIEF, column_title, parameter_title, shown_figures, told
from atts_sim.results import BEST, TABLE
from atts_sim.row import FIGURES, Row
from atts_sim.study import Study
from atts_sim.sweep import Swept

_MOST = 10  # rows shown
_Lines = list[Table | str]
_ALWAYS = ("policy", "questions", "chains")


def outcome(study: Study, found: Swept, out: Path, page: Path | None) -> _Lines:
    """The best rows, how many there are, and what was written where (page None: no report)."""
    admissible = study.objective.ranked(found.rows)
    best = admissible[:_MOST]
    judged = any(row.figures.get("accuracy") is not None for row in best)
    figures = shown_figures(best, study.objective.figure, IN_BRIEF if judged else ("answered", *IN_BRIEF))
    table = Table(title=escape(f"{study.name}: {study.objective}"), title_justify="left")
    for axis in study.axes:
        table.add_column(escape(parameter_title(axis.name)))
    for name in figures:
        table.add_column(column_title(name), justify="right")
    table.add_column("verdict")
    for row in best:
        swept = [escape(str(row.parameters.get(axis.name))) for axis in study.axes]
        state = f"{row.figures.get('verdict') or UNKNOWN}: {row.figures.get('bottleneck')}"
        table.add_row(*swept, *(told(name, row.figures.get(name)) for name in figures), state)
    errors = sum(row.error is not None for row in found.rows)
    saturated = sum(row.figures.get("verdict") == "saturated" for row in found.rows)
    left = len(found.rows) - len(admissible) - errors - saturated
    doubtful = sum(bool(row.warnings) for row in found.rows)
    lines: _Lines = [table] if best else []
    points = f"{len(found.rows)} points" if found.whole else f"{len(found.rows)} of {found.size} points"
    lines.append(
        f"{points}, {len(admissible)} admissible, "
        + (f"{saturated} saturated, " if saturated else "")
        + (f"{left} beyond the bounds, " if left else "")
        + f"{errors} not to be simulated, {doubtful} with warnings"
        + (f", {found.resumed} from an earlier session" if found.resumed else "")
    )
    if found.rows:
        written = [TABLE, BEST if found.best else f"no {BEST}", *([page.name] if page else [])]
        lines.append(escape(f"{out}: {', '.join(written)}"))
    return lines


def figures_table(study: Study, row: Row) -> _Lines:
    """All figures of a point that are known, the settings that it was simulated with, its sources and warnings."""
    table = Table(title=escape(study.name), title_justify="left")
    table.add_column("figure")
    table.add_column("", justify="right")
    table.add_row("verdict", str(row.figures.get("verdict") or UNKNOWN))
    table.add_row("bottleneck", str(row.figures.get("bottleneck")))
    for name in (*FIGURES_TOLD, *(n for n in FIGURES if n not in FIGURES_TOLD)):
        if row.figures.get(name) is not None:
            table.add_row(name, told(name, row.figures[name]))
    rates = " ".join(UNKNOWN if rate is None else f"{rate:.3f}" for rate in row.by_turn)
    if rates:
        table.add_row("takeover rate by turn", rates)
    return [
        table,
        escape(f"settings: {', '.join(_settings(row))}; others by default"),
        *(escape(text) for text in row.sources),
        *(f"[yellow]doubtful:[/] {escape(w)}" for w in row.warnings),
    ]


def _settings(row: Row) -> Iterator[str]:
    """Settings of the point that are no defaults, and those that are always told."""
    for field in fields(RunConfig):
        value = row.parameters.get(f"settings.{field.name}")
        if value is not None and (field.name in _ALWAYS or value != field.default):
            yield f"{field.name} {value:g}" if isinstance(value, float) else f"{field.name} {value}"
