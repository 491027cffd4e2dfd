"""What the barrier costs: wall ratio barrier / an asynchronous policy at several loads, on the same loaded engines.

    python -m tests.benchmarks.bench_barrier --questions 16 --chains 16 --repeats 3
    python -m tests.benchmarks.bench_barrier --record

The second makes the table of docs/runtime.md, whose rows are `STUDIES`. One process, runs interleaved, medians of
ratios within a repeat. `bound/wall` is the busier engine's share of the wall time under the latter: near 1, nothing but
that engine's own speed is left to gain.
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
from tests.benchmarks import record

STUDIES = (
    # Tokens of a segment, asynchronous policy, alpha at the barrier and without, for takeover rates near each other.
    (16, "async-marginal", 0.12, 0.05),
    (24, "async-marginal", 0.12, 0.05),
    (48, "async-marginal", 0.12, 0.02),
    (16, "async-adaptive", 0.12, 0.12),
    (24, "async-adaptive", 0.12, 0.12),
    (48, "async-adaptive", 0.12, 0.12),
)
LOADS: tuple[int | None, ...] = (1, 2, None)


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


def study(policy: str, alpha: float, tokens: int, questions: int, chains: int, **more: Any) -> RunConfig:
    """Of arithmetic with many turns, unless `more` says otherwise."""
    settings = {"task": "arithmetic:9", "takeover": "resample", "turns": 64} | more
    return RunConfig(
        policy=policy, alpha=alpha, questions=questions, chains=chains, draft_tokens=tokens, takeover_tokens=tokens,
        **settings,
    )  # fmt: skip


def recorded(repeats: int) -> record.Table:
    """The page's table: six questions, 16 chains."""
    shown, bounds = [], []
    for tokens, policy, barrier_alpha, alpha in STUDIES:
        rows = asyncio.run(measure(study(policy, alpha, tokens, 6, 16), barrier_alpha, list(LOADS), repeats))
        rates = [rows[0]["summaries"][of]["takeover_rate"] for of in ("barrier", policy)]
        bounds += [statistics.median(row["bounds"]) for row in rows]
        shown.append(
            (
                f"{tokens} tokens",
                f"{rows[0]['summaries'][policy]['turns_mean']:.1f}",
                policy,
                f"{barrier_alpha:g}, {alpha:g}",
                ", ".join(f"{rate:.2f}" for rate in rates),
                *(
                    f"{statistics.median(row['ratios']):.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f})"
                    for row in rows
                ),
            )
        )
        print(*shown[-1], sep=" | ", flush=True)
    columns = ("segments of at most", "turns, 1 in flight", "async policy", "alpha, barrier and async",
               "takeover rates, 1 in flight",
               *(f"{load or 'all'} in flight" for load in LOADS))  # fmt: skip
    says = f"Without the barrier the busier engine works {min(bounds):.0%} to {max(bounds):.0%} of the wall time."
    command = f"python -m tests.benchmarks.bench_barrier --record --repeats {repeats}"
    return record.new(command, columns, shown, says)


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
    parser.add_argument("--record", action="store_true", help="measure `STUDIES`, and write them into docs/runtime.md")
    args = parser.parse_args()
    if args.record:
        record.write("barrier", recorded(args.repeats))
        return
    loads = [None if load == "all" else int(load) for load in args.loads.split(",")]
    more = {"task": args.task, "takeover": args.takeover}
    base = study(args.policy, args.alpha, args.segment_tokens, args.questions, args.chains, **more)
    rows = asyncio.run(measure(base, args.barrier_alpha or args.alpha, loads, args.repeats))
    if args.json:
        print(json.dumps(rows))
        return
    title = f"{args.task}, {args.takeover}, {args.questions} questions x {args.chains} chains"
    table = Table(title=f"{title}, median of {args.repeats}")
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
