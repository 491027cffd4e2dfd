"""Whatever joins, grows and leaves, each row's KV is its own, and rows attend over a stop that holds them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from atts_runtime.engines.chains import Held
from atts_runtime.engines.kv import ROW_STOPS, KvBuffer, row_time
from atts_runtime.engines.rows import RowGroups

LAYERS, HEADS, DIM = 2, 1, 3


class Model:
    """What `RowGroups` asks of a model."""

    def __init__(self, *, groups_rows: bool) -> None:
        self.groups_rows = groups_rows

    def buffer(self, time: int = 0) -> KvBuffer:
        return KvBuffer(LAYERS, HEADS, DIM, torch.float32, torch.device("cpu"), time)


def kv_of(number: int, length: int) -> torch.Tensor:
    """What a chain's positions hold, [layers, 2, heads, length, dim]: they tell chains, positions and layers apart."""
    values = number * 10_000.0 + torch.arange(length)
    layers = torch.arange(2 * LAYERS).view(LAYERS, 2, 1, 1, 1) / 8
    return (values.view(1, 1, 1, -1, 1) + layers).expand(LAYERS, 2, HEADS, length, DIM)


class Job:
    """A chain in the batch, as far as `RowGroups` looks at it; `joined` with so many tokens."""

    def __init__(self, number: int, length: int) -> None:
        self.held, self.joined = Held(ids=[number] * length), length


def made(number: int, length: int) -> Any:
    return Job(number, length)


def step(groups: RowGroups) -> None:
    """Every row decodes a token, as a forward pass writes it."""
    jobs = groups.jobs()
    first = 0
    for buffer, rows, time in groups.grouped():
        for row, job in enumerate(jobs[first : first + rows]):
            length = len(job.held.ids)
            assert time is None or length < time
            assert time in (None, row_time(length + 1))
            if time is None:
                buffer.reserve(rows, length + 1)
            buffer.kv[:, :, row, :, length] = kv_of(job.held.ids[0], length + 1)[:, :, :, length]
            job.held.ids.append(job.held.ids[0])
        first += rows
    assert first == len(jobs)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("groups_rows", [True, False])
def test_a_rows_kv_is_its_own_whoever_joins_and_leaves(seed: int, *, groups_rows: bool) -> None:
    draw, groups = random.Random(seed), RowGroups(Model(groups_rows=groups_rows))  # type: ignore[arg-type]
    inside: list[Any] = []
    grew = 0

    def leave(job: Any) -> None:
        nonlocal grew
        inside.remove(job)
        number, length = job.held.ids[0], len(job.held.ids)
        assert torch.equal(groups.leave(job), kv_of(number, length))
        grew += row_time(length) != row_time(job.joined)

    for number in range(1, 200):
        length = draw.choice([1, 100, 180, 191, 192, 380, 500, 511, 512, 700])
        job = made(number, length)
        groups.join(job, kv_of(number, length).clone())
        inside.append(job)
        for _ in range(draw.choice([0, 1, 5])):
            step(groups)
        while len(inside) > draw.choice([10, 30]):
            leave(draw.choice(inside))
    while inside:
        step(groups)
        leave(inside[-1])
    assert grew > 20
    assert not groups.jobs()
    assert not groups.grouped()


def test_rows_of_like_length_attend_together_and_no_more_groups_are_made_than_there_are_stops() -> None:
    groups = RowGroups(Model(groups_rows=True))  # type: ignore[arg-type]
    for number, length in enumerate((5, 400, 150, 191, 192, 30, 383, 384, 511, 512)):
        groups.join(made(number + 1, length), kv_of(number + 1, length))
    assert len(groups.jobs()) == 10
    assert {time: rows for _, rows, time in groups.grouped()} == dict(
        zip((*ROW_STOPS, 1024), (2, 2, 2, 3, 1), strict=True)
    )


def test_rows_that_pass_through_all_groups_leave_no_room_in_each() -> None:
    """Two questions whose chains all grow long, one after the other."""
    groups = RowGroups(Model(groups_rows=True))  # type: ignore[arg-type]
    for _ in range(2):
        jobs = [made(number, 100) for number in range(1, 17)]
        for job in jobs:
            groups.join(job, kv_of(job.held.ids[0], 100))
        while len(jobs[0].held.ids) < 2500:
            step(groups)
        room = sum(group.kv.kv.shape[2] * group.kv.kv.shape[4] for group in groups._groups.values())
        assert room <= 2 * 16 * row_time(2500)
        for job in jobs:
            assert torch.equal(groups.leave(job), kv_of(job.held.ids[0], 2500))


def test_after_a_fault_there_are_no_rows() -> None:
    groups = RowGroups(Model(groups_rows=True))  # type: ignore[arg-type]
    groups.join(made(1, 9), kv_of(1, 9))
    groups.clear()
    assert not groups.jobs()
    groups.join(job := made(2, 9), kv_of(2, 9))
    assert torch.equal(groups.leave(job), kv_of(2, 9))
