"""A chain's text in a simulation: how many tokens it has for each engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from atts_runtime.control.commands import Cause
from atts_sim.workload import Written

_ALL = 1 << 62


class Side:
    """The text in tokens of one engine's model: the prompt's, all, the last piece's; and how many leading ones the
    engine's KV can still be of, as far as it has seen the text."""

    __slots__ = ("full", "piece", "prompt", "stable")

    def __init__(self, prompt: int) -> None:
        self.prompt = self.full = prompt
        self.piece = 0
        self.stable = _ALL


class _Written(NamedTuple):
    """What a text came to with a piece of `turn`: its tokens and the piece's, by engine."""

    turn: int
    full: tuple[int, ...]
    piece: tuple[int, ...]
    eos: bool
    answer: str | None


class Text:
    """A chain's text, by engine. `eos`: it ends with an end of text; `answer`: what its last piece answers (None: it
    does not, or that is not known); `hold`: why its chain waits, and since when."""

    __slots__ = ("_written", "answer", "eos", "hold", "sides")

    def __init__(self, prompts: Iterable[int]) -> None:
        self.sides = [Side(prompt) for prompt in prompts]
        self.eos = False
        self.answer: str | None = None
        self.hold: tuple[Cause, float] | None = None
        self._written: list[_Written] = []

    def seen(self, at: int) -> int:
        """How many leading tokens the engine's KV can still be of; the engine sees the text as it is now."""
        side = self.sides[at]
        stable, side.stable = side.stable, _ALL
        return stable

    def add(self, written: Written, at: int, turn: int | None = None) -> None:
        """A piece that the engine of this place has written; `turn`: remember it, for `keep` and `copy`."""
        self.eos, self.answer = written.eos, written.answer
        kept = written.tokens - written.eos
        elsewhere = kept if written.elsewhere is None else written.elsewhere
        for place, side in enumerate(self.sides):
            side.piece = piece = kept if place == at else elsewhere
            side.full += piece
        if turn is not None:
            self._remember(turn)

    def withdraw(self) -> None:
        """The last piece is to be replaced."""
        for side in self.sides:
            side.full -= side.piece
            side.stable = min(side.stable, side.full)

    def keep(self, attempt: int) -> None:
        """Put an earlier attempt of the turn in the last one's place."""
        turn = self._written[-1].turn
        kept = [written for written in self._written if written.turn == turn][attempt]
        self.withdraw()
        self.eos, self.answer = kept.eos, kept.answer
        for side, piece in zip(self.sides, kept.piece, strict=True):
            side.piece = piece
            side.full += piece
        self._remember(turn)

    def copy(self, source: Text, turn: int, upto: int) -> None:
        """Put what `source` wrote in its first `upto` turns in place of the text, as if written by `turn`."""
        last = [written for written in source._written if written.turn < upto][-1]
        self.eos, self.answer = last.eos, last.answer
        for side, full, piece in zip(self.sides, last.full, last.piece, strict=True):
            side.full, side.piece = full, piece
            side.stable = min(side.stable, side.prompt)
        self._remember(turn)

    def _remember(self, turn: int) -> None:
        full, piece = (tuple(getattr(side, name) for side in self.sides) for name in ("full", "piece"))
        self._written.append(_Written(turn, full, piece, self.eos, self.answer))
