"""Which questions are in flight, and the chains that wait for theirs to be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from atts_runtime.control.commands import Command
from atts_runtime.control.events import ChainId

GoOn = Callable[[ChainId, list[Command]], None]


class Admission:
    """Admits questions in order, `limit` at a time (None: all at once). `alive`: chains not over, by question."""

    def __init__(self, questions: int, chains: int, limit: int | None) -> None:
        self.alive = dict.fromkeys(range(questions), chains)
        self.admitted: set[int] = set()
        self._limit = limit
        self._to_come = deque(range(questions))
        self._queue: deque[int] = deque()
        self._parked: dict[int, list[tuple[ChainId, GoOn]]] = {q: [] for q in range(questions)}

    def to_come(self) -> int:
        """Questions that have not arrived."""
        return len(self._to_come)

    def arrive(self) -> int:
        """The next question is there."""
        question = self._to_come.popleft()
        self._queue.append(question)
        return question

    def park(self, chain: ChainId, go_on: GoOn) -> None:
        """Let the chain `go_on` when its question is admitted."""
        self._parked[chain.question].append((chain, go_on))

    @property
    def room(self) -> bool:
        """Whether a question waits that may be admitted."""
        return bool(self._queue) and (self._limit is None or len(self.admitted) < self._limit)

    def next(self) -> int | None:
        """Admit the next question with chains that are alive, if there is room for one."""
        while self.room:
            question = self._queue.popleft()
            if self.alive[question]:
                self.admitted.add(question)
                return question
        return None

    def released(self, question: int) -> list[tuple[ChainId, GoOn]]:
        """Who waited for the question."""
        return self._parked.pop(question)

    def left(self, question: int) -> int:
        """One of its chains is over; returns how many are not."""
        self.alive[question] -= 1
        if not self.alive[question]:
            self.admitted.discard(question)
        return self.alive[question]
