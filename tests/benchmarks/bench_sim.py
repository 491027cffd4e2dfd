"""How fast the simulator is: engine requests per CPU-second on a published trace, and where its time goes.

    python -m tests.benchmarks.bench_sim [--repeats 5] [--policy NAME ...] [--cost NAME ...] [--json] [--record]

Replays all 1,600 chains of `pair_math500_raw` as they were recorded (questions one after another, 16 draft and 4 target
rows; then all at once on 64 rows each), metrics included, on one core, by process time; the best of the repeats counts,
because whatever else the machine does only takes away. A request is a draft, score or takeover call. The floor is what
the same decisions cost without engines and clock: the controller alone, its calls answered at once. The ratio is to the
roughly 200 requests per CPU-second that Vidur's published repository does on two such cores. Step times: of `affine`
they are made up, of `analytic` those of the paper's models on an A100 by its data sheet, of `padded` those of the
bundled pair as measured on a CPU, whose engine pads its batches. `paged` schedules as vLLM, with the analytic times.
`--record` writes the speeds into docs/simulator.md.

The traces are read from the folder that ATTS_TRACES names, by default ../shared/traces.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from atts_runtime.control import POLICIES, Controller, Draft, Drafted, Knobs, Limits, Policy, Score, Scored, TakenOver
from atts_runtime.control.commands import TakeOver
from atts_runtime.profiler.analytic import analytic_model
from atts_runtime.profiler.engineprofile import shipped_engines
from atts_runtime.profiler.hardware import HardwareProfile, profiles_folder
from atts_runtime.profiler.modelspec import ModelSpec
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineSpec, Paged
from atts_sim.clock import Clock
from atts_sim.cost import StepCost
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.metrics import measure
from atts_sim.plain import plain_engine
from atts_sim.published import read_trace
from atts_sim.recorded import Recorded, follow_record
from tests.benchmarks import record

VIDUR_REQUESTS_PER_S = 200
STUDY = "pair_math500_raw"
COSTS = ("affine", "analytic", "grouped", "padded", "paged")
DESCRIBED = {
    "affine": "affine, embedded engine",
    "analytic": "analytic, embedded engine",
    "grouped": "rows padded by themselves (measured on a CPU), embedded engine",
    "padded": "all padded to the longest row, embedded engine",
    "paged": "analytic, paged engine (vLLM's)",
}
DRAFT = AffineCost(overhead_s=2e-3, row_s=1e-4, token_s=1e-5, attention_s=1e-9, weights_s=5.5e-3, kept_s=4e-8)
TARGET = AffineCost(overhead_s=4e-3, row_s=1e-4, token_s=4e-5, attention_s=2e-9, weights_s=21.5e-3, kept_s=8e-8)


def costs_of(name: str) -> tuple[StepCost, StepCost]:
    """Step times of draft and target."""
    if name == "affine":
        return DRAFT, TARGET
    folder = profiles_folder()
    if name in ("grouped", "padded"):
        engines = shipped_engines()
        draft, target = (
            engines[f"bundled-{role}-amd-epyc-milan"].step_model(
                ModelSpec.from_toml(folder / "models" / f"bundled-{role}.toml")
            )
            for role in ("draft", "target")
        )
        if name == "grouped":
            return draft, target
        alone = replace(draft.padding, row_stops=())
        return replace(draft, padding=alone), replace(target, padding=alone)
    a100 = HardwareProfile.from_toml(folder / "hardware" / "nvidia-a100-80gb-sxm.toml")
    draft, target = (
        analytic_model(ModelSpec.from_toml(folder / "models" / f"{model}.toml"), a100, "bfloat16")
        for model in ("qwen2.5-7b-instruct", "qwq-32b")
    )
    return draft, target


def simulate(
    recorded: Recorded, policy: Policy, make: Any, rows: tuple[int, int], in_flight: int | None, cost_name: str
) -> Any:
    """Requests, events and figures of one simulation."""
    clock = Clock()
    paged = Paged() if cost_name == "paged" else None
    engines: Any = {
        role: make(clock, EngineSpec(most, step_tokens=4096, paged=paged), cost)
        for role, most, cost in zip(("draft", "target"), rows, costs_of(cost_name), strict=True)
    }
    run = SimDriver(policy, Limits(recorded.turns, 600, 600, in_flight), recorded, engines, clock).run()
    return len(run.requests), run.events, measure(run, deadline_s=600.0)


def decide(recorded: Recorded, policy: Policy) -> int:
    """The controller alone; returns how many calls it made."""
    limits = Limits(recorded.turns, 600, 600, 1)
    controller = Controller(policy, limits, questions=recorded.questions, chains=recorded.chains)
    commands, calls = deque(controller.start()), 0
    while commands:
        command = commands.popleft()
        match command:
            case Draft():
                wrote = recorded.written(command)
                commands.extend(controller.handle(Drafted(command.call, wrote.answered, wrote.ended)))
            case Score():
                commands.extend(controller.handle(Scored(command.call, recorded.ell(command))))
            case TakeOver():
                wrote = recorded.written(command)
                commands.extend(controller.handle(TakenOver(command.call, wrote.answered, wrote.ended)))
            case _:
                continue
        calls += 1
    return calls


def best_s(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The least process time of `work`, and its result."""
    seconds, result = [], None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def speeds(
    rows: Sequence[Mapping[str, Any]], policies: Sequence[str], costs: Sequence[str], command: str
) -> record.Table:
    """Requests a CPU second, by step times and policy."""
    shown = []
    for cost in costs:
        cells = []
        for policy in policies:
            mine = [r for r in rows if (r["policy"], r["cost"], r["engine"]) == (policy, cost, BatchingEngine.__name__)]
            cells.append(" / ".join(f"{row['requests_per_cpu_s']:,}" for row in mine))
        shown.append((DESCRIBED[cost], *cells))
    floors = [row["floor_us_a_request"] for row in rows]
    ratios = [row["ratio_to_vidur"] for row in rows]
    says = (
        f"That is {min(ratios)} to {max(ratios)} times the {VIDUR_REQUESTS_PER_S} of Vidur's published repository. The "
        f"controller alone, its calls answered at once, takes {min(floors):.1f} to {max(floors):.1f} microseconds a "
        "request."
    )
    return record.new(command, ("step times and scheduling", *policies), shown, says)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--policy", nargs="*", default=["recorded", "async-marginal"], help="`recorded`, or any other")
    parser.add_argument("--cost", nargs="*", default=list(COSTS), choices=COSTS, help="step times")
    parser.add_argument("--reference", action="store_true", help="also the engine that makes an event of every step")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--record", action="store_true", help="write the speeds into docs/simulator.md")
    args = parser.parse_args()
    if args.record and (args.reference or args.policy != ["recorded", "async-marginal"] or args.cost != list(COSTS)):
        parser.error("--record is of all that is measured by default")
    folder = Path(os.environ.get("ATTS_TRACES") or "../shared/traces")
    path = folder / f"{STUDY}.events.parquet"
    if not path.exists():
        print(f"{path} is not there: set ATTS_TRACES to the folder of the published traces", file=sys.stderr)
        return 0
    read_s, recorded = best_s(lambda: read_trace(path, unrecorded="nearest"), 1)

    def policy_of(name: str) -> Policy:
        return follow_record(recorded) if name == "recorded" else POLICIES[name](Knobs(0.4, tie_seed=0))

    rows: list[dict[str, Any]] = []
    makes: list[Any] = [BatchingEngine, plain_engine] if args.reference else [BatchingEngine]
    for name in args.policy:
        floor_s, calls = best_s(lambda name=name: decide(recorded, policy_of(name)), args.repeats)  # type: ignore[misc]
        for make, cost in product(makes, args.cost):
            for in_flight, shape in ((1, (16, 4)), (None, (64, 64))):
                once = lambda: simulate(recorded, policy_of(name), make, shape, in_flight, cost)  # noqa: B023, E731
                seconds, (requests, events, metrics) = best_s(once, args.repeats if make is BatchingEngine else 1)
                rows.append(
                    {
                        "policy": name,
                        "engine": make.__name__,
                        "cost": cost,
                        "questions_in_flight": in_flight,
                        "requests": requests,
                        "events": events,
                        "decode_steps_and_appends": sum(use.steps for use in metrics.engines.values()),
                        "cpu_s": round(seconds, 4),
                        "requests_per_cpu_s": round(requests / seconds),
                        "ratio_to_vidur": round(requests / seconds / VIDUR_REQUESTS_PER_S),
                        "floor_us_a_request": round(floor_s / calls * 1e6, 2),
                        "us_a_request": round(seconds / requests * 1e6, 2),
                        "makespan_s": round(metrics.makespan_s, 3),
                    }
                )
    if args.record:
        command = f"python -m tests.benchmarks.bench_sim --repeats {args.repeats}"
        record.write("simulator-speed", speeds(rows, args.policy, args.cost, command))
    result = {"study": STUDY, "repeats": args.repeats, "read_cpu_s": round(read_s, 3), "results": rows}
    if args.json:
        print(json.dumps(result))
        return 0
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
