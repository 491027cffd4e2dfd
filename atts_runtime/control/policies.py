"""Scheduling policies: who is taken over, and who may go on.

A policy is a pure state machine beside the controller. It hears that a chain's segment was scored
(`scored`), that a chain's turn ended (`turn_ended`) or that a chain is over (`left`), and answers with the
verdicts and the turn starts that are now due, for that chain or for others that waited on it. It knows no
clock, no engine and no text, so that the runtime and the simulator run the same objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from atts_runtime.conformal import Alarm
from atts_runtime.control.commands import Cause
from atts_runtime.control.events import ChainId, Settled

PreSample = Literal["none", "question", "all"]


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a policy may be told. `alpha` is the nominal takeover rate; `budget` (chains a turn) overrides it at a
    barrier, and bounds the takeovers in flight under `async-adaptive`; `replace` makes a takeover replace the segment
    instead of continuing after it; `tie_seed` smooths p-values with tie-breakers drawn from it (None: plain p-values,
    which ties make conservative); `gamma` is the step of an adaptive alpha; `bank` are the scores of an earlier
    calibration, nats per token, that `async-marginal` tests against instead of pre-sampling its own."""

    alpha: float
    budget: int | None = None
    replace: bool = False
    tie_seed: int | None = None
    gamma: float = 0.1
    bank: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie strictly between 0 and 1, got {self.alpha!r}")
        if self.budget is not None and self.budget < 0:
            raise ValueError(f"budget must not be negative, got {self.budget!r}")
        if not (math.isfinite(self.gamma) and self.gamma > 0):
            raise ValueError(f"gamma must be positive, got {self.gamma!r}")


class Verdict(NamedTuple):
    """Whether the target takes over `chain`, and on what grounds: the p-value, the alpha that it was held against, the
    bank that it came from (as in `conformal.Decision`). None where the policy ranks instead of testing."""

    chain: ChainId
    ell: float
    taken_over: bool
    p_value: float | None = None
    alpha: float | None = None
    bank: str | None = None


class Due(NamedTuple):
    """What an event set free: verdicts on held segments, and chains that may start their next turn. `alarms` are those
    that the event made the policy's monitors raise."""

    verdicts: tuple[Verdict, ...] = ()
    starts: tuple[ChainId, ...] = ()
    alarms: tuple[Alarm, ...] = ()


class Policy:
    """A policy in which nobody waits and every segment stands; the others override what differs."""

    name: ClassVar[str]
    drafts: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    monitors: ClassVar[bool] = False
    order_free: ClassVar[bool] = True  # the same verdicts whatever finishes first
    pre_sample: PreSample = "none"
    hold_for_verdict: ClassVar[Cause] = "bank"
    hold_for_turn: ClassVar[Cause] = "barrier"

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        """Announce the run's size before anything else happens: most turns a chain, most questions in flight."""

    def scored(self, chain: ChainId, turn: int, ell: float, settled: Settled | None) -> Due:
        """`settled`: the verdict that an earlier session gave. A policy that would not come to the same one again,
        because it depends on what finished first, lets it stand."""
        return Due(verdicts=(Verdict(chain, ell, taken_over=False),))

    def turn_ended(self, chain: ChainId, turn: int) -> Due:
        return Due(starts=(chain,))

    def left(self, chain: ChainId) -> Due:
        return Due()


class TargetOnly(Policy):
    """The target writes every segment: the reference for accuracy and cost."""

    name = "target-only"
    drafts = scores = False


class DraftOnly(Policy):
    """The draft writes every segment, unguarded."""

    name = "draft-only"
    scores = False
