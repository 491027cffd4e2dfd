"""Small traces: tables with the columns of recorded ones, and scores without a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from atts_sim.trace import Scores

CHAINS = 4
Place = tuple[int, int, int, int]
"""Question, turn, chain, attempt."""


def row(problem: int, turn: int, chain: int, ppl: float | None, kind: str = "score", **more: Any) -> dict[str, Any]:
    """A call, of the chain's first attempt unless said otherwise."""
    call = {"sample": problem * CHAINS + chain, "problem": problem, "turn": turn, "attempt": 0, "kind": kind}
    return call | {"ppl": ppl} | more


def write_trace(path: Path, rows: Iterable[Mapping[str, Any]], samples: Mapping[int, float] | None = None) -> Path:
    """Write rows as a table, `path`, and durations by sample beside it."""
    pd.DataFrame(list(rows)).to_parquet(path)
    if samples is not None:
        beside = path.with_name(path.name.replace(".events.", ".samples."))
        pd.DataFrame({"sample": list(samples), "duration_s": list(samples.values())}).to_parquet(beside)
    return path


def scores_at(places: Sequence[Place], ell: Sequence[float], finished: Sequence[int] | None = None) -> Scores:
    """Scores as `read_scores` gives them; `places` may have gaps between questions, and any order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    question, turn, chain, attempt = (np.array([places[i][part] for i in order], dtype=np.int64) for part in range(4))
    return Scores(
        path=Path("made/by-hand.events.parquet"),
        problems=np.unique(question),
        question=np.unique(question, return_inverse=True)[1].astype(np.int64),
        turn=turn,
        chain=chain,
        attempt=attempt,
        ell=np.array([ell[i] for i in order], dtype=np.float64),
        finished=np.array(range(len(places)) if finished is None else finished, dtype=np.int64),
        finished_from="recorded",
        missing=0,
    )
