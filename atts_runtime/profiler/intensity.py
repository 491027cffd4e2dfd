"""The asynchronous arithmetic-intensity model: r = T_c / (T_m + T_s), from a run's counts and time stamps.

    T_c         f * t_c: seconds that the FLOPs f would take at the device's peak
    T_m         b * t_m: seconds that the bytes b would take at its peak
    T_s         synchronisation: seconds that chains stood still for one another (spans `barrier` and `bank`)
    T_idle      seconds that an engine had nothing to do
    T_roof      sum over an engine's steps of max(T_c, T_m): what they would take on an ideal device
    T_overhead  T_busy - T_roof: Python, kernel launches, padding, kernels below the peak

Source of r: Xiong et al., ICLR 2026, arXiv 2509.15148, section 3. f and b are what the calls' own tokens demanded
(`profiler.counts`, analytic), t_c and t_m come from a hardware profile, times are measured.

**Two definitions of T_s.** `r` takes the stall of chains, `r_engine` the idle time of engines, each summed. Without a
barrier no chain waits for another, so T_s is 0 by the first, as the paper has it, and r is the classic intensity over
the machine balance; the second never is, since an engine also idles while a chain is at the other one. The first says
what waiting does to a chain, hence to latency, whatever the load; the second what is left unused, hence throughput:
with many questions in flight others fill an engine's pauses, and it falls although the chains stall as before.

By phase, a stall belongs to the call before it, and an append's overhead is shared out by tokens. By turn there is no
overhead, since a step may serve chains in different turns.

Per engine T_roof + T_overhead + T_idle = wall, by clocks that do not know of one another. T_overhead is below 0 where
an engine's working set fits the caches, whose bytes come faster than the memory's peak.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from atts_runtime.engines.base import PHASES, Demand, EngineStats, Phase
from atts_runtime.engines.steps import Steps
from atts_runtime.profiler.device import DevicePeak
from atts_runtime.profiler.spans import Span, chain_spans
from atts_runtime.records import STALL_CAUSES, CallRecord, ChainRecord


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One engine over a run: its totals, its steps, its device's peak; None: not known.

    joules, dram_bytes: what NVML and GPM saw of its device, where it has one to itself.
    """

    stats: EngineStats
    steps: Steps | None
    peak: DevicePeak | None
    joules: float | None = None
    dram_bytes: float | None = None

    @property
    def counts(self) -> bool:
        """Whether it counts what it does, on a device of which the peak is known."""
        return None not in (self.stats.phases, self.steps, self.peak)


@dataclass(frozen=True, slots=True)
class Terms:
    """f, b and the seconds that they take at the peak. Add them up over calls, engines, turns."""

    flops: int
    bytes: float
    T_c_s: float
    T_m_s: float

    @classmethod
    def at(cls, peak: DevicePeak, flops: int, bytes_: float) -> Terms:
        return cls(flops, bytes_, flops / peak.flops_per_s, bytes_ / peak.bytes_per_s)

    @classmethod
    def total(cls, parts: Iterable[Terms]) -> Terms:
        whole = list(parts)
        return cls(
            sum(part.flops for part in whole),
            math.fsum(part.bytes for part in whole),
            math.fsum(part.T_c_s for part in whole),
            math.fsum(part.T_m_s for part in whole),
        )

    @property
    def intensity(self) -> float | None:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else None

    def r(self, T_s_s: float) -> float | None:
        """T_c / (T_m + T_s)."""
        return ratio(self.T_c_s, self.T_m_s, T_s_s)


def ratio(T_c_s: float, T_m_s: float, T_s_s: float) -> float | None:
    """r; None where nothing was moved and nobody waited."""
    below = T_m_s + T_s_s
    return T_c_s / below if below > 0 else None


def run_intensity(
    records: Sequence[ChainRecord], engines: Mapping[str, EngineRun], wall_s: float, *, whole: bool
) -> dict[str, Any] | None:
    """The `intensity` object of summary.json; None where an engine does not count or its device's peak is not known.

    `engines` by role; roles that share an engine hold one object, which counts once. `whole` false: the engines have
    not seen all of the run (it was resumed), so what only they know is None. Raises InputError where a record's times
    do not follow one another.
    """
    terms = _by_call(records, engines)
    counting = not whole or all(run.counts for run in engines.values())  # also one that was never asked
    if terms is None or not counting:
        return None
    spans = [span for record in records for span in chain_spans(record)]
    stall_s = math.fsum(span.duration_s for span in spans if span.kind in STALL_CAUSES)
    total = Terms.total(term for _, term in terms)
    stalls = _stalls(records)
    by_engine = {role: _engine(run, wall_s, stalls[role]) if whole else None for role, run in engines.items()}
    distinct = {id(run): role for role, run in engines.items()}.values()
    parts = [part for role in distinct if (part := by_engine[role]) is not None]
    idle_s = math.fsum(part["T_idle_s"] for part in parts) if whole else None
    peaks = list({run.peak for run in engines.values() if run.peak is not None})
    return {
        "r": total.r(stall_s),
        **_named(total),
        "T_s_s": stall_s,
        "T_overhead_s": math.fsum(part["T_overhead_s"] for part in parts) if whole else None,
        "T_idle_s": idle_s,
        "r_engine": None if idle_s is None else total.r(idle_s),
        "machine_balance_flop_per_byte": None if len(peaks) > 1 else peaks[0].balance,
        "hardware": None if len(peaks) > 1 else asdict(peaks[0]),
        "engines": by_engine,
        "turns": _by_turn(terms, spans),
        "unclaimed_flops": sum(part["flops"] for part in parts) - total.flops if whole else None,
    }


def _named(terms: Terms) -> dict[str, Any]:
    return asdict(terms) | {"intensity_flop_per_byte": terms.intensity}


def _by_call(records: Iterable[ChainRecord], engines: Mapping[str, EngineRun]) -> list[tuple[CallRecord, Terms]] | None:
    """Terms of every call that an engine answered; None where one is not counted."""
    found = []
    for record in records:
        for call in record.calls:
            if call.t_start_s is None:
                continue
            run = engines.get(call.engine)
            if run is None or run.peak is None or call.flops is None or call.bytes is None:
                return None
            found.append((call, Terms.at(run.peak, call.flops, call.bytes)))
    return found if found else None


def _by_turn(terms: Sequence[tuple[CallRecord, Terms]], spans: Sequence[Span]) -> list[dict[str, Any]]:
    """f, b, T_c, T_m, T_s and r by turn; a stall belongs to the turn of the call before it."""
    turns = 1 + max(call.turn for call, _ in terms)
    rows = []
    for turn in range(turns):
        total = Terms.total(term for call, term in terms if call.turn == turn)
        stall_s = math.fsum(s.duration_s for s in spans if s.turn == turn and s.kind in STALL_CAUSES)
        rows.append({"turn": turn, **_named(total), "T_s_s": stall_s, "r": total.r(stall_s)})
    return rows


def _stalls(records: Iterable[ChainRecord]) -> dict[str, dict[Phase, float]]:
    """Stall by engine and phase of the call before it: after a score chains wait for verdicts or for the turn, after
    writing for the turn."""
    stalls: dict[str, dict[Phase, float]] = defaultdict(lambda: dict.fromkeys(PHASES, 0.0))
    for record in records:
        last: CallRecord | None = None
        for span in chain_spans(record):
            if span.call is not None:
                last = record.calls[span.call]
            elif span.kind in STALL_CAUSES and last is not None:
                stalls[last.engine]["score" if last.kind in ("score", "grade") else "decode"] += span.duration_s
    return stalls


def _engine(run: EngineRun, wall_s: float, stalls: Mapping[Phase, float]) -> dict[str, Any]:
    """An engine's terms, whole and by phase. It counts, and its peak is known."""
    stats, peak = run.stats, run.peak
    assert stats.phases is not None
    assert run.steps is not None
    assert peak is not None
    total = Terms.total(Terms.at(peak, demand.flops, demand.bytes) for demand in stats.phases.values())
    compute_s, memory_s = run.steps.column("flops") / peak.flops_per_s, run.steps.column("bytes") / peak.bytes_per_s
    roofs_s = np.maximum(compute_s, memory_s)
    roof_s, idle_s = float(roofs_s.sum()), idle(stats, wall_s)
    over_s = run.steps.column("duration_s") - roofs_s
    appends = run.steps.column("append") > 0
    over: dict[Phase, float] = {"decode": float(over_s[~appends].sum())}
    feeding = {phase: demand.seconds for phase, demand in stats.phases.items() if phase != "decode"}
    fed_s = math.fsum(feeding.values())
    for phase, seconds in feeding.items():  # one append may serve both
        over[phase] = float(over_s[appends].sum()) * (seconds / fed_s if fed_s > 0 else 0.0)
    return {
        **_named(total),
        "T_roof_s": roof_s,
        "T_overhead_s": stats.busy_s - roof_s,
        "T_idle_s": idle_s,
        "unaccounted_s": wall_s - stats.busy_s - idle_s,
        "r_engine": total.r(idle_s),
        "machine_balance_flop_per_byte": peak.balance,
        "hardware": asdict(peak),
        "joules": run.joules,
        # How far the counted bytes are from those that the device says it moved.
        "dram_over_counted": run.dram_bytes / total.bytes - 1 if run.dram_bytes is not None and total.bytes else None,
        "phases": {
            phase: _phase(demand, peak, stalls[phase]) | {"T_overhead_s": over[phase]}
            for phase, demand in stats.phases.items()
        },
    }


def _phase(demand: Demand, peak: DevicePeak, stall_s: float) -> dict[str, Any]:
    terms = Terms.at(peak, demand.flops, demand.bytes)
    achieved = demand.flops / demand.seconds if demand.seconds > 0 else None
    return {
        "tokens": demand.tokens,
        **_named(terms),
        "T_s_s": stall_s,
        "r": terms.r(stall_s),
        "busy_s": demand.seconds,
        "flops_per_s": achieved,
    }


def idle(stats: EngineStats, wall_s: float) -> float:
    """Seconds without work: by the engine's own clock, or what its busy time leaves of the wall."""
    return max(0.0, wall_s - stats.busy_s) if stats.idle_s is None else stats.idle_s
