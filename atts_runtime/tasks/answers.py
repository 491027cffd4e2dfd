r"""Rules by which a task finds answers in text and compares them: exact, mathematical, multiple choice.

Each tells three things apart. ``answered`` is asked after every segment: has the chain given its answer, whatever it
writes next? A number on the way must not be one, so only a complete box or a finished ``ANSWER:`` line counts.
``extract`` reads a text that is whole and takes more for an answer. ``matches`` and ``same`` compare; None is unknown:
a check that failed or ran out of time says nothing about the answer, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from atts_runtime.tasks.find import MAX_CHARS, announced, boxed, labelled, labelled_letter, last_number, letter
from atts_runtime.tasks.mathpool import LIMIT_S, WORKERS, MathPool
from atts_runtime.tasks.normal import canonical, verdict

__all__ = ["Answers", "ChoiceAnswers", "ExactAnswers", "MathAnswers"]

_CACHED_CHECKS = 1 << 14


class Answers(Protocol):
    """How a task finds answers in text and compares them."""

    slow: bool
    """Whether comparing may block for seconds, so that an event loop should leave it to a thread."""

    @property
    def unknown(self) -> int:
        """How many different comparisons came out unknown so far."""

    def answered(self, text: str) -> bool:
        """Whether a text under way has given its answer; :meth:`extract` then finds one."""

    def extract(self, text: str) -> str | None:
        """The last answer in a whole text, stripped, or None."""

    def matches(self, found: str, answer: str) -> bool | None:
        """Whether a found answer is the known right one; None: unknown."""

    def same(self, a: str, b: str) -> bool | None:
        """Whether two found answers mean the same; symmetric; None: unknown."""


class ExactAnswers:
    """The bundled task's rule: a boxed answer, equal as an integer or else in its spelling."""

    slow = False
    unknown = 0

    def answered(self, text: str) -> bool:
        """Whether there is a box."""
        return boxed(text) is not None

    def extract(self, text: str) -> str | None:
        """The content of the last box, stripped."""
        found = boxed(text)
        return None if found is None else found.strip()

    def matches(self, found: str, answer: str) -> bool:
        """Equality, as in :meth:`same`."""
        return self.same(found, answer)

    def same(self, a: str, b: str) -> bool:
        """Whether both are the same integer (``07`` is ``7``) or spelled alike, as LaTeX reads it."""
        return canonical(a) == canonical(b)


class MathAnswers:
    """The rule for free text, equal when math-verify says so.

    Answers that are spelled alike and plain rational numbers are settled here; everything else is one question to
    the pool, at most ``limit_s`` seconds each and remembered, also when it failed. Safe to call from any thread; a call
    may block for ``limit_s`` and the wait for a worker. ``last_number``: a whole text without any other answer
    answers by its last number.
    """

    slow = True

    def __init__(self, limit_s: float = LIMIT_S, workers: int = WORKERS, *, last_number: bool = False) -> None:
        self._pool = MathPool(limit_s, workers)
        self._ask = lru_cache(maxsize=_CACHED_CHECKS)(self._checked)
        self._unknown = 0
        self._readers: tuple[Callable[[str], str | None], ...] = (
            boxed,
            announced,
            lambda text: labelled(text, whole=True),
            *((_number,) if last_number else ()),
        )

    @property
    def unknown(self) -> int:
        return self._unknown

    def answered(self, text: str) -> bool:
        """Whether there is a box or a finished line ``ANSWER: X``."""
        return boxed(text) is not None or labelled(text, whole=False) is not None

    def extract(self, text: str) -> str | None:
        """The last box's content; without one, what "the answer is" announces or an ``ANSWER:`` line says."""
        found = (read(text) for read in self._readers)
        return next((answer.strip() for answer in found if answer is not None), None)

    def matches(self, found: str, answer: str) -> bool | None:
        """Whether math-verify accepts ``found`` where ``answer`` is the reference (it treats the two unalike)."""
        return self._equal(answer, found)

    def same(self, a: str, b: str) -> bool | None:
        """Whether math-verify accepts either one as the other; unknown where neither is accepted and one is unknown."""
        low, high = sorted((a, b))  # one cache entry for both orders
        forth = self._equal(low, high)
        if forth:
            return True
        back = self._equal(high, low)
        return True if back else None if forth is None or back is None else False

    def close(self) -> None:
        """End the pool's processes; a later check starts them again. Called by itself when the object goes away."""
        self._pool.close()

    def _equal(self, reference: str, found: str) -> bool | None:
        reference, found = canonical(reference), canonical(found)
        settled = verdict(reference, found)
        return self._ask(reference, found) if settled is None else settled

    def _checked(self, reference: str, found: str) -> bool | None:
        equal = None if max(len(reference), len(found)) > MAX_CHARS else self._pool.ask(reference, found)
        self._unknown += equal is None
        return equal


class ChoiceAnswers:
    """The rule for multiple choice: the option's letter, boxed or on an ``ANSWER:`` line."""

    slow = False
    unknown = 0

    def answered(self, text: str) -> bool:
        """Whether there is a box or a finished line ``ANSWER: X`` with a letter."""
        return boxed(text) is not None or labelled_letter(text, whole=False) is not None

    def extract(self, text: str) -> str | None:
        """The letter in the last box, or what else it holds, which is then no option; without one, the label's."""
        found = boxed(text)
        if found is not None:
            return letter(found) or found.strip()
        return labelled_letter(text, whole=True)

    def matches(self, found: str, answer: str) -> bool:
        """Equality, as in :meth:`same`."""
        return self.same(found, answer)

    def same(self, a: str, b: str) -> bool:
        """Whether both name the same option."""
        return (letter(a) or a) == (letter(b) or b)


def _number(text: str) -> str | None:
    found = last_number(text)
    return None if found is None else found.replace(",", "")
