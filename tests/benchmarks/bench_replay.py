"""Which takeover rates calibrators keep on published traces (docs/conformal.md).

    python -m tests.benchmarks.bench_replay [--record]

Runs `atts-sim replay` on the traces in the folder that ATTS_TRACES names, by default ../shared/traces; a minute. The
figures hang on seeds and not on the machine.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tests.benchmarks import record
from tests.benchmarks.bench_traces import TRACES, there, told, trace

COMMAND = "python -m tests.benchmarks.bench_replay"
ALPHA = 0.4
LEAST = 200  # scores of a turn whose rate is told
PAIR, SELF = "pair_math500_raw", "self_math500"
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (PAIR, "frozen", ()),
    (PAIR, "adaptive", ()),
    (PAIR, "adaptive", ("--order", "completion")),
    (SELF, "frozen", ()),
    (SELF, "adaptive", ()),
    (SELF, "adaptive", ("--order", "completion")),
    ("self_reject_math500", "adaptive", ("--skip-missing",)),
    ("self_fork_math500_v2sys", "adaptive", ()),
)


def replayed(name: str, calibrator: str, more: tuple[str, ...]) -> dict[str, Any]:
    """What the program says of a trace, with the bank that was published with it, if one was."""
    bank = TRACES / f"{name}.calibration.npy"
    given = ("--bank", str(bank)) if bank.exists() else ()
    return told("replay", trace(name), "--calibrator", calibrator, "--alpha", str(ALPHA), *given, *more)


def row(name: str, calibrator: str, more: tuple[str, ...]) -> tuple[str, ...]:
    """A row of the page's table."""
    found = replayed(name, calibrator, more)
    worst = max(
        (turn for turn in found["by_turn"] if turn["scores"] >= LEAST),
        key=lambda turn: float(abs(turn["rate"] - ALPHA)),
    )
    said = [calibrator, found["order"] + " order"]
    if found["missing_scores"]:
        said.append(f"{found['missing_scores']:,} missing scores skipped")
    rate = found["takeover"]["rate"]
    rang = {alarm["monitor"].partition("/")[0] for alarm in found["alarms"] or ()}  # only adaptive ones have monitors
    return (
        f"`{name}`",
        ", ".join(said),
        f"{rate:.4f}",
        f"{worst['rate']:.3f} (turn {worst['turn']})",
        f"{found['questions_in_band']:.0%}",
        ", ".join(sorted(rang)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the table into docs/conformal.md")
    args = parser.parse_args()
    if not there("bench_replay"):
        return int(args.record)
    columns = ("trace", "calibrator", "rate", f"worst turn of {LEAST} scores or more",
               "questions in their exact 99% band", "monitors that rang")  # fmt: skip
    table = record.new(COMMAND, columns, [row(*case) for case in CASES])
    if args.record:
        record.write("replay", table)
    print(table.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
