"""What happened: events that a driver feeds to the controller. Frozen, and checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class ChainId(NamedTuple):
    """One reasoning chain: its question's index and its index among that question's m chains.

    A tuple, because every decision looks chains up by it, and a tuple's hash is not Python's to compute.
    """

    question: int
    index: int  # type: ignore[assignment]  # nobody asks a chain for a tuple's `index`

    def __str__(self) -> str:
        return f"{self.question}.{self.index}"


@dataclass(frozen=True, slots=True)
class Event:
    """The outcome of the command numbered `call`."""

    call: int


@dataclass(frozen=True, slots=True)
class Drafted(Event):
    """The draft wrote a segment. `answered`: an answer stands; `ended`: it closed the chain (end of text, no room).

    `answer`: what the chain would vote for if it were over, one string for all answers of a question that mean the
    same (None: none, or nobody asks); `tokens`: how many were written; `cue`: the segment holds one of the gate's cues.
    """

    answered: bool
    ended: bool
    answer: str | None = None
    tokens: int = 0
    cue: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The verdict that an earlier session of the run gave on a segment, and what the chain copied if it forked: the
    first so many turns, `upto`, of the chain `source` of its question."""

    rejected: bool
    p_value: float | None
    alpha: float | None
    bank: str | None
    source: int | None = None
    upto: int | None = None


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """The target scored the segment: `ell`, mean negative log-likelihood in nats per token. `settled` is the verdict on
    it where there is one already."""

    ell: float
    settled: Settled | None = None

    def __post_init__(self) -> None:
        _finite(self.ell)


@dataclass(frozen=True, slots=True)
class TakenOver(Event):
    """The target wrote its part; fields as in `Drafted`."""

    answered: bool
    ended: bool
    answer: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Graded(Event):
    """The target scored what a chain that is over votes with: `ell` as in `Scored`."""

    ell: float

    def __post_init__(self) -> None:
        _finite(self.ell)


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The command could not be carried out, retries included."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a failure needs a reason")


@dataclass(frozen=True, slots=True)
class Stopped(Event):
    """An earlier session of the run stopped the chain during this call, for `reason`."""

    reason: str


def _finite(ell: float) -> None:
    if not math.isfinite(ell):
        raise ValueError(f"score must be finite, got {ell!r}")
