"""What ``run`` and ``compare`` have in common: settings from flags and files, interruption, failures."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from atts_runtime.config import RunConfig, read_options
from atts_runtime.control.registry import load_plugins
from atts_runtime.errors import InputError

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]


def interruptible(command: Command) -> Callable[[argparse.Namespace], int]:
    """Ctrl-C and SIGTERM cancel the command, which closes its run directory on the way out."""

    async def watched(args: argparse.Namespace) -> int:
        task = asyncio.ensure_future(command(args))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, task.cancel)
            except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no signals here
                break
        return await task

    return lambda args: asyncio.run(watched(args))


def add_plugins(group: argparse._ArgumentGroup) -> None:
    """Add ``--plugin``."""
    group.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="Python file that registers a gate; repeatable"
    )


def config_of(args: argparse.Namespace) -> RunConfig:
    """The settings: defaults, then the file, then flags. Raises InputError where they are none."""
    load_plugins(args.plugin)
    known = {field.name for field in fields(RunConfig)}
    options = read_options(args.config) if args.config else {}
    if getattr(args, "resume", False) and not args.config:
        if "out" not in args:
            raise InputError("--resume needs --out, the run directory to go on with")
        saved = Path(args.out) / "config.toml"
        options = read_options(saved) if saved.exists() else {}
    options |= {name: value for name, value in vars(args).items() if name in known}
    return RunConfig().with_options(options)


def default_out(label: str) -> str:
    """A run directory named by the time."""
    return str(Path("runs") / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{label}")


def report_failures(summaries: Sequence[dict[str, Any]]) -> int:
    """The exit code, with a line on stderr where chains failed."""
    failed = sum(summary["failed_chains"] for summary in summaries)
    if not failed:
        return 0
    total = sum(summary["chains"] for summary in summaries)
    print(f"atts-runtime: {failed} of {total} chains failed; chains.jsonl has their reasons", file=sys.stderr)
    return 1
