"""Schedules: when a chain whose turn ended may start the next one."""

from __future__ import annotations

from typing import ClassVar

from atts_runtime.control.events import ChainId

NOBODY: tuple[ChainId, ...] = ()


class Schedule:
    """Nobody waits for anybody; the others override what differs. Answers are the chains that may start now."""

    name: ClassVar[str] = "free"
    about: ClassVar[str] = "a chain goes on at once"
    together: ClassVar[bool] = False  # chains of a question are always in the same turn

    def expect(self, questions: int, chains: int) -> None:
        """Announce the run's size before anything else happens."""

    def turn_ended(self, chain: ChainId) -> tuple[ChainId, ...]:
        """The chain's turn ended, and the chain is not over."""
        return (chain,)

    def left(self, chain: ChainId) -> tuple[ChainId, ...]:
        """The chain is over."""
        return NOBODY


class Barrier(Schedule):
    """No chain of a question starts a turn before all of them have ended the one before."""

    name = "barrier"
    about = "the chains of a question start their turns together"
    together = True

    def expect(self, questions: int, chains: int) -> None:
        self._live = [{ChainId(q, i) for i in range(chains)} for q in range(questions)]
        self._ended: list[set[ChainId]] = [set() for _ in range(questions)]

    def turn_ended(self, chain: ChainId) -> tuple[ChainId, ...]:
        self._ended[chain.question].add(chain)
        return self._due(chain.question)

    def left(self, chain: ChainId) -> tuple[ChainId, ...]:
        self._live[chain.question].discard(chain)
        self._ended[chain.question].discard(chain)
        return self._due(chain.question)

    def _due(self, question: int) -> tuple[ChainId, ...]:
        ended = self._ended[question]
        if not ended or ended != self._live[question]:
            return NOBODY
        self._ended[question] = set()
        return tuple(sorted(ended))
