"""The command line ``atts-sim``.

The simulator arrives in a later release. Until then each command accepts whatever follows it, says so in one line
on stderr, and exits with status 2, so that a script written for the simulator stops with the true reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

BAD_USAGE = 2

COMMANDS = {
    "sweep": ("simulate every point of a study", "atts-sim sweep STUDY.toml --jobs 4"),
    "run": ("simulate one point of a study", "atts-sim run STUDY.toml"),
    "validate": ("compare a simulation with a measured run", "atts-sim validate RUN --profile PROFILE"),
    "replay": (
        "apply a calibrator to a recorded trace",
        "atts-sim replay TRACE.events.parquet --calibrator marginal --alpha 0.4",
    ),
    "report": ("write a sweep's results as one HTML file", "atts-sim report DIR"),
}
"""Each command's purpose and an example of its use."""


def package_version() -> str:
    """Version of the installed distribution; ``unknown`` when run from a source tree that is not installed."""
    try:
        return version("atts")
    except PackageNotFoundError:
        return "unknown"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser for every command."""
    parser = argparse.ArgumentParser(
        prog="atts-sim",
        description="Simulate asynchronous test-time scaling. The simulator arrives in a later release: "
        "in this one every command only says so.",
        epilog="example: atts-sim sweep --help",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (purpose, example) in COMMANDS.items():
        commands.add_parser(
            name,
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}. Arrives in a later release.",
            epilog=f"example, once it is there: {example}",
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``atts-sim`` on `argv` (default: the process's arguments) and return its exit status.

    Raises `SystemExit` for ``--help`` and ``--version`` (status 0) and for bad usage (status 2), as argparse does.
    """
    known, _ = build_parser().parse_known_args(argv)
    print(
        f"atts-sim {known.command}: the simulator arrives in a later release; "
        "to measure policies on real models, use `atts-runtime compare`",
        file=sys.stderr,
    )
    return BAD_USAGE


if __name__ == "__main__":
    sys.exit(main())
