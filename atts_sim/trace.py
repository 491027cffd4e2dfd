"""Recorded scores: the rows of an ``events.parquet`` that a calibrator can be replayed on.

Published traces and our own run directories have the same columns (`docs/runtime.md`). A trace with rows of kind
``score`` keeps its scores there; the self modes write no such rows and keep each score in its draft's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atts_runtime.errors import InputError
from atts_runtime.untrusted import table_in
from atts_sim.columns import check_numbers

_TARGET_TOKEN = 28 / 9  # fitted: 28 ms a target token, 9 ms a draft token in the published pair traces
NEEDED = ("sample", "problem", "turn", "kind", "ppl")


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in admission order: by question, then turn, then chain, then attempt.

    Arrays have a row a score, but for `problems`: the trace's problem numbers, by `question`, which counts from 0.
    `ell` is in nats per token; `finished` ranks the scores by when they were there, `finished_from` says where that was
    read.
    """

    path: Path
    problems: NDArray[np.int64]
    question: NDArray[np.int64]
    turn: NDArray[np.int64]
    chain: NDArray[np.int64]
    attempt: NDArray[np.int64]
    ell: NDArray[np.float64]
    finished: NDArray[np.int64]
    finished_from: str
    missing: int

    def __len__(self) -> int:
        return len(self.ell)

    @property
    def questions(self) -> int:
        return len(self.problems)

    @property
    def turns(self) -> int:
        return int(self.turn.max()) + 1


def read_scores(path: Path, *, skip_missing: bool = False) -> Scores:
    """Read a trace. Raises InputError where it cannot be read, lacks columns (named), or has a missing score: NaN, or
    a perplexity below 1, which no text has and the published code writes where it got none. With `skip_missing` such
    rows are left out and counted."""
    try:
        events = table_in(path).reset_index(drop=True)
    except OSError as error:
        raise InputError(f"cannot read trace {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"trace {path} is not a Parquet table: {error}") from error
    lacking = [name for name in NEEDED if name not in events.columns]
    if lacking:
        raise InputError(f"trace {path} lacks the columns {', '.join(lacking)}; a trace has {', '.join(NEEDED)}")
    if "attempt" not in events.columns:
        events = events.assign(attempt=0)
    numbers = [name for name in ("ppl", "ell", "tokens", "t_end_s", "seq") if name in events.columns]
    check_numbers(events, f"trace {path}", numbers=numbers, counts=("sample", "problem", "turn", "attempt"))
    first_sample = events.groupby("problem")["sample"].transform("min")
    events = events.assign(_chain=events["sample"] - first_sample, _clock=_clock(events, path))
    kinds = ("score",) if (events["kind"] == "score").any() else ("draft",)
    rows = events[events["kind"].isin(kinds)]
    ell = _ell(rows)
    good = np.isfinite(ell)
    if not good.any():
        raise InputError(f"trace {path} holds no score")
    if not good.all() and not skip_missing:
        first = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"trace {path} has {int((~good).sum())} missing scores of {len(rows)}, the first in row "
            f"{rows.index[first]} (ppl {rows['ppl'].iloc[first]}); add --skip-missing to leave them out"
        )
    rows = rows[good].assign(_ell=ell[good]).sort_values(["problem", "turn", "_chain", "attempt"], kind="stable")
    problems, question = np.unique(rows["problem"].to_numpy(np.int64), return_inverse=True)
    clock = rows["_clock"].to_numpy(np.float64)
    return Scores(
        path=path,
        problems=problems,
        question=question.astype(np.int64),
        turn=rows["turn"].to_numpy(np.int64),
        chain=rows["_chain"].to_numpy(np.int64),
        attempt=rows["attempt"].to_numpy(np.int64),
        ell=rows["_ell"].to_numpy(np.float64),
        finished=np.argsort(np.argsort(clock, kind="stable"), kind="stable"),
        finished_from="recorded" if "t_end_s" in events.columns else "estimated",
        missing=int((~good).sum()),
    )


def _ell(rows: Any) -> NDArray[np.float64]:
    """Nats per token; NaN where there is no score."""
    ppl = rows["ppl"].to_numpy(np.float64, na_value=np.nan)
    ell = np.full(len(rows), np.nan)
    there = np.isfinite(ppl) & (ppl >= 1)
    ell[there] = np.log(ppl[there])
    if "ell" in rows.columns:  # ours, where ppl is capped
        own = rows["ell"].to_numpy(np.float64, na_value=np.nan)
        ell = np.where(np.isnan(own), ell, np.where(np.isfinite(own) & (own >= 0), own, np.nan))
    return ell


def _clock(events: Any, path: Path) -> NDArray[np.float64]:
    """When each row's call ended: `t_end_s` where recorded, else an estimate. Questions then come one after another,
    and a chain's calls fill its recorded duration in proportion to their tokens, a target's weighing
    `_TARGET_TOKEN`."""
    if "t_end_s" in events.columns:
        return np.asarray(events["t_end_s"].to_numpy(np.float64, na_value=np.inf))
    import pandas as pd

    ordered = events.sort_values(["sample", "seq"], kind="stable") if "seq" in events.columns else events
    tokens = ordered["tokens"].fillna(0) if "tokens" in ordered.columns else pd.Series(1.0, index=ordered.index)
    work = tokens.astype(float) * np.where(ordered["kind"] == "target", _TARGET_TOKEN, 1.0)
    done = work.groupby(ordered["sample"]).cumsum()
    durations = _durations(path)
    if durations is not None:
        total = work.groupby(ordered["sample"]).transform("sum").clip(lower=1.0)
        done = done / total * ordered["sample"].map(durations).astype(float)
    end = float(np.nanmax(done)) + 1.0 if len(done) else 1.0
    clock = ordered["problem"].astype(float) * end + done
    return np.asarray(clock.reindex(events.index).to_numpy(np.float64))


def _durations(path: Path) -> Any:
    """Seconds by sample, from the table of samples beside the trace; None where there is none."""
    beside = path.with_name(path.name.replace("events.parquet", "samples.parquet"))
    if beside == path or not beside.exists():
        return None
    try:
        durations = table_in(beside).set_index("sample")["duration_s"].astype(float)
        if not durations.index.is_unique:
            raise ValueError("a sample comes twice")
        return durations
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{beside} is no table of samples and their duration_s: {' '.join(str(error).split())}"
        ) from error
