"""Chains as the driver sees them: text, where an answer counts from, waits, records; and how far all of them are."""

from __future__ import annotations

from dataclasses import dataclass, field

from atts_runtime.control import Call, Draft, Drafted, Event, Failed, Score, Scored, Settled, TakenOver, TakeOver
from atts_runtime.engines.base import Piece
from atts_runtime.records import ChainRecord, HoldRecord, Kind

KINDS: dict[type[Call], tuple[Kind, str]] = {
    Draft: ("draft", "draft"),
    Score: ("score", "target"),
    TakeOver: ("takeover", "target"),
}
"""Each command's kind in the records, and the role of the engine that carries it out."""


@dataclass(slots=True)
class ChainState:
    """A chain under way. Answers count from `mark` on: a takeover may have withdrawn those before it.

    `replay` is the record of a chain that an earlier session finished; its commands are answered from there.
    """

    record: ChainRecord
    prompt: str
    pieces: list[Piece] = field(default_factory=list)
    mark: int = 0
    draft_answered: bool = False
    hold: tuple[str, float] | None = None
    replay: ChainRecord | None = None

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "".join(piece.text for piece in self.pieces)

    def end_hold(self, now_s: float) -> HoldRecord | None:
        """Close the wait that is open, if any, and record it."""
        if self.hold is None:
            return None
        cause, start = self.hold
        self.hold = None
        self.record.holds_s.append(HoldRecord(cause, start, now_s))
        return self.record.holds_s[-1]


def replayed(command: Call, record: ChainRecord) -> Event:
    """The event that a finished chain's command had; raises RuntimeError where the record lacks it."""
    kind, _ = KINDS[type(command)]
    call = record.call(command.turn, kind)
    if call is None:
        raise RuntimeError(f"chain {record.chain} has no recorded {kind} in turn {command.turn}")
    if record.reason == "failed" and call is record.calls[-1]:
        return Failed(command.call, record.detail or "failed")
    if isinstance(command, Score):
        assert call.ell is not None
        settled = None if call.taken_over is None else Settled(call.taken_over, call.p_value, call.alpha, call.bank)
        return Scored(command.call, call.ell, settled)
    outcome = Drafted if isinstance(command, Draft) else TakenOver
    return outcome(command.call, answered=bool(call.answered), ended=bool(call.ended))


@dataclass(slots=True)
class Progress:
    """How far a run is; `stall_s` counts barrier and bank waits that have ended."""

    chains: int
    chains_done: int = 0
    decisions: int = 0
    takeovers: int = 0
    stall_s: float = 0.0
