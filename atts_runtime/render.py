"""What people see: progress while a run lasts, tables when it is over. Programs read the JSON instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from atts_runtime import chain

MANY = 5
"""More policies than this do not fit beside each other."""


class ProgressBar:
    """A bar on stderr: chains done, takeover rate, stall so far, time to go. Silent unless stderr is a terminal."""

    def __init__(self, label: str, console: Console) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("chains  takeover {task.fields[rate]}  stall {task.fields[stall]}  to go"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._label = label
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def update(self, progress: chain.Progress) -> None:
        """Show how far the run is."""
        rate = f"{progress.takeovers / progress.decisions:.2f}" if progress.decisions else "-"
        stall = f"{progress.stall_s:.0f} s"
        if self._task is None:
            self._task = self._bar.add_task(self._label, total=progress.chains, rate=rate, stall=stall)
        self._bar.update(self._task, completed=progress.chains_done, rate=rate, stall=stall)


def comparison_rows(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each summary with its speedup: the first one's wall seconds over its own."""
    first = summaries[0]["wall_s"]
    return [{**summary, "speedup": first / summary["wall_s"]} for summary in summaries]


def comparison_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """The table of both commands: a policy a column, a figure a row. Rows without a figure are left out. Of many
    policies: a policy a row, and only what they are judged by."""
    if len(rows) > MANY:
        return _many(rows, title)
    table = Table(title=escape(title), title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(escape(row["policy"]), justify="right")
    for label, show in _FIGURES:
        cells = [show(row) for row in rows]
        if any(cell != "-" for cell in cells):
            table.add_row(label, *cells)
    return table


def _many(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    table.add_column("", no_wrap=True)
    for label, _ in _JUDGED:
        table.add_column(label, justify="right")
    for row in rows:
        table.add_row(escape(row["policy"]), *(show(row) for _, show in _JUDGED))
    return table


def _accuracy(row: dict[str, Any]) -> str:
    mean, interval = row["accuracy"]["mean_chain"], row["accuracy"]["mean_chain_ci95"]
    if mean is None or interval is None:
        return "-"
    return f"{100 * mean:.1f}% [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _difference(row: dict[str, Any], what: str) -> str:
    found = row.get(f"{what}_difference")
    if found is None:
        return "-"
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] {found['verdict']}"


def _number(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else format(value, form)


def _adaptive(row: dict[str, Any], show: Callable[[dict[str, Any]], str]) -> str:
    """A figure of a policy whose alpha or bank changes; those of the others are settings."""
    calibration = row["calibration"]
    return "-" if calibration is None or calibration["alarms"] is None else show(calibration)


_FIGURES: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("wall, s", lambda row: _number(row["wall_s"], ".1f")),
    ("speedup", lambda row: _number(row.get("speedup"), ".2f")),
    ("accuracy, mean chain [95%]", _accuracy),
    ("  against the first [95%]", lambda row: _difference(row, "mean_chain")),
    ("accuracy, the policy's vote", lambda row: _number(row["accuracy"]["voted"], ".1%")),
    ("  against the first [95%]", lambda row: _difference(row, "voted")),
    ("accuracy, majority", lambda row: _number(row["accuracy"]["majority"], ".1%")),
    ("  answers that could not be checked", lambda row: str(row["accuracy"]["unknown_chains"] or "-")),
    ("takeover rate", lambda row: _number(row["takeover_rate"], ".3f")),
    (
        "  alpha, lowest to highest",
        lambda row: _adaptive(row, lambda c: f"{c['alpha_t']['min']:.2f} to {c['alpha_t']['max']:.2f}"),
    ),
    ("  decided without a cohort", lambda row: _adaptive(row, lambda c: f"{c['fallback_rate']:.1%}")),
    ("  monitors' alarms", lambda row: _adaptive(row, lambda c: str(len(c["alarms"])))),
    ("chains stalled, s", lambda row: _number(row["stall_s"], ",.1f")),
    ("  of it for the bank, s", lambda row: _number(row["stall_by_cause_s"]["bank"], ",.1f")),
    ("question latency p50, s", lambda row: _number(row["latency_s"]["p50"], ".2f")),
    ("tokens, draft", lambda row: _number(row["tokens"]["draft"])),
    ("tokens, target wrote", lambda row: _number(row["tokens"]["takeover"])),
    ("  share of all that was written", lambda row: _number(row.get("target_token_share"), ".1%")),
    ("tokens, target scored", lambda row: _number(row["tokens"]["scored"])),
    ("r by the chains' stall", lambda row: _number(row["intensity"]["r"], ".3f")),
    ("r by the engines' idle time", lambda row: _number(row["intensity"].get("r_engine"), ".3f")),
    ("busier engine / wall", lambda row: _number(row["lower_bound_s"] and row["lower_bound_s"] / row["wall_s"], ".2f")),
)
_JUDGED: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("wall, s", lambda row: _number(row["wall_s"], ".1f")),
    ("speedup", lambda row: _number(row.get("speedup"), ".2f")),
    ("mean chain, %", _accuracy),
    ("against the first, points", lambda row: _difference(row, "mean_chain")),
    ("vote", lambda row: _number(row["accuracy"]["voted"], ".1%")),
    ("takeover rate", lambda row: _number(row["takeover_rate"], ".3f")),
    ("target model wrote", lambda row: _number(row["target_tokens"])),
    ("of all", lambda row: _number(row.get("target_token_share"), ".0%")),
    ("r by stall", lambda row: _number(row["intensity"]["r"], ".3f")),
)
