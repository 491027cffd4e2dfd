"""How far long work is, for whoever watches it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from atts_runtime.report.amounts import seconds
from atts_sim.sweep import OnProgress

_EVERY_S = 15.0


@contextmanager
def progress(name: str) -> Iterator[OnProgress]:
    """On stderr with the time that is left: a bar, or where that is no terminal a line now and then."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(name)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(escape(name), total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


class Lines:
    """Progress for logs: a line every `_EVERY_S`, the time left at the pace of what this session did itself."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._start_s = self._told_s = clock()
        self._first: int | None = None

    def __call__(self, done: int, of: int) -> None:
        if self._first is None:
            self._first = done  # from an earlier session
        now = self._clock()
        if now - self._told_s < _EVERY_S or done == of:
            return
        self._told_s = now
        made = done - self._first
        left = f", about {seconds((now - self._start_s) * (of - done) / made)} left" if made else ""
        print(f"{self._name}: {done} of {of}{left}", file=sys.stderr, flush=True)
