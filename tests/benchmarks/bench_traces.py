"""The simulator against published traces (docs/simulator.md): replayed, drawn anew, and asked what if.

    python -m tests.benchmarks.bench_traces [--record]

Runs `atts-sim validate` and `whatif` on `pair_math500_raw` and `self_math500`, in the folder that ATTS_TRACES names, by
default ../shared/traces, and prints the tables of the page; ten minutes. They hang on seeds and not on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import record

TRACES = Path(os.environ.get("ATTS_TRACES") or record.ROOT.parent / "shared" / "traces")
NAMES = ("pair_math500_raw", "self_math500")
WHATIF = "--alpha 0.2 --in-flight 1,4,all"
COMMAND = "python -m tests.benchmarks.bench_traces"
FIGURES = {
    "total_s": ("total, s", "{:,.0f}"),
    "takeover": ("takeover rate", "{:.3f}"),
    "answered": ("answered", "{:.3f}"),
}


def there(program: str) -> bool:
    """Whether there are traces; says so where not."""
    if TRACES.is_dir():
        return True
    print(f"{program}: no traces in {TRACES}; set ATTS_TRACES", file=sys.stderr)
    return False


def trace(name: str) -> str:
    return str(TRACES / f"{name}.events.parquet")


def told(*arguments: str) -> dict[str, Any]:
    """The object that `atts-sim ... --json` prints. Raises CalledProcessError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "atts_sim.cli", *arguments, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 1):  # 1 is a verdict
        done.check_returncode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def replayed(found: Mapping[str, Any]) -> record.Table:
    """Half of the questions predicted from the other, everything but times as recorded."""
    columns = ("trace", "questions", "recorded, s", "predicted, s", "total", "median error of a question",
               "90th percentile", "median, fitted half")  # fmt: skip
    rows = [
        (
            _short(of["trace"]), str(of["questions"]), f"{of['recorded_s']:,.0f}",
            f"{of['predicted_s']:,.0f}", f"{of['total_error']:+.1%}", f"{of['median']:.1%}", f"{of['p90']:.1%}",
            f"{of['costs']['residual']:.1%}",
        )
        for of in found["traces"]
    ]  # fmt: skip
    return record.new(COMMAND, columns, rows)


def drawn(found: Mapping[str, Any]) -> record.Table:
    """Half of the questions drawn from a model of the other."""
    rows = []
    for of in found["traces"]:
        for name, (shown, form) in FIGURES.items():
            half, other, told_of = (form.format(of[part][name]) for part in ("fitted_half", "recorded", "predicted"))
            error = f" ({of['total_error']:+.1%})" if name == "total_s" else ""
            low, high = (form.format(of["drawn"][name][end]) for end in ("low", "high"))
            first = _short(of["trace"]) if name == "total_s" else ""
            rows.append((first, shown, half, other, told_of + error, f"{low} to {high}"))
    columns = ("trace", "figure", "fitted half", "other half", "predicted", "interval")
    return record.new(COMMAND, columns, rows)


def asked(found: Mapping[str, Any]) -> record.Table:
    """What another alpha, and more questions in flight, would change."""
    rows = []
    for of in found["answers"]:
        alpha, count = of["setting"]["alpha"], of["setting"]["in_flight"]
        own = f"{found['recorded_rule']['alpha']:.3f} (recorded)"
        rows.append(
            (
                own if alpha is None else f"{alpha:g}",
                "all" if count is None else str(count),
                _interval(of["total_s"], "{:,.0f}"),
                _interval(of["total_change"], "{:+.1%}"),
                _interval(of["takeover"], "{:.3f}"),
                _interval(of["answered"], "{:.3f}"),
                _interval(of["answered_change"], "{:+.3f}"),
            )
        )
    columns = ("alpha", "questions in flight", "total, s", "change", "takeover rate", "answered", "change")
    return record.new(COMMAND, columns, rows)


def _short(name: str) -> str:
    return Path(name).name.removesuffix(".events.parquet")


def _interval(of: Mapping[str, float], form: str) -> str:
    mean, low, high = (form.format(of[name]) for name in ("mean", "low", "high"))
    return mean if low == high == mean else f"{mean} [{low}, {high}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the tables into docs/simulator.md")
    args = parser.parse_args()
    if not there("bench_traces"):
        return int(args.record)
    paths: Sequence[str] = [trace(name) for name in NAMES]
    tables = {
        "traces-replayed": replayed(told("validate", *paths)),
        "traces-drawn": drawn(told("validate", *paths, "--workload", "fitted")),
        "traces-asked": asked(told("whatif", paths[0], *WHATIF.split())),
    }
    for name, table in tables.items():
        print(name, table.markdown(), sep="\n")
        if args.record:
            record.write(name, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
