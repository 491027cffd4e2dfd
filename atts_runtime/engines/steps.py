"""The log of an engine's steps: what each fed, needed and took. One flat array, since a run has many."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Executed(NamedTuple):
    """What a pass computes, padding included: tokens fed, pairs of a token and a position that it looks at, and groups
    of rows that attend together."""

    tokens: int
    pairs: int
    groups: int


class Step(NamedTuple):
    """One forward pass. Sums are over its rows, padding left out; kept tokens are the cached and the new ones.

    t_start_s      `time.perf_counter` at its start, what led up to it (scheduling, batching) included
    duration_s     up to its end, sampling and parking of caches included
    append         1 where it fed contexts and segments, 0 where each row fed the token that it drew last
    logit_rows     tokens whose logits were needed
    flops, bytes   by `profiler.counts`, the weights once
    flops_executed with the padding of the batch
    pairs_executed of a token fed and a position that it looks at, padding included
    groups         of rows that attend together
    """

    t_start_s: float
    duration_s: float
    append: int
    rows: int
    new_tokens: int
    longest_new: int
    kept_tokens: int
    longest_kept: int
    logit_rows: int
    flops: int
    bytes: float
    flops_executed: int
    pairs_executed: int
    groups: int


class Steps:
    """Steps in order, 112 bytes each."""

    def __init__(self) -> None:
        self._data = array("d")

    def add(self, step: Sequence[float]) -> None:
        """The fields of a `Step`."""
        self._data.extend(step)

    def __len__(self) -> int:
        return len(self._data) // len(Step._fields)

    def column(self, name: str) -> NDArray[np.float64]:
        """A field of every step, [steps]; whole numbers are exact up to 2^53."""
        whole = np.array(self._data, dtype=np.float64)
        return whole.reshape(-1, len(Step._fields))[:, Step._fields.index(name)]

    def table(self, zero_s: float) -> dict[str, Any]:
        """Columns for steps.parquet, the start counted from `zero_s`."""
        whole = np.array(self._data, dtype=np.float64).reshape(-1, len(Step._fields))
        columns = dict(zip(Step._fields, whole.T, strict=True))
        return columns | {"t_start_s": columns["t_start_s"] - zero_s}
