"""From a run directory to what the report knows of it: the numbers of its summary, checked, and its chains' records.

A number that is none, or NaN, raises InputError that names the file and the key.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from atts_runtime.config import label_of
from atts_runtime.control import POLICIES
from atts_runtime.control.gates.worst import Worst
from atts_runtime.errors import InputError
from atts_runtime.profiler.perfetto import Sample
from atts_runtime.profiler.spans import chain_spans
from atts_runtime.records import STALL_CAUSES, ChainRecord
from atts_runtime.report.facts import (
    Accuracy,
    Calibration,
    EngineFacts,
    Hardware,
    Intensity,
    Outage,
    Phase,
    RunFacts,
    Turn,
)
from atts_runtime.runread import RunRead, read_telemetry, shared_engine
from atts_runtime.summary import tokens

_T = TypeVar("_T")
_PARQUET_ENDS = b"PAR1"


def number(data: Mapping[str, Any], key: str, where: str) -> float | None:
    """A finite number or None; raises InputError for anything else."""
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
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
    return RunFacts(
        label="",
        path=read.path,
        policy=label_of(settings),
        m=number(settings, "chains", config),
        alpha=number(settings, "alpha", config) if _goes_by_alpha(read) else None,
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
        turns=_turns(intensity, where),
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
        return Accuracy(mean_chain=sum(r.correct is True for r in read.records) / len(read.records))
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


def _goes_by_alpha(read: RunRead) -> bool:
    """Whether verdicts say the alpha that they were held against, or the gate takes over that share of every turn."""
    recipe = POLICIES.get(str(read.settings.get("policy")))
    gate = read.settings.get("gate") or (recipe and recipe.gate.name)
    return gate == Worst.name or any(call.alpha is not None for record in read.records for call in record.calls)


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
        outages = _outages(data, where)
        found.setdefault(name, _filled(EngineFacts, data, where, name=name, phases=by_name, outages=outages))
    return list(found.values())


def _outages(data: Mapping[str, Any], where: str) -> tuple[Outage, ...]:
    told = data.get("outages") or []
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise InputError(f"{where}: outages is no list of objects; write the file again or remove it")
    return tuple(
        _filled(Outage, row, where, endpoint=str(row.get("endpoint")), cause=str(row.get("cause"))) for row in told
    )


def _turns(intensity: Mapping[str, Any], where: str) -> list[Turn]:
    told = intensity.get("turns") or []
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise InputError(f"{where}: turns is no list of objects; write the file again or remove it")
    return [_filled(Turn, row, where) for row in told]


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
