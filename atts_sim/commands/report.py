"""``atts-sim report DIR``: a sweep's page, written again from its results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_sim.objective import front
from atts_sim.results import REPORT, STUDY, json_text, read_sweep
from atts_sim.study import read_study
from atts_sim.sweep import Swept, best_of


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-sim``."""
    parser = commands.add_parser(
        "report",
        help="write a sweep's results as one HTML file",
        description="Write report.html from the rows and the study in a sweep's folder; --out writes it elsewhere.",
        epilog="example: atts-sim report sweeps/policies",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a sweep")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: DIR/report.html)")
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from atts_sim.report.page import write_report

    rows = read_sweep(args.folder)
    study = read_study(args.folder / STUDY)
    size = study.search().size
    found = Swept(rows, best_of(study, rows), front(rows), len(rows), size, len(rows) >= size)
    page = write_report(args.out or args.folder / REPORT, study, found)
    print(
        json_text({"report": str(page.path), "findings": page.findings, "warnings": page.warnings})
        if args.json
        else page.path
    )
    return 0
