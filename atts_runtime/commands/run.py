"""``atts-runtime run``: one policy over a task."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from atts_runtime.commands.running import config_of, default_out, report_failures
from atts_runtime.config import RunConfig


async def execute(args: argparse.Namespace) -> int:
    """Run one policy and say what came of it."""
    from rich.console import Console

    from atts_runtime.render import ProgressBar
    from atts_runtime.rundir import RunDir, ended
    from atts_runtime.session import check_context, check_engine, check_hardware, engines_for, load, roles, run_once

    config = config_of(args)
    needed = set(roles(config).values())
    check_engine(config, needed)
    out = Path(config.out or default_out(config.policy))
    config, task = load(config)
    fingerprint = config.fingerprint(task.fingerprint)
    console = Console(stderr=True)
    if args.resume and (whole := ended(out, fingerprint)) is not None:
        console.print(
            f"all {whole['chains']} chains of {out} are over: nothing is left to do",
            style="dim",
            markup=False,
            highlight=False,
        )
        return _say(args, config, whole | {"run_dir": str(out)})
    run_dir = RunDir.resume(out, fingerprint) if args.resume else None
    if run_dir is None:
        RunDir.check_free(out)
    console.print(
        f"{len(task.questions)} questions x {config.chains} chains, run directory {out}",
        style="dim",
        markup=False,
        highlight=False,
    )
    async with engines_for(config, needed) as engines:
        check_context(config, task, engines)
        check_hardware(config, engines)
        run_dir = run_dir or RunDir.create(out, config, fingerprint)
        with ProgressBar(config.policy, console) as bar:
            summary = await run_once(config, task, engines, run_dir, bar.update)
    return _say(args, config, summary)


def _say(args: argparse.Namespace, config: RunConfig, summary: dict[str, Any]) -> int:
    from rich.console import Console

    from atts_runtime.render import comparison_table

    if args.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        title = f"{config.task}, {config.chains} chains, run directory {summary['run_dir']}"
        Console().print(comparison_table([summary | {"policy": config.label}], title))
    return report_failures([summary])
