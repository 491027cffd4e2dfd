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
