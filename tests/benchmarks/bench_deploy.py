"""Predicted against achieved, on the way from a sweep to a run (docs/deploy.md): best.toml run several times.

    python -m tests.benchmarks.bench_deploy [--repeats 3] [--record]

Prints a table: what the sweep predicted, the median of the runs, and their range. `--record` writes it into the page.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.benchmarks import record
from tests.test_deploy import COMMANDS, predicted

_ACHIEVED = {
    "makespan_s": ("wall, s", lambda summary: summary["wall_s"]),
    "latency_s.p50": ("latency p50, s", lambda summary: summary["latency_s"]["p50"]),
    "latency_s.p95": ("latency p95, s", lambda summary: summary["latency_s"]["p95"]),
    "takeover_rate": ("takeover rate", lambda summary: summary["takeover_rate"]),
    "voted": ("votes right", lambda summary: summary["accuracy"]["voted"]),
    "accuracy": ("chains right, of those not stopped", lambda summary: summary["accuracy"]["mean_chain"]),
}


def command(program: str, *arguments: str) -> None:
    """Run one of the programs quietly."""
    module = {"atts-runtime": "atts_runtime.cli", "atts-sim": "atts_sim.cli"}[program]
    subprocess.run([sys.executable, "-m", module, *arguments], check=False, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write the table into docs/deploy.md")
    args = parser.parse_args()
    repeats = args.repeats
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for program, *arguments in COMMANDS:
            command(program, *arguments)
        told = predicted(Path("sweeps/deploy/best.toml"))
        summaries = [json.loads(Path("runs/best/summary.json").read_text())]
        for repeat in range(2, repeats + 1):
            command("atts-runtime", "run", "--config", "sweeps/deploy/best.toml", "--out", f"runs/best-{repeat}")
            summaries.append(json.loads(Path(f"runs/best-{repeat}/summary.json").read_text()))
        best = tomllib.loads(Path("sweeps/deploy/best.toml").read_text())
    settings = ", ".join(f"{name} {best[name]}" for name in ("policy", "alpha", "early_stop") if name in best)
    rows = []
    for name, (shown, of) in _ACHIEVED.items():
        values = [of(summary) for summary in summaries]
        digits = 2 if name.endswith(("_s", "p50", "p95")) else 3
        low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
        achieved = f"{statistics.median(values):.{digits}f}"
        rows.append((shown, f"{told[name]:.{digits}f}", achieved, low if low == high else f"{low} to {high}"))
    made = record.new(
        f"python -m tests.benchmarks.bench_deploy --repeats {repeats}",
        ("", "predicted", "achieved, median", f"range of {repeats}"), rows, f"Settings that won: {settings}.",
    )  # fmt: skip
    print(made.markdown())
    if args.record:
        record.write("deploy", made)


if __name__ == "__main__":
    main()
