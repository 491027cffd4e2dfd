"""Per-row KV caches for the embedded engine.

A Hugging Face model sees a `RowCache`: a view on a buffer in which each row is another chain at its own
position. Between calls a chain's KV is *parked* in a tensor of its own, so that it joins and leaves a batch
with one copy.

A decode's rows come in multiples of `ROW_ALIGN`, an append's new ids in multiples of `NEW_ALIGN`, the cache length is
one of `aligned_time`, or of `row_time` where rows are grouped. On CPU that makes every row's arithmetic independent of
its neighbours to the last bit: fewer rows would take another matrix kernel, and an unaligned length another summation
order (`tests/runtime/engines` holds the claim).
"""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from typing import Any

import torch
from transformers.cache_utils import Cache

from atts_runtime.profiler.padding import fitting

ROW_ALIGN = 4
NEW_ALIGN = 4
TIME_ALIGN = 16
# CPU attention works in blocks of 512 positions, and splits the sum over a block's positions when they number
# between these two (found by trying all lengths against all others, torch 2.13, AVX2).
_BLOCK, _SPLITS_ABOVE, _WHOLE_FROM = 512, 192, 384
_LEAST_TIME = 512  # positions of a row in memory that is given as it is used
ROW_STOPS = (128, 192, 384, 512)
"""Positions that a decoding row attends over where rows are grouped by length: the first of these that holds its own,
or a multiple of the last. All of them are canonical, and few enough for groups to be large."""


def aligned_time(n: int) -> int:
    """The smallest cache length that holds `n` positions and sums them in the canonical order."""
    time = aligned(n, TIME_ALIGN)
    rest = time % _BLOCK
    return time - rest + _WHOLE_FROM if _SPLITS_ABOVE < rest < _WHOLE_FROM else time


def row_time(n: int) -> int:
    """The positions that a decoding row of `n` attends over (`ROW_STOPS`)."""
    return fitting(ROW_STOPS, n)


def aligned(n: int, to: int) -> int:
    """The smallest multiple of `to` that holds `n`."""
    return -(-n // to) * to


class KvBuffer:
    """Room for rows of KV, shape [layers, 2, rows, kv_heads, time, head_dim]; grows, never shrinks. `time`: positions
    of a row to begin with.

    Growing copies what is held, while all rows wait. On CPU it therefore grows by much at a time: there the system
    gives memory page by page, when it is first written to.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, time: int = 0
    ) -> None:
        self._shape = (layers, 2, heads, head_dim)
        self._dtype, self._device = dtype, device
        self._lazy = device.type == "cpu"
        self._longest = 0  # positions that a row may have written to
        self.kv = torch.zeros(layers, 2, 0, heads, time, head_dim, dtype=dtype, device=device)

    def _zeros(self, rows: int, time: int) -> torch.Tensor:
        # Zeros, not garbage: masked positions still meet a weight of 0, and 0 * NaN is NaN.
        layers, two, heads, dim = self._shape
        shape = (layers, two, rows, heads, time, dim)
        if self._lazy:
            return _untouched(math.prod(shape) * self._dtype.itemsize).view(self._dtype).view(shape)
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def reserve(self, rows: int, time: int) -> None:
        """Make room for `rows` rows of `time` positions. What those rows hold is kept; rows beyond them may be lost.

        Raises MemoryError where the system has no room for that.
        """
        have_rows, have_time = self.kv.shape[2], self.kv.shape[4]
        if rows > have_rows or time > have_time:
            grown = self._larger(rows, time, have_rows, have_time)
            held = min(rows, have_rows), min(self._longest, have_time)
            grown[:, :, : held[0], :, : held[1]] = self.kv[:, :, : held[0], :, : held[1]]
            self.kv = grown
        self._longest = max(self._longest, time)

    def _larger(self, rows: int, time: int, have_rows: int, have_time: int) -> torch.Tensor:
        least_rows, least_time = max(aligned(rows, ROW_ALIGN), have_rows), max(aligned_time(time), have_time)
        more_rows, more_time = least_rows, least_time
        if rows > have_rows and self._lazy:
            more_rows = max(least_rows, 2 * have_rows)
        if time > have_time:
            more_time = max(least_time, _LEAST_TIME if self._lazy else 0, aligned(have_time * 3 // 2, TIME_ALIGN))
        with suppress(OSError):
            return self._zeros(more_rows, more_time)
        try:
            return self._zeros(least_rows, least_time)
        except OSError as error:
            raise MemoryError(f"no memory for the KV of {least_rows} rows of {least_time} tokens: {error}") from error

    def put(self, row: int, parked: torch.Tensor | None) -> None:
        """Copy a parked chain [layers, 2, kv_heads, length, head_dim] into a row."""
        if parked is not None:
            self.kv[:, :, row, :, : parked.shape[3]] = parked
            self._longest = max(self._longest, parked.shape[3])

    def park(self, row: int, length: int) -> torch.Tensor:
        """A copy of a row's first `length` positions."""
        return self.kv[:, :, row, :, :length].clone()

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` positions onto another row."""
        self.kv[:, :, target, :, :length] = self.kv[:, :, source, :, :length]


def _untouched(size: int) -> torch.Tensor:
    """So many bytes (at least one), all 0, in pages of which none is there before it is written to."""
    # Private: what Python maps by itself is shared with forked processes, and counts as shared memory.
    flags = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    return torch.frombuffer(mmap.mmap(-1, size, **flags), dtype=torch.uint8)


class RowCache(Cache):
    """The cache of one forward pass: rows write their new KV at their own positions, [rows, new] of them."""

    def __init__(self, buffer: KvBuffer, positions: torch.Tensor, time: int) -> None:
        super().__init__(layers=[])
        self._kv, self._time = buffer.kv, time
        self._positions = positions
        self._rows = torch.arange(positions.shape[0], device=positions.device)[:, None]

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        rows = self._positions.shape[0]
        keys, values = self._kv[layer_idx, 0, :rows], self._kv[layer_idx, 1, :rows]
        keys[self._rows, :, self._positions] = key_states.transpose(1, 2)
        values[self._rows, :, self._positions] = value_states.transpose(1, 2)
        return keys[:, :, : self._time], values[:, :, : self._time]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._time
