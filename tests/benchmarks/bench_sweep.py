"""How long a sweep of 1,000 configurations of a 100-question, 16-chain study takes, and where the time goes.

    python -m tests.benchmarks.bench_sweep [--points 1000] [--jobs 2] [--json] [--record]
    python -m tests.benchmarks.bench_sweep --profile [--points 60] [--record]

The study replays the published trace `pair_math500_raw` (1,600 chains, 6,000 to 14,600 requests) on the analytic models
of Qwen2.5-7B-Instruct and QwQ-32B on H100s, over policies, alphas, questions in flight and rows. The goal is 300 s on
two cores. With `--jobs 1` it says CPU seconds too, which suffer less from a busy machine. Each job reads the trace
first, which is part of the time: with few points it counts for more than with 1,000.

`--profile` looks every millisecond of CPU time which part of the simulator runs, over the points of each policy, and
prints the shares, without the reading. `--record` writes either into docs/simulator.md.

The traces are read from the folder that ATTS_TRACES names, by default ../shared/traces.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from atts_sim.commands.progress import progress
from atts_sim.commands.sweep import pool_for
from atts_sim.point import Points
from atts_sim.study import Study, parse_study
from atts_sim.sweep import sweep
from tests.benchmarks import record

TRACES = Path(os.environ.get("ATTS_TRACES") or Path(__file__).parents[2].parent / "shared" / "traces")
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


PARTS = {
    "controller and policies": ("atts_runtime/control/", "atts_runtime/conformal/"),
    "driver and requests": ("atts_sim/driver.py", "atts_sim/text.py", "atts_sim/calls.py"),
    "engines: scheduling, batches, KV": (
        *("atts_sim/engine.py", "atts_sim/alternating.py", "atts_sim/mixed.py"),
        *("atts_sim/batch.py", "atts_sim/memory.py", "atts_sim/blocks.py", "atts_sim/device.py"),
    ),
    "step times": ("atts_sim/cost.py", "atts_runtime/profiler/steptime.py"),
    "events": ("atts_sim/clock.py", "simpy/"),
    "workload": ("atts_sim/recorded.py", "atts_sim/workload"),
    "figures": (
        *("atts_sim/metrics.py", "atts_sim/saturation.py", "atts_sim/demand.py"),
        *("atts_runtime/profiler/counts.py", "atts_sim/row.py", "atts_sim/point.py", "atts_sim/collector.py"),
    ),
}
"""Of a point's time, by the files that run; what a file calls of Python's own counts as its own."""


def part_of(frame: FrameType | None) -> str:
    """The part that the innermost frame of ours, or SimPy's, belongs to."""
    while frame is not None:
        for part, files in PARTS.items():
            if any(file in frame.f_code.co_filename for file in files):
                return part
        frame = frame.f_back
    return "other"


def profile(measured: Study) -> dict[str, dict[str, float]]:
    """By policy: CPU seconds a point, microseconds a request, and the parts' shares."""
    points = Points(measured)
    found: dict[str, dict[str, float]] = {}
    asked = measured.search().ask()
    points.row(0, asked[0])  # loads what is loaded once
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda number, frame: seen.update([part_of(frame)]))
    for policy in POLICIES:
        mine = [chosen for chosen in asked if chosen["settings.policy"] == policy]
        seen.clear()
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, 1e-3, 1e-3)
        requests = sum(float(points.row(0, chosen).figures["requests"] or 0.0) for chosen in mine)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        seconds = time.process_time() - started
        shares = {part: seen[part] / seen.total() for part in (*PARTS, "other")}
        found[policy] = {"cpu_s_per_point": seconds / len(mine), "us_per_request": seconds / requests * 1e6, **shares}
    return found


def parts_table(profiled: Mapping[str, Mapping[str, float]], points: int) -> record.Table:
    """Shares of the time by part, in percent."""
    rows = [
        (part, *(f"{100 * profiled[policy][part]:.0f}" for policy in POLICIES)) for part in (*PARTS, "other")
    ]  # fmt: skip
    rows.append(("microseconds a request", *(f"{profiled[policy]['us_per_request']:.0f}" for policy in POLICIES)))
    command = f"python -m tests.benchmarks.bench_sweep --profile --points {points}"
    return record.new(command, ("share of a point's time, %", *POLICIES), rows)


def speed_table(told: Mapping[str, float | None]) -> record.Table:
    """How long a sweep took."""
    points, jobs = told["points"], told["jobs"]
    shown = [
        ("points", "jobs", "seconds", "seconds a point and job", "requests a second and job"),
        (
            f"{points:,}", f"{jobs}", f"{told['wall_s']:.1f}", f"{told['s_per_point_and_job']:.3f}",
            f"{told['requests_per_s_and_job']:,.0f}",
        ),
    ]  # fmt: skip
    command = f"python -m tests.benchmarks.bench_sweep --points {points} --jobs {jobs}"
    return record.new(command, shown[0], [shown[1]])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write what was found into docs/simulator.md")
    args = parser.parse_args()
    if not TRACES.is_dir():
        print(f"bench_sweep: no traces in {TRACES}; set ATTS_TRACES", file=sys.stderr)
        return 0
    measured = study(args.points)
    if args.profile:
        profiled = profile(measured)
        if args.record:
            record.write("sweep-parts", parts_table(profiled, args.points))
        if args.json:
            print(json.dumps(profiled))
            return 0
        print(f"{'':33s}" + "".join(f"{policy:>18s}" for policy in POLICIES))
        for name in ("cpu_s_per_point", "us_per_request", *PARTS, "other"):
            print(f"{name:33s}" + "".join(f"{profiled[policy][name]:18.3g}" for policy in POLICIES))
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
    if args.record:
        record.write("sweep-speed", speed_table(told))
    print(
        json.dumps(told)
        if args.json
        else "\n".join(f"{name}: {value:,.6g}" for name, value in told.items() if value is not None)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
