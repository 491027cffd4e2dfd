"""Figures by name as people read them: titles, units, which of them tell a study best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atts_runtime.report.amounts import UNKNOWN, count, percent, scaled, seconds, short
from atts_sim.row import Row

FIGURES_TOLD = (
    "accuracy",
    "voted",
    "answered",
    "makespan_s",
    "latency_s.p50",
    "latency_s.p95",
    "takeover_rate",
    "tokens.takeover",
    "stall_s.all",
    "draft.utilisation",
    "target.utilisation",
    "devices",
    "device_s",
    "usd",
    "goodput_per_s",
    "r",
)
"""In tables: what the choice between settings hangs on."""
IN_BRIEF = ("accuracy", "latency_s.p95", "takeover_rate", "usd")
"""The same for a terminal."""

_TITLES = {
    "accuracy": "accuracy",
    "voted": "vote right",
    "answered": "answered",
    "makespan_s": "makespan",
    "latency_s.p50": "latency p50",
    "latency_s.p95": "latency p95",
    "takeover_rate": "takeovers",
    "tokens.takeover": "target wrote",
    "stall_s.all": "stall",
    "draft.utilisation": "draft busy",
    "target.utilisation": "target busy",
    "device_s": "device time",
    "usd": "cost",
    "goodput_per_s": "goodput",
    "r": "r",
}
_SHARES = ("accuracy", "voted", "answered", "pass_at_m")


def column_title(name: str) -> str:
    return _TITLES.get(name, name)


def parameter_title(name: str) -> str:
    """An option as a column or an axis names it: ``engines.target.max_rows`` is ``target max_rows``."""
    for prefix in ("settings.", "engines.", "workload."):
        name = name.removeprefix(prefix)
    return name.replace(".", " ")


def plain_log(axis: Any) -> None:
    """A logarithmic axis of matplotlib with plain numbers: as powers of ten they would need fonts that a page lacks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def told(name: str, value: float | int | str | None) -> str:
    """A figure with its unit."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    if name == "usd":
        return f"${value:,.2f}" if value >= 0.1 else f"${value:.2g}"
    if name in _SHARES or name.endswith(("utilisation", "_share")):
        return percent(value)
    if name == "takeover_rate":
        return f"{value:.3f}"
    if name.endswith("_per_s"):
        return f"{short(value)} /s"
    if "_s." in name or name.endswith(("_s", "_s.se")):
        return seconds(value)
    if name.endswith("_j"):
        return scaled(value, "J")
    return count(value) if float(value).is_integer() else short(value)


def shown_figures(rows: Sequence[Row], objective: str, of: Sequence[str] = FIGURES_TOLD) -> list[str]:
    """Those of `of` that some row has, the objective's first."""
    names = dict.fromkeys((objective, *of))
    return [name for name in names if any(row.figures.get(name) is not None for row in rows)]
