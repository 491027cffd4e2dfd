"""Gates: whose segment is rejected.

A gate is a pure state machine beside the controller. It hears that a segment was drafted and, where it asks for
that, scored (`judge`), that a chain's turn ended (`turn_ended`) or that a chain is over (`left`), and answers with the
verdicts that are now due, for that chain or for others that waited on it. It knows no clock, no engine and no text,
so that the runtime and the simulator run the same objects.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from atts_runtime.conformal import Alarm
from atts_runtime.control.commands import Cause
from atts_runtime.control.events import ChainId, Settled
from atts_runtime.control.knobs import Knobs

ATTS = "Xiong et al. 2026, arXiv 2509.15148"
PreSample = Literal["none", "question", "all"]
Judges = Literal["nothing", "text", "score"]


class Verdict(NamedTuple):
    """Whether the segment that `chain` has just drafted is rejected, and on what grounds: its score, the p-value, the
    alpha that it was held against, the bank that it came from (as in `conformal.Decision`). None: there is none."""

    chain: ChainId
    ell: float | None
    rejected: bool
    p_value: float | None = None
    alpha: float | None = None
    bank: str | None = None


class Segment(NamedTuple):
    """What a gate is asked about: the draft of an `attempt` in a `turn`, its score (nats per token; None where the gate
    does not ask for one), whether it holds a cue, and the verdict that an earlier session gave on it, if one did. A
    gate that would not come to the same one again, because it depends on what finished first, lets it stand."""

    chain: ChainId
    turn: int
    attempt: int
    ell: float | None
    cue: bool = False
    settled: Settled | None = None

    def verdict(self, rejected: bool, p_value: float | None = None, alpha: float | None = None) -> Due:
        """This segment's verdict, and nothing else that is due."""
        return Due((Verdict(self.chain, self.ell, rejected, p_value, alpha),))


class Due(NamedTuple):
    """What an event set free: verdicts on segments. `alarms` are those that it made the gate's monitors raise."""

    verdicts: tuple[Verdict, ...] = ()
    alarms: tuple[Alarm, ...] = ()


NOTHING_DUE = Due()


class Gate:
    """The gate through which everything passes; the others override what differs.

    `name` and `about` are what a user reads; `paper`: where it was published. `drafts` False: the target writes
    everything. `judges`: by the score, by cues in the text, or nothing at all. `order_free`: the same verdicts whatever
    finishes first. `pre_sample`: first segments of whom the first verdicts wait for. `monitors`: it raises alarms.
    `retries`: it can judge further attempts of a turn. `takes_bank`: it can test against an earlier
    calibration.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    paper: ClassVar[str | None] = None
    drafts: ClassVar[bool] = True
    judges: ClassVar[Judges] = "score"
    monitors: ClassVar[bool] = False
    order_free: ClassVar[bool] = True
    retries: ClassVar[bool] = True
    takes_bank: ClassVar[bool] = False
    pre_sample: PreSample = "none"
    hold: ClassVar[Cause] = "bank"

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        """Announce the run's size before anything else happens: most turns a chain, most questions in flight."""

    def judge(self, segment: Segment) -> Due:
        """The segment was drafted, and scored where the gate `judges` by the score."""
        return segment.verdict(rejected=False)

    def turn_ended(self, chain: ChainId, turn: int) -> None:
        """The chain's turn ended."""

    def left(self, chain: ChainId) -> Due:
        """The chain is over."""
        return NOTHING_DUE
