"""The page's tables: best settings, verdicts, sources, what could not be simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from atts_runtime.report.amounts import UNKNOWN, count, percent
from atts_runtime.report.html import table
from atts_sim.options import Value
from atts_sim.report.figures import column_title, parameter_title, shown_figures, told
from atts_sim.row import Row
from atts_sim.study import Study

_MOST = 12


def best_settings(study: Study, rows: Sequence[Row]) -> str:
    """The admissible rows, best first."""
    best = study.objective.ranked(rows)[:_MOST]
    figures = shown_figures(best, study.objective.figure)
    alike = [name for name in figures[1:] if len(best) > 1 and len({_figure(row, name) for row in best}) == 1]
    figures = [name for name in figures if name not in alike]
    head = ["point", *(parameter_title(a.name) for a in study.axes), *map(column_title, figures)]
    body = [
        [str(row.point), *(_value(row.parameters.get(a.name)) for a in study.axes), *(_figure(row, n) for n in figures)]
        for row in best
    ]
    same = ", ".join(f"{column_title(name)} {_figure(best[0], name)}" for name in alike)
    note = f'<p class="note">Alike in all of them: {escape(same)}.</p>' if same else ""
    return table(head, body, frozenset(range(1 + len(study.axes)))) + note


def _figure(row: Row, name: str) -> str:
    """On one line: a number and its unit belong together."""
    error = row.figures.get(f"{name}.se")
    text = told(name, row.figures.get(name)) + (f" ± {told(name, error)}" if error else "")
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def saturation(study: Study, rows: Sequence[Row]) -> str:
    """How many points have which verdict and bottleneck, and how busy their engines are at most."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.error is None:
            key = (str(row.figures.get("verdict") or UNKNOWN), str(row.figures.get("bottleneck")))
            groups.setdefault(key, []).append(row)
    head = ["verdict", "bottleneck", "points", "draft busy, most", "target busy, most", "for example"]
    body = []
    for (verdict, bottleneck), members in sorted(groups.items()):
        example = ", ".join(
            f"{parameter_title(a.name)} {_value(members[0].parameters.get(a.name))}" for a in study.axes
        )
        most = [_most(members, f"{role}.utilisation") for role in ("draft", "target")]
        body.append([verdict, bottleneck, count(len(members)), *map(percent, most), example])
    return table(head, body, frozenset({0, 1, 5}))


def _most(rows: Sequence[Row], name: str) -> float | None:
    values = [float(value) for row in rows if isinstance(value := row.figures.get(name), int | float)]
    return max(values, default=None)


def sources(rows: Sequence[Row]) -> str:
    """Where numbers come from, and how many points they serve."""
    counts = Counter(source for row in rows for source in row.sources)
    return table(["source", "points"], [[source, count(n)] for source, n in sorted(counts.items())])


def errors(rows: Sequence[Row]) -> str:
    """Why points could not be simulated."""
    counts = Counter(row.error for row in rows if row.error is not None)
    body = [[error, count(n)] for error, n in counts.most_common(_MOST)]
    return table(["why", "points"], body)


def settings(study: Study) -> str:
    """What is fixed, and what is swept."""
    swept = [[parameter_title(a.name), _axis(a.values, a.low, a.high)] for a in study.axes]
    names = {axis.name for axis in study.axes}
    fixed = [[parameter_title(name), _value(value)] for name, value in sorted(study.base.items()) if name not in names]
    left = frozenset({0, 1})
    return table(["swept", "values"], swept, left) + table(["fixed", ""], fixed, left)


def _axis(values: Sequence[Value], low: float | None, high: float | None) -> str:
    return ", ".join(map(_value, values)) if values else f"from {low:g} to {high:g}"


def _value(value: Value | None) -> str:
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
