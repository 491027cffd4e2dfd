"""Every policy beside each other on the bundled pair (docs/policies.md).

    python -m tests.benchmarks.bench_policies [--out runs/policies] [--record]

Runs `atts-runtime compare` over all policies where --out has no comparison yet (six minutes; wants a machine with
nothing else to do), and prints what it found. `--record` writes the table and its picture into the documentation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atts_runtime.control import POLICIES
from tests.benchmarks import record

SETTINGS = ("--policies", "all", "--alpha", "0.2", "--questions", "16", "--chains", "16", "--repeats", "3")
COLUMNS = ("policy", "wall, s", "speedup", "chains right, %", "against `target-only`, points [95%]", "vote right, %",
           "takeover rate", "target model wrote", "of all", "r", "dominated by")  # fmt: skip
MADE = (16, 16 * 16, 3)  # questions, chains of all together, repeats
_PICTURE = record.ROOT / "docs" / "images" / "front.svg"


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A policy's line, of its median run."""
    against = row["mean_chain_difference"]
    told = ""
    if against is not None:
        mean, low, high = (100 * against[name] for name in ("mean", "low", "high"))
        told = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}] {against['verdict']}"
    rate, share = row["takeover_rate"], row["target_token_share"]
    return (
        f"`{row['policy']}`", f"{row['wall_s']:.1f}", f"{row['speedup']:.2f}",
        f"{100 * row['accuracy']['mean_chain']:.1f}", told, f"{100 * row['accuracy']['voted']:.1f}",
        "" if rate is None else f"{rate:.2f}", f"{row['target_tokens']:,}", "" if share is None else f"{share:.0%}",
        f"{row['intensity']['r']:.3f}", ", ".join(f"`{name}`" for name in row["dominated_by"]),
    )  # fmt: skip


def said(rows: Sequence[Mapping[str, Any]]) -> str:
    """The front, and what runs differed by."""
    front = [f"`{row['policy']}`" for row in rows if not row["dominated_by"]]
    spread = [max(row["wall_s_all"]) / min(row["wall_s_all"]) - 1 for row in rows]
    return (
        f"On the front of accuracy (of the vote), wall seconds and tokens of the target model: {', '.join(front)}. "
        f"Walls of a policy's three runs differ by {min(spread):.0%} to {max(spread):.0%}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/policies"), help="folder of the comparison")
    parser.add_argument("--record", action="store_true", help="write the table into docs/policies.md")
    args = parser.parse_args()
    if not (args.out / "compare.json").exists():
        shutil.rmtree(args.out, ignore_errors=True)  # what was interrupted
        command = [sys.executable, "-m", "atts_runtime.cli", "compare", *SETTINGS, "--out", str(args.out)]
        if failed := subprocess.run(command, check=False).returncode:
            sys.exit(failed)
    rows = json.loads((args.out / "compare.json").read_text(encoding="utf-8"))
    if len(rows) < len(POLICIES) or any((row["questions"], row["chains"], row["repeats"]) != MADE for row in rows):
        sys.exit(f"bench_policies: {args.out} is another comparison; give another --out")
    made = max(json.loads(file.read_text())["sessions"][0] for file in args.out.glob("*/manifest.json"))[:10]
    table = record.new("python -m tests.benchmarks.bench_policies", COLUMNS, [cells(row) for row in rows], said(rows))
    table = replace(table, made=made)
    print(table.markdown())
    if args.record:
        record.write("policies", table)
        shutil.copyfile(args.out / "front.svg", _PICTURE)


if __name__ == "__main__":
    main()
