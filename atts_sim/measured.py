"""A run directory as the simulator's measure: its settings, its chains, the log of its engines' steps.

Nothing in it is trusted: what cannot be read, or is no whole run, raises InputError that says why.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.config import EMBEDDED, RunConfig
from atts_runtime.errors import InputError
from atts_runtime.profiler.modelspec import Experts, ModelSpec
from atts_runtime.records import CallRecord, ChainRecord
from atts_runtime.runread import read_run, shared_engine
from atts_runtime.session import roles
from atts_runtime.untrusted import table_in
from atts_runtime.wholenumbers import LARGEST_EXACT
from atts_sim.columns import check_numbers, floats
from atts_sim.cost import Phase, StepShape

Floats = NDArray[np.float64]
Peaks = Mapping[str, tuple[float, float]]
"""FLOP/s and bytes/s of each engine's device."""

_COLUMNS = ("t_start_s", "duration_s", "append", "rows", "new_tokens", "longest_new", "kept_tokens", "longest_kept",
            "logit_rows", "pairs_executed", "groups")  # fmt: skip
_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class StepLog:
    """Passes of one engine in order, an entry each. `append`: whether it fed contexts or segments; `period_s`: until
    the engine began its next pass where it had work for one all the while, else until it answered its last call, or,
    where it is a process of its own, as long as it usually takes until the next pass begins;
    `shared`: the share of its duration in which the run's other engine was in a pass too; `beside`: whether that was in
    one when this one began; `calls` [passes, 2]:
    generating calls that began in the period, and that ended in it; `left`: of the latter those that had a row to
    leave, as a call of one token is answered by the pass that feeds its context. Shapes are [passes, 8], for
    `shape_of`."""

    start_s: Floats
    duration_s: Floats
    period_s: Floats
    shared: Floats
    calls: Floats
    left: Floats
    append: NDArray[np.bool_]
    shapes: NDArray[np.int64]
    beside: NDArray[np.bool_]

    def of(self, phase: Phase) -> NDArray[np.bool_]:
        """[passes] which are of a phase."""
        return self.append if phase == "append" else ~self.append


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A finished run. `specs` and `logs` by the engine's role, the first one's where a model serves both; `summary` as
    in summary.json; `cpu`: the machine's, as `machine.cpu_name` has it, in older runs its model name
    alone (None: not on record)."""

    path: Path
    config: RunConfig
    records: list[ChainRecord]
    summary: Mapping[str, Any]
    specs: Mapping[str, ModelSpec]
    logs: Mapping[str, StepLog]
    one_engine: bool
    cpu: str | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def uses_both(self) -> bool:
        """Whether its policy has work for the models of both roles, be they on one engine or two."""
        return len(set(roles(self.config).values())) > 1

    @property
    def calls(self) -> list[CallRecord]:
        return [call for record in self.records for call in record.calls]


def shape_of(logged: NDArray[np.int64]) -> StepShape:
    """A row of `StepLog.shapes`. What rows attended over is known of decodes alone, and not of what older engines
    logged."""
    rows, new, longest_new, kept, longest, logits, pairs, groups = map(int, logged)
    attended = pairs if rows == new and pairs != _UNKNOWN else None
    return StepShape(rows, new, longest_new, kept, longest, logits, attended=attended, groups=groups)


def measured_run(path: Path) -> MeasuredRun:
    """Read a run. Raises InputError where it cannot be read, is not over, was resumed, failed in part, or logged no
    steps."""
    read = read_run(path)
    config = RunConfig().with_options(read.settings)
    if read.summary is None:
        raise InputError(f"{path} is not over: it has no summary.json; finish it with atts-runtime run --resume")
    sessions = read.manifest.get("sessions", [None])
    if not isinstance(sessions, list):
        raise InputError(f"{path / 'manifest.json'}: 'sessions' must be a list; repeat the run")
    if len(sessions) > 1:
        raise InputError(f"{path} was resumed, so its clock has a gap; give a run that was made in one go")
    failed = sum(record.reason == "failed" for record in read.records)
    if failed:
        raise InputError(f"{path} has {failed} failed chains, whose costs say nothing; repeat the run")
    specs = _specs(path, read.manifest.get("models"))
    logs = _logs(path, read.records, apart=config.engine != EMBEDDED)
    one = bool(shared_engine(read.settings)) and len(specs) > 1
    if one:
        first = next(role for role in specs if role in logs)
        specs = {first: specs[first]}
    if missing := [role for role in specs if role not in logs]:
        raise InputError(f"{path / 'steps.parquet'} has no step of the {missing[0]} engine")
    hardware = read.manifest.get("hardware")
    cpu = hardware.get("cpu") if isinstance(hardware, Mapping) else None
    return MeasuredRun(
        path, config, read.records, read.summary, specs, logs, one, cpu if isinstance(cpu, str) else None
    )


def device_of(run: MeasuredRun, role: str) -> Mapping[str, Any]:
    """What the run's summary says of an engine's device; empty where it says nothing. Raises InputError where it is no
    summary of a run."""
    found: Mapping[str, Any] = run.summary
    for name in ("intensity", "engines", role, "hardware"):
        found = found.get(name) or {}
        if not isinstance(found, Mapping):
            raise InputError(f"{run.path / 'summary.json'} is no summary of a run: {name!r} is no object")
    return found


def peaks_of(run: MeasuredRun) -> Peaks:
    """Of the devices that the run's intensity was counted against; empty where it was not."""
    found = {}
    for role in run.specs:
        hardware = device_of(run, role)
        flops_per_s, bytes_per_s = hardware.get("flops_per_s"), hardware.get("bytes_per_s")
        if isinstance(flops_per_s, float | int) and isinstance(bytes_per_s, float | int):
            if not (0 < flops_per_s < math.inf and 0 < bytes_per_s < math.inf):
                raise InputError(
                    f"{run.path / 'summary.json'} has a device of {flops_per_s} FLOP/s, {bytes_per_s} bytes/s"
                )
            found[role] = (float(flops_per_s), float(bytes_per_s))
    return found


def _specs(path: Path, models: Any) -> dict[str, ModelSpec]:
    if not isinstance(models, Mapping) or not models or not all(isinstance(spec, Mapping) for spec in models.values()):
        raise InputError(f"{path / 'manifest.json'} does not say which models ran; repeat the run with --profiler on")
    found = {}
    for role, fields in models.items():
        experts = fields.get("experts")
        try:
            known = {**fields, "experts": None if experts is None else Experts(**experts)}
            found[str(role)] = ModelSpec(**known)
        except (TypeError, InputError) as error:
            raise InputError(f"{path / 'manifest.json'}: model of {role}: {error}") from error
    return found


def _logs(path: Path, records: Sequence[ChainRecord], *, apart: bool) -> dict[str, StepLog]:
    file = path / "steps.parquet"
    try:
        table = table_in(file)
    except FileNotFoundError as error:
        raise InputError(f"{path} has no steps.parquet; repeat the run with --profiler on") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {error}") from error
    if "pairs_executed" not in table.columns:  # of an embedded engine that padded a batch to its longest row
        table = table.assign(pairs_executed=np.nan, groups=1)
    if lacking := [name for name in (*_COLUMNS, "engine") if name not in table.columns]:
        raise InputError(f"{file} lacks the columns {', '.join(lacking)}")
    check_numbers(table, str(file), numbers=_COLUMNS)
    table = table.assign(**{name: floats(table, name) for name in _COLUMNS})
    if not table["engine"].map(lambda engine: isinstance(engine, str)).all():
        raise InputError(f"{file} has steps that name no engine")
    for longest, tokens in (("longest_new", "new_tokens"), ("longest_kept", "kept_tokens")):
        # vLLM pads nothing and does not say which row is the longest: then they are taken to be alike.
        table[longest] = table[longest].fillna(np.ceil(table[tokens] / table["rows"]))
    table = table.fillna({"pairs_executed": _UNKNOWN, "groups": 1})
    values = table[list(_COLUMNS)].to_numpy(np.float64)
    if not len(values) or not np.isfinite(values).all() or (values[:, 1] <= 0).any():
        raise InputError(f"{file} has no steps, or steps without a time")
    if (values[:, 3] < 1).any() or (values[:, 4:] < _UNKNOWN).any() or (values[:, 3:] > LARGEST_EXACT).any():
        raise InputError(f"{file} has steps of no row, or of a number of tokens that there cannot be")
    by_engine = {
        str(engine): rows[list(_COLUMNS)].sort_values("t_start_s").to_numpy(np.float64)
        for engine, rows in table.groupby("engine")
    }
    return {
        engine: _log(
            rows,
            [other for name, other in by_engine.items() if name != engine],
            calls_of(engine, [call for record in records for call in record.calls], by_engine),
            apart=apart,
        )
        for engine, rows in by_engine.items()
    }


def calls_of(engine: str, calls: Iterable[CallRecord], engines: Collection[str]) -> list[CallRecord]:
    """Those of an engine of these: all, where it served every role."""
    return [call for call in calls if call.engine == engine or len(engines) == 1]


def _log(rows: Floats, others: Sequence[Floats], mine: Sequence[CallRecord], *, apart: bool) -> StepLog:
    start, duration = rows[:, 0], rows[:, 1]
    end = start + duration
    queued, done = _under_way(mine, apart=apart)
    # A call that was there when a pass ended, and was not answered before the next one began, kept the engine at work.
    following = np.append(start[1:], np.inf)
    answered = np.searchsorted(done, following, "right") - 1
    at_work = np.searchsorted(queued, end, "right") > answered
    until = np.where(at_work & np.isfinite(following), following, np.minimum(done[answered], following))
    period = np.maximum(until - start, duration)
    if apart and (going := at_work & np.isfinite(following)).any():
        between = float(np.median((period - duration)[going]))
        period = np.where(going, period, duration + between)
    shared, beside = np.zeros(len(rows)), np.zeros(len(rows), bool)
    for other in others:
        other_start, other_end = other[:, 0], other[:, 0] + other[:, 1]
        shared += _overlap(start, end, other_start, other_end)
        last = np.searchsorted(other_start, start, "right") - 1
        beside |= (last >= 0) & (other_end[last] > start)
    return StepLog(
        start, duration, period, np.minimum(1.0, shared / duration), _calls(mine, start, start + period),
        _calls(mine, start, start + period, fewest=2)[:, 1], rows[:, 2] > 0, rows[:, 3:].astype(np.int64),
        beside,
    )  # fmt: skip


def _under_way(calls: Sequence[CallRecord], *, apart: bool) -> tuple[Floats, Floats]:
    """When calls came to their engine, and were answered (the first of these is before all time)."""
    if apart:  # one that is on its way, or is remembered, gives a process of its own no work
        calls = asked_of(calls)
    came = np.sort([c.t_start_s if apart else c.t_queued_s for c in calls]).astype(np.float64)
    return came, np.append(-np.inf, np.sort([c.t_end_s for c in calls if c.t_end_s is not None]))


def asked_of(calls: Iterable[CallRecord]) -> list[CallRecord]:
    """Those that reached an engine: of a score that it remembers nothing is computed."""
    return [c for c in calls if c.t_start_s is not None and (c.tokens_prefilled or c.kind != "score")]


def _calls(mine: Sequence[CallRecord], start: Floats, end: Floats, fewest: int = 0) -> Floats:
    """See `StepLog.calls`, of each interval, and of calls of so many tokens or more."""
    generating = [c for c in mine if c.kind not in ("score", "grade") and c.tokens_new >= fewest]
    begun = np.sort([c.t_start_s for c in generating if c.t_start_s is not None])
    done = np.sort([c.t_end_s for c in generating if c.t_end_s is not None])
    counts = [np.searchsorted(times, end, "right") - np.searchsorted(times, start, "right") for times in (begun, done)]
    return np.column_stack(counts).astype(np.float64)


def _overlap(start: Floats, end: Floats, other_start: Floats, other_end: Floats) -> Floats:
    """Seconds of each interval that lie in the others, which do not overlap one another."""
    before = np.concatenate([[0.0], np.cumsum(other_end - other_start)])

    def covered(times: Floats) -> Floats:
        last = np.searchsorted(other_start, times, side="right")
        inside = np.where(last > 0, np.minimum(times, other_end[np.maximum(last - 1, 0)]), 0.0)
        begun = np.where(last > 0, other_start[np.maximum(last - 1, 0)], 0.0)
        return before[np.maximum(last - 1, 0)] + np.where(last > 0, inside - begun, 0.0)

    return np.maximum(0.0, covered(end) - covered(start))
