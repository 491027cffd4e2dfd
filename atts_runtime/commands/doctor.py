"""``atts-runtime doctor``: what is installed, which engines work here, and what to do about those that do not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.config import ROLES
from atts_runtime.doctor.checks import Check
from atts_runtime.doctor.examine import examine, works

_MARKS = {"works": "[green]works[/]", "absent": "[dim]absent[/]", "broken": "[bold red]broken[/]"}


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-runtime``."""
    parser = commands.add_parser(
        "doctor",
        help="say what works on this machine and how to mend what does not",
        description="Check what is installed, which devices there are and which engines work: one turn of the bundled "
        "pair is run. Exits with 0 where the embedded engine works, and with 1 where it does not.",
        epilog="examples:\n  atts-runtime doctor\n  atts-runtime doctor --target-url http://gpu-box:8000",
    )
    servers = parser.add_argument_group("servers, where engine http is wanted")
    for role in ROLES:
        servers.add_argument(f"--{role}-url", metavar="URL", help=f"the {role}'s servers, several separated by commas")
        servers.add_argument(
            f"--{role}-key-env",
            metavar="VARIABLE",
            help=f"environment variable that holds the key of the {role}'s servers",
        )
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Check, tell; 0 where the embedded engine works."""
    from rich.console import Console

    servers = _servers(args)
    with Console(stderr=True).status("checking, about ten seconds"):
        checks = list(examine(servers=servers))
    well = works(checks)
    if args.json:
        print(json.dumps({"works": well, "checks": [asdict(check) for check in checks]}, allow_nan=False))
    else:
        _print(checks, well)
    return 0 if well else 1


def _servers(args: argparse.Namespace) -> dict[str, tuple[str, str | None]]:
    """By role, where one is named. Raises InputError where an address is none, before anything else is looked at."""
    told = {role: (getattr(args, f"{role}_url"), getattr(args, f"{role}_key_env")) for role in ROLES}
    named = {role: (urls, key) for role, (urls, key) in told.items() if urls is not None}
    if named:
        from atts_runtime.engines.http_channel import endpoints, key_in

        for role, (urls, key) in named.items():
            endpoints(urls, f"--{role}-url")
            key_in(key, f"--{role}-key-env")
    return named


def _print(checks: Sequence[Check], well: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    well_kept = [check for check in checks if check.group == "installed" and check.state == "works"]
    table.add_row("[bold]installed[/]", "", "")
    table.add_row(
        "  packages", _MARKS["works"], escape(", ".join(f"{check.name} {check.found}" for check in well_kept))
    )
    group = "installed"
    for check in (check for check in checks if check not in well_kept):
        if check.group != group:
            group = check.group
            table.add_row(f"[bold]{group}[/]", "", "")
        found = escape(check.found) + (f"\n[cyan]{escape(check.mend)}[/]" if check.mend else "")
        table.add_row(f"  {escape(check.name)}", _MARKS[check.state], found)
    console = Console(highlight=False)
    console.print(table)
    broken = sum(check.state == "broken" for check in checks)
    if not well:
        console.print("[bold red]The embedded engine does not work[/]; mend what is broken, top to bottom.")
    elif broken:
        console.print(f"The embedded engine works; broken: {broken}, each with its mend above.")
    else:
        console.print("The embedded engine works: atts-runtime run, with no options, runs the bundled pair.")
