"""What to do: commands that the controller returns, and notes on what it decided.

`Draft`, `Score`, `TakeOver` and `Grade` are calls to an engine: numbered requests on behalf of a chain in its given
turn (counted from 0), each answered by exactly one event with the same `call` number, unless the chain is stopped.
`Keep` and `Fork` change a chain's text at once, `Wake` sets a timer; they have no event. `Admit`, `Decided`, `Alarmed`,
`Hold` and `Finish` are notes. All are tuples, because a simulation makes thousands a second.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from atts_runtime.conformal import Alarm
from atts_runtime.control.events import ChainId

Cause = Literal["bank", "barrier", "admission"]
Reason = Literal["answered", "ended", "turns", "stopped", "failed"]
Outcome = Literal["stands", "takeover", "redraft", "keep", "fork"]
"""What becomes of a segment: it stands, the target takes over, the draft tries again, the best try is kept, or the
chain goes on from a copy of another one."""


class Draft(NamedTuple):
    """Let the draft model continue the chain by a segment of at most `max_tokens`; from the second `attempt` (1) of a
    turn on in place of the one before."""

    call: int
    chain: ChainId
    turn: int
    max_tokens: int
    attempt: int = 0


class Score(NamedTuple):
    """Let the target score the chain's last segment given everything before it."""

    call: int
    chain: ChainId
    turn: int
    attempt: int = 0


class TakeOver(NamedTuple):
    """Let the target write at most `max_tokens`: after the segment, or in its place if `replace`."""

    call: int
    chain: ChainId
    turn: int
    max_tokens: int
    replace: bool


class Grade(NamedTuple):
    """Let the target score what a chain that is over votes with: its last piece, or all that was written (`whole`)."""

    call: int
    chain: ChainId
    turn: int
    whole: bool


class Keep(NamedTuple):
    """Put the segment of an earlier `attempt` of this turn in place of the last one."""

    chain: ChainId
    turn: int
    attempt: int


class Fork(NamedTuple):
    """Put a copy of the first `upto` turns of chain `source`'s text in place of the chain's own."""

    chain: ChainId
    turn: int
    source: ChainId
    upto: int


class Wake(NamedTuple):
    """Call `Controller.wake` for the question `after_s` seconds from now."""

    question: int
    after_s: float


class Admit(NamedTuple):
    """A question is now in flight; its chains' `admission` holds end."""

    question: int


class Decided(NamedTuple):
    """A verdict on the segment of `turn`, and what becomes of it. `ell` is None where the gate reads the text;
    `p_value`, the `alpha` it was held against and the `bank` it came from are None where it does not test.
    `rejected`: the gate's verdict; `source` and `upto` as in `Fork`, where the outcome is one."""

    chain: ChainId
    turn: int
    ell: float | None
    p_value: float | None
    alpha: float | None
    rejected: bool
    bank: str | None = None
    attempt: int = 0
    outcome: Outcome = "stands"
    source: int | None = None
    upto: int | None = None

    @property
    def taken_over(self) -> bool:
        """Whether the target writes."""
        return self.outcome == "takeover"


class Alarmed(NamedTuple):
    """What happened to the chain in its `turn` made one of the gate's monitors raise an alarm."""

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
    """The chain is over after `turns` turns begun. A stopped chain's open call, if it has one, is void: nobody waits
    for its event. `weight`: of its vote (None: it has none, or all have the same)."""

    chain: ChainId
    turns: int
    reason: Reason
    detail: str | None = None
    weight: float | None = None


Call = Draft | Score | TakeOver | Grade
Command = Call | Keep | Fork | Wake | Admit | Decided | Alarmed | Hold | Finish
