"""``atts-runtime run``: one policy over a task."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from atts_runtime.commands.running import config_of, default_out, report_failures


async def execute(args: argparse.Namespace) -> int:
    """Run one policy and say what came of it."""
    from rich.console import Console

    from atts_runtime.render import ProgressBar, comparison_table
    from atts_runtime.rundir import RunDir
    from atts_runtime.session import check_context, check_engine, check_hardware, engines_for, load, roles, run_once

    config = config_of(args)
    needed = set(roles(config).values())
    check_engine(config, needed)
    out = Path(config.out or default_out(config.policy))
    config, task = load(config)
    fingerprint = config.fingerprint(task.fingerprint)
    run_dir = RunDir.resume(out, fingerprint) if args.resume else None
    if run_dir is None:
        RunDir.check_free(out)
    console = Console(stderr=True)
    console.print(
        f"[dim]{len(task.questions)} questions x {config.chains} chains, run directory {out}[/dim]", highlight=False
    )
    async with engines_for(config, needed) as engines:
        check_context(config, task, engines)
        check_hardware(config, engines)
        run_dir = run_dir or RunDir.create(out, config, fingerprint)
        with ProgressBar(config.policy, console) as bar:
            summary = await run_once(config, task, engines, run_dir, bar.update)
    if args.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        Console().print(
            comparison_table(
                [summary | {"policy": config.label}], f"{config.task}, {config.chains} chains, run directory {out}"
            )
        )
    return report_failures([summary])
