"""The page: what came out in a few sentences, warnings, figures, tables, what ran, glossary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from atts_runtime import __version__
from atts_runtime.report import tables
from atts_runtime.report.by_turn import stall, takeovers
from atts_runtime.report.doubts import doubts
from atts_runtime.report.facts import RunFacts
from atts_runtime.report.gantt import gantt
from atts_runtime.report.glossary import glossary
from atts_runtime.report.html import folded
from atts_runtime.report.lead import lead
from atts_runtime.report.rates_by_m import r_against_m
from atts_runtime.report.roof import roofline
from atts_runtime.report.shown import Shown
from atts_runtime.report.theme import style_sheet
from atts_runtime.report.time_spent import time_spent

_MOST_ROWS = 48
_ALL_ROWS = 4 * _MOST_ROWS  # of a report: more runs have fewer rows each, so that the file stays small
_OPEN = 4  # runs whose chains are shown without a click


@dataclass(frozen=True, slots=True)
class Page:
    """The document, and what it says in plain text."""

    html: str
    findings: list[str]
    warnings: list[str]


def page(runs: Sequence[RunFacts], on_progress: Callable[[str], None]) -> Page:
    """The report of one or more runs with their labels; `on_progress` hears what is being drawn."""
    on_progress("figures")
    figures: list[tuple[str, Shown]] = [
        ("Intensity r", r_against_m(runs)),
        ("Roofline", roofline(runs)),
        ("Time of the engines", time_spent(runs)),
        ("Stall", stall(runs)),
        ("Takeovers", takeovers(runs)),
    ]
    rows = max(4, min(_MOST_ROWS, _ALL_ROWS // len(runs)))
    charts: list[tuple[RunFacts, Shown]] = []
    for place, run in enumerate(runs):
        on_progress(f"chains of {run.label}")
        charts.append((run, gantt(run, f"gantt{place}", rows)))
    warnings = doubts(runs)
    body = [_top(runs), _warnings(warnings)]
    body += ["<h2>Outcomes</h2>", tables.outcomes(runs)]
    body += [f"<h2>{escape(title)}</h2>\n{figure.html()}" for title, figure in figures]
    body.append("<h2>Chains over time</h2>")
    body += [
        chart.html() if place < _OPEN else folded(chart.finding, chart.html())
        for place, (_, chart) in enumerate(charts)
    ]
    body += ["<h2>Engines and phases</h2>", _phase_note(), tables.phases(runs), tables.engines(runs)]
    body.append("<h2>Turns</h2>")
    body += [folded(run.label, tables.turns(run)) if len(runs) > 1 else tables.turns(run) for run in runs]
    body += ["<h2>What ran</h2>", tables.header(runs)]
    body += ["<h2>Terms</h2>", glossary()]
    shown = [figure for _, figure in figures] + [chart for _, chart in charts]
    findings = [figure.finding for figure in shown if figure.result]
    return Page(_document(_title(runs), "\n".join(body)), findings, warnings)


def _title(runs: Sequence[RunFacts]) -> str:
    names = list(dict.fromkeys(run.policy for run in runs))
    apart = "; " if any("," in name for name in names) else ", "
    return f"{'Runs' if len(runs) > 1 else 'Run'} of {apart.join(names)}"


def _top(runs: Sequence[RunFacts]) -> str:
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in lead(runs))
    return f'<h1>{escape(_title(runs))}</h1>\n<ul class="lead">{said}</ul>'


def _warnings(said: Sequence[str]) -> str:
    if not said:
        return '<h2>Warnings</h2>\n<p class="note">None.</p>'
    return f'<h2>Warnings</h2>\n<ul class="warnings">{"".join(f"<li>{escape(text)}</li>" for text in said)}</ul>'


def _phase_note() -> str:
    return (
        '<p class="note">Tokens, busy seconds, counters, energy: measured. FLOPs, bytes, FLOP/byte: '
        "analytic. T_c, T_m, share of the roof: analytic over the hardware profile's rates. FLOP/s: analytic FLOPs "
        "over measured busy seconds.</p>"
    )


def _document(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{style_sheet()}</style>
</head>
<body>
{body}
<p class="note">Made by atts-runtime report {escape(__version__)}.</p>
</body>
</html>
"""
