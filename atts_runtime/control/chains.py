"""A chain as the controller sees it, and the size of the work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from atts_runtime.control.commands import Reason
from atts_runtime.control.events import Drafted, Settled, TakenOver

Stage = Literal["waiting", "drafting", "scoring", "held", "taking over", "grading", "over"]
"""Where a chain is; see the table of `controller`."""


class ProtocolError(RuntimeError):
    """The driver broke the protocol: an event for a call that is not open, or of the wrong kind."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Size of the work: `turns` a chain, tokens a segment and a takeover, questions in flight (None: all)."""

    turns: int
    draft_tokens: int
    takeover_tokens: int
    questions_in_flight: int | None = None

    def __post_init__(self) -> None:
        for name in ("turns", "draft_tokens", "takeover_tokens", "questions_in_flight"):
            value = getattr(self, name)
            unlimited = value is None and name == "questions_in_flight"
            if not unlimited and (value is None or value < 1):
                raise ValueError(f"{name} must be at least 1, got {value}")


class Attempt(NamedTuple):
    """What a draft of this turn left: as in `Drafted`, and its score."""

    answered: bool
    ended: bool
    answer: str | None
    ell: float | None


@dataclass(slots=True)
class ChainState:
    """`answered`, `ended`, `answer`: of the text as it stands; `ell`: of its last piece, None where the target has not
    scored it; `tries`: the attempts of this turn; `call`: the last one made for it, `promised`: the tokens it might
    write; `reason`: why the chain is over."""

    stage: Stage = "waiting"
    turn: int = 0
    attempt: int = 0
    answered: bool = False
    ended: bool = False
    answer: str | None = None
    ell: float | None = None
    cue: bool = False
    settled: Settled | None = None
    call: int = -1
    promised: int = 0
    reason: Reason = "turns"
    tries: list[Attempt] = field(default_factory=list)

    def wrote(self, event: Drafted | TakenOver) -> None:
        """A new piece."""
        self.answered, self.ended, self.answer = event.answered, event.ended, event.answer
        self.ell = None

    def keep(self, attempt: int) -> None:
        """Go back to an attempt of this turn."""
        self.answered, self.ended, self.answer, self.ell = self.tries[attempt]

    def copied(self) -> None:
        """Its text is now that of a chain that goes on."""
        self.answered, self.ended, self.answer, self.ell = False, False, None, None
