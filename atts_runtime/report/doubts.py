"""What makes a run's numbers doubtful, or the comparison of runs unfair."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from atts_runtime.profiler.device import QUICK
from atts_runtime.report.amounts import count, percent, seconds
from atts_runtime.report.facts import EngineFacts, RunFacts
from atts_runtime.report.roof import points
from atts_runtime.report.settings import differing

_CLOSE = 0.02  # of the wall
_MOST_OUTAGES = 3  # told of an engine one by one
_SAME_WORK = ("task", "questions", "seed", "draft", "target")
_SAME_MACHINE = ("engine", "device", "threads", "max_rows")


def doubts(runs: Sequence[RunFacts]) -> list[str]:
    """A sentence each, runs first, then what stands between them."""
    of: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for said in _of_run(run):
            of[said].append(run.label)
    return [f"{_names(labels, len(runs))}: {said}" for said, labels in of.items()] + list(_between(runs))


def _names(labels: list[str], runs: int) -> str:
    return "All runs" if len(labels) == runs > 1 else "; ".join(labels)


def _of_run(run: RunFacts) -> Iterator[str]:
    if not run.finished:
        yield "the run has not ended (no summary.json): its chains so far are shown, its totals are unknown"
    if run.failed:
        reasons = Counter(r.detail or "no reason kept" for r in run.records if r.reason == "failed")
        reason, times = reasons.most_common(1)[0]
        yield f"{run.failed} of {len(run.records)} chains failed; {times} of them by: {reason[:200]}"
    unchecked = sum(r.correct is None for r in run.records)
    if unchecked:
        yield f"{unchecked} of {len(run.records)} answers could not be checked: accuracy counts them as wrong"
    yield from run.troubles
    for engine in run.engines:
        yield from _of_engine(engine, run)
    again = run.tokens.get("score_prefix_recomputed")
    if again and not (_tries_again(run) and not any(engine.evictions for engine in run.engines)):
        why = "more than a block a call is" if run.settings.get("engine") in ("vllm", "http") else "it is"
        yield f"scoring had to compute {count(again)} prefix tokens again: {why} for want of KV"
    if run.calibration and run.calibration.alarms:
        yield f"the monitors raised {run.calibration.alarms} alarms: scores drift, or what finishes first is biased"
    if run.calibration and (run.calibration.fallback_rate or 0) > 0.5:
        yield f"{percent(run.calibration.fallback_rate, 0)} of the decisions had no cohort to be compared with"
    sessions = run.manifest.get("sessions")
    if isinstance(sessions, list) and len(sessions) > 1:
        yield f"{len(sessions)} sessions: the engines' counters are those of the last one only"
    yield from _of_hardware(run)


def _tries_again(run: RunFacts) -> bool:
    """Whether turns have further attempts: each goes back behind the last one, and feeds some of the text again."""
    return any(call.attempt for record in run.records for call in record.calls)


def _of_engine(engine: EngineFacts, run: RunFacts) -> Iterator[str]:
    if engine.evictions:
        yield f"the {engine.name} dropped the KV of {count(engine.evictions)} idle chains, to compute it again"
    if engine.preemptions:
        yield f"the {engine.name} broke off {count(engine.preemptions)} requests for want of KV, to begin them anew"
    yield from _of_servers(engine, run)
    split = (engine.T_roof_s, engine.T_overhead_s, engine.T_idle_s)
    told = [value for value in split if value is not None]
    if len(told) == len(split) and run.wall_s:
        gap = math.fsum(told) - run.wall_s
        if abs(gap) > _CLOSE * run.wall_s:
            yield f"the {engine.name}'s times miss the wall by {seconds(gap)}"
    if engine.T_overhead_s is not None and engine.T_overhead_s < 0:
        yield f"the {engine.name}'s overhead is negative: its steps were faster than the profile's roof"


def _of_servers(engine: EngineFacts, run: RunFacts) -> Iterator[str]:
    for outage in engine.outages[:_MOST_OUTAGES]:
        end_s = run.wall_s if outage.t_end_s is None else outage.t_end_s
        lasted = None if end_s is None or outage.t_start_s is None else end_s - outage.t_start_s
        until = "to the end of the run" if outage.t_end_s is None else "then it came back"
        yield (
            f"the {engine.name}'s endpoint {outage.endpoint} was down for {seconds(lasted)} from "
            f"{seconds(outage.t_start_s)} on, {until}: {outage.cause[:200]}"
        )
    if len(engine.outages) > _MOST_OUTAGES:
        yield f"the {engine.name}'s endpoints had {len(engine.outages) - _MOST_OUTAGES} more outages (summary.json)"
    if engine.retried:
        later = f", {count(engine.throttled)} of them because a server asked to come later" if engine.throttled else ""
        yield f"{count(engine.retried)} requests to the {engine.name}'s servers were made again{later}"


def _of_hardware(run: RunFacts) -> Iterator[str]:
    hardware = run.hardware
    if run.finished and hardware is None:
        yield f"{_missing(run)}: r, T_c, T_m and the roof are unknown"
    if hardware is None:
        return
    if hardware.name == QUICK:
        yield "no profile fits the device, which was measured quickly: its rates may be off; run atts-runtime profile"
    if hardware.kind == "datasheet":
        yield f"the roof of {hardware.name} is from a data sheet, which no program reaches: T_c and T_m are low"
    if hardware.kind == "fake":
        yield f"the hardware profile {hardware.name} is fake: what follows from it means nothing"
    above = [p for p in points([run]) if p.share is not None and p.share > 1.02]
    if above:
        worst = max(above, key=lambda p: p.share or 0.0)
        yield (
            f"{worst.name} of the {worst.engine.name} reaches {percent(worst.share, 0)} of the roof: "
            "the profile underrates the device, or was measured under load"
        )


def _missing(run: RunFacts) -> str:
    """What r would have needed."""
    if run.settings.get("profiler") == "off":
        return "it ran with --profiler off, which counts no FLOPs"
    if run.settings.get("engine") == "http":
        return "servers elsewhere do not show their steps"
    uncounted = [engine.name for engine in run.engines if engine.flops is None]
    if uncounted:
        return f"FLOPs of the {' and the '.join(uncounted)} were not counted, a make of model that is not known"
    return "no one hardware profile for all that the engines did (atts-runtime profile makes one)"


def _between(runs: Sequence[RunFacts]) -> Iterator[str]:
    names = {row.name for row in differing(runs)}
    for settings, what in ((_SAME_WORK, "work"), (_SAME_MACHINE, "means")):
        found = [name for name in settings if name in names]
        if found:
            yield f"The runs differ in {', '.join(found)}: they are not compared on the same {what}"
    for key in ("hardware", "versions"):
        if any(run.manifest.get(key) != runs[0].manifest.get(key) for run in runs):
            yield f"The runs differ in {key}: their seconds are not compared on the same means"
    if len({run.hardware for run in runs}) > 1:
        yield "The runs were held against different hardware profiles: their r does not compare"
