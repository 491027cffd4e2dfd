"""A task: questions with known answers, and the rule that finds and compares answers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.tasks.answers import Answers
from atts_runtime.tasks.find import MAX_CHARS

__all__ = ["Question", "Source", "Task"]

_REACH = 2 * MAX_CHARS


@dataclass(frozen=True, slots=True)
class Question:
    """One question as the models see it, with the answer that they do not see.

    ``id`` is unique within its task and stable between runs; ``prompt`` is the whole text put before a chain, with its
    system message where it is a :class:`~atts_runtime.prompt.Prompt`. ``order`` is None but for multiple choice: the
    letters of the options as the data lists them, in the order shown (``CADB``: shown first is the data's third).
    """

    id: str
    prompt: str
    answer: str
    order: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where a task's questions came from: ``kind`` (bundled, jsonl, hub), a ``spec`` that names the same data again,
    and what else tells which data they were (a file's SHA-256; a data set's path, configuration, split, revision)."""

    kind: str
    spec: str
    details: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """Questions, the answer rule, and the text that closes a segment.

    ``segment_stop`` is None where segments end by their token count alone. ``fingerprint`` is a SHA-256 in
    hexadecimal over ids, prompts and answers in order: a run directory keeps it, so that a resume with other
    data is refused.

    Raises :class:`InputError` when there are no questions or two of them share an id.
    """

    name: str
    questions: tuple[Question, ...]
    segment_stop: str | None
    answers: Answers = field(repr=False, compare=False)
    source: Source | None = None
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.questions:
            raise InputError(f"task {self.name} has no questions; give it at least one")
        id_, count = Counter(question.id for question in self.questions).most_common(1)[0]
        if count > 1:
            raise InputError(f"task {self.name} has {count} questions with the id {id_!r}; make the ids unique")
        object.__setattr__(self, "fingerprint", _fingerprint(self.questions))

    def told(self) -> dict[str, Any]:
        """What a run keeps about it."""
        orders = {question.id: question.order for question in self.questions if question.order is not None}
        source = {} if self.source is None else {"source": self.source.kind, **self.source.details}
        return {"name": self.name, **source, "fingerprint": self.fingerprint} | ({"orders": orders} if orders else {})

    def answered(self, text: str, new: int) -> bool:
        """Whether a chain that may go on writing has given its answer with the last ``new`` characters of its text.

        Costs what these and the `_REACH` before them cost, however long the text is. A box that was opened further
        back is none: nobody compares an answer of that length.
        """
        return self.answers.answered(text[-(new + _REACH) :])

    def extract(self, text: str) -> str | None:
        """The last answer found in a chain's whole text, or None where there is none."""
        return self.answers.extract(text)

    def is_correct(self, found: str | None, answer: str) -> bool | None:
        """Whether the answer found in a chain matches the question's; no answer is never correct. None: unknown."""
        return found is not None and self.answers.matches(found, answer)

    def same(self, a: str, b: str) -> bool | None:
        """Whether two found answers mean the same; symmetric. None: unknown."""
        return self.answers.same(a, b)

    def majority(self, found: Sequence[str | None]) -> str | None:
        """The most frequent answer up to :meth:`same`, in the form first seen; ties go to the class seen first.

        Chains without an answer do not vote, and answers that cannot be compared vote apart. None only when no chain
        has an answer.
        """
        counts = Counter(answer for answer in self.classes(found) if answer is not None)
        return max(counts, key=counts.__getitem__, default=None)

    def classes(self, found: Sequence[str | None]) -> list[str | None]:
        """Each answer in the form in which :meth:`same` first saw it. It need not be transitive (it rounds), so every
        answer joins the first class that accepts it. A check costs at most one call a pair of different strings."""
        seen: list[str] = []
        first: dict[str, str] = {}
        for answer in dict.fromkeys(answer for answer in found if answer is not None):
            known = next((form for form in seen if self.same(form, answer)), None)
            if known is None:
                seen.append(answer)
            first[answer] = known or answer
        return [None if answer is None else first[answer] for answer in found]


def _fingerprint(questions: Iterable[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        # JSON marks where each field ends, so text cannot move from one field to the next unnoticed.
        digest.update(json.dumps([question.id, question.prompt, question.answer]).encode() + b"\n")
    return digest.hexdigest()
