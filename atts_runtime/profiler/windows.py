"""Samples in time order, and what they say about a window: integrals, means, energy.

Two kinds of samples. `Points` are readings at an instant, joined by straight lines. `Spans` are means that the
device took over a stretch of time itself, so their integral is exact wherever they cover the window.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["STALE_S", "Energy", "Integral", "Points", "Source", "Spans", "covers", "energy_between"]

Source: TypeAlias = Literal["measured", "fake"]
Floats: TypeAlias = NDArray[np.float64]

STALE_S = 1.0
"""An energy counter that stands still for longer is stale: a powered board draws watts and the counter has millijoules.
NVML documents no update period; one second is a choice, and a lag below it goes unseen."""
_LEAST_COVERED = 0.95
"""Share of a window that samples must cover to speak for all of it. A run's come every 0.1 s and at both ends, so all
but the shortest runs lose less; a GPU that stopped answering loses more, and nothing is known of that time."""


def covers(seconds: float, begin_s: float, end_s: float) -> bool:
    """Whether samples of so many seconds speak for the whole window."""
    return seconds >= _LEAST_COVERED * (end_s - begin_s)


@dataclass(frozen=True, slots=True)
class Integral:
    """Of a metric over the part of a window that samples cover."""

    value: float  # the metric's unit times seconds
    covered_s: float  # > 0; less than the window where samples began later, ended earlier or are missing
    step_s: float  # the longest step between samples that was used: nothing shorter is resolved

    @property
    def mean(self) -> float:
        """In the metric's unit, over the covered seconds."""
        return self.value / self.covered_s


class _Columns:
    """Columns of floats that one thread fills while others read."""

    def __init__(self, count: int) -> None:
        self._columns = tuple(array("d") for _ in range(count))
        self._lock = threading.Lock()

    def _append(self, *values: float) -> None:
        with self._lock:
            for column, value in zip(self._columns, values, strict=True):
                column.append(value)

    def columns(self) -> tuple[Floats, ...]:
        """Copies, the value last and its time before it."""
        with self._lock:
            copies = [column[:] for column in self._columns]
        return tuple(np.frombuffer(copy, dtype=np.float64) for copy in copies)

    def __len__(self) -> int:
        return len(self._columns[-1])


class Points(_Columns):
    """Readings at instants."""

    def __init__(self) -> None:
        super().__init__(2)

    def add(self, t_s: float, value: float) -> None:
        self._append(t_s, value)

    def clip(self, begin_s: float, end_s: float) -> tuple[Floats, Floats] | None:
        """Times and values inside the window, with its ends interpolated; None where fewer than two are left."""
        t_s, value = self.columns()
        if len(t_s) < 2:
            return None
        low, high = max(begin_s, t_s[0]), min(end_s, t_s[-1])
        if not low < high:
            return None
        grid = np.concatenate(([low], t_s[(t_s > low) & (t_s < high)], [high]))
        return grid, np.interp(grid, t_s, value)

    def integral(self, begin_s: float, end_s: float) -> Integral | None:
        """By the trapezoid rule; None where fewer than two readings touch the window."""
        clipped = self.clip(begin_s, end_s)
        if clipped is None:
            return None
        t_s, value = clipped
        steps = np.diff(t_s)
        area = float((steps * (value[1:] + value[:-1])).sum()) / 2
        return Integral(area, float(t_s[-1] - t_s[0]), float(steps.max()))


class Spans(_Columns):
    """Means over stretches of time that follow one another, perhaps with holes between them."""

    def __init__(self) -> None:
        super().__init__(3)

    def add(self, begin_s: float, end_s: float, value: float) -> None:
        self._append(begin_s, end_s, value)

    def integral(self, begin_s: float, end_s: float) -> Integral | None:
        """Each mean times its overlap with the window; None where none overlaps."""
        begins, ends, value = self.columns()
        overlap = np.clip(np.minimum(ends, end_s) - np.maximum(begins, begin_s), 0.0, None)
        used = overlap > 0
        if not used.any():
            return None
        return Integral(float(overlap @ value), float(overlap.sum()), float((ends - begins)[used].max()))


@dataclass(frozen=True, slots=True)
class Energy:
    """Of one device over a whole window, with where the number comes from. Unknown is None, and `doubts` says why."""

    joules: float | None
    provenance: Literal["counter", "power"] | None  # difference of the energy counter | trapezoid of power readings
    source: Source
    covered_s: float  # the part of the window that was sampled; 0 where nothing is known
    doubts: tuple[str, ...]  # why the better source was passed over


def energy_between(counter: Points, power: Points, begin_s: float, end_s: float, source: Source) -> Energy:
    """Joules drawn between two times, from readings of the energy counter (J) or else of power (W).

    A counter that ran backwards or stood still (see `STALE_S`) in the window is not believed, however plausible the
    difference. Its ends are interpolated between readings, so a window should be many sampling intervals long. Readings
    of either kind that do not cover the window say nothing of it: what is drawn in the rest is not known.
    """
    doubts = []
    clipped = counter.clip(begin_s, end_s)
    if clipped is None:
        doubts.append("energy counter: no readings in the window")
    else:
        t_s, joules = clipped
        covered_s = float(t_s[-1] - t_s[0])
        if covers(covered_s, begin_s, end_s):
            doubts += _doubts(counter, t_s, joules)
        else:
            doubts.append(f"energy counter: {_part(covered_s, begin_s, end_s)}")
        if not doubts:
            return Energy(float(joules[-1] - joules[0]), "counter", source, covered_s, ())
    area = power.integral(begin_s, end_s)
    if area is None:
        doubts.append("power: no readings in the window")
    elif not covers(area.covered_s, begin_s, end_s):
        doubts.append(f"power: {_part(area.covered_s, begin_s, end_s)}")
    else:
        return Energy(area.value, "power", source, area.covered_s, tuple(doubts))
    return Energy(None, None, source, 0.0, tuple(doubts))


def _part(seconds: float, begin_s: float, end_s: float) -> str:
    return f"readings cover {seconds:.3f} of {end_s - begin_s:.3f} s"


def _doubts(counter: Points, t_s: Floats, joules: Floats) -> list[str]:
    """What is wrong with the counter between the first and the last of the times."""
    falls = np.flatnonzero(np.diff(joules) < 0)
    if falls.size:
        return [f"energy counter: ran backwards before {t_s[falls[0] + 1]:.3f} s"]
    if joules[-1] == joules[0]:
        return ["energy counter: stale, it did not move in the window"]
    for begin_s, end_s in _flat(*counter.columns()):
        if end_s - begin_s > STALE_S and begin_s < t_s[-1] and end_s > t_s[0]:
            return [f"energy counter: stale from {begin_s:.3f} to {end_s:.3f} s"]
    return []


def _flat(t_s: Floats, value: Floats) -> Iterator[tuple[float, float]]:
    """(begin, end) of every stretch over which the value stays the same."""
    changes = np.flatnonzero(np.diff(value)) + 1
    firsts = np.concatenate(([0], changes))
    lasts = np.concatenate((changes, [len(value)])) - 1
    return zip(t_s[firsts].tolist(), t_s[lasts].tolist(), strict=True)
