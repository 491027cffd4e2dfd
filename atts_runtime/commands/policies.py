"""``atts-runtime policies``: every policy in a line, and the parts that they are made of."""

from __future__ import annotations

import argparse
import json
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.commands.running import add_plugins
from atts_runtime.control.policies import Recipe
from atts_runtime.control.registry import PARTS, POLICIES, load_plugins


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-runtime``."""
    parser = commands.add_parser(
        "policies",
        help="list the policies, and the parts that they are made of",
        description="List every policy in a line, and the gates, actions, schedules, stop rules and votes that the "
        "settings gate, action, schedule, early_stop and vote put in place of a policy's own.",
        epilog="examples:\n  atts-runtime policies\n"
        "  atts-runtime run --policy async-marginal --action redraft --vote confidence",
    )
    add_plugins(parser.add_argument_group("files"))
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Print them."""
    load_plugins(args.plugin)
    told = {
        "policies": [_told(recipe) for recipe in POLICIES.values()],
        "parts": {
            kind: [{"name": p.name, "about": p.about, "paper": getattr(p, "paper", None)} for p in parts.values()]
            for kind, parts in PARTS.items()
        },
    }
    if args.json:
        print(json.dumps(told, allow_nan=False))
    else:
        _print(told)
    return 0


def _told(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "about": recipe.about,
        "gate": recipe.gate.name,
        "action": recipe.action.name if recipe.gate.judges != "nothing" else None,
        "schedule": recipe.schedule.name,
        "vote": recipe.vote.name,
        "one_model": recipe.one_model,
        "paper": recipe.paper,
    }


def _print(told: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    table = Table(box=None, pad_edge=False)
    for title in ("policy", "what it does", "gate", "action", "schedule", "vote", "paper"):
        table.add_column(title, no_wrap=True)
    for row in told["policies"]:
        table.add_row(*(row[key] or "-" for key in ("name", "about", "gate", "action", "schedule", "vote", "paper")))
    console.print(table, highlight=False)
    for kind, parts in told["parts"].items():
        table = Table(kind, "", "", box=None, pad_edge=False, title_justify="left")
        for part in parts:
            table.add_row(part["name"], part["about"], part["paper"] or "")
        console.print()
        console.print(table, highlight=False)
