"""Predicted against achieved, on the way from a sweep to a run (docs/deploy.md): best.toml run several times.

    python tests/benchmarks/bench_deploy.py [--repeats 3]

Prints a table: what the sweep predicted, the median of the runs, and their range.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.test_deploy import COMMANDS, predicted

_ACHIEVED = {
    "makespan_s": lambda summary: summary["wall_s"],
    "latency_s.p50": lambda summary: summary["latency_s"]["p50"],
    "latency_s.p95": lambda summary: summary["latency_s"]["p95"],
    "takeover_rate": lambda summary: summary["takeover_rate"],
    "accuracy": lambda summary: summary["accuracy"]["mean_chain"],
    "voted": lambda summary: summary["accuracy"]["voted"],
}


def command(program: str, *arguments: str) -> None:
    """Run one of the programs quietly."""
    module = {"atts-runtime": "atts_runtime.cli", "atts-sim": "atts_sim.cli"}[program]
    subprocess.run([sys.executable, "-m", module, *arguments], check=False, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for program, *arguments in COMMANDS:
            command(program, *arguments)
        told = predicted(Path("sweeps/deploy/best.toml"))
        summaries = [json.loads(Path("runs/best/summary.json").read_text())]
        for repeat in range(1, repeats):
            command("atts-runtime", "run", "--config", "sweeps/deploy/best.toml", "--out", f"runs/best-{repeat}")
            summaries.append(json.loads(Path(f"runs/best-{repeat}/summary.json").read_text()))
        print(
            "settings:", *(line for line in Path("sweeps/deploy/best.toml").read_text().splitlines() if line[0] != "#")
        )
    print(f"{'':16s}{'predicted':>12s}{'achieved':>12s}   range of {repeats}")
    for name, of in _ACHIEVED.items():
        values = [of(summary) for summary in summaries]
        print(f"{name:16s}{told[name]:12.3f}{statistics.median(values):12.3f}   {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    main()
