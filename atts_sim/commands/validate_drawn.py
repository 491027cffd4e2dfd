"""``atts-sim validate TRACE --workload fitted``: a published trace's other questions predicted without looking at them.

Costs and the generative workload are fitted to every other question; as many are drawn as the others are, and held
against those. What is predicted is the mean of draws of the fitted questions; its interval is of draws of questions
resampled.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atts_runtime.machine import cores
from atts_sim.commands.console import stdout_console
from atts_sim.commands.progress import progress
from atts_sim.commands.validate_trace import costs_of
from atts_sim.published import read_trace
from atts_sim.tracedraw import LEVEL, Interval, Shares, TraceModel, fit_model
from atts_sim.tracefit import halves
from atts_sim.tracetokens import at_cap
from atts_sim.whatif import Setting, sample

OFF = 1
DRAWS = 40
PLAIN_DRAWS = 10
_FIGURES = ("total_s", "takeover", "answered")


@dataclass(frozen=True, slots=True)
class DrawnErrors:
    """A trace's other half as recorded and as drawn; `fitted`: the half that was fitted, as recorded."""

    trace: str
    questions: int
    model: TraceModel
    recorded: Shares
    fitted: Shares
    predicted: Shares
    drawn: dict[str, Interval]

    @property
    def total_error(self) -> float:
        """Relative."""
        return self.predicted.total_s / self.recorded.total_s - 1

    def holds(self, tolerance: float) -> bool:
        """Whether every figure as recorded lies in its interval, and the total is off by no more than `tolerance`."""
        inside = all(interval.holds(getattr(self.recorded, name)) for name, interval in self.drawn.items())
        return inside and abs(self.total_error) <= tolerance


def execute_drawn(args: argparse.Namespace) -> int:
    """Fit, draw, compare, print; 1 where a recorded figure lies outside its interval, or a total is off by more than
    the tolerance."""
    found = [_judged(path) for path in args.runs]
    good = all(errors.holds(args.tolerance) for errors in found)
    if args.json:
        told = {
            "verdict": "holds" if good else "off",
            "tolerance": args.tolerance,
            "level": LEVEL,
            "draws": DRAWS,
            "traces": [_told(errors, args.tolerance) for errors in found],
        }
        print(json.dumps(told, allow_nan=False))
    else:
        _print(found, args.tolerance)
    return 0 if good else OFF


def _judged(path: Path) -> DrawnErrors:
    fitted, others = halves(read_trace(path))
    fitted = at_cap(fitted)  # by its own pieces: of the others nothing may be known
    model = fit_model(path.name, fitted, costs_of(path, fitted))
    found: list[dict[str, Interval]] = []
    for draws, resampled in ((PLAIN_DRAWS, False), (DRAWS, True)):
        with progress(path.name) as on_progress:
            drawn = sample(
                model, [Setting(None, 1)], draws=draws, seed=0, questions=others.questions, jobs=min(2, cores()),
                resampled=resampled, on_progress=on_progress,
            )  # fmt: skip
        found.append({name: Interval.of([getattr(draw[0], name) for draw in drawn]) for name in _FIGURES})
    predicted = Shares(*(found[0][name].mean for name in _FIGURES))
    recorded = Shares.recorded(others)
    return DrawnErrors(path.name, others.questions, model, recorded, Shares.recorded(fitted), predicted, found[1])


def _told(errors: DrawnErrors, tolerance: float) -> dict[str, Any]:
    return {
        "trace": errors.trace,
        "questions": errors.questions,
        "holds": errors.holds(tolerance),
        "total_error": errors.total_error,
        "recorded": asdict(errors.recorded),
        "fitted_half": asdict(errors.fitted),
        "predicted": asdict(errors.predicted),
        "drawn": {name: asdict(interval) for name, interval in errors.drawn.items()},
        "recorded_rule": {"alpha": errors.model.alpha, "agreement": errors.model.agreement},
        "costs": asdict(errors.model.costs),
    }


def _print(found: Sequence[DrawnErrors], tolerance: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    title = f"questions that were not fitted, drawn anew: predictions, and {LEVEL:.0%} intervals of {DRAWS} draws"
    table = Table(title=title, title_justify="left")
    for heading in ("trace", "figure", "fitted half", "recorded", "predicted", "interval", "error", ""):
        table.add_column(heading, justify="left" if heading in ("trace", "figure") else "right")
    for errors in found:
        for name, interval in errors.drawn.items():
            recorded, predicted = getattr(errors.recorded, name), getattr(errors.predicted, name)
            form = "{:,.0f}" if name == "total_s" else "{:.3f}"
            fitted, told, mean, low, high = (
                form.format(v) for v in (getattr(errors.fitted, name), recorded, predicted, interval.low, interval.high)
            )
            error = f"{errors.total_error:+.1%}" if name == "total_s" else f"{predicted - recorded:+.3f}"
            if name == "total_s" and abs(errors.total_error) > tolerance:
                error = f"[red]{error}[/red]"
            verdict = "inside" if interval.holds(recorded) else "[red]outside[/red]"
            table.add_row(escape(errors.trace), name, fitted, told, mean, f"{low} to {high}", error, verdict)
    console = stdout_console()
    console.print(table)
    good = sum(errors.holds(tolerance) for errors in found)
    console.print(
        f"{good} of {len(found)} traces with every figure in its interval and the total within {tolerance:.0%}: "
        f"{'holds' if good == len(found) else 'off'}",
        markup=False, highlight=False,
    )  # fmt: skip
