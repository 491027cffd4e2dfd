"""Replay: a recorded run, ours or published, as the workload of a simulation.

A chain's recorded segments answer its calls, turn by turn, and it ends in the turn in which it ended. A policy may ask
for what was not recorded, such as a takeover where none was. Then `unrecorded` decides: ``raise``, or ``nearest``: the
takeover is as long as that of the same question which is nearest in turns (then in chains), and where the question has
none as the recording's median one; what it would have changed in later turns stays unsaid. `follow_record` makes the
policy that never asks for it. Published traces are read by `published`.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from atts_runtime.control import ChainId, Draft, Due, Fork, Gate, Grade, Keep, Knobs, Policy, Score, Segment, TakeOver
from atts_runtime.control.actions import Continue
from atts_runtime.errors import InputError
from atts_runtime.records import CallRecord, ChainRecord
from atts_sim.remembering import KnownTexts
from atts_sim.workload import Written

Unrecorded = Literal["raise", "nearest"]


@dataclass(slots=True)
class RecordedChain:
    """What a chain did, by turn; None where there was no such call. `again`, `ells_again`: further drafts of a turn and
    their scores, by turn and attempt; `grade`: the score of what it votes with; `answer`, `correct`: None where that is
    not known.
    """

    drafts: list[Written | None] = field(default_factory=list)
    ells: list[float | None] = field(default_factory=list)
    takeovers: list[Written | None] = field(default_factory=list)
    again: dict[tuple[int, int], Written] = field(default_factory=dict)
    ells_again: dict[tuple[int, int], float] = field(default_factory=dict)
    grade: float | None = None
    answer: str | None = None
    duration_s: float | None = None
    correct: bool | None = None

    @property
    def turns(self) -> int:
        return len(self.drafts)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's length in tokens of either model."""

    draft: int
    target: int


class Recorded:
    """A `Workload` made of recorded chains. `texts`: what its engines knew by text (None: not known).

    Raises InputError where questions have different numbers of chains, or a call was not recorded (see above).
    """

    def __init__(
        self,
        prompts: list[Prompt],
        chains: dict[ChainId, RecordedChain],
        *,
        unrecorded: Unrecorded = "raise",
        texts: KnownTexts | None = None,
    ) -> None:
        self.prompts, self.recorded, self.unrecorded, self.texts = prompts, chains, unrecorded, texts
        self.chains = len(chains) // len(prompts) if prompts else 0
        if not chains or {ChainId(q, i) for q in range(len(prompts)) for i in range(self.chains)} != chains.keys():
            raise InputError("a recording needs the same number of chains of every question; some are missing")
        lengths = [w.tokens for chain in chains.values() for w in chain.takeovers if w is not None]
        self._median = Written(round(statistics.median(lengths))) if lengths else None

    @property
    def questions(self) -> int:
        return len(self.prompts)

    @property
    def turns(self) -> int:
        """The most that a chain had."""
        return max(chain.turns for chain in self.recorded.values())

    def prompt_tokens(self, question: int, role: str) -> int:
        prompt = self.prompts[question]
        return prompt.draft if role == "draft" else prompt.target

    def written(self, command: Draft | TakeOver) -> Written:
        chain = self.recorded[command.chain]
        if isinstance(command, Draft) and command.attempt:
            again = chain.again.get((command.turn, command.attempt))
            if again is None:
                raise self._missing(f"draft {command.attempt + 1}", command)
            return again
        if command.turn < chain.turns:
            by_turn = chain.drafts if isinstance(command, Draft) else chain.takeovers
            written = by_turn[command.turn]
            if written is not None:
                return written
            if isinstance(command, TakeOver) and self.unrecorded == "nearest":
                return self._nearest(command.chain, command.turn)
        raise self._missing("draft" if isinstance(command, Draft) else "takeover", command)

    def ell(self, command: Score) -> float:
        chain = self.recorded[command.chain]
        if command.attempt:
            ell = chain.ells_again.get((command.turn, command.attempt))
        else:
            ell = chain.ells[command.turn] if command.turn < len(chain.ells) else None
        if ell is None:
            raise self._missing("score", command)
        return ell

    def grade(self, command: Grade) -> float:
        found = self.recorded[command.chain].grade
        if found is None:
            raise self._missing("grade", command)
        return found

    def keep(self, command: Keep) -> None:
        """What follows is on record."""

    def fork(self, command: Fork) -> None:
        """What follows is on record."""

    def correct(self, chain: ChainId) -> bool | None:
        return self.recorded[chain].correct

    def taken_over(self, chain: ChainId, turn: int) -> bool:
        """Whether the recording has a takeover there."""
        return self.recorded[chain].takeovers[turn] is not None

    def part(self, questions: Iterable[int]) -> Recorded:
        """The recording of some questions, renumbered from 0 in the order given."""
        chosen = list(questions)
        chains = {
            ChainId(new, i): self.recorded[ChainId(old, i)]
            for new, old in enumerate(chosen)
            for i in range(self.chains)
        }
        return Recorded([self.prompts[q] for q in chosen], chains, unrecorded=self.unrecorded)

    def _nearest(self, chain: ChainId, turn: int) -> Written:
        """A stand-in for a takeover; it ends the chain where the recorded chain ends."""
        own = [
            (abs(t - turn), abs(i - chain.index), i, written)
            for i in range(self.chains)
            for t, written in enumerate(self.recorded[ChainId(chain.question, i)].takeovers)
            if written is not None
        ]
        found = min(own, key=lambda entry: entry[:3])[3] if own else self._median
        if found is None:
            raise InputError("the recording has no takeover at all, so none can stand in for one that it lacks")
        last = self.recorded[chain].drafts[turn]
        if turn + 1 < self.recorded[chain].turns or last is None:
            return Written(found.tokens)
        return Written(found.tokens, answered=last.answered, ended=last.ended)

    def _missing(self, what: str, command: Draft | TakeOver | Score | Grade) -> InputError:
        more = "; let the nearest one stand in with unrecorded='nearest'" if what == "takeover" else ""
        return InputError(f"the recording has no {what} of chain {command.chain} in turn {command.turn}{more}")


class FollowRecord(Gate):
    """The recorded verdicts, whatever the scores say; nobody waits for anybody."""

    name: ClassVar[str] = "recorded"
    about: ClassVar[str] = "what was recorded"

    def __init__(self, recorded: Recorded) -> None:
        super().__init__(Knobs(0.5))  # alpha has no say here
        self._recorded = recorded

    def judge(self, segment: Segment) -> Due:
        return segment.verdict(self._recorded.taken_over(segment.chain, segment.turn))


def follow_record(recorded: Recorded) -> Policy:
    """The policy that asks for what was recorded: takeovers go on after the segment."""
    gate = FollowRecord(recorded)
    return Policy(gate.name, gate, Continue(gate.knobs))


# -- our own runs


def read_run(path: Path, *, unrecorded: Unrecorded = "raise") -> Recorded:
    """A run directory of ours. Raises InputError where it cannot be read, or chains are missing or failed."""
    from atts_runtime.config import RunConfig, read_options
    from atts_runtime.rundir import read_chains

    config = RunConfig().with_options(read_options(path / "config.toml"))
    lines = path / "chains.jsonl"
    try:
        data = lines.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {lines}: {error.strerror or error}") from error
    records = read_chains(lines, data)
    if not records:
        raise InputError(f"{path} has no chain that is over, so there is nothing to replay; resume the run")
    failed = sum(record.reason == "failed" for record in records)
    if failed:
        raise InputError(f"{path} has {failed} failed chains, which cannot be replayed; resume or repeat the run")
    return from_records(records, replaces=config.recipe.action.replace, unrecorded=unrecorded, where=str(path))


def from_records(
    records: Collection[ChainRecord], *, replaces: bool, unrecorded: Unrecorded = "raise", where: str = "the run"
) -> Recorded:
    """Finished chains; `replaces`: their takeovers replaced the segment. Raises InputError, which begins with `where`,
    of chains that were stopped."""
    if stopped := sum(record.reason == "stopped" for record in records):
        raise InputError(
            f"{where} has {stopped} stopped chains: what they would have written is not on record; give a run "
            "without early stops"
        )
    chains: dict[ChainId, RecordedChain] = {}
    prompts: dict[int, Prompt] = {}
    for record in records:
        chains[record.chain] = _own_chain(record, replaces)
        lengths = {call.engine: _context(call) for call in reversed(record.calls) if call.turn == 0}
        known = lengths.get("draft") or lengths.get("target") or 1
        prompts[record.question] = Prompt(lengths.get("draft") or known, lengths.get("target") or known)
    if sorted(prompts) != list(range(len(prompts))):
        raise InputError(f"{where}: a recording needs the same number of chains of every question; some are missing")
    texts = KnownTexts.of(records)
    return Recorded([prompts[q] for q in range(len(prompts))], chains, unrecorded=unrecorded, texts=texts)


def _context(call: CallRecord) -> int:
    return (call.tokens_cached or 0) + call.tokens_prefilled


def _own_chain(record: ChainRecord, replaces: bool) -> RecordedChain:
    recorded = RecordedChain(answer=record.answer, correct=record.correct)
    for turn in range(record.turns):
        draft, score, takeover = (record.call(turn, kind) for kind in ("draft", "score", "takeover"))
        after = record.call(turn + 1, "draft")
        wrote = None if draft is None else _drafted(draft, score)
        recorded.drafts.append(wrote)
        recorded.ells.append(None if score is None else score.ell)
        elsewhere = None
        if takeover is not None and wrote is not None and draft is not None and after is not None:
            elsewhere = _context(after) - _context(draft) - (0 if replaces else wrote.kept)
        recorded.takeovers.append(None if takeover is None else _piece(takeover, elsewhere))
    for call in record.calls:
        if call.kind == "draft" and call.attempt:
            score = record.call(call.turn, "score", call.attempt)
            recorded.again[call.turn, call.attempt] = _drafted(call, score)
            if score is not None and score.ell is not None:
                recorded.ells_again[call.turn, call.attempt] = score.ell
        elif call.kind == "grade":
            recorded.grade = call.ell
    _give_answer(recorded)
    return recorded


def _give_answer(recorded: RecordedChain) -> None:
    """Let the last piece say what the chain's answer is, where the run did not ask for it while it ran."""
    if recorded.answer is None or not recorded.drafts:
        return
    pieces = recorded.drafts if recorded.takeovers[-1] is None else recorded.takeovers
    if (last := pieces[-1]) is not None and last.answer is None:
        pieces[-1] = replace(last, answer=recorded.answer)


def _drafted(draft: CallRecord, score: CallRecord | None) -> Written:
    eos = bool(draft.ended) and draft.tokens_new > 0
    return _piece(draft, None if score is None else max(0, score.tokens_new - eos))


def _piece(call: CallRecord, elsewhere: int | None) -> Written:
    """An ended piece ended with an end of text: that the context was full is not on record."""
    ended = bool(call.ended)
    return Written(
        max(1, call.tokens_new),
        bool(call.answered),
        ended,
        eos=ended,
        elsewhere=elsewhere,
        answer=call.answer,
        cue=call.cue,
    )
