"""``atts-sim run STUDY.toml``: one point of a study."""

from __future__ import annotations

import argparse
from typing import Any

from atts_runtime.control.registry import load_plugins
from atts_runtime.errors import InputError
from atts_sim.commands.console import stdout_console
from atts_sim.commands.sweep import add_study
from atts_sim.point import Points
from atts_sim.results import as_json, json_text
from atts_sim.study import read_study


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-sim``."""
    parser = commands.add_parser(
        "run",
        help="simulate one point of a study",
        description="Simulate one point: what the study fixes, the first of what it sweeps, what --set says.",
        epilog="example: atts-sim run policy-comparison --set workload.path=runs/mine --set policy=barrier",
    )
    add_study(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print the point's figures."""
    load_plugins(args.plugin)
    study = read_study(args.study, args.set)
    chosen = {axis.name: axis.values[0] if axis.values else axis.at(0.0) for axis in study.axes}
    row = Points(study).row(0, chosen)
    if row.error is not None:
        raise InputError(row.error)
    if args.json:
        print(json_text({"study": study.name, **as_json(row)}))
        return 0
    from atts_sim.report.text import figures_table

    stdout_console().print(*figures_table(study, row), sep="\n")
    return 0
