"""Fitting the generative workload to recordings: lengths and scores as recorded, stops by penalised logistic regression
with question effects, errors by the likelihood of which chains came out right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_sim.error_fit import Segment, fit_errors
from atts_sim.generative import WRITERS, Effects, FittedWorkload, Lengths, Scores, Stops, Writer
from atts_sim.recorded import Prompt, Recorded, RecordedChain
from atts_sim.workload import Written

Floats = NDArray[np.float64]
_FEW = 30  # pieces or scores of a turn below which it is pooled with the turns after it
_MOST_KEPT = 400  # values of a turn's distribution; of more, as many quantiles
_ROUNDS = 30
_SWEEPS = 10
_MOST_SD = 4.0  # of question effects on a logit, beyond which they say the same: always or never


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to fit to. `replaces`: its takeovers wrote the segment anew; `questions`: who its questions are, so
    that those of several recordings that are the same are fitted as one."""

    name: str
    recorded: Recorded
    replaces: bool
    questions: tuple[Hashable, ...]


@dataclass(slots=True)
class _Piece:
    writer: Writer
    question: int
    turn: int
    takeovers: int
    pending: bool
    written: Written


@dataclass(slots=True)
class _Scored:
    question: int
    chain: int
    turn: int
    after_takeover: bool
    ell: float
    z: float = 0.0


@dataclass(slots=True)
class _Seen:
    """Everything of all recordings, question and chain numbers running through."""

    pieces: list[_Piece] = field(default_factory=list)
    scores: list[_Scored] = field(default_factory=list)
    outcomes: list[tuple[int, bool, list[tuple[int, bool]], int]] = field(default_factory=list)


def fit_workload(sources: Sequence[Source]) -> FittedWorkload:
    """Fit to all recordings together. Raises InputError where they differ in what a takeover does, or say nothing."""
    guarded = [s for s in sources if any(s.recorded.taken_over(c, t) for c, t in _drafted(s.recorded))]
    if len({source.replaces for source in guarded}) > 1:
        raise InputError("some runs' takeovers replace the segment and others' continue it; fit to runs of one kind")
    replaces = guarded[0].replaces if guarded else any(source.replaces for source in sources)
    numbers: dict[Hashable, int] = {}
    prompts: list[Prompt] = []
    seen, chains = _Seen(), 0
    for source in sources:
        for place, key in enumerate(source.questions):
            if numbers.setdefault(key, len(numbers)) == len(prompts):
                prompts.append(source.recorded.prompts[place])
        for chain, recorded in source.recorded.recorded.items():
            _look(seen, recorded, numbers[source.questions[chain.question]], chains)
            chains += 1
    if not seen.pieces:
        raise InputError("the runs to fit a workload to have no calls at all")
    scores, strange = _fit_scores(seen.scores, len(prompts))
    progress = np.zeros(len(prompts))
    stops: dict[Writer, Stops] = {}
    lengths: dict[Writer, Lengths] = {}
    for writer in WRITERS:
        mine = [piece for piece in seen.pieces if piece.writer == writer]
        if mine:
            stops[writer], effect = _fit_stops(mine, len(prompts))
            lengths[writer] = _fit_lengths(mine)
            if writer == "draft" or "draft" not in stops:
                progress = effect
    if replaces:
        # A target that writes a segment anew writes what it would write alone.
        for missing, like in (("alone", "takeover"), ("takeover", "alone")):
            if missing not in stops and like in stops:
                stops[missing], lengths[missing] = stops[like], lengths[like]  # type: ignore[index]
    outcomes = [
        (question, right, [Segment(seen.scores[i].z, taken) for i, taken in segments], alone)
        for question, right, segments, alone in seen.outcomes
    ]
    errors, hard = fit_errors(outcomes, len(prompts))
    effects = tuple(Effects(*(float(e[q]) for e in (progress, strange, hard))) for q in range(len(prompts)))
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
    )


def _drafted(recorded: Recorded) -> Iterator[tuple[ChainId, int]]:
    for chain, of_chain in recorded.recorded.items():
        for turn, draft in enumerate(of_chain.drafts):
            if draft is not None:
                yield chain, turn


def _look(seen: _Seen, chain: RecordedChain, question: int, number: int) -> None:
    """Add a chain's pieces, scores and outcome."""
    takeovers, alone, after, answered = 0, 0, False, False
    segments: list[tuple[int, bool]] = []
    for turn, (draft, ell, takeover) in enumerate(zip(chain.drafts, chain.ells, chain.takeovers, strict=True)):
        if draft is not None:
            seen.pieces.append(_Piece("draft", question, turn, takeovers, False, draft))
            answered = draft.answered
        if ell is not None:
            segments.append((len(seen.scores), takeover is not None))
            seen.scores.append(_Scored(question, number, turn, after, ell))
        after = False
        if takeover is not None:
            writer: Writer = "alone" if draft is None else "takeover"
            seen.pieces.append(_Piece(writer, question, turn, takeovers, answered and draft is not None, takeover))
            answered = takeover.answered
            if draft is None:
                alone += 1
            else:
                takeovers, after = takeovers + 1, True
    if chain.correct is not None and answered and (segments or alone):
        seen.outcomes.append((question, chain.correct, segments, alone))


# -- lengths


def _pooled(values: Mapping[int, Sequence[float]], turns: int) -> list[list[float]]:
    """Values by turn, each turn of few joined with those after it (at the end, before it), ascending and thinned."""
    pools: list[list[float]] = []
    spans: list[int] = []
    pool: list[float] = []
    span = 0
    for turn in range(turns):
        pool, span = [*pool, *values.get(turn, ())], span + 1
        if len(pool) >= _FEW:
            pools.append(pool)
            spans.append(span)
            pool, span = [], 0
    if pool and pools:
        pools[-1] = [*pools[-1], *pool]
    elif pool:
        pools, spans = [pool], [span]
    return [_thinned(pool) for pool, span in zip(pools, spans, strict=True) for _ in range(span)]


def _thinned(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    if len(ordered) <= _MOST_KEPT:
        return ordered
    return [ordered[int((i + 0.5) / _MOST_KEPT * len(ordered))] for i in range(_MOST_KEPT)]


def _fit_lengths(pieces: Sequence[_Piece]) -> Lengths:
    by_turn: dict[bool, dict[int, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for piece in pieces:
        by_turn[piece.written.answered][piece.turn].append(piece.written.tokens)
    turns = 1 + max(piece.turn for piece in pieces)
    last, others = (
        tuple(tuple(int(n) for n in values) for values in _pooled(by_turn[answered], turns))
        for answered in (True, False)
    )
    # Where no piece held an answer, or all did, those of the other kind are never drawn or must do.
    return Lengths(last or others, others or last)


def _ratio(pieces: Sequence[Written]) -> float:
    """Tokens in the other model's vocabulary for one of its own; 1 where they are the same."""
    pairs = [(w.elsewhere, w.kept) for w in pieces if w.elsewhere is not None and w.kept]
    own = sum(kept for _, kept in pairs)
    return sum(elsewhere for elsewhere, _ in pairs) / own if own else 1.0


# -- stops


def _fit_stops(pieces: Sequence[_Piece], questions: int) -> tuple[Stops, Floats]:
    """One writer's stops, and each question's effect on them."""
    answered = np.array([piece.written.answered for piece in pieces], np.float64)
    turn = np.array([piece.turn for piece in pieces])
    question = np.array([piece.question for piece in pieces])
    more = np.array([[piece.takeovers, piece.pending] for piece in pieces], np.float64)
    levels, slopes, effects = _logistic(answered, turn, question, more, questions)
    open_ = [piece.written.ended for piece in pieces if not piece.written.answered]
    closed = [piece.written.eos for piece in pieces if piece.written.answered]
    stops = Stops(
        tuple(float(level) for level in levels),
        float(slopes[0]),
        float(slopes[1]),
        float(np.mean(open_)) if open_ else 0.0,
        float(np.mean(closed)) if closed else 0.0,
    )
    return stops, effects


def _logistic(
    y: Floats, turn: NDArray[np.int64], question: NDArray[np.int64], more: Floats, questions: int
) -> tuple[Floats, Floats, Floats]:
    """Levels [turns], slopes [more's columns] and effects [questions] of a logistic regression with random effects of
    questions: Laplace's approximation, whose variance is found by EM. Levels of neighbouring turns are held together
    loosely, so that a turn of few pieces follows them."""
    turns, columns = int(turn.max()) + 1, more.shape[1]
    size = turns + columns + questions
    design = np.zeros((len(y), size))
    design[np.arange(len(y)), turn] = 1.0
    design[:, turns : turns + columns] = more
    design[np.arange(len(y)), turns + columns + question] = 1.0
    penalty = np.diag([1e-2] * turns + [0.1] * columns + [1.0] * questions)
    for t in range(turns - 1):
        penalty[t : t + 2, t : t + 2] += 0.2 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    effects = slice(turns + columns, size)
    beta, variance = np.zeros(size), 1.0
    for _ in range(_ROUNDS):
        penalty[effects, effects] = np.eye(questions) / variance
        for _ in range(_ROUNDS):
            chance = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
            hessian = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty
            step = np.linalg.solve(hessian, design.T @ (y - chance) - penalty @ beta)
            beta = beta + step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max())))
            if np.abs(step).max() < 1e-6:
                break
        spread = np.diag(np.linalg.inv(hessian))[effects]
        found = float(np.clip(np.mean(beta[effects] ** 2 + spread), 1e-4, _MOST_SD**2))
        if abs(found - variance) < 1e-3 * variance:
            break
        variance = found
    return beta[:turns], beta[turns : turns + columns], beta[effects]


# -- scores


def _fit_scores(scores: Sequence[_Scored], questions: int) -> tuple[Scores | None, Floats]:
    """The scores' model, and each question's effect on them; sets each one's z."""
    from scipy.stats import norm, rankdata

    if not scores:
        return None, np.zeros(questions)
    by_turn: dict[int, list[float]] = defaultdict(list)
    for scored in scores:
        by_turn[scored.turn].append(scored.ell)
    pools = _pooled(by_turn, 1 + max(by_turn))
    turn = np.array([scored.turn for scored in scores])
    ell = np.array([scored.ell for scored in scores])
    z = np.zeros(len(scores))
    for t in np.unique(turn):
        mine = turn == t
        z[mine] = norm.ppf((rankdata(ell[mine]) - 0.5) / mine.sum())
    after = np.array([scored.after_takeover for scored in scores])
    question = np.array([scored.question for scored in scores])
    chain = np.array([scored.chain for scored in scores])
    counts = np.maximum(1, np.bincount(question, minlength=questions))
    at_turn = np.maximum(1, np.bincount(turn))
    enough = after.sum() >= _FEW and ((turn > 0) & ~after).sum() >= _FEW
    neighbours = np.array([i for i in range(len(scores) - 1) if chain[i] == chain[i + 1]], np.int64)
    shift, of_chain, strange, centre = 0.0, 0.0, np.zeros(questions), np.zeros(len(at_turn))
    for _ in range(_SWEEPS):
        # Turn, question, chain and takeover effects by turns: who comes to a late turn is not as who began.
        free = z + centre[turn] - shift * after
        means = np.bincount(question, free, questions) / counts
        whole = float((free - means[question]).var())
        between = max(0.0, float(means.var()) - whole / float(counts.mean()))
        strange = means * between / (between + whole / counts)
        strange -= strange[question[turn == 0]].mean() if (turn == 0).any() else 0.0
        rest = free - strange[question]
        own = float(rest.var())
        if len(neighbours) >= _FEW:
            of_chain = min(0.9 * own, max(0.0, float(np.mean(rest[neighbours] * rest[neighbours + 1]))))
        if enough:
            # Stranger chains are taken over more often, which is no effect of takeovers.
            expected = _expected(rest, chain, of_chain, own - of_chain)
            shift += float((rest - expected)[after].mean() - (rest - expected)[(turn > 0) & ~after].mean())
        centre = np.bincount(turn, strange[question] + shift * after) / at_turn
    known = strange[question] + shift * after
    spreads = tuple(float(max(1e-6, own + known[turn == t].var()) ** 0.5) for t in range(len(pools)))
    for scored, value in zip(scores, z + centre[turn], strict=True):
        scored.z = float(value)
    distributions = tuple(tuple(pool) for pool in pools)
    centres = tuple(float(c) for c in centre)
    return Scores(distributions, centres, spreads, shift, of_chain**0.5, max(own - of_chain, 0.0) ** 0.5), strange


def _expected(rest: Floats, chain: NDArray[np.int64], of_chain: float, noise: float) -> Floats:
    """A chain's effect as its earlier scores have it, for each score; they follow one another by chain."""
    expected = np.zeros(len(rest))
    total, count = 0.0, 0
    for i in range(1, len(rest)):
        total, count = (total + rest[i - 1], count + 1) if chain[i] == chain[i - 1] else (0.0, 0)
        expected[i] = of_chain * total / (noise + count * of_chain) if of_chain else 0.0
    return expected
