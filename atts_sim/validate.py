"""Predicted against measured: each run simulated with costs from other runs, and its figures held against its own.

The verdict is about what users decide by: wall, median and 95th percentile of the questions' latency, and the share of
segments taken over. The other figures say where an error comes from. Runs of the same settings are repeats of one
another: each is simulated, and the medians are compared, since a machine's speed differs from one minute to the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

from atts_runtime.config import POLICY_SETTINGS, RunConfig
from atts_runtime.errors import InputError
from atts_sim.calibrate import Costs
from atts_sim.drawn import Drawn
from atts_sim.figures import Figures, measured_figures, simulated_figures
from atts_sim.generative import FittedWorkload
from atts_sim.measured import MeasuredRun, peaks_of
from atts_sim.recorded import from_records
from atts_sim.simrun import SimRun
from atts_sim.twin import run_twin
from atts_sim.workload import Workload

WorkloadKind = Literal["replay", "fitted"]
TOLERANCE = 0.1
_MAY_DIFFER = frozenset(POLICY_SETTINGS) - {"alpha", "budget"} | {"out"}
"""Between runs whose order is judged: settings that make a policy, but for those of how much is taken over."""


@dataclass(frozen=True, slots=True)
class Line:
    """A figure both ways. `error` is predicted over measured, less one; of a share, predicted less measured; None where
    one side is not known or the measured one is 0. `judged`: the verdict looks at it."""

    name: str
    unit: str
    measured: float | None
    predicted: float | None
    judged: bool = False

    @property
    def error(self) -> float | None:
        if self.measured is None or self.predicted is None:
            return None
        if self.unit == "1":
            return self.predicted - self.measured
        return self.predicted / self.measured - 1 if self.measured else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run, or repeats of it, and what was predicted."""

    repeats: tuple[MeasuredRun, ...]
    lines: tuple[Line, ...]

    @property
    def run(self) -> MeasuredRun:
        """The first of the repeats."""
        return self.repeats[0]

    def worst(self) -> Line | None:
        """The judged figure that is furthest off."""
        known = [line for line in self.lines if line.judged and line.error is not None]
        return max(known, key=lambda line: abs(line.error or 0.0), default=None)

    def holds(self, tolerance: float) -> bool:
        worst = self.worst()
        return worst is not None and abs(worst.error or 0.0) <= tolerance


@dataclass(frozen=True, slots=True)
class Validation:
    """Runs compared, those that could not be modelled with the reason, and pairs of policies that came out in the wrong
    order of wall among runs alike but for the policy and its parts: (faster, slower) as measured."""

    compared: tuple[Comparison, ...]
    refused: tuple[tuple[str, str], ...]
    misordered: tuple[tuple[str, str], ...]
    pairs: int
    tolerance: float

    @property
    def holds(self) -> bool:
        return bool(self.compared) and not self.misordered and all(c.holds(self.tolerance) for c in self.compared)


def workload_of(run: MeasuredRun, kind: WorkloadKind, fitted: FittedWorkload | None) -> Workload:
    """What the run's models wrote, or what the fitted generator would have them write."""
    if kind == "replay":
        # A policy that depends on who is first may ask for takeovers that were not made.
        return from_records(run.records, replaces=run.config.recipe.action.replace, unrecorded="nearest")
    assert fitted is not None
    questions = 1 + max(record.question for record in run.records)
    return Drawn(fitted, questions, run.config.chains, run.config.seed)


def _refuse_others(run: MeasuredRun, costs: Costs) -> None:
    """Raises InputError where the costs are of other models than the run's, or of two engines where one served both its
    roles, or the other way round. Costs of another kind of engine are `run_twin`'s to refuse."""
    if run.config.engine != costs.engine:
        return
    if run.uses_both and run.one_engine != costs.one_engine:
        ran, fitted = ("one engine", "two") if run.one_engine else ("two engines", "one")
        raise InputError(f"it had {ran} for its two roles, and the costs are of {fitted}; fit on runs of its models")
    for role, spec in run.specs.items():
        engine = next(iter(costs.engines.values())) if costs.one_engine else costs.engines.get(role)
        if engine is not None and replace(engine.model.spec, name="") != replace(spec, name=""):
            raise InputError(f"the costs are of another {role} model than it ran; fit on runs of its models")


def compare(run: MeasuredRun, sim: SimRun, costs: Costs) -> Comparison:
    """The figures of the run and of its simulation, side by side."""
    return Comparison((run,), _lines(measured_figures(run), simulated_figures(sim, costs, peaks_of(run))))


def validate(
    runs: Sequence[MeasuredRun],
    costs: Costs,
    *,
    kind: WorkloadKind = "replay",
    fitted: FittedWorkload | None = None,
    tolerance: float = TOLERANCE,
    refused: Sequence[tuple[str, str]] = (),
) -> Validation:
    """Simulate every run. Those that cannot be are refused with the reason, beside those `refused` already."""
    by_settings: dict[RunConfig, list[Comparison]] = {}
    unable = list(refused)
    for run in runs:
        try:
            _refuse_others(run, costs)
            found = compare(run, run_twin(run.config, workload_of(run, kind, fitted), costs), costs)
        except InputError as error:
            unable.append((str(run.path), str(error)))
        else:
            by_settings.setdefault(replace(run.config, out=None), []).append(found)
    compared = [_median(repeats) for repeats in by_settings.values()]
    misordered, pairs = _misordered(compared)
    return Validation(tuple(compared), tuple(unable), misordered, pairs, tolerance)


def _median(repeats: Sequence[Comparison]) -> Comparison:
    """Figure by figure; one that a repeat does not know is not known. One comparison stays as it is."""
    if len(repeats) == 1:
        return repeats[0]

    def median(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if len(known) == len(values) else None

    by_name = [{line.name: line for line in comparison.lines} for comparison in repeats]
    lines = tuple(
        replace(
            line,
            measured=median([lines[line.name].measured for lines in by_name]),
            predicted=median([lines[line.name].predicted for lines in by_name]),
        )
        for line in repeats[0].lines
        if all(line.name in lines for lines in by_name)
    )
    return Comparison(tuple(run for comparison in repeats for run in comparison.repeats), lines)


def _lines(measured: Figures, predicted: Figures) -> tuple[Line, ...]:
    def line(name: str, unit: str, *, judged: bool = False) -> Line:
        return Line(name, unit, getattr(measured, name), getattr(predicted, name), judged)

    def each(name: str, unit: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[Line]:
        return [Line(f"{name}.{key}", unit, ours[key], theirs.get(key)) for key in ours]

    turns = max(len(measured.takeover_rate_by_turn), len(predicted.takeover_rate_by_turn))
    by_turn = [
        Line(
            f"takeover_rate.{turn}",
            "1",
            _at(measured.takeover_rate_by_turn, turn),
            _at(predicted.takeover_rate_by_turn, turn),
        )
        for turn in range(turns)
    ]
    return (
        line("wall_s", "s", judged=True),
        line("latency_p50_s", "s", judged=True),
        line("latency_p95_s", "s", judged=True),
        *each("stall_s", "s", measured.stall_s, predicted.stall_s),
        *each("busy_s", "s", measured.busy_s, predicted.busy_s),
        line("takeover_rate", "1", judged=True),
        *by_turn,
        line("takeovers", "calls"),
        *each("tokens", "tokens", measured.tokens, predicted.tokens),
        line("answered", "1"),
        line("accuracy", "1"),
        line("T_c_s", "s"),
        line("T_m_s", "s"),
        line("r", "ratio"),
    )


def _at(rates: Sequence[float | None], turn: int) -> float | None:
    return rates[turn] if turn < len(rates) else None


def _misordered(compared: Sequence[Comparison]) -> tuple[tuple[tuple[str, str], ...], int]:
    """Those of the pairs of runs alike but for the policy whose walls are predicted the wrong way round, and the number
    of pairs."""
    wrong, pairs = [], 0
    for one, other in combinations(compared, 2):
        if not _alike(one.run.config, other.run.config):
            continue
        pairs += 1
        fast, slow = sorted((one, other), key=lambda c: c.lines[0].measured or 0.0)
        if (fast.lines[0].predicted or 0.0) > (slow.lines[0].predicted or 0.0):
            wrong.append((fast.run.name, slow.run.name))
    return tuple(wrong), pairs


def _alike(one: RunConfig, other: RunConfig) -> bool:
    """Whether runs of such settings are alike but for the policy; one of a single model names no draft of its own."""
    free = _MAY_DIFFER | ({"draft"} if one.recipe.one_model or other.recipe.one_model else set())
    a, b = asdict(one), asdict(other)
    return all(a[name] == b[name] for name in a.keys() - free)


def as_json(validation: Validation, costs: Costs) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    return {
        "verdict": "holds" if validation.holds else "off",
        "tolerance": validation.tolerance,
        "runs": [
            {
                "run": str(c.run.path),
                "repeats": [str(run.path) for run in c.repeats],
                "policy": c.run.config.policy,
                "chains": c.run.config.chains,
                "questions_in_flight": c.run.config.questions_in_flight,
                "holds": c.holds(validation.tolerance),
                "figures": {
                    line.name: {
                        "unit": line.unit,
                        "measured": line.measured,
                        "predicted": line.predicted,
                        "error": line.error,
                        "judged": line.judged,
                    }
                    for line in c.lines
                },
            }
            for c in validation.compared
        ],
        "not_modelled": [{"run": run, "reason": reason} for run, reason in validation.refused],
        "order": {"pairs": validation.pairs, "wrong": [list(pair) for pair in validation.misordered]},
        "costs": costs.to_json(),
    }
