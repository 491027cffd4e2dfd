"""The KV of the chains that decode together: rows of like length attend together.

A batch padded to its longest row reads mostly padding: chains of one question end at very different lengths. So rows
lie in groups by the positions that they attend over (`kv.row_time`), each with a buffer of its own, and one that
outgrows its group moves on to the next. All lengths of groups are canonical, so a row's tokens do not hang on the
group that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from atts_runtime.engines.causal_lm import CausalLM, Grouped
from atts_runtime.engines.jobs import GenerateJob
from atts_runtime.engines.kv import KvBuffer, row_time

_ROOM = 2


class RowGroup:
    """Rows [0, len(jobs)) of a buffer. `time`: positions that they attend over; None: as many as the longest needs."""

    def __init__(self, kv: KvBuffer, time: int | None) -> None:
        self.kv, self.time = kv, time
        self.jobs: list[GenerateJob] = []

    def put(self, job: GenerateJob, parked: torch.Tensor | None, length: int) -> None:
        """A row more, of a chain of `length` tokens that decodes another."""
        row = len(self.jobs)
        self.kv.reserve(row + 1, self.time or length + 1)
        self.kv.put(row, parked)
        self.jobs.append(job)

    def take(self, job: GenerateJob) -> torch.Tensor:
        """The KV of a row that leaves; the last one closes the gap."""
        row, last = self.jobs.index(job), len(self.jobs) - 1
        parked = self.kv.park(row, len(job.held.ids))
        if row != last:
            moved = self.jobs[last]
            self.kv.move(last, row, len(moved.held.ids))
            self.jobs[row] = moved
        self.jobs.pop()
        return parked


class RowGroups:
    """All rows of a decode batch; one group of them where the model cannot tell groups apart."""

    def __init__(self, lm: CausalLM) -> None:
        self._lm = lm
        self._groups: dict[int | None, RowGroup] = {}
        self._of: dict[GenerateJob, RowGroup] = {}

    def join(self, job: GenerateJob, parked: torch.Tensor | None) -> None:
        """A chain enters the batch with the KV of its held ids."""
        length = len(job.held.ids)
        time = row_time(length + 1) if self._lm.groups_rows else None
        group = self._groups.get(time)
        if group is None:
            group = self._groups[time] = RowGroup(self._lm.buffer(time or 0), time)
        group.put(job, parked, length)
        self._of[job] = group

    def leave(self, job: GenerateJob) -> torch.Tensor:
        """A chain leaves the batch; returns its KV."""
        group = self._of[job]
        parked = group.take(job)
        del self._of[job]
        if not group.jobs:
            self._give_back(group)
        return parked

    def _give_back(self, emptied: RowGroup) -> None:
        """Rows move from group to group, so the same rows would in the end have room in all of them. An empty group
        keeps its own while all of it is at most twice what the longest group needs for as many rows as the largest
        has."""
        rooms = [group.kv.kv.shape[2:5:2] for group in self._groups.values()]
        most_rows, longest = (max(sizes) for sizes in zip(*rooms, strict=True))
        if sum(rows * time for rows, time in rooms) > _ROOM * most_rows * longest:
            del self._groups[emptied.time]

    def clear(self) -> None:
        """Nothing that rows hold is wanted any more."""
        self._of.clear()
        for group in self._groups.values():
            group.jobs.clear()

    def jobs(self) -> list[GenerateJob]:
        """Who decodes next, group by group; whoever has outgrown a group has left it."""
        for job in [job for job, group in self._of.items() if group.time and len(job.held.ids) >= group.time]:
            self.join(job, self.leave(job))
        return [job for group in self._filled() for job in group.jobs]

    def grouped(self) -> list[Grouped]:
        """The groups of `jobs`, for `CausalLM.decode_pass`."""
        return [(group.kv, len(group.jobs), group.time) for group in self._filled()]

    def _filled(self) -> Iterator[RowGroup]:
        return (group for group in self._groups.values() if group.jobs)
