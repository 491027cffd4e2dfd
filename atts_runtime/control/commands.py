"""What to do: commands that the controller returns, and notes on what it decided.

`Draft`, `Score` and `TakeOver` are calls to an engine; each is answered by exactly one event with the same
`call` number. `Admit`, `Decided`, `Alarmed`, `Hold` and `Finish` are notes: they ask for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atts_runtime.conformal import Alarm
from atts_runtime.control.events import ChainId

Cause = Literal["bank", "barrier", "admission"]
Reason = Literal["answered", "ended", "turns", "failed"]


@dataclass(frozen=True, slots=True)
class Call:
    """A numbered request to an engine on behalf of a chain, in its given turn (counted from 0)."""

    call: int
    chain: ChainId
    turn: int


@dataclass(frozen=True, slots=True)
class Draft(Call):
    """Let the draft model continue the chain by a segment of at most `max_tokens`."""

    max_tokens: int


@dataclass(frozen=True, slots=True)
class Score(Call):
    """Let the target score the chain's last segment given everything before it."""


@dataclass(frozen=True, slots=True)
class TakeOver(Call):
    """Let the target write at most `max_tokens`: after the segment, or in its place if `replace`."""

    max_tokens: int
    replace: bool


@dataclass(frozen=True, slots=True)
class Admit:
    """A question is now in flight; its chains' `admission` holds end."""

    question: int


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict on the segment of `turn`. `p_value`, the `alpha` it was held against and the `bank` it came from are
    None where the policy ranks instead of testing."""

    chain: ChainId
    turn: int
    ell: float
    p_value: float | None
    alpha: float | None
    taken_over: bool
    bank: str | None = None


@dataclass(frozen=True, slots=True)
class Alarmed:
    """What happened to the chain in its `turn` made one of the policy's monitors raise an alarm."""

    chain: ChainId
    turn: int
    alarm: Alarm


@dataclass(frozen=True, slots=True)
class Hold:
    """The chain now waits for others: for the pre-sampled bank, at a barrier, or for its question's admission.

    The wait ends with the chain's next call, its next `Hold` (another cause) or its `Finish`.
    """

    chain: ChainId
    turn: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Finish:
    """The chain is over after `turns` turns begun."""

    chain: ChainId
    turns: int
    reason: Reason
    detail: str | None = None


Command = Draft | Score | TakeOver | Admit | Decided | Alarmed | Hold | Finish
