"""``atts-runtime report RUN...``: run directories as one self-contained HTML file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.errors import InputError
from atts_runtime.report.page import page
from atts_runtime.report.reading import facts, labelled
from atts_runtime.runread import read_run
from atts_runtime.wholefile import write_whole


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-runtime``."""
    parser = commands.add_parser(
        "report",
        help="show one run or compare several on one HTML page",
        description="Write one self-contained HTML file: outcomes, intensity, roofline, stall, takeovers, chains.",
        epilog="example: atts-runtime report runs/barrier runs/async-marginal --out report.html",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directory")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: RUN/report.html, of several runs ./report.html)"
    )
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    paths: list[Path] = args.runs
    out: Path = args.out or (paths[0] / "report.html" if len(paths) == 1 else Path("report.html"))
    _check_distinct(paths)
    if args.out:
        _check_out(out)
    runs = []
    for path in paths:
        _say(f"reading {path}")
        read = read_run(path)
        if read.torn:
            print(f"atts-runtime report: the torn last line of {path / 'chains.jsonl'} is left out", file=sys.stderr)
        runs.append(facts(read))
    runs = labelled(runs)
    made = page(runs, lambda what: _say(f"drawing {what}"))
    _write(out, made.html)
    if args.json:
        told = [
            {
                "run": str(run.path),
                "label": run.label,
                "policy": run.policy,
                "chains_per_question": None if run.m is None else int(run.m),
                "chains": len(run.records),
                "finished": run.finished,
                "wall_s": run.wall_s,
                "stall_s": run.stall_s,
                "takeover_rate": run.takeover_rate,
                "r": run.intensity.r,
                "r_engine": run.intensity.r_engine,
            }
            for run in runs
        ]
        found = {"report": str(out), "runs": told, "findings": made.findings, "warnings": made.warnings}
        print(json.dumps(found, allow_nan=False))
        return 0
    print(out)
    return 0


def _say(what: str) -> None:
    """Progress, for somebody who watches."""
    if sys.stderr.isatty():
        print(f"atts-runtime report: {what}", file=sys.stderr)


def _check_distinct(paths: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for path in paths:
        first = seen.setdefault(path.resolve(), path)
        if first is not path:
            raise InputError(f"{path} is the run {first} again; give each run once")


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise InputError(f"{out} is a folder; give --out the name of a file")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}; make it or choose another --out")


def _write(out: Path, text: str) -> None:
    """Whole or not at all. A name that is no Unicode text is shown with question marks."""
    try:
        write_whole(out, text.encode(errors="replace"))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
