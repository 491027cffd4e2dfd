"""From chain records to the numbers of a run: the summary object and the tables of the run directory."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from atts_runtime.conformal import Fallback
from atts_runtime.control import POLICIES
from atts_runtime.engines.base import EngineStats
from atts_runtime.profiler.intensity import EngineRun, idle
from atts_runtime.records import STALL_CAUSES, ChainRecord
from atts_runtime.tasks.base import Task

_Z95 = 1.959963984540054


def summarize(
    records: Sequence[ChainRecord],
    task: Task,
    *,
    policy: str,
    wall_s: float,
    engines: dict[str, EngineStats],
    shared_engine: bool,
    run_dir: str | None,
    intensity: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The object that `--json` prints.

    `stall_s` sums the seconds that chains waited at a barrier or for the pre-sampled bank (`stall_by_cause_s`
    tells them apart; waiting for admission is no stall). `latency_s` runs from a question's admission to the
    end of its last chain. Roles served by one engine hold one EngineStats object, which counts once. `intensity` is
    `profiler.intensity.run_intensity`'s; without it the stall is all that is known of r.
    """
    verdicts = [(c.turn, c.taken_over) for r in records for c in r.calls if c.taken_over is not None]
    stalls = {
        cause: sum(h.t_end_s - h.t_start_s for r in records for h in r.holds_s if h.cause == cause)
        for cause in STALL_CAUSES
    }
    busy = [stats.busy_s for stats in {id(stats): stats for stats in engines.values()}.values()]
    return {
        "policy": policy,
        "wall_s": wall_s,
        "questions": len(task.questions),
        "chains": len(records),
        "failed_chains": sum(r.reason == "failed" for r in records),
        "accuracy": accuracy(records, task),
        "takeover_rate": _mean([taken for _, taken in verdicts]),
        "takeover_rate_by_turn": takeover_by_turn(verdicts),
        "calibration": calibration(records, monitored=POLICIES[policy].monitors),
        "tokens": tokens(records),
        "turns_mean": _mean([r.turns for r in records]),
        "latency_s": _latency(records),
        "stall_s": sum(stalls.values()),
        "stall_by_cause_s": stalls,
        "engines": {role: _engine(stats, wall_s) for role, stats in engines.items()},
        "intensity": intensity
        or dict.fromkeys(("r", "T_c_s", "T_m_s", "T_overhead_s")) | {"T_s_s": sum(stalls.values())},
        "lower_bound_s": (sum(busy) if shared_engine else max(busy)) if busy else None,
        "run_dir": run_dir,
    }


def accuracy(records: Sequence[ChainRecord], task: Task) -> dict[str, Any]:
    """Share of right chains, of questions whose majority is right, and of questions with any right chain (pass@m).

    Shares count what is known to be right: an answer that could not be checked lowers them. `unknown_chains` says how
    many those are, `unknown_checks` how many different comparisons in all, votes included, this process left open.

    `mean_chain_ci95` is a Wilson interval on the effective number of chains: chains of one question are not
    independent, so their number is divided by the design effect that the spread between questions shows. Where
    all chains agree that effect cannot be seen, and each question counts once.
    """
    by_question: dict[int, list[ChainRecord]] = defaultdict(list)
    for record in records:
        by_question[record.question].append(record)
    answers = {q: task.questions[q].answer for q in by_question}
    votes = [task.is_correct(task.majority([r.answer for r in rs]), answers[q]) for q, rs in by_question.items()]
    shares = [sum(r.correct is True for r in rs) / len(rs) for rs in by_question.values()]
    mean = _mean([r.correct is True for r in records])
    return {
        "mean_chain": mean,
        "mean_chain_ci95": None if mean is None else list(clustered_wilson(mean, len(records), shares)),
        "majority": _mean([vote is True for vote in votes]),
        "pass_at_m": _mean([share > 0 for share in shares]),
        "unknown_chains": sum(r.correct is None for r in records),
        "unknown_checks": task.answers.unknown,
    }


def clustered_wilson(mean: float, n: int, shares: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of a share seen in `n` trials that come in clusters with these `shares`: questions, as a rule."""
    clusters = len(shares)
    n_eff = float(clusters)
    if 0 < mean < 1 and clusters > 1:
        variance_of_mean = float(np.var(shares, ddof=1)) / clusters
        binomial = mean * (1 - mean) / n
        n_eff = min(float(n), n * binomial / variance_of_mean) if variance_of_mean > 0 else float(n)
    return wilson(mean, n_eff)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a share seen in `n` trials (Wilson 1927)."""
    z2 = _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the bound is the share itself, which rounding would miss.
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def takeover_by_turn(verdicts: Sequence[tuple[int, bool]]) -> list[float | None]:
    """Realised takeover rate by turn; None for a turn without verdicts."""
    turns = 1 + max((turn for turn, _ in verdicts), default=-1)
    return [_mean([taken for t, taken in verdicts if t == turn]) for turn in range(turns)]


def calibration(records: Sequence[ChainRecord], *, monitored: bool) -> dict[str, Any] | None:
    """What the conformal calibration did; None for policies that do not test.

    `alpha_t` is the range of the alphas that p-values were held against; `compared_with` counts the banks that they
    came from, `fallback_rate` is the share of decisions that had no cohort to be compared with. `alarms` is None where
    nothing was `monitored`.
    """
    tested = [c for r in records for c in r.calls if c.p_value is not None]
    if not tested:
        return None
    alphas = [c.alpha for c in tested if c.alpha is not None]
    banks = Counter(str(c.bank) for c in tested)
    return {
        "alpha_t": {"min": min(alphas), "max": max(alphas)},
        "compared_with": dict(sorted(banks.items())),
        "fallback_rate": sum(banks[f.value] for f in Fallback) / len(tested),
        "alarms": [asdict(a) | {"question": r.question, "chain": r.index} for r in records for a in r.alarms]
        if monitored
        else None,
    }


def tokens(records: Sequence[ChainRecord]) -> dict[str, int | None]:
    """Tokens generated by each model, scored, and prefix tokens that scoring had to compute again (None: not known)."""
    calls = [c for r in records for c in r.calls]
    again = [c.tokens_recomputed for c in calls if c.kind == "score"]
    known = [tokens for tokens in again if tokens is not None]
    return {
        "draft": sum(c.tokens_new for c in calls if c.kind == "draft"),
        "scored": sum(c.tokens_new for c in calls if c.kind == "score"),
        "score_prefix_recomputed": sum(known) if len(known) == len(again) else None,
        "takeover": sum(c.tokens_new for c in calls if c.kind == "takeover"),
    }


def _latency(records: Sequence[ChainRecord]) -> dict[str, float | None]:
    admitted: dict[int, float] = {}
    ended: dict[int, float] = {}
    for r in records:
        if r.t_admitted_s is not None:
            admitted[r.question] = min(admitted.get(r.question, math.inf), r.t_admitted_s)
        ended[r.question] = max(ended.get(r.question, 0.0), r.t_end_s)
    times = [ended[q] - start for q, start in admitted.items()]
    if not times:
        return {"p50": None, "p95": None, "max": None}
    return {"p50": float(np.quantile(times, 0.5)), "p95": float(np.quantile(times, 0.95)), "max": max(times)}


def _engine(stats: EngineStats, wall_s: float) -> dict[str, Any]:
    return {
        "busy_s": stats.busy_s,
        "idle_s": idle(stats, wall_s),
        "flops": None if stats.phases is None else sum(demand.flops for demand in stats.phases.values()),
        "flops_executed": stats.flops_executed,
        "bytes": None if stats.phases is None else math.fsum(demand.bytes for demand in stats.phases.values()),
        "steps": stats.steps if stats.measured else None,
        "mean_decode_batch": stats.decode_rows / stats.decode_steps if stats.decode_steps else None,
        "prefilled_tokens": stats.prefilled_tokens if stats.measured else None,
        "kv_peak_tokens": stats.kv_peak_tokens if stats.measured else None,
        "kv_capacity_tokens": stats.kv_capacity_tokens,
        "evictions": stats.evictions,
        "preemptions": stats.preemptions,
        "prefix_queried_tokens": stats.prefix_queried_tokens,
        "prefix_hit_tokens": stats.prefix_hit_tokens,
        "speculated_tokens": stats.speculated_tokens,
        "accepted_tokens": stats.accepted_tokens,
        "retried": stats.retried,
        "throttled": stats.throttled,
        "outages": None if stats.outages is None else [asdict(outage) for outage in stats.outages],
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


_NULLABLE = {
    **dict.fromkeys(
        ("ppl", "percentile", "ell", "p_value", "alpha", "t_start_s", "t_end_s", "bytes", "prefill_bytes"), "Float64"
    ),
    **dict.fromkeys(("accepted", "taken_over"), "boolean"),
    **dict.fromkeys(("forked_from", "flops", "prefill_flops", "tokens_cached", "tokens_recomputed"), "Int64"),
}


def tables(records: Sequence[ChainRecord], task: Task, chains: int) -> dict[str, Any]:
    """`events` (a row a call) and `samples` (a row a chain), in the columns of the published traces and our own.

    `percentile` and `accepted` are None where the policy did not test; `percentile` is the share of the bank
    below the score, 1 - p up to the bank's +1.
    """
    import pandas as pd

    events, samples = [], []
    for record in records:
        sample = record.question * chains + record.index
        for seq, call in enumerate(record.calls):
            events.append(
                {
                    "sample": sample,
                    "problem": record.question,
                    "seq": seq,
                    "turn": call.turn,
                    "attempt": 0,
                    "kind": "target" if call.kind == "takeover" else call.kind,
                    "chars": call.chars,
                    "tokens": call.tokens_new,
                    "ppl": None if call.ell is None else math.exp(min(call.ell, 700.0)),
                    "percentile": None if call.p_value is None else 1 - call.p_value,
                    "accepted": None if call.taken_over is None else not call.taken_over,
                    "forked_from": None,
                    "question": record.question_id,
                    "engine": call.engine,
                    "t_queued_s": call.t_queued_s,
                    "t_start_s": call.t_start_s,
                    "t_end_s": call.t_end_s,
                    "tokens_new": call.tokens_new,
                    "tokens_cached": call.tokens_cached,
                    "tokens_recomputed": call.tokens_recomputed,
                    "flops": call.flops,
                    "bytes": call.bytes,
                    "prefill_flops": call.prefill_flops,
                    "prefill_bytes": call.prefill_bytes,
                    "ell": call.ell,
                    "p_value": call.p_value,
                    "alpha": call.alpha,
                    "taken_over": call.taken_over,
                    "bank": call.bank,
                    "alarms": "; ".join(f"{a.monitor} {a.kind}" for a in record.alarms if a.turn == call.turn)
                    if call.kind == "score"
                    else "",
                }
            )
        start = record.calls[0].t_queued_s if record.calls else record.t_end_s
        samples.append(
            {
                "sample": sample,
                "problem": record.question,
                "duration_s": record.t_end_s - start,
                "final_answer": record.answer,
                "answer_regex": record.answer,
                "answer_llm": None,
                "question_chars": len(task.questions[record.question].prompt),
                "correct": record.correct,
                "reason": record.reason,
            }
        )
    return {
        "events": pd.DataFrame(events).astype(_NULLABLE),
        "samples": pd.DataFrame(samples).astype({"correct": "boolean"}),
    }


def steps_table(engines: Mapping[str, EngineRun], zero_s: float) -> dict[str, Any]:
    """`steps` (a row an engine step, `engines.steps.Step`, times on the run's clock); none where nothing counted.

    An engine of both roles goes under the first.
    """
    import pandas as pd

    distinct = {id(run): (role, run.steps) for role, run in reversed(list(engines.items()))}
    parts = [
        pd.DataFrame({"engine": role} | steps.table(zero_s)) for role, steps in distinct.values() if steps is not None
    ]
    return {"steps": pd.concat(parts).sort_values("t_start_s", ignore_index=True)} if parts else {}
