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
    """The draft wrote a segment. `answered`: an answer stands; `ended`: it closed the chain (end of text, no room)."""

    answered: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """The verdict that an earlier session of the run gave on a score."""

    taken_over: bool
    p_value: float | None
    alpha: float | None
    bank: str | None


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """The target scored the segment: `ell`, mean negative log-likelihood in nats per token. `settled` is the verdict on
    it where there is one already."""

    ell: float
    settled: Settled | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.ell):
            raise ValueError(f"score must be finite, got {self.ell!r}")


@dataclass(frozen=True, slots=True)
class TakenOver(Event):
    """The target wrote its part; `answered` and `ended` as in `Drafted`."""

    answered: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The command could not be carried out, retries included."""

    reason: str

    def __post_init__(self) -> None:
        if not self.reason:
            raise ValueError("a failure needs a reason")
