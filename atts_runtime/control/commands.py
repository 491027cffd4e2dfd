"""What to do: commands that the controller returns, and notes on what it decided.

`Draft`, `Score` and `TakeOver` are calls to an engine: numbered requests on behalf of a chain in its given turn
(counted from 0), each answered by exactly one event with the same `call` number. `Admit`, `Decided`, `Alarmed`,
`Hold` and `Finish` are notes: they ask for nothing. All are tuples, because a simulation makes thousands a second.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from atts_runtime.conformal import Alarm
from atts_runtime.control.events import ChainId

Cause = Literal["bank", "barrier", "admission"]
Reason = Literal["answered", "ended", "turns", "failed"]


class Draft(NamedTuple):
    """Let the draft model continue the chain by a segment of at most `max_tokens`."""

    call: int
    chain: ChainId
    turn: int
    max_tokens: int


class Score(NamedTuple):
    """Let the target score the chain's last segment given everything before it."""

    call: int
    chain: ChainId
    turn: int


class TakeOver(NamedTuple):
    """Let the target write at most `max_tokens`: after the segment, or in its place if `replace`."""

    call: int
    chain: ChainId
    turn: int
    max_tokens: int
    replace: bool


class Admit(NamedTuple):
    """A question is now in flight; its chains' `admission` holds end."""

    question: int


class Decided(NamedTuple):
    """A verdict on the segment of `turn`. `p_value`, the `alpha` it was held against and the `bank` it came from are
    None where the policy ranks instead of testing."""

    chain: ChainId
    turn: int
    ell: float
    p_value: float | None
    alpha: float | None
    taken_over: bool
    bank: str | None = None


class Alarmed(NamedTuple):
    """What happened to the chain in its `turn` made one of the policy's monitors raise an alarm."""

    chain: ChainId
    turn: int
    alarm: Alarm


class Hold(NamedTuple):
    """The chain now waits for others: for the pre-sampled bank, at a barrier, or for its question's admission.

    The wait ends with the chain's next call, its next `Hold` (another cause) or its `Finish`.
    """

    chain: ChainId
    turn: int
    cause: Cause


class Finish(NamedTuple):
    """The chain is over after `turns` turns begun."""

    chain: ChainId
    turns: int
    reason: Reason
    detail: str | None = None


Call = Draft | Score | TakeOver
Command = Call | Admit | Decided | Alarmed | Hold | Finish
