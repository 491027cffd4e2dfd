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
from atts_sim.commands.console import stdout_console
from atts_sim.published import read_trace
from atts_sim.recorded import Recorded
from atts_sim.tracefit import TraceCosts, TraceErrors, fit_trace, halves, judge
from atts_sim.tracetokens import at_cap

OFF = 1


def is_trace(path: Path) -> bool:
    """Whether a path names a published trace rather than a run directory."""
    return path.name.endswith(".parquet")


def execute_traces(args: argparse.Namespace) -> int:
    """Fit, predict, compare, print; 1 where a total is off by more than the tolerance."""
    if not all(map(is_trace, (*args.runs, *args.fit_on))):
        raise InputError("give either run directories or published traces (.events.parquet), not both")
    if args.workload not in ("replay", "fitted") or args.save or args.profile or args.save_costs or args.save_profiles:
        raise InputError(
            "a published trace is replayed or drawn (--workload fitted) with costs of its own: leave out other "
            "workloads, --profile, --save, --save-costs and --save-profiles"
        )
    if args.workload == "fitted":
        from atts_sim.commands.validate_drawn import execute_drawn  # which needs what is here

        if args.fit_on:
            raise InputError("a drawn trace is fitted to every other question of its own: leave out --fit-on")
        return execute_drawn(args)
    if len(args.fit_on) > 1:
        raise InputError("costs are fitted to one published trace; give --fit-on one")
    given = costs_of(args.fit_on[0], at_cap(read_trace(args.fit_on[0]))) if args.fit_on else None
    found: list[tuple[Path, TraceCosts, TraceErrors]] = []
    for path in args.runs:
        whole = at_cap(read_trace(path))
        fitted, others = (whole, whole) if given else halves(whole)
        costs = given or costs_of(path, fitted)
        found.append((path, costs, judge(others, costs)))
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


def costs_of(path: Path, recorded: Recorded) -> TraceCosts:
    """`tracefit.fit_trace`, which takes a while: how far it is shows on stderr."""
    from rich.console import Console
    from rich.markup import escape

    doing = f"fitting costs to {escape(path.name)}"
    with Console(stderr=True).status(doing) as status:
        return fit_trace(recorded, watch=lambda done: status.update(f"{doing}: simulation {done}"))


def _print(found: list[tuple[Path, TraceCosts, TraceErrors]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    judged = Table(
        "trace", title="questions that were not fitted: seconds, predicted and recorded", title_justify="left"
    )
    for heading in ("questions", "recorded", "predicted", "total", "median error", "p90 error", "median, fitted half"):
        judged.add_column(heading, justify="right")
    constants = Table("trace", "model", title="fitted constants", title_justify="left")
    for heading in ("step ms", "and a call us", "score ms", "and a token us"):
        constants.add_column(heading, justify="right")
    for path, costs, errors in found:
        name = escape(path.name.removesuffix(".events.parquet"))
        judged.add_row(
            name, str(errors.questions), f"{errors.recorded_s:,.0f}", f"{errors.predicted_s:,.0f}",
            f"{errors.total:+.1%}", f"{errors.median:.1%}", f"{errors.p90:.1%}", f"{costs.residual:.1%}",
        )  # fmt: skip
        for model, cost in (("draft", costs.draft), ("target", costs.target)):
            score = ("", "") if model == "draft" else (f"{1e3 * cost.score_s:.3g}", f"{1e6 * cost.score_token_s:.3g}")
            constants.add_row(name, model, f"{1e3 * cost.step_s:.3g}", f"{1e6 * cost.row_s:.3g}", *score)
    console = stdout_console()
    console.print(judged)
    console.print(constants)
