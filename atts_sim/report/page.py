"""The page about a sweep: one HTML file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from atts_runtime import __version__
from atts_runtime.errors import InputError
from atts_runtime.report.html import folded
from atts_runtime.report.shown import Shown
from atts_runtime.report.theme import style_sheet
from atts_runtime.wholefile import write_whole
from atts_sim.report import tables
from atts_sim.report.figures import column_title, parameter_title, told
from atts_sim.report.heat import heat_map
from atts_sim.report.pareto import pareto
from atts_sim.report.r_by_m import r_by_m
from atts_sim.row import Row
from atts_sim.study import Study
from atts_sim.sweep import Swept


@dataclass(frozen=True, slots=True)
class Page:
    """Where it is, and what it says in plain text."""

    path: Path
    findings: list[str]
    warnings: list[str]


def write_report(path: Path, study: Study, found: Swept) -> Page:
    """Write the page, whole or not at all. InputError where that fails."""
    figures = [
        ("Accuracy, latency and cost", pareto(found.rows, found.front, found.best)),
        ("By two parameters", heat_map(study, found.rows)),
        ("Intensity r", r_by_m(found.rows)),
    ]
    warnings = doubts(found)
    html = _document(study.name, _body(study, found, figures, warnings))
    try:
        write_whole(path, html.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --out") from error
    return Page(path, [figure.finding for _, figure in figures if figure.result], warnings)


def doubts(found: Swept) -> list[str]:
    """What makes the results doubtful, each with the number of points that it touches."""
    counts: Counter[str] = Counter()
    for row in found.rows:
        counts.update({text.partition(":")[0] for text in row.warnings if "outside" in text})
    said = [
        f"{role}: {n} of {len(found.rows)} points have steps outside what the engine's profile measured"
        for role, n in sorted(counts.items())
    ]
    if errors := sum(row.error is not None for row in found.rows):
        said.append(f"{errors} of {len(found.rows)} points cannot be simulated; the reasons are below")
    verdicts = Counter(str(row.figures.get("verdict")) for row in found.rows if row.error is None)
    if saturated := verdicts["saturated"]:
        said.append(
            f"{saturated} points are saturated: questions come faster than they can be worked off, so their latency "
            "is not known, and they are neither best nor on the front"
        )
    told = {source for row in found.rows for source in row.sources}
    if any("(analytic" in source and "engine profile" not in source for source in told):
        said.append(
            "step times of engines without an engine profile are analytic: nothing was measured on that hardware"
        )
    if not found.whole:
        said.append("the sweep was interrupted; points are missing")
    return said


def lead(study: Study, found: Swept) -> str:
    """The outcome in a sentence."""
    best, name = found.best, study.objective.figure
    if best is None:
        return f"No point is admissible: {study.objective}."
    at = ", ".join(f"{parameter_title(axis.name)} {best.parameters.get(axis.name)}" for axis in study.axes)
    way = "Least" if study.objective.sign > 0 else "Greatest"
    doubt = "" if best.figures.get("accuracy") is not None else " What it does to accuracy is not known."
    return f"{way} {column_title(name)}: {told(name, best.figures.get(name))}, at {at or 'the only point'}.{doubt}"


def _body(study: Study, found: Swept, figures: Sequence[tuple[str, Shown]], warnings: Sequence[str]) -> str:
    rows: Sequence[Row] = found.rows
    top = [f'<h1>{escape(study.name)}</h1>\n<ul class="lead"><li>{escape(lead(study, found))}</li></ul>']
    if study.about:
        top.append(f"<p>{escape(study.about)}</p>")
    ways = {"grid": "all of a grid", "random": "drawn at random", "optuna": "chosen by Optuna"}
    repeats = f", {study.repeats} simulations each" if study.repeats > 1 else ""
    top.append(f"<p>{len(rows)} points, {ways[study.method]}{repeats}. Sought: {escape(str(study.objective))}.</p>")
    said = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    top.append(f'<h2>Warnings</h2>\n<ul class="warnings">{said}</ul>' if said else "")
    body = [*top, "<h2>Best settings</h2>", tables.best_settings(study, rows)]
    body += [f"<h2>{escape(title)}</h2>\n{figure.html()}" for title, figure in figures]
    body += ["<h2>Saturation</h2>", _saturation_note(), tables.saturation(study, rows)]
    body += ["<h2>Sources</h2>", tables.sources(rows)]
    if any(row.error is not None for row in rows):
        body += ["<h2>Not simulated</h2>", tables.errors(rows)]
    body.append(folded("What was swept, and what was fixed", tables.settings(study)))
    return "\n".join(body)


def _saturation_note() -> str:
    return (
        '<p class="note">closed: all questions were there at once, so there is a makespan and no backlog. The '
        "bottleneck is the busier engine where it is busy for 80% of the time or more; else the limit on questions in "
        "flight, where questions wait for it; else latency: chains wait for their own next answer.</p>"
    )


def _document(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{style_sheet()}td.left{{overflow-wrap:break-word}}</style>
</head>
<body>
{body}
<p class="note">Made by atts-sim {escape(__version__)}.</p>
</body>
</html>
"""
