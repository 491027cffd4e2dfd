"""The command line ``atts-sim``.

``replay`` is here, the other commands in `atts_sim.commands`.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atts_runtime.commands.parser import OneLineParser, add_completion, add_output
from atts_runtime.errors import InputError
from atts_sim.commands import report, run, sweep, validate, whatif
from atts_sim.commands.console import stdout_console

FAULT, BAD_USAGE, INTERRUPTED = 1, 2, 130


def package_version() -> str:
    """Version of the installed distribution; ``unknown`` when run from a source tree that is not installed."""
    try:
        return version("atts")
    except PackageNotFoundError:
        return "unknown"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser for every command."""
    from atts_sim.replay import CALIBRATORS
    from atts_sim.study import studies_folder

    parser = OneLineParser(
        prog="atts-sim",
        usage="%(prog)s COMMAND [OPTION]...",
        description="Simulate asynchronous test-time scaling: what would a policy, a setting or a device come to? "
        "COMMAND --help says more of each.",
        epilog="examples:\n"
        "  atts-sim sweep policy-comparison --set workload.path=runs/mine\n"
        "  atts-sim validate runs/m16 --fit-on runs/m4 runs/m8\n"
        "  atts-sim replay runs/mine/events.parquet --alpha 0.2",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}")
    shipped = [file.stem for file in sorted(studies_folder().glob("*.toml"))]
    add_completion(parser, {"calibrator": tuple(CALIBRATORS), "study": shipped})
    commands = parser.add_subparsers(
        prog=parser.prog, title="commands", dest="command", metavar="COMMAND", required=True
    )
    _add_replay(
        commands.add_parser(
            "replay",
            help="apply a calibrator to recorded scores",
            usage="%(prog)s TRACE [OPTION]...",
            description="Apply a calibrator to the scores of a run or a published trace: which takeover rate would it "
            "have kept, by turn, by question and overall?",
            epilog="example: atts-sim replay TRACE.events.parquet --bank BANK.npy --calibrator adaptive --alpha 0.4",
        )
    )
    for module in (sweep, run, report, validate, whatif):
        module.add_to(commands)
    return parser


def _add_replay(replay: argparse.ArgumentParser) -> None:
    from atts_sim.replay import CALIBRATORS

    about = "; ".join(f"{name}: {what}" for name, what in CALIBRATORS.items())
    replay.add_argument("trace", type=Path, metavar="TRACE", help="an events.parquet")
    replay.set_defaults(execute=_replay)
    rule = replay.add_argument_group("calibrator")
    rule.add_argument("--calibrator", default="adaptive", metavar="NAME", help=f"{about} (default: %(default)s)")
    rule.add_argument(
        "--alpha", type=float, default=0.4, metavar="X", help="nominal takeover rate (default: %(default)s)"
    )
    rule.add_argument(
        "--bank", type=Path, metavar="FILE", help="calibration scores: .npz in nats, or .npy of perplexities"
    )
    rule.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the tie-breakers (default: %(default)s)"
    )
    rule.add_argument(
        "--gamma", type=float, default=0.1, metavar="X", help="adaptive: step of alpha (default: %(default)s)"
    )
    rule.add_argument(
        "--lag", type=int, default=1, metavar="N", help="adaptive: questions in flight (default: %(default)s)"
    )
    rule.add_argument(
        "--window",
        type=int,
        default=32,
        metavar="N",
        help="adaptive: questions that a segment is compared with (default: %(default)s)",
    )
    read = replay.add_argument_group("how the trace is read")
    read.add_argument(
        "--order",
        choices=("admission", "completion"),
        default="admission",
        help="decide by question, turn and chain, or as the scores came in (default: %(default)s)",
    )
    read.add_argument("--skip-missing", action="store_true", help="leave out rows without a score instead of stopping")
    out = add_output(replay)
    out.add_argument("--plot", type=Path, metavar="FILE", help="draw the rates as SVG, PNG or PDF")
    out.add_argument("--save-bank", type=Path, metavar="FILE", help="write the trace's turn-0 scores as a bank (.npz)")


def _replay(args: argparse.Namespace) -> int:
    from atts_runtime.conformal import SealedBank
    from atts_runtime.settingvalues import scores_of
    from atts_sim.render import replay_plot, replay_tables
    from atts_sim.replay import Settings, decide, summarize
    from atts_sim.trace import read_scores

    bank = None if args.bank is None else SealedBank(scores_of(str(args.bank)))
    settings = Settings(
        calibrator=args.calibrator,
        alpha=args.alpha,
        order=args.order,
        bank=bank,
        seed=args.seed,
        gamma=args.gamma,
        lag=args.lag,
        window=args.window,
    )
    scores = read_scores(args.trace, skip_missing=args.skip_missing)
    summary = summarize(scores, settings, decide(scores, settings))
    if args.save_bank is not None:
        _save_bank(scores.ell[scores.turn == 0], args.save_bank)
    if args.plot is not None:
        replay_plot(summary, args.plot)
    if args.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        stdout_console().print(*replay_tables(summary), sep="\n\n")
    return 0


def _save_bank(scores: NDArray[np.float64], path: Path) -> None:
    from atts_runtime.conformal.bank import SealedBank
    from atts_runtime.conformal.store import save_bank

    try:
        save_bank(SealedBank(scores), path)
    except OSError as error:
        raise InputError(f"cannot write bank {path}: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``atts-sim`` on `argv` (default: the process's arguments) and return its exit status.

    Raises `SystemExit` for ``--help`` and ``--version`` (status 0) and for bad usage (status 2), as argparse does.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.execute(args))
    except InputError as error:
        if args.debug:
            traceback.print_exc()
        print(f"atts-sim {args.command}: {error}", file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt:
        print(f"atts-sim {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # of this program, or of a gate that it was given
        where = "" if args.debug else " (--debug shows where)"
        if args.debug:
            traceback.print_exc()
        print(
            f"atts-sim {args.command}: {type(error).__name__}: {' '.join(str(error).split())}{where}", file=sys.stderr
        )
        return FAULT


if __name__ == "__main__":
    sys.exit(main())
