"""What the report knows of a run. Unknown is None: older runs lack keys, a run that has not ended has no summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atts_runtime.profiler.perfetto import Sample
from atts_runtime.profiler.spans import Span
from atts_runtime.records import ChainRecord


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of step of an engine. `flops`, `bytes` and what follows from them are analytic, `busy_s` is measured."""

    tokens: float | None = None
    flops: float | None = None
    bytes: float | None = None
    busy_s: float | None = None
    T_c_s: float | None = None
    T_m_s: float | None = None
    intensity_flop_per_byte: float | None = None
    flops_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which an engine's endpoint was down, on the run's clock; `t_end_s` None: to the end of the run."""

    endpoint: str
    cause: str
    t_start_s: float | None = None
    t_end_s: float | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine over the run; its wall time is T_roof_s + T_overhead_s + T_idle_s."""

    name: str
    phases: Mapping[str, Phase]
    busy_s: float | None = None
    idle_s: float | None = None
    flops: float | None = None
    bytes: float | None = None
    steps: float | None = None
    mean_decode_batch: float | None = None
    prefilled_tokens: float | None = None
    kv_peak_tokens: float | None = None
    evictions: float | None = None
    preemptions: float | None = None
    retried: float | None = None
    throttled: float | None = None
    outages: tuple[Outage, ...] = ()
    T_c_s: float | None = None
    T_m_s: float | None = None
    T_roof_s: float | None = None
    T_overhead_s: float | None = None
    T_idle_s: float | None = None
    r_engine: float | None = None
    intensity_flop_per_byte: float | None = None
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of all chains."""

    turn: float | None = None
    flops: float | None = None
    bytes: float | None = None
    T_c_s: float | None = None
    T_m_s: float | None = None
    T_s_s: float | None = None
    r: float | None = None


@dataclass(frozen=True, slots=True)
class Intensity:
    """The run's totals over engines; T_s_s is the stall of all chains, T_idle_s the idle time of the engines."""

    r: float | None = None
    r_engine: float | None = None
    T_c_s: float | None = None
    T_m_s: float | None = None
    T_s_s: float | None = None
    T_overhead_s: float | None = None
    T_idle_s: float | None = None
    intensity_flop_per_byte: float | None = None
    machine_balance_flop_per_byte: float | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The profile that turned FLOPs and bytes into seconds. `kind` is the provenance of its two rates."""

    name: str
    kind: str
    source: str
    device: str
    dtype: str
    threads: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None

    def roof(self, intensity: float) -> float | None:
        """FLOP/s that the device can reach at an intensity in FLOP/byte (Williams et al., 2009)."""
        if self.flops_per_s is None or self.bytes_per_s is None:
            return None
        return min(self.flops_per_s, self.bytes_per_s * intensity)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of right chains and questions."""

    mean_chain: float | None = None
    low: float | None = None
    high: float | None = None
    majority: float | None = None
    voted: float | None = None
    pass_at_m: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What async policies tested with; `alarms` None where nothing was monitored."""

    alpha_low: float | None
    alpha_high: float | None
    fallback_rate: float | None
    alarms: int | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run. `m` chains a question; `decisions[t]` counts (verdicts, takeovers) of turn t; `troubles` are what could
    not be read. `policy` names parts that were replaced, `label` tells it from the other runs of the report. `alpha`
    None: verdicts do not go by it."""

    label: str
    path: Path
    policy: str
    m: float | None
    alpha: float | None
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    records: list[ChainRecord]
    spans: list[list[Span]]
    finished: bool
    wall_s: float | None
    questions: float | None
    failed: int
    accuracy: Accuracy
    tokens: Mapping[str, float | None]
    latency_p50_s: float | None
    latency_p95_s: float | None
    stall_s: float
    decisions: list[tuple[int, int]]
    calibration: Calibration | None
    engines: list[EngineFacts]
    intensity: Intensity
    hardware: Hardware | None
    turns: list[Turn]
    telemetry: list[Sample]
    troubles: list[str]

    @property
    def takeover_rate(self) -> float | None:
        """Takeovers among verdicts."""
        verdicts = sum(n for n, _ in self.decisions)
        return sum(taken for _, taken in self.decisions) / verdicts if verdicts else None

    @property
    def chain_s(self) -> float:
        """Seconds of all chains' lives, but for waits for admission: those are the load's, not the policy's."""
        return math.fsum(s.duration_s for spans in self.spans for s in spans if s.kind != "admission")
