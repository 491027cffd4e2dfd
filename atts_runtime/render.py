"""What people see: progress while a run lasts, tables when it is over. Programs read the JSON instead."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
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

from atts_runtime import driver


class ProgressBar:
    """A bar on stderr: chains done, takeover rate, stall so far, time to go. Silent unless stderr is a terminal."""

    def __init__(self, label: str, console: Console) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
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

    def update(self, progress: driver.Progress) -> None:
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
    """The table of `atts-runtime compare`; a run alone is a table of one row."""
    table = Table(title=title, title_justify="left")
    table.add_column("policy", style="bold")
    for name in ("wall s", "speedup", "accuracy [95%]", "majority", "takeover", "stall s"):
        table.add_column(name, justify="right")
    for name in ("draft tok", "scored tok", "target tok"):
        table.add_column(name, justify="right", style="dim" if name == "scored tok" else None)
    table.add_column("bound/wall", justify="right")
    for row in rows:
        accuracy, tokens = row["accuracy"], row["tokens"]
        low, high = accuracy["mean_chain_ci95"] or (None, None)
        bound = row["lower_bound_s"]
        table.add_row(
            row["policy"],
            f"{row['wall_s']:.1f}",
            f"{row['speedup']:.2f}x" if "speedup" in row else "-",
            f"{_percent(accuracy['mean_chain'])} [{_percent(low)}, {_percent(high)}]",
            _percent(accuracy["majority"]),
            "-" if row["takeover_rate"] is None else f"{row['takeover_rate']:.2f}",
            f"{row['stall_s']:.0f}",
            f"{tokens['draft']:,}",
            f"{tokens['scored']:,}",
            f"{tokens['takeover']:,}",
            "-" if bound is None else f"{bound / row['wall_s']:.2f}",
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
