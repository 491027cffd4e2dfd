"""What a run comes to, measured or simulated: the figures that `atts-sim validate` holds against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.intensity import ratio
from atts_runtime.records import STALL_CAUSES
from atts_sim.calibrate import Costs
from atts_sim.demand import demanded
from atts_sim.measured import MeasuredRun, Peaks
from atts_sim.metrics import measure
from atts_sim.simrun import SimRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Times in seconds; None: not known. `busy_s` by engine; the other names are those of summary.json."""

    wall_s: float
    latency_p50_s: float | None
    latency_p95_s: float | None
    stall_s: Mapping[str, float]
    busy_s: Mapping[str, float]
    tokens: Mapping[str, int]
    takeovers: int
    takeover_rate: float | None
    takeover_rate_by_turn: tuple[float | None, ...]
    answered: float
    accuracy: float | None
    T_c_s: float | None
    T_m_s: float | None
    r: float | None


def measured_figures(run: MeasuredRun) -> Figures:
    """Of the run's summary. Raises InputError where it lacks one."""
    summary = run.summary
    verdicts = [call.taken_over for call in run.calls if call.taken_over is not None]
    intensity = summary.get("intensity") or {}
    try:
        return Figures(
            wall_s=float(summary["wall_s"]),
            latency_p50_s=_maybe(summary["latency_s"]["p50"]),
            latency_p95_s=_maybe(summary["latency_s"]["p95"]),
            stall_s={cause: float(summary["stall_by_cause_s"][cause]) for cause in STALL_CAUSES},
            busy_s={role: float(summary["engines"][role]["busy_s"]) for role in run.specs},
            tokens={kind: int(summary["tokens"][kind]) for kind in ("draft", "scored", "takeover")},
            takeovers=sum(verdicts),
            takeover_rate=_maybe(summary["takeover_rate"]),
            takeover_rate_by_turn=tuple(_maybe(rate) for rate in summary["takeover_rate_by_turn"]),
            answered=sum(record.reason == "answered" for record in run.records) / len(run.records),
            accuracy=_maybe(summary["accuracy"]["mean_chain"]),
            T_c_s=_maybe(intensity.get("T_c_s")),
            T_m_s=_maybe(intensity.get("T_m_s")),
            r=_maybe(intensity.get("r")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{run.path / 'summary.json'} is no summary of a run: {error!r}") from error


def _maybe(value: Any) -> float | None:
    return None if value is None else float(value)


def simulated_figures(sim: SimRun, costs: Costs, peaks: Peaks) -> Figures:
    """Of a simulation with such costs."""
    metrics = measure(sim)
    latency, stall_s = metrics.latency_s, math.fsum(metrics.stall_s.values())
    terms = _terms(sim, costs, peaks)
    return Figures(
        wall_s=metrics.makespan_s,
        latency_p50_s=None if latency is None else latency.p50,
        latency_p95_s=None if latency is None else latency.p95,
        stall_s=metrics.stall_s,
        busy_s={name: metrics.engines[name].busy_s for name in costs.engines if name in metrics.engines},
        tokens={
            "draft": metrics.tokens.draft,
            "scored": metrics.tokens.scored,
            "takeover": metrics.tokens.takeover,
        },
        takeovers=sum(decided.taken_over for decided in sim.decided),
        takeover_rate=metrics.takeover_rate,
        takeover_rate_by_turn=metrics.takeover_rate_by_turn,
        answered=metrics.answered,
        accuracy=metrics.accuracy,
        T_c_s=None if terms is None else terms[0],
        T_m_s=None if terms is None else terms[1],
        r=None if terms is None else ratio(*terms, stall_s),
    )


def _terms(sim: SimRun, costs: Costs, peaks: Peaks) -> tuple[float, float] | None:
    """T_c and T_m; None where an engine's peak is not known."""
    used = {role: next(iter(costs.engines)) if costs.one_engine else role for role in sim.totals}
    if not set(used.values()) <= peaks.keys():
        return None
    rates = {role: Rates(costs.engines[name].model.spec) for role, name in used.items()}
    return demanded(sim, rates, {role: peaks[name] for role, name in used.items()})
