"""Fitting the generative workload to recordings: states of chains by the hidden Markov model of `error_fit`, drawn once
from what it says of each segment; by state, scores (`score_fit`) and stops (`stop_fit`); lengths as recorded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_sim.error_fit import Outcome, Step, fit_errors
from atts_sim.generative import WRITERS, Effects, FittedWorkload, Lengths, Writer
from atts_sim.pooling import spans, thinned
from atts_sim.recorded import Prompt, Recorded, RecordedChain
from atts_sim.score_fit import Scored, fit_scores
from atts_sim.stop_fit import Piece, fit_stops
from atts_sim.workload import Written


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to fit to. `replaces`: its takeovers wrote the segment anew; `questions`: who its questions are, so
    that those of several recordings that are the same are fitted as one."""

    name: str
    recorded: Recorded
    replaces: bool
    questions: tuple[Hashable, ...]


@dataclass(slots=True)
class _Seen:
    """Everything of all recordings, question and chain numbers running through."""

    pieces: list[Piece] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


def fit_workload(sources: Sequence[Source]) -> FittedWorkload:
    """Fit to all recordings together. Raises InputError where they differ in what a takeover does, or say nothing."""
    guarded = [s for s in sources if any(s.recorded.taken_over(c, t) for c, t in _drafted(s.recorded))]
    if len({source.replaces for source in guarded}) > 1:
        raise InputError("some runs' takeovers replace the segment and others' continue it; fit to runs of one kind")
    replaces = guarded[0].replaces if guarded else any(source.replaces for source in sources)
    numbers: dict[Hashable, int] = {}
    prompts: list[Prompt] = []
    seen = _Seen()
    for source in sources:
        for place, key in enumerate(source.questions):
            if numbers.setdefault(key, len(numbers)) == len(prompts):
                prompts.append(source.recorded.prompts[place])
        for chain, recorded in source.recorded.recorded.items():
            _look(seen, recorded, numbers[source.questions[chain.question]])
    if not seen.pieces:
        raise InputError("the runs to fit a workload to have no calls at all")
    errors, hard = None, np.zeros(len(prompts))
    found = fit_errors(seen.outcomes, len(prompts), replaces=replaces)
    if found is not None:
        errors, hard = found.errors, found.hard
        drawn = np.random.default_rng(0).random(found.wrong.shape[:2])[..., None] < found.wrong
        for piece in seen.pieces:
            piece.wrong = bool(drawn[piece.chain, piece.turn, 0 if piece.writer == "draft" else 2])
        for scored in seen.scores:
            scored.before, scored.wrong = (bool(state) for state in drawn[scored.chain, scored.turn, :2])
    scores, strange = fit_scores(seen.scores, len(prompts))
    stops, near, pace = fit_stops(seen.pieces, len(prompts))
    lengths = {writer: _fit_lengths([piece for piece in seen.pieces if piece.writer == writer]) for writer in stops}
    if replaces:
        # A target that writes a segment anew writes what it would write alone.
        for missing, like in (("alone", "takeover"), ("takeover", "alone")):
            if missing not in stops and like in stops:
                stops[missing], lengths[missing] = stops[like], lengths[like]  # type: ignore[index]
    effects = tuple(Effects(*of) for of in zip(near, strange.tolist(), hard.tolist(), strict=True))
    return FittedWorkload(
        replaces,
        tuple(prompts),
        effects,
        stops,
        lengths,
        scores,
        errors,
        {writer: _ratio([p.written for p in seen.pieces if p.writer == writer]) for writer in WRITERS},
        tuple(source.name for source in sources),
        _agreement(sources),
        pace,
    )


def _agreement(sources: Sequence[Source]) -> tuple[float, ...]:
    """Shares of a question's wrong answers that are its most frequent one, the next, and so on, over all questions.
    An answer that one chain alone gives agrees with none."""
    wrong: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for source in sources:
        for chain, recorded in source.recorded.recorded.items():
            if recorded.correct is False and recorded.answer is not None:
                wrong[source.questions[chain.question]][recorded.answer] += 1
    ranked = [[count for _, count in answers.most_common() if count > 1] for answers in wrong.values()]
    of_all = sum(answers.total() for answers in wrong.values())
    by_rank = [sum(counts) for counts in zip_longest(*ranked, fillvalue=0)]
    return tuple(count / of_all for count in by_rank)


def _drafted(recorded: Recorded) -> Iterator[tuple[ChainId, int]]:
    for chain, of_chain in recorded.recorded.items():
        for turn, draft in enumerate(of_chain.drafts):
            if draft is not None:
                yield chain, turn


def _look(seen: _Seen, chain: RecordedChain, question: int) -> None:
    """Add a chain's pieces, scores and outcome."""
    number, takeovers, after, answered = len(seen.outcomes), 0, False, False
    steps: list[Step] = []
    for turn, (draft, ell, takeover) in enumerate(zip(chain.drafts, chain.ells, chain.takeovers, strict=True)):
        if draft is not None:
            seen.pieces.append(Piece("draft", question, number, turn, takeovers, False, draft))
            answered = draft.answered
        if ell is not None:
            seen.scores.append(Scored(question, number, turn, after, answered, ell))
        said = None if takeover is None else takeover.answered
        steps.append(Step(None if draft is None else answered, ell, said))
        after = False
        if takeover is not None:
            writer: Writer = "alone" if draft is None else "takeover"
            pending = answered and draft is not None
            seen.pieces.append(Piece(writer, question, number, turn, takeovers, pending, takeover))
            answered = takeover.answered
            if draft is not None:
                takeovers, after = takeovers + 1, True
    seen.outcomes.append(Outcome(question, chain.correct if answered else None, steps))


def _fit_lengths(pieces: Sequence[Piece]) -> Lengths:
    by_turn: dict[bool, dict[int, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for piece in pieces:
        by_turn[piece.written.answered][piece.turn].append(piece.written.tokens)
    turns = 1 + max(piece.turn for piece in pieces)
    last, others = (_pooled(by_turn[answered], turns) for answered in (True, False))
    # Where no piece held an answer, or all did, those of the other kind are never drawn or must do.
    return Lengths(last or others, others or last)


def _pooled(by_turn: dict[int, list[float]], turns: int) -> tuple[tuple[int, ...], ...]:
    pools = spans([len(by_turn[turn]) for turn in range(turns)])
    values = {pool: [n for t, p in enumerate(pools) if p == pool for n in by_turn[t]] for pool in set(pools)}
    return tuple(tuple(int(n) for n in thinned(values[pool])) for pool in pools)


def _ratio(pieces: Sequence[Written]) -> float:
    """Tokens in the other model's vocabulary for one of its own; 1 where they are the same."""
    pairs = [(w.elsewhere, w.kept) for w in pieces if w.elsewhere is not None and w.kept]
    own = sum(kept for _, kept in pairs)
    return sum(elsewhere for elsewhere, _ in pairs) / own if own else 1.0
