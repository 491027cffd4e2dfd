"""Run directories that a simulation made: what happened in them is known to the last digit, their costs above all."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pandas as pd

from atts_runtime.config import RunConfig
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.stepfit import CallCosts
from atts_runtime.profiler.steptime import PhaseCosts, StepModel
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord
from atts_sim import contention, twin
from atts_sim.calibrate import Costs, EngineCosts, stated_costs
from atts_sim.calls import PerCall
from atts_sim.contention import Contended
from atts_sim.correction import ROWS, Correction
from atts_sim.cost import Cost, Phase, StepShape
from atts_sim.handling import Handling
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.metrics import measure
from atts_sim.recorded import Recorded, from_records
from atts_sim.sending import Sending
from atts_sim.simrun import SimRun
from tests.runtime.scripted import drive, settings

MODELS = Path(__file__).resolve().parents[2] / "atts_runtime" / "models"


def _rising(first: float) -> tuple[float, ...]:
    return tuple(first * (1 + 0.05 * k) for k in range(len(ROWS)))


TRUE = {
    ("draft", "append"): Correction(_rising(1.3), 1e-4, 0.5),
    ("draft", "decode"): Correction(_rising(1.2), 2e-4, 0.8, 0.3),
    ("target", "append"): Correction(_rising(1.1), 3e-4, 0.2, grown_s=4e-6, contention_s=4e-4),
    ("target", "decode"): Correction(_rising(1.4), 1e-4, 0.6, 0.4),
}
PHASES: tuple[Phase, ...] = ("append", "decode")
HANDLING = Handling(3e-4, 2e-5)
WAKE_S = 2.5e-4
CALLS = PerCall(CallCosts(2e-4, 0.0), CallCosts(0.0, 0.0), 6e-4)


@cache
def specs() -> dict[str, ModelSpec]:
    """Of the bundled pair."""
    return {
        role: ModelSpec.from_config(MODELS / role, bytes_per_weight=4, bytes_per_kv_element=4)
        for role in ("draft", "target")
    }


def true_costs() -> Costs:
    """The shipped profiles, corrected by `TRUE`, with what calls cost."""
    stated = stated_costs(specs())
    engines = {
        role: replace(costs, corrections={phase: TRUE[role, phase] for phase in PHASES}, per_call=CALLS, wake_s=WAKE_S)
        for role, costs in stated.engines.items()
    }
    return Costs(engines, False, HANDLING, {}, {})


VLLM_SENDING = Sending(7e-4, 9e-4)
PEAK = (1e11, 2e10)


def vllm_costs() -> Costs:
    """Two engines in processes of their own, that pad nothing."""
    engines = {}
    for role, slow in (("draft", 1.0), ("target", 1.6)):
        append = PhaseCosts(0.2, 0.5, 4e-3 * slow, 2e-4 * slow)
        decode = PhaseCosts(0.3, 0.6, 2e-3 * slow, 1e-4 * slow)
        model = StepModel(specs()[role], *PEAK, append, decode)
        slowed = {phase: Correction(contention=0.6) for phase in PHASES}
        engines[role] = EngineCosts(model, 2048, slowed)
    return Costs(engines, False, HANDLING, {}, {}, VLLM_SENDING, "vllm")


def recorded_of(config: RunConfig) -> Recorded:
    """What scripted engines write under a configuration."""
    return from_records(drive(config).records.values(), replaces=config.recipe.action.replace)


def make_run(path: Path, policy: str, **changes: object) -> SimRun:
    """A run directory as the runtime would leave it, made by a simulation with `true_costs`, or `vllm_costs`."""
    config = settings(policy, **changes)
    rows: list[dict[str, object]] = []
    run = _simulated(config, rows)
    path.mkdir(parents=True)
    (path / "config.toml").write_text(config.to_toml())
    models = {role: asdict(spec) for role, spec in specs().items() if role in run.totals}
    (path / "manifest.json").write_text(json.dumps({"sessions": ["2026-01-01T00:00:00+00:00"], "models": models}))
    (path / "chains.jsonl").write_text("".join(record.to_line() + "\n" for record in records_of(run)))
    pd.DataFrame(rows).to_parquet(path / "steps.parquet")
    (path / "summary.json").write_text(json.dumps(_summary(run)))
    return run


def vllm_run(path: Path, policy: str, **changes: object) -> MeasuredRun:
    """One under vLLM, read back."""
    make_run(path, policy, engine="vllm", **changes)
    return measured_run(path)


def _simulated(config: RunConfig, rows: list[dict[str, object]]) -> SimRun:
    class Logged(Contended):
        def cost(self, phase: Phase, shape: StepShape) -> Cost:
            cost = super().cost(phase, shape)
            engine = next(
                role for role, spec in specs().items() if spec.parameters == self._costs.model.spec.parameters
            )
            step = dict(zip(StepShape._fields[:6], shape[:6], strict=True))
            step |= {"pairs_executed": shape.attended, "groups": shape.groups}
            times = {"t_start_s": self._clock.now, "duration_s": cost.seconds, "append": float(phase == "append")}
            times["joined"] = float(shape.joined or 0)  # which no engine logs
            rows.append({"engine": engine} | times | step)
            return cost

    before = contention.Contended
    contention.Contended = Logged  # type: ignore[misc]
    try:
        costs = vllm_costs() if config.engine == "vllm" else true_costs()
        return twin.run_twin(config, recorded_of(config), costs)
    finally:
        contention.Contended = before  # type: ignore[misc]


def records_of(run: SimRun) -> list[ChainRecord]:
    """A simulation's chains in the runtime's records."""
    records = {
        finish.chain: ChainRecord(
            *finish.chain,
            f"made/{finish.chain.question}",
            finish.reason,
            correct=bool(run.correct[finish.chain]),
            turns=finish.turns,
            t_admitted_s=run.admitted_s.get(finish.chain.question),
            t_end_s=end,
        )
        for finish, end in run.finished
    }
    verdicts = {(decided.chain, decided.turn): decided for decided in run.decided}
    for r in run.requests:
        call = CallRecord(r.turn, r.kind, r.role, tokens_new=r.new_tokens, tokens_cached=r.tokens_cached)
        call.tokens_prefilled, call.tokens_recomputed = r.tokens_prefilled, r.tokens_recomputed
        call.t_queued_s, call.t_start_s, call.t_end_s = r.t_queued_s, r.t_start_s, r.t_end_s
        if r.kind == "score":
            verdict = verdicts[r.chain, r.turn]
            call.ell, call.taken_over, call.p_value = verdict.ell, verdict.taken_over, verdict.p_value
        else:
            call.answered, call.ended = r.event.answered, r.event.ended  # type: ignore[attr-defined]
        records[r.chain].calls.append(call)
    for chain, cause, start, end in run.holds:
        records[chain].holds_s.append(HoldRecord(cause, start, end))
    return [records[chain] for chain in sorted(records)]


def _summary(run: SimRun) -> dict[str, object]:
    metrics = measure(run)
    latency = metrics.latency_s
    assert latency is not None
    device = {"name": "made-up", "device": "cpu", "dtype": "float32", "threads": 1, "kind": "fake"}
    hardware = {"hardware": device | dict(zip(("flops_per_s", "bytes_per_s"), PEAK, strict=True))}
    return {
        "wall_s": metrics.makespan_s,
        "latency_s": {"p50": latency.p50, "p95": latency.p95},
        "stall_by_cause_s": metrics.stall_s,
        "engines": {role: {"busy_s": use.busy_s} for role, use in metrics.engines.items()},
        "tokens": asdict(metrics.tokens),
        "takeover_rate": metrics.takeover_rate,
        "takeover_rate_by_turn": metrics.takeover_rate_by_turn,
        "accuracy": {"mean_chain": metrics.accuracy},
        "intensity": {"T_c_s": None, "T_m_s": None, "r": None, "engines": dict.fromkeys(metrics.engines, hardware)},
    }
