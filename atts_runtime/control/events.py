"""What happened: events that a driver feeds to the controller. Each is the outcome of the command numbered `call`.

Tuples, as commands are, because a simulation makes thousands a second; what a number must be is checked when they are
made.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias


class ChainId(NamedTuple):
    """One reasoning chain: its question's index and its index among that question's m chains.

    A tuple, because every decision looks chains up by it, and a tuple's hash is not Python's to compute.
    """

    question: int
    index: int  # type: ignore[assignment]  # nobody asks a chain for a tuple's `index`

    def __str__(self) -> str:
        return f"{self.question}.{self.index}"


class Drafted(NamedTuple):
    """The draft wrote a segment. `answered`: an answer stands; `ended`: it closed the chain (end of text, no room).

    `answer`: what the chain would vote for if it were over, one string for all answers of a question that mean the
    same (None: none, or nobody asks); `tokens`: how many were written; `cue`: the segment holds one of the gate's cues.
    """

    call: int
    answered: bool
    ended: bool
    answer: str | None = None
    tokens: int = 0
    cue: bool = False


class Settled(NamedTuple):
    """The verdict that an earlier session of the run gave on a segment, and what the chain copied if it forked: the
    first so many turns, `upto`, of the chain `source` of its question."""

    rejected: bool
    p_value: float | None
    alpha: float | None
    bank: str | None
    source: int | None = None
    upto: int | None = None


class _Scored(NamedTuple):
    call: int
    ell: float
    settled: Settled | None


class Scored(_Scored):
    """The target scored the segment: `ell`, mean negative log-likelihood in nats per token. `settled` is the verdict on
    it where there is one already. ValueError where the score is not finite."""

    __slots__ = ()

    def __new__(cls, call: int, ell: float, settled: Settled | None = None) -> Scored:
        return tuple.__new__(cls, (call, _finite(ell), settled))


class TakenOver(NamedTuple):
    """The target wrote its part; fields as in `Drafted`."""

    call: int
    answered: bool
    ended: bool
    answer: str | None = None
    tokens: int = 0


class _Graded(NamedTuple):
    call: int
    ell: float


class Graded(_Graded):
    """The target scored what a chain that is over votes with: `ell` as in `Scored`."""

    __slots__ = ()

    def __new__(cls, call: int, ell: float) -> Graded:
        return tuple.__new__(cls, (call, _finite(ell)))


class _Failed(NamedTuple):
    call: int
    reason: str


class Failed(_Failed):
    """The command could not be carried out, retries included. ValueError without a reason."""

    __slots__ = ()

    def __new__(cls, call: int, reason: str) -> Failed:
        if not reason:
            raise ValueError("a failure needs a reason")
        return tuple.__new__(cls, (call, reason))


class Stopped(NamedTuple):
    """An earlier session of the run stopped the chain during this call, for `reason`."""

    call: int
    reason: str


Event: TypeAlias = Drafted | Scored | TakenOver | Graded | Failed | Stopped


def _finite(ell: float) -> float:
    if not math.isfinite(ell):
        raise ValueError(f"score must be finite, got {ell!r}")
    return ell
