"""r against m, with a barrier and without: the terms of the intensity model, measured and predicted.

    python -m tests.benchmarks.bench_intensity --loads 1,4,all --chains 2,4,8,16,32 --repeats 3 [--record]

One process, runs interleaved, medians over the repeats. Seconds are a token's share, in microseconds, a token being one
that either model wrote: T_c and T_m at the device's peak, the stall of chains by cause, the idle time of both engines.
With --calibrate async-marginal has a bank from other questions, so that nobody waits for its pre-samples; `r, no bank`
leaves that wait out.
`predicted` is `profiler.predict` from the runs of --fit-chains, for one question in flight.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from atts_runtime.chain import Progress
from atts_runtime.config import RunConfig
from atts_runtime.conformal import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_runtime.engines.base import Engine
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.device import device_peak
from atts_runtime.profiler.intensity import ratio
from atts_runtime.profiler.predict import Predictor, Role
from atts_runtime.records import ChainRecord
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.base import Task
from atts_runtime.tasks.load import load_task
from tests.benchmarks import record

Key = tuple[int | None, str, int]
"""Questions in flight (None: all), policy, chains."""


async def measure(
    base: RunConfig,
    bank: Path | None,
    policies: dict[str, float],
    loads: Sequence[int | None],
    chains: Sequence[int],
    repeats: int,
    fit: int,
) -> tuple[dict[Key, list[dict[str, Any]]], dict[str, Predictor]]:
    """Summaries of every run; and what the first run of `fit` chains, one question in flight, predicts."""
    task = load_task(base.task, base.questions, base.seed)
    found: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    predictors: dict[str, Predictor] = {}
    async with engines_for(base, {"draft", "target"}) as engines:
        if bank is not None:
            await calibrate(base, engines, bank)
        for _ in range(repeats):
            for load in loads:
                for m in chains:
                    for policy, alpha in policies.items():
                        config = base.with_options(
                            {"policy": policy, "alpha": alpha, "chains": m, "questions_in_flight": load}
                            | ({"bank": str(bank)} if bank is not None and policy == "async-marginal" else {})
                        )
                        summary, records, steps = await one_run(config, task, engines)
                        found[load, policy, m].append(summary)
                        if (load, m) == (1, fit) and policy not in predictors:
                            draft, target = (role(engines[name], steps, name) for name in ("draft", "target"))
                            predictors[policy] = Predictor.fit(records, draft, target)
    return found, predictors


async def calibrate(base: RunConfig, engines: dict[str, Engine], bank: Path) -> None:
    """The first segments' scores of other questions."""
    config = base.with_options({"policy": "async-marginal", "chains": 8, "questions": 16, "seed": base.seed + 1})
    _, records, _ = await one_run(config, load_task(config.task, config.questions, config.seed), engines)
    calls = (record.call(0, "score") for record in records)
    save_bank(SealedBank([call.ell for call in calls if call is not None and call.ell is not None]), bank)


async def one_run(
    config: RunConfig, task: Task, engines: dict[str, Engine]
) -> tuple[dict[str, Any], list[ChainRecord], pd.DataFrame]:
    """A run in a folder that is gone afterwards: summary, records, steps."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder) / "run", config, "")
        summary = await run_once(config, task, engines, run_dir, _quiet)
        return summary, run_dir.finished, pd.read_parquet(run_dir.path / "steps.parquet")


def _quiet(progress: Progress) -> None:
    """No progress."""


def role(engine: Engine, steps: pd.DataFrame, name: str) -> Role:
    """What the predictor must know of an engine; its decode steps take a straight line of their rows."""
    peak = device_peak(engine.placement, None)
    assert engine.spec is not None
    assert peak is not None
    decode = steps[(steps["engine"] == name) & (steps["append"] == 0)].groupby("rows")["duration_s"]
    typical, times = decode.median(), decode.count()
    degree = min(1, len(typical) - 1)
    line = np.polyfit(typical.index, typical, degree, w=np.sqrt(times))
    return Role(Rates(engine.spec), peak, lambda rows: float(np.polyval(line, rows)))


def terms(summary: dict[str, Any]) -> dict[str, float]:
    """A run's terms in microseconds a token, and its ratios."""
    tokens, found = summary["tokens"]["draft"] + summary["tokens"]["takeover"], summary["intensity"]
    barrier_s = summary["stall_by_cause_s"]["barrier"]
    no_bank = ratio(found["T_c_s"], found["T_m_s"], barrier_s)
    assert no_bank is not None
    seconds = {
        "T_c": found["T_c_s"],
        "T_m": found["T_m_s"],
        "barrier": barrier_s,
        "bank": summary["stall_by_cause_s"]["bank"],
        "idle": found["T_idle_s"],
        "overhead": found["T_overhead_s"],
    }
    shares = {name: 1e6 * value / tokens for name, value in seconds.items()}
    return shares | {
        "r": found["r"],
        "r, no bank": no_bank,
        "r_engine": found["r_engine"],
        "tokens/s": tokens / summary["wall_s"],
        "latency p50, s": summary["latency_s"]["p50"],
        "wall, s": summary["wall_s"],
        "takeover": summary["takeover_rate"],
        "lost, %": 100 * max(abs(e["unaccounted_s"]) for e in found["engines"].values()) / summary["wall_s"],
    }


def rows_of(
    found: dict[Key, list[dict[str, Any]]], predictors: dict[str, Predictor], policies: dict[str, float], turns: int
) -> list[dict[str, Any]]:
    """A row a setting: medians of the repeats."""
    rows = []
    for (load, policy, m), summaries in found.items():
        each = [terms(summary) for summary in summaries]
        row: dict[str, Any] = {"in flight": load, "policy": policy, "m": m, "runs": len(each)}
        row |= {name: statistics.median(run[name] for run in each) for name in each[0]}
        row["predicted"] = None
        if load == 1 and policy in predictors:
            known = predictors[policy]
            alpha = policies[policy] if policy == "barrier" else None
            row["predicted"] = known.predict(policy, m, min(turns, len(known.alive)), alpha).r
        rows.append(row)
    return sorted(rows, key=lambda row: (row["in flight"] or 10**9, row["policy"], row["m"]))


SHOWN: dict[str, Callable[[Any], str]] = {
    "m": str,
    **dict.fromkeys(("T_c", "T_m", "barrier", "bank", "idle", "overhead"), lambda x: f"{x:.0f}"),
    **dict.fromkeys(("r", "r, no bank", "predicted", "r_engine"), lambda x: "" if x is None else f"{x:.3f}"),
    "tokens/s": lambda x: f"{x:.0f}",
    **dict.fromkeys(("latency p50, s", "wall, s", "takeover", "lost, %"), lambda x: f"{x:.2f}"),
}


def show(rows: Sequence[dict[str, Any]], title: str) -> None:
    console = Console(width=170)
    for key in dict.fromkeys((row["in flight"], row["policy"]) for row in rows):
        table = Table(title=f"{key[1]}, {key[0] or 'all'} in flight; {title}; microseconds a token")
        for name in SHOWN:
            table.add_column(name, justify="right")
        for row in rows:
            if (row["in flight"], row["policy"]) == key:
                table.add_row(*(form(row[name]) for name, form in SHOWN.items()))
        console.print(table)


def tables(rows: Sequence[dict[str, Any]], command: str) -> dict[str, record.Table]:
    """By load, what docs/intensity.md shows of it."""
    shown: dict[int | None, list[tuple[str, ...]]] = defaultdict(list)
    for row in rows:
        stall = row["barrier"] + row["bank"]
        times = [row["T_c"], row["T_m"], stall, row["idle"], row["overhead"]]
        ratios = [row[name] for name in ("r", "predicted", "r_engine")]
        shown[row["in flight"]].append(
            (
                row["policy"],
                str(row["m"]),
                *(f"{time:,.0f}" for time in times),
                *("" if value is None else f"{value:.3f}" for value in ratios),
                f"{row['tokens/s']:,.0f}",
                f"{row['latency p50, s']:.2f}",
                f"{row['takeover']:.2f}",
            )
        )
    columns = ("policy", "m", "T_c", "T_m", "T_s", "T_idle", "T_overhead", "r", "r predicted", "r_engine", "tokens/s",
               "latency p50, s", "takeover")  # fmt: skip
    lost = max(row["lost, %"] for row in rows)
    says = f"What the accounts miss is at most {lost:.2f}% of the wall."
    return {f"intensity-{load or 'all'}": record.new(command, columns, of, says) for load, of in shown.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="r against m, with a barrier and without")
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--chains", default="2,4,8,16,32", help="m, comma-separated")
    parser.add_argument("--loads", default="1,4,all", help="questions in flight, comma-separated")
    parser.add_argument("--policies", default="barrier=0.26,async-marginal=0.1", help="NAME=ALPHA, comma-separated")
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fit-chains", type=int, default=8)
    parser.add_argument("--calibrate", action="store_true", help="give async-marginal a bank made before")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write the tables into docs/intensity.md")
    args = parser.parse_args()
    policies = {name: float(alpha) for name, _, alpha in (part.partition("=") for part in args.policies.split(","))}
    loads = [None if load == "all" else int(load) for load in args.loads.split(",")]
    chains = [int(m) for m in args.chains.split(",")]
    base = RunConfig(task=args.task, questions=args.questions, turns=args.turns)
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank.npz" if args.calibrate else None
        found, predictors = asyncio.run(measure(base, bank, policies, loads, chains, args.repeats, args.fit_chains))
    rows = rows_of(found, predictors, policies, args.turns)
    if args.record:
        for name, table in tables(rows, record.asked("tests.benchmarks.bench_intensity")).items():
            record.write(name, table)
    if args.json:
        print(json.dumps(rows))
        return
    show(rows, f"{args.task}, {args.questions} questions, median of {args.repeats}")


if __name__ == "__main__":
    main()
