"""``atts-sim validate TRACE.events.parquet``: a published trace, whose questions' times are all that is known of time.

Costs are fitted to every other question, or to the traces of ``--fit-on``; the others are predicted, their token counts
and verdicts as recorded.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from atts_runtime.errors import InputError
from atts_sim.recorded import read_trace
from atts_sim.tracefit import TraceCosts, TraceErrors, fit_trace, halves, judge

OFF = 1


def is_trace(path: Path) -> bool:
    """Whether a path names a published trace rather than a run directory."""
    return path.name.endswith(".parquet")


def execute_traces(args: argparse.Namespace) -> int:
    """Fit, predict, compare, print; 1 where a total is off by more than the tolerance."""
    if not all(map(is_trace, (*args.runs, *args.fit_on))):
        raise InputError("give either run directories or published traces (.events.parquet), not both")
    if args.workload not in ("replay", "fitted") or args.save or args.profile:
        raise InputError(
            "a published trace is replayed or drawn (--workload fitted) with costs of its own: leave out other "
            "workloads, --save and --profile"
        )
    if args.workload == "fitted":
        from atts_sim.commands.validate_drawn import execute_drawn

        if args.fit_on:
            raise InputError("a drawn trace is fitted to every other question of its own: leave out --fit-on")
        return execute_drawn(args)
    if len(args.fit_on) > 1:
        raise InputError("costs are fitted to one published trace; give --fit-on one")
    given = fit_trace(read_trace(args.fit_on[0])) if args.fit_on else None
    found: list[tuple[Path, TraceCosts, TraceErrors]] = []
    for path in args.runs:
        whole = read_trace(path)
        fitted, others = halves(whole)
        costs = given or fit_trace(fitted)
        found.append((path, costs, judge(whole if given else others, costs)))
    good = all(abs(errors.total) <= args.tolerance for _, _, errors in found)
    if args.json:
        told = [
            {"trace": str(path), "costs": asdict(costs), "total_error": errors.total, **asdict(errors)}
            for path, costs, errors in found
        ]
        print(json.dumps({"verdict": "holds" if good else "off", "tolerance": args.tolerance, "traces": told}))
    else:
        _print(found)
    return 0 if good else OFF


def _print(found: list[tuple[Path, TraceCosts, TraceErrors]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="questions that were not fitted: seconds predicted and recorded", title_justify="left")
    for heading in ("trace", "questions", "recorded s", "predicted s", "total", "median error", "p90 error", "fitted"):
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    for path, costs, errors in found:
        table.add_row(
            path.name.removesuffix(".events.parquet"), str(errors.questions), f"{errors.recorded_s:,.0f}",
            f"{errors.predicted_s:,.0f}", f"{errors.total:+.1%}", f"{errors.median:.1%}", f"{errors.p90:.1%}",
            f"{costs.residual:.1%}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for path, costs, _ in found:
        console.print(f"{path.name}: draft {costs.draft}, target {costs.target}", markup=False, highlight=False)
