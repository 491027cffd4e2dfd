"""What the report knows of a run: the numbers of its summary, checked, and what its chain records add.

Unknown is None: older runs lack keys, and a run that has not ended has no summary at all. A number that is none, or
NaN, raises InputError that names the file and the key.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from atts_runtime.errors import InputError
from atts_runtime.profiler.perfetto import Sample
from atts_runtime.profiler.spans import Span, chain_spans
from atts_runtime.records import STALL_CAUSES, ChainRecord
from atts_runtime.runread import RunRead, read_telemetry, shared_engine
from atts_runtime.summary import tokens

PHASES = ("prefill", "score", "decode")
_T = TypeVar("_T")
_PARQUET_ENDS = b"PAR1"


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
class EngineFacts:
    """An engine over the run; its wall time is T_roof_s + T_overhead_s + T_idle_s."""

    name: str
    phases: Mapping[str, Phase]
    busy_s: float | None = None
    idle_s: float | None = None
    handling_s: float | None = None
    flops: float | None = None
    bytes: float | None = None
    steps: float | None = None
    mean_decode_batch: float | None = None
    prefilled_tokens: float | None = None
    kv_peak_tokens: float | None = None
    evictions: float | None = None
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
    not be read. `label` tells it from the other runs of the report."""

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


def number(data: Mapping[str, Any], key: str, where: str) -> float | None:
    """A finite number or None; raises InputError for anything else."""
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: {key} is no number but {value!r}; write the file again or remove it")
    return float(value)


def part(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """An object; empty where it is missing or null."""
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where}: {key} is no object but {value!r}; write the file again or remove it")
    return value


def _filled(kind: type[_T], data: Mapping[str, Any], where: str, /, **given: Any) -> _T:
    """A dataclass whose fields are `given` or numbers of the same name."""
    names = [field.name for field in fields(kind) if field.name not in given]  # type: ignore[arg-type]
    return kind(**given, **{name: number(data, name, where) for name in names})


def facts(read: RunRead) -> RunFacts:
    """Everything of a run; raises InputError where summary.json is not of the form that a run writes."""
    where = str(read.path / "summary.json")
    summary = read.summary or {}
    intensity = part(summary, "intensity", where)
    settings = read.settings
    config = str(read.path / "config.toml")
    spans = [chain_spans(record) for record in read.records]
    stall = math.fsum(s.duration_s for of_chain in spans for s in of_chain if s.kind in STALL_CAUSES)
    latency = part(summary, "latency_s", where)
    told = part(summary, "tokens", where) if "tokens" in summary else dict(tokens(read.records))
    telemetry, troubles = _tables(read)
    turns = intensity.get("turns")
    return RunFacts(
        label="",
        path=read.path,
        policy=str(settings.get("policy", "unknown policy")),
        m=number(settings, "chains", config),
        alpha=number(settings, "alpha", config),
        settings=settings,
        manifest=read.manifest,
        records=read.records,
        spans=spans,
        finished=read.summary is not None,
        wall_s=number(summary, "wall_s", where),
        questions=number(summary, "questions", where),
        failed=sum(record.reason == "failed" for record in read.records),
        accuracy=_accuracy(read, where),
        tokens={key: number(told, key, where) for key in ("draft", "scored", "score_prefix_recomputed", "takeover")},
        latency_p50_s=number(latency, "p50", where),
        latency_p95_s=number(latency, "p95", where),
        stall_s=stall,
        decisions=_decisions(read.records),
        calibration=_calibration(summary, where),
        engines=_engines(read, intensity, where),
        intensity=_filled(Intensity, intensity, where),
        hardware=_hardware(intensity, where),
        turns=[_filled(Turn, row, where) for row in turns or () if isinstance(row, dict)],
        telemetry=telemetry,
        troubles=troubles,
    )


def labelled(runs: list[RunFacts]) -> list[RunFacts]:
    """The runs with labels that tell them apart: policy and m, the folder's name where that is not enough."""
    plain = [f"{run.policy}, m\xa0=\xa0{'?' if run.m is None else f'{run.m:g}'}" for run in runs]
    named = [f"{p} ({r.path.name})" if plain.count(p) > 1 else p for p, r in zip(plain, runs, strict=True)]
    full = [f"{p} ({r.path})" if named.count(n) > 1 else n for p, n, r in zip(plain, named, runs, strict=True)]
    return [replace(run, label=label) for run, label in zip(runs, full, strict=True)]


def _accuracy(read: RunRead, where: str) -> Accuracy:
    if read.summary is None:  # what records tell by themselves
        return Accuracy(mean_chain=sum(r.correct for r in read.records) / len(read.records))
    told = part(read.summary, "accuracy", where)
    interval = told.get("mean_chain_ci95") or (None, None)
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        raise InputError(f"{where}: mean_chain_ci95 is no interval but {interval!r}; write the file again or remove it")
    edges = dict(zip(("low", "high"), interval, strict=True))
    return _filled(Accuracy, {**told, **edges}, where)


def _calibration(summary: Mapping[str, Any], where: str) -> Calibration | None:
    told = part(summary, "calibration", where)
    if not told:
        return None
    alpha = part(told, "alpha_t", where)
    alarms = told.get("alarms")
    return Calibration(
        number(alpha, "min", where),
        number(alpha, "max", where),
        number(told, "fallback_rate", where),
        len(alarms) if isinstance(alarms, list) else None,
    )


def _decisions(records: list[ChainRecord]) -> list[tuple[int, int]]:
    verdicts: dict[int, list[bool]] = defaultdict(list)
    for record in records:
        for call in record.calls:
            if call.taken_over is not None:
                verdicts[call.turn].append(call.taken_over)
    return [(len(verdicts[turn]), sum(verdicts[turn])) for turn in range(1 + max(verdicts, default=-1))]


def _engines(read: RunRead, intensity: Mapping[str, Any], where: str) -> list[EngineFacts]:
    """By role; an engine that serves both roles comes once."""
    counted = part(read.summary or {}, "engines", where)
    timed = part(intensity, "engines", where)
    names = shared_engine(read.settings)
    found: dict[str, EngineFacts] = {}
    for role in dict.fromkeys([*counted, *timed]):
        data = part(counted, role, where) | part(timed, role, where)
        phases = part(data, "phases", where)
        by_name = {name: _filled(Phase, part(phases, name, where), where) for name in phases}
        name = names.get(role, str(role))
        found.setdefault(name, _filled(EngineFacts, data, where, name=name, phases=by_name))
    return list(found.values())


def _hardware(intensity: Mapping[str, Any], where: str) -> Hardware | None:
    told = part(intensity, "hardware", where)
    if not told:
        return None
    words = {key: str(told.get(key) or "unknown") for key in ("name", "kind", "source", "device", "dtype")}
    return _filled(Hardware, told, where, **words)


def _tables(read: RunRead) -> tuple[list[Sample], list[str]]:
    """Telemetry, and what is wrong with the tables. The report does without them, so nothing here is an error."""
    troubles = []
    for name in ("events", "samples"):
        path = read.path / f"{name}.parquet"
        try:
            data = path.read_bytes() if path.exists() else None
        except OSError as error:
            troubles.append(f"{path.name} cannot be read: {error.strerror}")
            continue
        if data is None:
            troubles.append(f"{path.name} is missing; the report does without it, atts-sim does not")
        elif len(data) < 12 or not (data.startswith(_PARQUET_ENDS) and data.endswith(_PARQUET_ENDS)):
            troubles.append(f"{path.name} is half-written; go on with atts-runtime run --resume to write it again")
    try:
        telemetry = read_telemetry(read.path, "report on")
    except InputError as error:
        return [], [*troubles, f"telemetry.parquet is left out: {error}"]
    if not telemetry:
        troubles.append("no telemetry: telemetry.parquet is missing or empty (a run of under half a second has none)")
    return telemetry, troubles
