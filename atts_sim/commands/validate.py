"""``atts-sim validate RUN...``: runs predicted, and held against what was measured."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.commands.running import add_plugins
from atts_runtime.control.registry import load_plugins
from atts_runtime.errors import InputError
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_sim.calibrate import Costs, calibrate, stated_costs
from atts_sim.commands.console import stdout_console
from atts_sim.commands.validate_trace import execute_traces, is_trace
from atts_sim.correction import Correction
from atts_sim.costs_store import save_costs
from atts_sim.generative import FittedWorkload
from atts_sim.generative_fit import Source, fit_workload
from atts_sim.generative_store import load_workload, save_workload
from atts_sim.goodness import Fit, Sampled, goodness
from atts_sim.logprofile import profiles_of, save_profiles
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.recorded import from_records
from atts_sim.twin import run_twin
from atts_sim.validate import TOLERANCE, Validation, WorkloadKind, as_json, validate, workload_of

OFF = 1


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-sim``."""
    parser = commands.add_parser(
        "validate",
        help="compare simulations with measured runs",
        usage="%(prog)s RUN... [OPTION]...",
        description="Simulate runs and compare wall, latency, stall, takeovers, busy time and r with what was "
        "measured. Costs come from engine profiles, corrected by the runs of --fit-on. Exits with 1 where wall, median "
        "or 95th percentile of latency, or the takeover rate is off by more than --tolerance, or policies come out in "
        "the wrong order. Of a published trace the total of its questions' times is judged by --tolerance; with "
        "--workload fitted, also whether what was recorded lies in the intervals of what is drawn.",
        epilog="example: atts-sim validate runs/m16 runs/m32 --fit-on runs/m4 runs/m8",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directory, or published trace, to predict"
    )
    parser.add_argument("--fit-on", type=Path, nargs="+", default=[], metavar="RUN", help="run directories to fit to")
    parser.add_argument(
        "--profile",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="engine profiles (default: those shipped that are of the runs' models)",
    )
    parser.add_argument(
        "--workload",
        default="replay",
        metavar="replay|fitted|FILE",
        help="what the models write: as each run recorded it, drawn from a model fitted to --fit-on, or from a saved "
        "one (default: %(default)s)",
    )
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the workload that is fitted to --fit-on, or without it to RUN, as JSON",
    )
    parser.add_argument(
        "--save-costs",
        type=Path,
        metavar="FILE",
        help="write what engines cost in the runs of --fit-on, or without it in RUN, for a study's engines.costs",
    )
    parser.add_argument(
        "--save-profiles",
        type=Path,
        metavar="FOLDER",
        help="write engine profiles of vLLM, measured by the runs of --fit-on, or without it by RUN, which is then not "
        "predicted",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="relative error that the verdict allows, absolute for the takeover rate; of a published trace, relative "
        "error of the total of its questions' times (default: %(default)s)",
    )
    add_plugins(parser.add_argument_group("policy"))
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Fit, predict, compare, print; 1 where the verdict is off."""
    load_plugins(args.plugin)
    if not args.tolerance > 0:
        raise InputError(f"tolerance must be positive, got {args.tolerance}")
    if both := {path.resolve() for path in args.runs} & {path.resolve() for path in args.fit_on}:
        raise InputError(f"{min(both)} is fitted to and predicted; what is predicted must not be seen before")
    if any(map(is_trace, args.runs)):
        return execute_traces(args)
    runs, refused = _readable(args.runs)
    fitted_runs = [measured_run(path) for path in args.fit_on]
    profiles = [EngineProfile.from_toml(path) for path in args.profile]
    if args.save_profiles:
        for file in save_profiles(profiles_of(fitted_runs or runs), args.save_profiles):
            print(f"atts-sim validate: wrote {file}", file=sys.stderr)
        if not fitted_runs and not profiles:
            return 0  # runs that were fitted to are not predicted
    costs = _costs(runs, fitted_runs, profiles)
    if args.save_costs:
        sources = fitted_runs or runs
        save_costs(costs if fitted_runs else calibrate(runs, profiles), [run.name for run in sources], args.save_costs)
    kind: WorkloadKind = "replay" if args.workload == "replay" else "fitted"
    seen = fitted_runs
    if kind == "replay" and not seen:
        seen = runs  # nothing is predicted with the workload: it is saved
    workload = _workload(args.workload, seen) if kind == "fitted" or args.save else None
    if args.save and workload is not None:
        save_workload(workload, args.save)
    found = validate(runs, costs, kind=kind, fitted=workload, tolerance=args.tolerance, refused=refused)
    fits = _goodness(seen, costs, workload) if workload is not None else ()
    if args.json:
        from dataclasses import asdict

        told = as_json(found, costs) | {"workload": kind, "goodness": [asdict(fit) for fit in fits]}
        print(json.dumps(told, allow_nan=False))
    else:
        _print(found, costs, fits)
    return 0 if found.holds else OFF


def _readable(paths: Sequence[Path]) -> tuple[list[MeasuredRun], list[tuple[str, str]]]:
    """Runs that can be modelled, and those that cannot with the reason. Raises InputError where it is none at all."""
    runs, refused = [], []
    for path in paths:
        try:
            runs.append(measured_run(path))
        except InputError as error:
            refused.append((str(path), str(error)))
    if not runs:
        raise InputError(refused[0][1])
    return runs, refused


def _costs(runs: Sequence[MeasuredRun], fitted: Sequence[MeasuredRun], profiles: Sequence[EngineProfile]) -> Costs:
    if fitted:
        return calibrate(fitted, profiles)
    # Of the first run that used both models; those of others cannot be modelled with its costs.
    first = next((run for run in runs if run.uses_both), runs[0])
    specs = dict(first.specs)
    for run in () if first.one_engine else runs:
        specs = {**run.specs, **specs}
    return stated_costs(specs, profiles, one_engine=first.one_engine, cpu=first.cpu, engine=first.config.engine)


def _workload(asked: str, runs: Sequence[MeasuredRun]) -> FittedWorkload:
    if asked not in ("replay", "fitted"):
        return load_workload(Path(asked))
    if not runs:
        raise InputError("a workload is fitted to runs; give them with --fit-on")
    return fit_workload([source_of(run) for run in runs])


def source_of(run: MeasuredRun) -> Source:
    """A run as a recording to fit to."""
    replaces = run.config.recipe.action.replace
    ids = {record.question: record.question_id for record in run.records}
    recorded = from_records(run.records, replaces=replaces)
    return Source(run.name, recorded, replaces, tuple(ids[q] for q in sorted(ids)))


def _goodness(runs: Sequence[MeasuredRun], costs: Costs, workload: FittedWorkload) -> tuple[Fit, ...]:
    recorded = [Sampled.of(run_twin(run.config, workload_of(run, "replay", None), costs)) for run in runs]
    drawn = [Sampled.of(run_twin(run.config, workload_of(run, "fitted", workload), costs)) for run in runs]
    return goodness(recorded, drawn)


# -- what a person reads


def _print(found: Validation, costs: Costs, fits: Sequence[Fit]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = stdout_console()
    for compared in found.compared:
        config = compared.run.config
        flight = "all questions" if config.questions_in_flight is None else f"{config.questions_in_flight} question(s)"
        title = f"{compared.run.name}: {config.policy}, {config.chains} chains, {flight} in flight"
        if len(compared.repeats) > 1:
            title += f"; medians of {len(compared.repeats)} runs"
        table = Table(title=escape(title), title_justify="left")
        for heading in ("figure", "measured", "predicted", "error"):
            table.add_column(heading, justify="left" if heading == "figure" else "right")
        for line in compared.lines:
            if line.measured is None and line.predicted is None:
                continue
            wrong = line.judged and line.error is not None and abs(line.error) > found.tolerance
            error = "" if line.error is None else f"{line.error:+.3f}" if line.unit == "1" else f"{line.error:+.1%}"
            table.add_row(
                f"{line.name} *" if line.judged else line.name,
                _shown(line.measured),
                _shown(line.predicted),
                f"[red]{error}[/red]" if wrong else error,
            )
        console.print(table)
    if costs.fitted:
        console.print(_residuals(costs))
    if fits:
        console.print(_fits(fits))
    for run, reason in found.refused:
        print(f"atts-sim validate: not modelled: {run}: {reason}", file=sys.stderr)
    for fast, slow in found.misordered:
        console.print(f"order: {fast} was faster than {slow}, and is predicted to be slower", markup=False)
    good = sum(compared.holds(found.tolerance) for compared in found.compared)
    console.print(
        f"{good} of {len(found.compared)} runs within {found.tolerance:.0%} (figures marked *), "
        f"{found.pairs - len(found.misordered)} of {found.pairs} pairs of policies in the right order, "
        f"{len(found.refused)} not modelled: {'holds' if found.holds else 'off'}",
        markup=False, highlight=False,
    )  # fmt: skip


def _shown(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _residuals(costs: Costs) -> Any:
    from rich.table import Table

    table = Table(title="steps: what the fit makes of them, fitted and held out by run", title_justify="left")
    names = (
        "engine",
        "phase",
        "steps",
        "x 1 row",
        "x 8",
        "x 64",
        "new rows +",
        "step us",
        "contention",
        "sum",
        "sum held out",
        "median",
    )
    for heading in names:
        table.add_column(heading, justify="left" if heading in ("engine", "phase") else "right")
    for (role, phase), error in costs.fitted.items():
        c, held_out = costs.engines[role].corrections[phase], costs.held_out.get((role, phase))
        table.add_row(
            role, phase, f"{error.steps:,}", *(f"{c.factor(rows):.2f}" for rows in (1, 8, 64)), f"{c.recent:.2f}",
            f"{c.step_s * 1e6:.0f}", _contention(c), f"{error.sum_error:+.1%}",
            "" if held_out is None else f"{held_out.sum_error:+.1%}", f"{error.median_error:.1%}",
        )  # fmt: skip
    handling = costs.handling
    told = [f"an answer: {handling.latency_s * 1e6:.0f} us to the driver, {handling.each_s * 1e6:.0f} after another"]
    for role, engine in costs.engines.items():
        if engine.wake_s:
            told.append(f"an idle {role} engine: {engine.wake_s * 1e6:.0f} us to begin a pass")
        if (calls := engine.per_call) is not None:
            told.append(f"a {role} call: {calls.generate.call_s * 1e6:.0f} us to begin, {calls.end_s * 1e6:.0f} to end")
    table.caption = "\n".join(told)
    return table


def _contention(correction: Correction) -> str:
    return f"{correction.contention:.2f} + {correction.contention_s * 1e6:.0f} us"


def _fits(fits: Sequence[Fit]) -> Any:
    from rich.table import Table

    table = Table(title="fitted workload: what it draws, beside what was recorded", title_justify="left")
    for heading in ("figure", "recorded", "drawn", "KS distance", "n", "quantiles 10/50/90%"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for fit in fits:
        quantiles = "  ".join(f"{a:.3f}/{b:.3f}" for a, b in fit.quantiles)
        sizes = f"{fit.sizes[0]:,}/{fit.sizes[1]:,}"
        table.add_row(fit.name, f"{fit.recorded:.3f}", f"{fit.drawn:.3f}", f"{fit.distance:.3f}", sizes, quantiles)
    return table
