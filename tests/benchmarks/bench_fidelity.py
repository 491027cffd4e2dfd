"""The simulator against runs of the bundled pair (docs/simulator.md): fitted to m = 4 and 8, predicted m = 16 and 32.

    python -m tests.benchmarks.bench_fidelity [--out runs/fidelity] [--questions 16] [--repeats 3] [--record]

Makes the runs first, 24 settings one after the other, as often as asked (15 minutes; wants a machine with nothing else
to do, and waits for one: `calm`); those that --out has already are kept. Then it prints what `atts-sim validate` says
of each. `--record` writes that into the documentation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from atts_sim.calibrate import calibrate
from atts_sim.commands.progress import progress
from atts_sim.measured import measured_run
from atts_sim.validate import Validation, validate
from tests.benchmarks import record
from tests.benchmarks.calm import Pace, undisturbed

POLICIES = ("async-marginal", "barrier", "target-only")
FITTED, PREDICTED = (4, 8), (16, 32)
IN_FLIGHT = (1, 8)
FIGURES = ("wall_s", "latency_p50_s", "latency_p95_s")


@dataclass(frozen=True, slots=True)
class Made:
    """One run of the plan."""

    policy: str
    chains: int
    in_flight: int
    repeat: int

    def path(self, out: Path) -> Path:
        return out / f"{self.policy}-m{self.chains}-f{self.in_flight}-r{self.repeat}"


def plan(repeats: int) -> Iterator[Made]:
    """Every setting once, then all of them again."""
    for repeat, in_flight, chains, policy in product(range(1, repeats + 1), IN_FLIGHT, FITTED + PREDICTED, POLICIES):
        yield Made(policy, chains, in_flight, repeat)


def make(path: Path, **options: object) -> None:
    """Run it with these options, where that was not done yet. Raises SystemExit where it fails."""
    if (path / "summary.json").exists():
        return
    command = [sys.executable, "-m", "atts_runtime.cli", "run", "--seed", "0", "--out", str(path)]
    command += [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    shutil.rmtree(path, ignore_errors=True)  # interrupted: a resumed run has a gap in its clock
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{path} failed: {done.stderr[-500:]}")


def table(found: Validation, command: str) -> record.Table:
    """What was measured and predicted, in the order of docs/simulator.md."""
    rows, errors = [], []
    for of in sorted(found.compared, key=lambda c: (c.run.config.questions_in_flight or 0, c.run.config.policy)):
        lines = {line.name: line for line in of.lines}
        cells = []
        for name in FIGURES:
            line = lines[name]
            if line.measured is None or line.predicted is None or line.error is None:
                raise ValueError(f"{of.run.path}: {name} is not known")
            errors.append(abs(line.error))
            cells.append(f"{line.measured:.2f} / {line.predicted:.2f} ({line.error:+.0%})")
        config = of.run.config
        rows.append((config.policy, str(config.chains), str(config.questions_in_flight), *cells))
    ordered = found.pairs - len(found.misordered)
    says = (
        f"{sum(e <= 0.05 for e in errors)} of the {len(errors)} figures are within 5%, {sum(e <= 0.1 for e in errors)} "
        f"within 10%, the worst is off by {max(errors):.0%}; {ordered} of {found.pairs} pairs of policies come out in "
        f"the right order of wall.{_apart(found)} {_scatter(found)}"
    )
    columns = ("policy", "chains", "questions in flight", "wall, s", "latency p50, s", "latency p95, s")
    return record.new(command, columns, rows, says)


def _apart(found: Validation) -> str:
    """How far the pairs that come out in the wrong order are apart as measured."""
    walls = {of.run.name: of.lines[0].measured or 0.0 for of in found.compared}
    apart = [f"{walls[slow] / walls[fast] - 1:.1%}" for fast, slow in found.misordered]
    return f" As measured those in the wrong order are {' and '.join(apart)} apart." if apart else ""


def _scatter(found: Validation) -> str:
    """How far repeats of the same settings are apart, as nothing can predict them better than that."""
    spread = []
    for of in found.compared:
        walls = [float(run.summary["wall_s"]) for run in of.repeats]
        spread.append(max(walls) / min(walls) - 1)
    if not any(spread):
        return ""
    return (
        f"Walls of repeats differ by {min(spread):.0%} to {max(spread):.0%} from the fastest to the slowest "
        f"(median {statistics.median(spread):.0%})."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"), help="folder of the runs")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write the table into docs/simulator.md")
    args = parser.parse_args()
    made, pace = list(plan(args.repeats)), Pace()
    with progress("runs") as on_progress:
        for done, of in enumerate(made, 1):
            path = of.path(args.out)
            if not (path / "summary.json").exists():
                settings = {"policy": of.policy, "chains": of.chains, "questions_in_flight": of.in_flight}
                undisturbed(
                    pace, partial(make, path, questions=args.questions, **settings), partial(shutil.rmtree, path)
                )
            on_progress(done, len(made))
    runs = {of: measured_run(of.path(args.out)) for of in made}
    if other := [run.path for run in runs.values() if run.config.questions != args.questions]:
        sys.exit(f"bench_fidelity: {other[0]} is of another number of questions; give another --out")
    costs = calibrate([run for of, run in runs.items() if of.chains in FITTED])
    found = validate([run for of, run in runs.items() if of.chains in PREDICTED], costs)
    command = f"python -m tests.benchmarks.bench_fidelity --questions {args.questions} --repeats {args.repeats}"
    made_of = table(found, command)
    print(made_of.markdown())
    if args.record:
        day = max(json.loads((run.path / "manifest.json").read_text())["sessions"][0] for run in runs.values())[:10]
        record.write("fidelity", replace(made_of, made=day))
    return 0


if __name__ == "__main__":
    sys.exit(main())
