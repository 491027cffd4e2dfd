"""Rows of KV are copied in and out whole, and lengths are rounded to those with one order of summation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.engines.kv import TIME_ALIGN, KvBuffer, aligned, aligned_time

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
    assert len(set(rooms)) <= 6  # 4 rows, doubled four times
    assert all((buffer.park(row, 3 * row + 2) == row + 1.0).all() for row in range(64))


def test_room_is_zero_whatever_memory_held_before() -> None:
    """Masked positions meet a weight of 0, and 0 times what is not a number is none."""
    buffer = KvBuffer(**SHAPE)
    for rows, time in ((1, 8), (9, 8), (9, 600), (20, 1300)):
        buffer.reserve(rows, time)
        assert not buffer.kv.any()


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
