"""What the barrier costs: wall ratio barrier / an asynchronous policy at several loads, on the same loaded engines.

    python tests/benchmarks/bench_barrier.py --questions 16 --chains 16 --repeats 3

One process, runs interleaved, medians of ratios within a repeat. `bound/wall` is the busier engine's share of the
wall time under the latter: near 1, nothing but that engine's own speed is left to gain.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from atts_runtime.chain import Progress
from atts_runtime.config import RunConfig
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.load import load_task


async def measure(base: RunConfig, barrier_alpha: float, loads: list[int | None], repeats: int) -> list[dict[str, Any]]:
    """A row a load: ratios and bounds of every repeat, and the last runs' summaries, of `barrier` and `base.policy`."""
    task = load_task(base.task, base.questions, base.seed)
    rows = []
    async with engines_for(base, {"draft", "target"}) as engines:
        for load in loads:
            row: dict[str, Any] = {"in_flight": load, "ratios": [], "bounds": [], "summaries": {}}
            for _ in range(repeats):
                walls = {}
                for policy in ("barrier", base.policy):
                    alpha = barrier_alpha if policy == "barrier" else base.alpha
                    config = base.with_options({"policy": policy, "questions_in_flight": load, "alpha": alpha})
                    with tempfile.TemporaryDirectory() as folder:
                        run_dir = RunDir.create(Path(folder) / "run", config, "")
                        summary = await run_once(config, task, engines, run_dir, _quiet)
                    walls[policy] = summary["wall_s"]
                    row["summaries"][policy] = summary
                row["ratios"].append(walls["barrier"] / walls[base.policy])
                row["bounds"].append(summary["lower_bound_s"] / summary["wall_s"])
            rows.append(row)
    return rows


def _quiet(progress: Progress) -> None:
    """No progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description="wall ratio barrier / async by questions in flight")
    parser.add_argument("--policy", default="async-marginal", help="the asynchronous one")
    parser.add_argument("--task", default="arithmetic:9", help="the bundled task with as many terms")
    parser.add_argument("--takeover", default="resample")
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--barrier-alpha", type=float, help="another alpha at the barrier, to match takeover rates")
    parser.add_argument("--segment-tokens", type=int, default=48, help="most tokens of a draft segment and a takeover")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--loads", default="1,2,4,all", help="questions in flight, comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    loads = [None if load == "all" else int(load) for load in args.loads.split(",")]
    base = RunConfig(
        task=args.task,
        policy=args.policy,
        takeover=args.takeover,
        alpha=args.alpha,
        questions=args.questions,
        chains=args.chains,
        turns=64,
        draft_tokens=args.segment_tokens,
        takeover_tokens=args.segment_tokens,
    )
    rows = asyncio.run(measure(base, args.barrier_alpha or args.alpha, loads, args.repeats))
    if args.json:
        print(json.dumps(rows))
        return
    study = f"{args.task}, {args.takeover}, {args.questions} questions x {args.chains} chains"
    table = Table(title=f"{study}, median of {args.repeats}")
    for name in (
        "in flight",
        "barrier, s",
        f"{args.policy}, s",
        "ratio",
        "all",
        "bound/wall",
        "barrier stall, s",
        "turns",
        "takeover",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        barrier, asynchronous = (row["summaries"][policy] for policy in ("barrier", args.policy))
        table.add_row(
            str(row["in_flight"] or "all"),
            f"{barrier['wall_s']:.1f}",
            f"{asynchronous['wall_s']:.1f}",
            f"{statistics.median(row['ratios']):.2f}",
            " ".join(f"{ratio:.2f}" for ratio in row["ratios"]),
            f"{statistics.median(row['bounds']):.2f}",
            f"{barrier['stall_s']:.0f}",
            f"{asynchronous['turns_mean']:.1f}",
            f"{barrier['takeover_rate']:.2f} {asynchronous['takeover_rate']:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
