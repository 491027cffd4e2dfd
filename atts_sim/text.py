"""A chain's text in a simulation: how many tokens it has for each engine."""

from __future__ import annotations

from collections.abc import Iterable

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


class Text:
    """A chain's text, by engine. `eos`: it ends with an end of text; `hold`: why its chain waits, and since when."""

    __slots__ = ("eos", "hold", "sides")

    def __init__(self, prompts: Iterable[int]) -> None:
        self.sides = [Side(prompt) for prompt in prompts]
        self.eos = False
        self.hold: tuple[Cause, float] | None = None

    def seen(self, at: int) -> int:
        """How many leading tokens the engine's KV can still be of; the engine sees the text as it is now."""
        side = self.sides[at]
        stable, side.stable = side.stable, _ALL
        return stable

    def add(self, written: Written, at: int) -> None:
        """A piece that the engine of this place has written."""
        self.eos = written.eos
        kept = written.tokens - written.eos
        elsewhere = kept if written.elsewhere is None else written.elsewhere
        for place, side in enumerate(self.sides):
            side.piece = piece = kept if place == at else elsewhere
            side.full += piece

    def withdraw(self) -> None:
        """The last piece is to be replaced."""
        for side in self.sides:
            side.full -= side.piece
            side.stable = min(side.stable, side.full)
