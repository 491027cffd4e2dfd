"""Chains as the driver sees them: text, where an answer counts from, waits, records; and how far all of them are."""

from __future__ import annotations

from dataclasses import dataclass, field

from atts_runtime.control import (
    Call,
    Draft,
    Drafted,
    Event,
    Failed,
    Grade,
    Graded,
    Score,
    Scored,
    Settled,
    Stopped,
    TakenOver,
    TakeOver,
)
from atts_runtime.engines.base import Piece
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord, Kind

KINDS: dict[type[Call], tuple[Kind, str]] = {
    Draft: ("draft", "draft"),
    Score: ("score", "target"),
    TakeOver: ("takeover", "target"),
    Grade: ("grade", "target"),
}
"""Each command's kind in the records, and the role of the engine that carries it out."""


@dataclass(slots=True)
class ChainState:
    """A chain under way. Answers count from `mark` on: a takeover may have withdrawn those before it.

    `turns`: the turn in which each piece was written; `drafts`: the attempts of the turn under way. `replay` is the
    record of a chain that an earlier session finished; its commands are answered from there.
    """

    record: ChainRecord
    prompt: str
    pieces: list[Piece] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    drafts: list[Piece] = field(default_factory=list)
    mark: int = 0
    draft_answered: bool = False
    hold: tuple[str, float] | None = None
    replay: ChainRecord | None = None

    @property
    def text(self) -> str:
        """Everything written so far."""
        return "".join(piece.text for piece in self.pieces)

    def add(self, piece: Piece, turn: int, *, replaces: bool) -> None:
        """A new piece: after the last one, or in its place."""
        if replaces:
            del self.pieces[-1:], self.turns[-1:]
        self.pieces.append(piece)
        self.turns.append(turn)

    def keep(self, attempt: int) -> None:
        """Put an earlier attempt of the turn in the last one's place."""
        self.pieces[-1] = self.drafts[attempt]

    def copy(self, source: ChainState, turn: int, upto: int) -> None:
        """Put what `source` wrote in its first `upto` turns in place of the text, as if written by `turn`."""
        kept = sum(written < upto for written in source.turns)
        self.pieces, self.turns = source.pieces[:kept], [turn] * kept
        self.mark, self.draft_answered = min(source.mark, len(self.text)), False

    def end_hold(self, now_s: float) -> HoldRecord | None:
        """Close the wait that is open, if any, and record it."""
        if self.hold is None:
            return None
        cause, start = self.hold
        self.hold = None
        self.record.holds_s.append(HoldRecord(cause, start, now_s))
        return self.record.holds_s[-1]


def attempt_of(command: Call) -> int:
    """Which of its turn's drafts it is or scores; 0 for the target's own work."""
    return command.attempt if isinstance(command, Draft | Score) else 0


def replayed(command: Call, record: ChainRecord) -> Event:
    """The event that a finished chain's command had; raises RuntimeError where the record lacks it."""
    kind, _ = KINDS[type(command)]
    call = record.call(command.turn, kind, attempt_of(command))
    if record.reason == "stopped" and (call is None or call.dropped):
        return Stopped(command.call, record.detail or "stopped")
    if call is None:
        raise RuntimeError(f"chain {record.chain} has no recorded {kind} in turn {command.turn}")
    if record.reason == "failed" and call is record.calls[-1]:
        return Failed(command.call, record.detail or "failed")
    if isinstance(command, Grade):
        assert call.ell is not None
        return Graded(command.call, call.ell)
    if isinstance(command, Score):
        assert call.ell is not None
        return Scored(command.call, call.ell, _settled(call))
    answered, ended = bool(call.answered), bool(call.ended)
    if isinstance(command, Draft):
        return Drafted(command.call, answered, ended, call.answer, call.tokens_new, bool(call.cue))
    return TakenOver(command.call, answered, ended, call.answer, call.tokens_new)


def _settled(call: CallRecord) -> Settled | None:
    if call.rejected is None:
        return None
    return Settled(call.rejected, call.p_value, call.alpha, call.bank, call.forked_from, call.forked_upto)


@dataclass(slots=True)
class Progress:
    """How far a run is; `stall_s` counts barrier and bank waits that have ended."""

    chains: int
    chains_done: int = 0
    decisions: int = 0
    takeovers: int = 0
    stall_s: float = 0.0
