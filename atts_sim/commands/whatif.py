"""``atts-sim whatif TRACE``: what another alpha, or more questions in flight, would come to on a published trace."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atts_runtime.commands.parser import add_output
from atts_runtime.errors import InputError
from atts_runtime.machine import cores
from atts_sim.commands.console import stdout_console
from atts_sim.commands.progress import progress
from atts_sim.commands.validate_trace import costs_of, is_trace
from atts_sim.published import read_trace
from atts_sim.tracedraw import LEVEL, Interval, TraceModel, fit_model
from atts_sim.tracetokens import at_cap
from atts_sim.whatif import Answer, Setting, answers, sample

DRAWS = 40


def add_to(commands: Any) -> None:
    """Add the command to the subparsers of ``atts-sim``."""
    parser = commands.add_parser(
        "whatif",
        help="ask what another setting would change on a published trace",
        description="Fit costs and a generative workload to a published trace, draw its questions anew, and say with "
        "intervals what more questions in flight and another alpha would do to its time, takeovers and answers.",
        epilog="example: atts-sim whatif TRACE.events.parquet --alpha 0.2 --in-flight 1,4,all",
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a published trace (.events.parquet)")
    parser.add_argument("--alpha", type=float, help="nominal takeover rate to ask about (default: only the recorded)")
    parser.add_argument(
        "--in-flight",
        default="1,4,all",
        metavar="N,...",
        help="questions in flight to ask about; changes are against the first (default: %(default)s)",
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help="times that all is drawn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=min(2, cores()), help="processes (default: %(default)s)")
    add_output(parser)
    parser.set_defaults(execute=execute)


def execute(args: argparse.Namespace) -> int:
    """Fit, draw, say what changes."""
    settings = _settings(args.alpha, args.in_flight)
    if not is_trace(args.trace):
        raise InputError(f"{args.trace} is no published trace (.events.parquet); for a run of ours see atts-sim sweep")
    if args.draws < 2 or args.jobs < 1:
        raise InputError(f"give at least 2 draws and 1 job, got --draws {args.draws} --jobs {args.jobs}")
    recorded = at_cap(read_trace(args.trace))
    model = fit_model(args.trace.name, recorded, costs_of(args.trace, recorded))
    with progress("draws") as on_progress:
        drawn = sample(
            model, settings, draws=args.draws, seed=args.seed, questions=recorded.questions, jobs=args.jobs,
            on_progress=on_progress,
        )  # fmt: skip
    found = answers(settings, drawn)
    if args.json:
        print(json.dumps(_told(args, model, found), allow_nan=False))
    else:
        _print(args, model, found)
    return 0


def _settings(alpha: float | None, in_flight: str) -> list[Setting]:
    """The recorded alpha with each number of questions in flight, then the other one. Raises InputError."""
    if alpha is not None and not 0 < alpha < 1:
        raise InputError(f"alpha must lie strictly between 0 and 1, got {alpha}")
    counts: list[int | None] = []
    for part in in_flight.split(","):
        text = part.strip()
        if text != "all" and not (text.isdecimal() and int(text) > 0):
            raise InputError(f"--in-flight takes numbers from 1 on, or all, with commas between, got {in_flight!r}")
        counts.append(None if text == "all" else int(text))
    if len(set(counts)) < len(counts):
        raise InputError(f"--in-flight names a number twice: {in_flight!r}")
    alphas = [None] if alpha is None else [None, alpha]
    return [Setting(asked, count) for asked in alphas for count in counts]


def _told(args: argparse.Namespace, model: TraceModel, found: Sequence[Answer]) -> dict[str, Any]:
    return {
        "trace": str(args.trace),
        "recorded_rule": {"alpha": model.alpha, "agreement": model.agreement},
        "draws": args.draws,
        "seed": args.seed,
        "level": LEVEL,
        "answers": [asdict(answer) for answer in found],
    }


def _print(args: argparse.Namespace, model: TraceModel, found: Sequence[Answer]) -> None:
    from rich.markup import escape
    from rich.table import Table

    title = f"{args.trace.name}: means of {args.draws} draws and {LEVEL:.0%} intervals; changes against the first row"
    table = Table(title=escape(title), title_justify="left")
    for heading in ("alpha", "in flight", "total s", "change", "takeovers", "change", "answered", "change"):
        table.add_column(heading, justify="right")
    for answer in found:
        alpha, count = answer.setting.alpha, answer.setting.in_flight
        table.add_row(
            f"{model.alpha:.3f} (recorded)" if alpha is None else f"{alpha:.3f}",
            "all" if count is None else str(count),
            _shown(answer.total_s, "{:,.0f}"), _shown(answer.total_change, "{:+.1%}"),
            _shown(answer.takeover, "{:.3f}"), _shown(answer.takeover_change, "{:+.3f}"),
            _shown(answer.answered, "{:.3f}"), _shown(answer.answered_change, "{:+.3f}"),
        )  # fmt: skip
    console = stdout_console()
    console.print(table)
    console.print(
        f"{model.agreement:.1%} of the recorded verdicts are those of alpha {model.alpha:.3f} against the trace's own "
        "first segments. What is right is not on record, so nothing is said of accuracy.",
        markup=False, highlight=False,
    )  # fmt: skip


def _shown(interval: Interval, form: str) -> str:
    return f"{form.format(interval.mean)} [{form.format(interval.low)}, {form.format(interval.high)}]"
