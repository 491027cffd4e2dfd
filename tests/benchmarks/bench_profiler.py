"""What the profiler costs: wall time of the same run with it and without it, interleaved in one process.

    python tests/benchmarks/bench_profiler.py --repeats 15

Each repeat runs both ways one after the other, in turns which goes first. Reported: the median of their ratios, and
its 95% interval by the binomial law of the median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path

from scipy.stats import binom

from atts_runtime.chain import Progress
from atts_runtime.config import RunConfig
from atts_runtime.engines.base import Engine
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, roles, run_once
from atts_runtime.tasks.base import Task
from atts_runtime.tasks.load import load_task


async def wall_s(config: RunConfig, task: Task, engines: dict[str, Engine]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        summary = await run_once(config, task, engines, RunDir.create(Path(folder) / "run", config, ""), _quiet)
    return float(summary["wall_s"])


def _quiet(progress: Progress) -> None:
    """No progress."""


async def measure(base: RunConfig, repeats: int) -> list[tuple[float, float]]:
    """Wall seconds with and without, a pair a repeat, on the same engines."""
    on, off = (base.with_options({"profiler": switch}) for switch in ("on", "off"))
    task = load_task(base.task, base.questions, base.seed)
    pairs = []
    async with engines_for(on, set(roles(base).values())) as engines:
        await wall_s(off, task, engines)  # the first run of an engine allocates its buffers
        for repeat in range(repeats):
            first, second = (on, off) if repeat % 2 else (off, on)
            walls = {config.profiler: await wall_s(config, task, engines) for config in (first, second)}
            pairs.append((walls["on"], walls["off"]))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description="wall ratio profiler on / off")
    parser.add_argument("--policy", default="async-marginal")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    base = RunConfig(policy=args.policy, questions=args.questions, chains=args.chains)
    pairs = asyncio.run(measure(base, args.repeats))
    ratios = sorted(on / off for on, off in pairs)
    low = int(binom.ppf(0.025, len(ratios), 0.5))
    found = {
        "ratio": statistics.median(ratios),
        "interval": [ratios[low], ratios[len(ratios) - 1 - low]],
        "on_s": statistics.median(on for on, _ in pairs),
        "off_s": statistics.median(off for _, off in pairs),
        "pairs": len(pairs),
    }
    print(json.dumps(found) if args.json else "\n".join(f"{name:<10}{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
