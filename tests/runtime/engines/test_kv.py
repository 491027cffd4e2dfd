"""Rows of KV are copied in and out whole, and lengths are rounded to those with one order of summation."""

from __future__ import annotations

import math
import resource
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.engines import kv
from atts_runtime.engines.kv import TIME_ALIGN, KvBuffer, aligned, aligned_time, row_time

SHAPE = {"layers": 2, "heads": 1, "head_dim": 4, "dtype": torch.float32, "device": torch.device("cpu")}


@given(st.integers(0, 5000), st.integers(1, 64))
def test_aligned_is_the_next_multiple(n: int, to: int) -> None:
    assert aligned(n, to) % to == 0
    assert n <= aligned(n, to) < n + to


@given(st.integers(1, 5000))
def test_a_cache_length_holds_its_positions_and_avoids_the_lengths_that_split(n: int) -> None:
    time = aligned_time(n)
    assert n <= time
    assert time % TIME_ALIGN == 0
    assert not 192 < time % 512 < 384
    assert aligned_time(time) == time


@given(st.integers(1, 5000))
def test_rows_are_grouped_by_canonical_lengths_that_hold_them(n: int) -> None:
    time = row_time(n)
    assert n <= time <= max(192, 2 * n)
    assert aligned_time(time) == time
    assert row_time(time) == time


def test_a_parked_chain_comes_back_as_it_was_in_any_row() -> None:
    buffer = KvBuffer(**SHAPE)
    chain = torch.randn(2, 2, 1, 7, 4, generator=torch.Generator().manual_seed(0))
    buffer.reserve(1, 8)
    buffer.put(0, chain)
    buffer.reserve(3, 40)  # grows around what is there
    assert torch.equal(buffer.park(0, 7), chain)
    buffer.move(0, 2, 7)
    buffer.put(0, None)
    assert torch.equal(buffer.park(2, 7), chain)
    assert torch.equal(buffer.park(2, 3), chain[:, :, :, :3])


def test_a_buffer_that_grows_by_rows_one_by_one_copies_what_it_holds_a_few_times_only() -> None:
    buffer = KvBuffer(**SHAPE)
    rooms = []
    for row in range(64):
        buffer.reserve(row + 1, 3 * row + 2)
        buffer.kv[:, :, row, :, : 3 * row + 2] = row + 1.0
        rooms.append(buffer.kv.data_ptr())
    assert sum(a != b for a, b in pairwise(rooms)) == 4  # from 4 rows, doubled four times
    assert all((buffer.park(row, 3 * row + 2) == row + 1.0).all() for row in range(64))


def test_room_is_zero_whatever_memory_held_before() -> None:
    """Masked positions meet a weight of 0, and 0 times what is not a number is none."""
    buffer = KvBuffer(**SHAPE)
    for rows, time in ((1, 8), (9, 8), (9, 600), (20, 1300)):
        dirty = [torch.full((2, 2, more, 1, 1500, 4), math.nan) for more in (4, 8, 16, 20, 32)]
        del dirty  # its memory is the next to be given out
        buffer.reserve(rows, time)
        assert not buffer.kv.any()


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_room_that_no_row_uses_takes_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    buffer, before = KvBuffer(**SHAPE), resident()
    buffer.reserve(256, 100_000)
    room = buffer.kv.numel() * buffer.kv.element_size()
    assert room > 1_000_000_000
    assert resident() - before < room / 20
    buffer.kv[0, 0, 0, 0, :90_000] = 1.0
    assert resident() - before >= 90_000 * 4 * 4


def test_where_much_room_is_refused_there_is_as_much_as_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = kv._untouched

    def refusing(size: int) -> torch.Tensor:
        if size > most:
            raise OSError(12, "Cannot allocate memory")
        return given(size)

    monkeypatch.setattr(kv, "_untouched", refusing)
    buffer, most = KvBuffer(**SHAPE), 64 * 128 * 64  # a position of a row takes 64 bytes: 64 rows of 128
    buffer.reserve(60, 100)
    assert buffer.kv.shape[2:5:2] == (60, 112)
    with pytest.raises(MemoryError, match="no memory for the KV of 60 rows of 192 tokens"):
        buffer.reserve(60, 190)
    assert buffer.kv.shape[2:5:2] == (60, 112)


def test_a_batch_that_has_shrunk_keeps_its_rows_when_they_outgrow_their_room() -> None:
    buffer = KvBuffer(**SHAPE)
    buffer.reserve(8, 500)
    buffer.put(1, torch.ones(2, 2, 1, 500, 4))
    buffer.reserve(2, 5000)
    assert (buffer.park(1, 500) == 1.0).all()


def test_growing_keeps_what_was_written_to_the_last_position_that_was_asked_for() -> None:
    buffer = KvBuffer(**SHAPE)
    buffer.reserve(2, 700)
    buffer.kv[:, :, 1, :, 699] = 5.0
    buffer.reserve(2, 5000)
    assert (buffer.kv[:, :, 1, :, 699] == 5.0).all()


def test_a_buffer_never_shrinks() -> None:
    buffer = KvBuffer(**SHAPE)
    buffer.reserve(5, 100)
    rows, time = buffer.kv.shape[2], buffer.kv.shape[4]
    buffer.reserve(1, 1)
    assert (buffer.kv.shape[2], buffer.kv.shape[4]) == (rows, time)
    assert rows >= 5
    assert time >= 100


@pytest.mark.parametrize("n", [1, 6])
def test_parking_copies(n: int) -> None:
    buffer = KvBuffer(**SHAPE)
    buffer.reserve(1, 8)
    parked = buffer.park(0, n)
    buffer.kv.fill_(1.0)
    assert parked.abs().sum() == 0
