"""``atts-sim sweep STUDY.toml``: every point of a study, the best of them, and a page about all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.commands.running import add_plugins
from atts_runtime.control.registry import load_plugins
from atts_runtime.errors import InputError
from atts_runtime.machine import cores
from atts_sim.commands.console import stdout_console
from atts_sim.commands.progress import progress
from atts_sim.pool import InProcess, Pool, Processes, Ray
from atts_sim.results import BEST, REPORT, TABLE, as_json, json_text
from atts_sim.study import Study, read_study, studies_folder
from atts_sim.sweep import Swept, sweep

FAILED, INTERRUPTED = 1, 130


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-sim``."""
    parser = commands.add_parser(
        "sweep",
        help="simulate every point of a study",
        description="Simulate a study's points; write results.parquet, best.toml (for atts-runtime run --config) and "
        "report.html. Given --out of an interrupted sweep, it goes on where that stopped.",
        epilog="example: atts-sim sweep policy-comparison --set workload.path=runs/mine --out sweeps/policies --jobs 4",
    )
    add_study(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: all cores; 1: in this process); results are the same"
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on a Ray cluster, without ADDRESS on one that is started here; results are the same",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results (default: sweeps/NAME, after the study's file)"
    )
    parser.add_argument("--no-report", action="store_true", help="write no report.html")
    parser.set_defaults(execute=execute)


def add_study(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a study and change it."""
    shipped = ", ".join(sorted(file.stem for file in studies_folder().glob("*.toml")))
    parser.add_argument("study", type=Path, metavar="STUDY", help=f"a study's TOML file, or a shipped one: {shipped}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change an entry: a setting by its name, others by table and name (engines.target.tp=2)",
    )
    add_plugins(parser.add_argument_group("policy"))
    add_output(parser)


def execute(args: argparse.Namespace) -> int:
    """Run the sweep and say what is best."""
    load_plugins(args.plugin)
    study = read_study(args.study, args.set)
    pool = pool_for(study, args.jobs, args.ray)
    out: Path = args.out or Path("sweeps") / args.study.stem
    with progress(study.name) as on_progress:
        found = sweep(study, pool, out, on_progress)
    page = None
    if found.rows and not args.no_report:
        from atts_sim.report.page import write_report

        page = write_report(out / REPORT, study, found).path
    if args.json:
        print(json_text(_told(study, found, out, page)))
    else:
        from atts_sim.report.text import outcome

        console = stdout_console()
        for line in outcome(study, found, out, page):
            console.print(line, soft_wrap=isinstance(line, str), highlight=False)
    if not found.whole:
        print(
            f"atts-sim sweep: interrupted; {len(found.rows)} rows are kept, the same command goes on", file=sys.stderr
        )
        return INTERRUPTED
    if found.best is None:
        print(f"atts-sim sweep: {no_best(study, found)}", file=sys.stderr)
        return FAILED
    return 0


def pool_for(study: Study, jobs: int | None, ray: str | None) -> Pool:
    """Where the points are worked on. InputError where that is not to be had."""
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, got {jobs}")
    if ray is not None:
        if jobs is not None:
            raise InputError("--jobs and --ray exclude each other; Ray uses the cores of its cluster")
        return Ray(study, ray)
    jobs = jobs or cores()
    return InProcess(study) if jobs == 1 else Processes(study, jobs)


def no_best(study: Study, found: Swept) -> str:
    """Why no row is the best."""
    usable = [row for row in found.rows if row.error is None]
    if usable and all(row.figures.get("verdict") == "saturated" for row in usable):
        loads = [load for row in usable if (load := row.figures.get("load")) is not None]
        return (
            f"no row is admissible, so there is no {BEST}: every point is saturated, the least at a load of "
            f"{min(loads):.3g}; let questions come more slowly, or give it more or faster devices"
        )
    missed = sorted({name for row in usable for name in study.objective.misses(row)})
    return f"no row is admissible, so there is no {BEST}: {study.objective}" + (
        f"; missed: {', '.join(missed)}" if missed else f"; {study.objective.figure} is not known"
    )


def _told(study: Study, found: Swept, out: Path, page: Path | None) -> dict[str, Any]:
    return {
        "study": study.name,
        "objective": str(study.objective),
        "points": len(found.rows),
        "size": found.size,
        "resumed": found.resumed,
        "errors": sum(row.error is not None for row in found.rows),
        "whole": found.whole,
        "best": None if found.best is None else as_json(found.best),
        "front": [as_json(row) for row, member in zip(found.rows, found.front.members, strict=True) if member],
        "results": str(out / TABLE),
        "best_config": None if found.best is None else str(out / BEST),
        "report": None if page is None else str(page),
    }
