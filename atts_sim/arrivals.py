"""When questions come: all at once, as a Poisson process, in bursts, or at times that were recorded.

Times are drawn with common random numbers: question q's gap is the same draw at every rate, so that a sweep over the
rate compares one stream at several speeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from atts_runtime.control import Policy
from atts_runtime.errors import InputError
from atts_sim.draws import uniform


class Arrivals(Protocol):
    """A pattern of arrivals."""

    def times_s(self, questions: int, seed: int) -> tuple[float, ...]:
        """When each question comes: ascending, from 0 on."""


@dataclass(frozen=True, slots=True)
class AllAtOnce:
    """Everything is there at 0."""

    def times_s(self, questions: int, seed: int) -> tuple[float, ...]:
        return (0.0,) * questions


@dataclass(frozen=True, slots=True)
class Poisson:
    """`per_s` questions a second on average, with exponential gaps; the first comes after a gap too."""

    per_s: float

    def __post_init__(self) -> None:
        if not 0 < self.per_s < math.inf:
            raise InputError(f"an arrival rate must be positive and finite, got {self.per_s} questions a second")

    def times_s(self, questions: int, seed: int) -> tuple[float, ...]:
        times, now = [], 0.0
        for question in range(questions):
            now -= math.log(uniform(seed, "arrival", question)) / self.per_s
            times.append(now)
        return tuple(times)


@dataclass(frozen=True, slots=True)
class Bursts:
    """`size` questions at a time, every `every_s` seconds, the first at 0."""

    size: int
    every_s: float

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.every_s < math.inf:
            raise InputError(
                f"bursts need a size of 1 or more and a time between them, got {self.size}, {self.every_s}"
            )

    def times_s(self, questions: int, seed: int) -> tuple[float, ...]:
        return tuple(question // self.size * self.every_s for question in range(questions))


@dataclass(frozen=True, slots=True)
class Recorded:
    """Times that were recorded, in seconds. Asked for more questions than it has, it raises InputError."""

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(0 <= time < math.inf for time in self.times) or any(b < a for a, b in pairwise(self.times)):
            raise InputError("times of arrival must be finite and ascend from 0 on")

    def times_s(self, questions: int, seed: int) -> tuple[float, ...]:
        if questions > len(self.times):
            raise InputError(f"{questions} questions need as many times of arrival, but {len(self.times)} are given")
        return self.times[:questions]


TRACE = "trace:"
FORMS = "all, poisson:PER_S, bursts:SIZE:EVERY_S or trace:FILE"


def arrivals_of(text: str) -> Arrivals:
    """The pattern that a text names, as in a study: one of `FORMS`; a trace's file has a time in seconds a line.

    Raises InputError where it is none, or the file cannot be read.
    """
    if text.startswith(TRACE) and text != TRACE:
        return Recorded(_read(Path(text.removeprefix(TRACE))))
    kind, _, rest = text.partition(":")
    values = _numbers(text, rest.split(":") if rest else [])
    match kind, values:
        case "all", []:
            return AllAtOnce()
        case "poisson", [per_s]:
            return Poisson(per_s)
        case "bursts", [size, every_s] if size.is_integer():
            return Bursts(int(size), every_s)
    raise InputError(f"unknown arrivals {text!r}; give {FORMS}")


def span_s(times_s: Sequence[float]) -> float | None:
    """The seconds that arrivals stand for: from the first to the last, and until the next would come, which is the mean
    gap, or less where the last were fewer at a time than those before. Bursts stand for one period each, that way, and
    n questions that come one by one for n gaps. None where all come at once, which says nothing of their pace.
    """
    instants = sorted(set(times_s))
    if len(instants) < 2:
        return None
    from_first_to_last_s = instants[-1] - instants[0]
    last = times_s.count(instants[-1])
    at_a_time = (len(times_s) - last) / (len(instants) - 1)
    return from_first_to_last_s * (1 + min(1.0, last / at_a_time) / (len(instants) - 1))


def refuse_late(policy: Policy, times_s: Sequence[float]) -> None:
    """InputError where the policy begins with all questions, and some come later."""
    if policy.pre_sample == "all" and any(times_s):
        bank = ", or give it a bank of scores that were sampled before" if policy.name == "async-marginal" else ""
        raise InputError(
            f"{policy.name} begins with the first segments of all questions, so they cannot arrive one by one; let all "
            f"arrive at once, or choose another policy{bank}"
        )


def _numbers(where: str, parts: Sequence[str]) -> list[float]:
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise InputError(f"{where}: {error}; arrivals are {FORMS}") from error


def _read(path: Path) -> tuple[float, ...]:
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read times of arrival from {path}: {error}") from error
    return tuple(_numbers(str(path), lines))
