"""How long a sweep of 1,000 configurations of a 100-question, 16-chain study takes, and where the time goes.

    python tests/benchmarks/bench_sweep.py [--points 1000] [--jobs 2] [--profile] [--json]

The study replays the published trace `pair_math500_raw` (1,600 chains, 6,000 to 14,600 requests) on the analytic models
of Qwen2.5-7B-Instruct and QwQ-32B on H100s, over policies, alphas, questions in flight and rows. The goal is 300 s on
two cores. With `--jobs 1` it says CPU seconds too, which suffer less from a busy machine. `--profile` runs one point of
each policy under cProfile and prints where its seconds go.

The traces are read from the folder that ATTS_TRACES names, by default ../shared/traces.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import time
from pathlib import Path

from atts_sim.commands.progress import progress
from atts_sim.commands.sweep import pool_for
from atts_sim.point import Points
from atts_sim.study import Study, parse_study
from atts_sim.sweep import sweep

TRACES = Path(os.environ.get("ATTS_TRACES", Path(__file__).parents[2].parent / "shared" / "traces"))
POLICIES = ("barrier", "async-marginal", "async-conditional", "target-only")
STUDY = """
[workload]
kind = "replay"
path = "{trace}"
token_scale = 0.91
[engines]
hardware = "nvidia-h100-80gb-sxm"
dtype = "bfloat16"
draft.model = "qwen2.5-7b-instruct"
target.model = "qwq-32b"
target.tp = 4
[settings]
takeover = "continue"
draft_tokens = 500
takeover_tokens = 500
[sweep]
policy = {policies}
alpha = {{ from = 0.05, to = 0.6 }}
questions_in_flight = {{ from = 1, to = 16 }}
engines.target.max_rows = {{ from = 16, to = 256, log = true }}
engines.draft.max_rows = {{ from = 16, to = 256, log = true }}
[search]
method = "random"
trials = {points}
"""


def study(points: int) -> Study:
    trace = TRACES / "pair_math500_raw.events.parquet"
    return parse_study(STUDY.format(trace=trace.resolve(), policies=list(POLICIES), points=points), Path())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not TRACES.is_dir():
        print(f"bench_sweep: no traces in {TRACES}; set ATTS_TRACES", file=sys.stderr)
        return 0
    measured = study(args.points)
    if args.profile:
        points = Points(measured)
        for policy in POLICIES:
            chosen = {"settings.policy": policy, "settings.questions_in_flight": 8}
            points.row(0, chosen)  # loads what is loaded once
            profile = cProfile.Profile()
            profile.runcall(points.row, 0, chosen)
            print(f"{policy}:")
            pstats.Stats(profile).sort_stats("cumulative").print_stats(25)
        return 0
    started, started_cpu = time.perf_counter(), time.process_time()
    with progress("bench") as on_progress:
        found = sweep(measured, pool_for(measured, args.jobs, None), None, on_progress)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    requests = sum(float(row.figures.get("requests") or 0.0) for row in found.rows)
    told = {
        "points": len(found.rows),
        "errors": sum(row.error is not None for row in found.rows),
        "jobs": args.jobs,
        "wall_s": seconds,
        "s_per_point_and_job": seconds * args.jobs / len(found.rows),
        "cpu_s_per_point": cpu_s / len(found.rows) if args.jobs == 1 else None,
        "requests": requests,
        "requests_per_s_and_job": requests / seconds / args.jobs,
    }
    print(
        json.dumps(told)
        if args.json
        else "\n".join(f"{name}: {value:,.6g}" for name, value in told.items() if value is not None)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
