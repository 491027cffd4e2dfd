"""What the fitted workload says of settings that no fitted run had (docs/simulator.md): takeover rate and accuracy.

    python -m tests.benchmarks.bench_workload [--out runs/workload] [--questions 40] [--draws 16] [--record]

Makes the runs first, thirteen of the bundled pair (some minutes); those that --out has already are kept. A workload is
fitted to those of 4 and 8 chains, and each other run is drawn so many times. No figure is a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from atts_sim.calibrate import calibrate
from atts_sim.commands.progress import progress
from atts_sim.commands.validate import source_of
from atts_sim.drawn import Drawn
from atts_sim.generative_fit import fit_workload
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.twin import run_twin
from tests.benchmarks import record
from tests.benchmarks.bench_fidelity import make

FITTED = [(policy, 0.1, chains) for policy in ("barrier", "async-marginal", "target-only") for chains in (4, 8)]
PREDICTED = [
    ("barrier", 0.1, 16), ("barrier", 0.1, 32), ("async-marginal", 0.1, 16), ("async-marginal", 0.1, 32),
    ("async-marginal", 0.05, 16), ("async-marginal", 0.2, 16), ("barrier", 0.25, 16),
]  # fmt: skip


def runs(settings: list[tuple[str, float, int]], out: Path, questions: int) -> Iterator[MeasuredRun]:
    for policy, alpha, chains in settings:
        path = out / f"{policy}-a{alpha:g}-m{chains}"
        make(path, policy=policy, alpha=alpha, chains=chains, questions=questions)
        yield measured_run(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/workload"), help="folder of the runs")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--record", action="store_true", help="write the table into docs/simulator.md")
    args = parser.parse_args()
    with progress("runs") as on_progress:
        made = []
        for run in runs(FITTED + PREDICTED, args.out, args.questions):
            made.append(run)
            on_progress(len(made), len(FITTED + PREDICTED))
    fitted = made[: len(FITTED)]
    workload, costs = fit_workload([source_of(run) for run in fitted]), calibrate(fitted)
    rows = []
    for run in made[len(FITTED) :]:
        drawn = []
        for seed in range(args.draws):
            sim = run_twin(run.config, Drawn(workload, args.questions, run.config.chains, seed), costs)
            taken, right = [decided.taken_over for decided in sim.decided], list(sim.correct.values())
            drawn.append((mean(taken), mean(map(bool, right))))
        measured = run.summary["takeover_rate"], run.summary["accuracy"]["mean_chain"]
        cells = (
            f"{was:.3f} / {mean(of):.3f} ({min(of):.3f} to {max(of):.3f})"
            for was, of in zip(measured, zip(*drawn, strict=True), strict=True)
        )
        rows.append((run.config.policy, f"{run.config.alpha:g}", str(run.config.chains), *cells))
        print(*rows[-1], sep=" | ", flush=True)
    columns = ("policy", "alpha", "chains", "takeover rate, measured / predicted", "accuracy, measured / predicted")
    command = f"python -m tests.benchmarks.bench_workload --questions {args.questions} --draws {args.draws}"
    if args.record:
        record.write("workload", record.new(command, columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
