"""What the driver reads from a chain's text: whether an answer stands, which one, whether it is right, and cues."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict

from atts_runtime.chain import ChainState
from atts_runtime.config import RunConfig
from atts_runtime.control import Draft, Policy, TakeOver
from atts_runtime.engines.base import Generated
from atts_runtime.records import ChainRecord
from atts_runtime.tasks.base import Task


class Answering:
    """Reads texts by the rules of a task, as far as a policy asks. Comparisons that may take long leave the loop."""

    def __init__(self, config: RunConfig, task: Task, policy: Policy) -> None:
        self._task, self._asked = task, policy.asks_for_answers
        self._cue = _words(policy.gate.knobs.cues) if policy.gate.judges == "text" else None
        self._classes: dict[int, list[str]] = defaultdict(list)
        self._locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    def cue(self, text: str) -> bool | None:
        """Whether a segment holds one of the gate's cues; None where the gate has none."""
        return None if self._cue is None else self._cue.search(text) is not None

    def stands(self, command: Draft | TakeOver, chain: ChainState, result: Generated) -> bool:
        """Whether an answer stands. A takeover that goes on after a drafted answer withdraws it; one that replaced
        it has none to keep."""
        text = chain.text
        if isinstance(command, Draft):
            chain.draft_answered = self._found(text[chain.mark :], result)
            return chain.draft_answered
        withdrawn, chain.draft_answered = chain.draft_answered and not command.replace, False
        if not withdrawn:
            return self._found(text[chain.mark :], result)
        start = len(text) - len(result.piece.text)
        if self._found(text[start:], result) or result.piece.eos:
            return True
        chain.mark = len(text)
        return False

    def _found(self, text: str, last: Generated) -> bool:
        """Whether the text answers; a model that has ended it says no more."""
        if last.piece.eos:
            return self._task.extract(text) is not None
        return self._task.answered(text, len(last.piece.text))

    async def vote(self, question: int, chain: ChainState) -> str | None:
        """What the chain would vote for now: the first form in which its answer was seen, as in `Task.majority`. None
        where there is no answer, or the policy does not ask."""
        if not self._asked:
            return None
        answer = self._answer(chain.text, chain.mark)
        if answer is None:
            return None
        async with self._locks[question]:  # so that two new forms of one answer do not both become classes
            known = self._classes[question]
            if self._task.answers.slow:
                first = await asyncio.to_thread(self._first, known, answer)
            else:
                first = self._first(known, answer)
            if first is None:
                known.append(answer)
            return first or answer

    def _first(self, known: list[str], answer: str) -> str | None:
        return next((form for form in known if form == answer or self._task.same(form, answer)), None)

    async def graded(self, record: ChainRecord, mark: int) -> tuple[str | None, bool | None]:
        """A chain's answer, and whether it is right (None: unknown)."""
        answer, truth = self._answer(record.text, mark), self._task.questions[record.question].answer
        if self._task.answers.slow:
            return answer, await asyncio.to_thread(self._task.is_correct, answer, truth)
        return answer, self._task.is_correct(answer, truth)

    def _answer(self, text: str, mark: int) -> str | None:
        return self._task.extract(text[mark:]) or self._task.extract(text)


def _words(cues: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words, whole, in either case."""
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, cues))})\b", re.IGNORECASE)
