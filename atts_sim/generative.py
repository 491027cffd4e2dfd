"""A workload drawn from a model of recorded runs, so that what a policy changes has consequences.

The model, of a chain in its `turn`, after `k` takeovers, with normal effects of its question q (`Effects`):

    stop     logit P(the piece holds an answer) = a[turn] + slope_k * k + slope_pending * pending + slope_wrong * [an
             error stands before it] + level_q + trend_q * log(1 + turn) - delay * [the chain is lost], for drafts,
             takeovers (`pending`: the draft they follow held one) and for a target that writes alone; `turn` is the
             last that was recorded of the writer where it is later; a share of the chains is lost, as are copies of
             theirs, and a question's level and trend are drawn about what is known of them
    error    a draft makes a clean chain wrong with logit P = level[turn] + hard_q + answering * [it holds an answer], a
             wrong one stays so with probability `stands`. The target, from the state before the draft that it replaces
             or from that which it continues, mends a wrong chain with probability `mends` and spoils a clean one with
             probability `spoils`. An answer is right where no error stands
    end      a piece without an answer ends its chain with a probability by kind
    length   the recorded lengths by kind, turn, and whether the piece is its chain's last
    score    ell = F^-1(G(z)), F the recorded distribution in this turn of drafts that hold an answer or not, and leave
             the chain clean, make it wrong or leave it so, z = strange_q + chain effect + shift * [the turn before was
             taken over] + noise, and G the distribution of z among those who came to it, as their earlier scores let
             expect it: within questions and chains scores are alike

All draws are functions of (seed, question, chain, turn, kind) alone: two policies, alphas or numbers of chains see the
same draft of the same chain as far as their histories agree. Where a command allows fewer tokens than the model
drew, the piece is cut there and the chain's next one goes on with it; more tokens than were recorded are never drawn.
Question q of a drawn workload is like the fitted question q modulo their number. `atts_sim.drawn` draws.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log1p
from typing import Literal, NamedTuple

from atts_sim.draws import logistic
from atts_sim.recorded import Prompt

Writer = Literal["draft", "takeover", "alone"]
WRITERS: tuple[Writer, ...] = ("draft", "takeover", "alone")


class Nearness(NamedTuple):
    """How near its answer a question is, on the logit of a stop: `level` at its first turn, and `trend` for each unit
    of log(1 + turn) after it, their posterior means; `unsure`: the lower triangle (level, both, trend) of the Cholesky
    root of their posterior covariance."""

    level: float = 0.0
    trend: float = 0.0
    unsure: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def drawn(self, first: float, second: float) -> tuple[float, float]:
        """Level and trend as they may be, by two standard normal numbers."""
        level, both, trend = self.unsure
        return self.level + level * first, self.trend + both * first + trend * second


@dataclass(frozen=True, slots=True)
class Effects:
    """How a question differs: in how near its answer it is, its scores are stranger, its segments are more often
    wrong."""

    near: Nearness = field(default_factory=Nearness)
    strange: float = 0.0
    hard: float = 0.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How the chains of a question differ: a share `lost` of them is further from its answer by `delay`, on the
    logit."""

    lost: float = 0.0
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Stops:
    """Of one writer. `by_turn`: logits a[turn], the last for all later turns; `wrong`: what an error that stands before
    it adds; `ends`: the share of pieces without an answer that end their chain; `eos`: the share of its answers that it
    closes with an end of text."""

    by_turn: tuple[float, ...]
    per_takeover: float
    pending: float
    wrong: float
    ends: float
    eos: float

    def answers(self, turn: int, takeovers: int, pending: bool, wrong: bool, level: float, trend: float) -> float:
        """Probability of an answer; `level` and `trend`: the chain's own."""
        turn = min(turn, len(self.by_turn) - 1)
        own = level + trend * log1p(turn)
        history = self.per_takeover * takeovers + self.pending * pending + self.wrong * wrong
        return logistic(self.by_turn[turn] + history + own)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of pieces, ascending, by turn: those that ended a chain with an answer, and the others; the last entry
    serves all later turns."""

    last: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, ...], ...]

    def draw(self, u: float, turn: int, last: bool) -> int:
        """The length below which a share u of a turn's lies."""
        by_turn = self.last if last else self.others
        values = by_turn[min(turn, len(by_turn) - 1)]
        return values[min(len(values) - 1, int(u * len(values)))]


@dataclass(frozen=True, slots=True)
class Ells:
    """Scores of one kind of draft. `by_turn`: ells, ascending; `bounds`: the z at which one gives way to the next; the
    last entries serve all later turns."""

    by_turn: tuple[tuple[float, ...], ...]
    bounds: tuple[tuple[float, ...], ...]

    def at(self, turn: int, z: float) -> float:
        """The ell of a z."""
        turn = min(turn, len(self.by_turn) - 1)
        return self.by_turn[turn][bisect_right(self.bounds[turn], z)]


@dataclass(frozen=True, slots=True)
class Scores:
    """`kinds`: of drafts that leave the chain clean without and with an answer, of those that make it wrong, of those
    that leave it so. Standard deviations of z: of a chain's effect and of noise."""

    kinds: tuple[Ells, Ells, Ells, Ells, Ells, Ells]
    after_takeover: float
    chain_sd: float
    noise_sd: float


@dataclass(frozen=True, slots=True)
class Errors:
    """See the module's text. `level`: by turn, the last for all later turns; `stands`, `mends`, `spoils`: of pieces
    without and with an answer; `chains`, `wrong`: answered chains that it was fitted to, and the wrong ones among them;
    where those are few, it is a guess."""

    level: tuple[float, ...]
    answering: float
    stands: tuple[float, float]
    mends: tuple[float, float]
    spoils: tuple[float, float]
    chains: int
    wrong: int

    def drafted(self, turn: int, hard: float, wrong: bool, answered: bool) -> float:
        """Probability that an error stands after a draft; `wrong`: before it."""
        if wrong:
            return self.stands[answered]
        return logistic(self.level[min(turn, len(self.level) - 1)] + hard + self.answering * answered)

    def written(self, wrong: bool, answered: bool) -> float:
        """Probability that an error stands after what the target wrote; `wrong`: before it."""
        return 1 - self.mends[answered] if wrong else self.spoils[answered]


@dataclass(frozen=True, slots=True)
class FittedWorkload:
    """The model, fitted: `generative_fit.fit_workload`. `replaces`: the takeovers it saw wrote the segment anew;
    `elsewhere`: a draft's tokens in the target's vocabulary and the other way round, over its own (1: the same);
    `errors` None: what was right is not on record, so neither is it drawn. `agreement`: shares of a question's wrong
    answers that are its most frequent one, the next, and so on; empty: no two agree. `sources`: what it was fitted to.
    """

    replaces: bool
    prompts: tuple[Prompt, ...]
    effects: tuple[Effects, ...]
    stops: Mapping[Writer, Stops]
    lengths: Mapping[Writer, Lengths]
    scores: Scores | None
    errors: Errors | None
    elsewhere: Mapping[Writer, float]
    sources: tuple[str, ...]
    agreement: tuple[float, ...] = ()
    pace: Pace = field(default_factory=Pace)

    def longest(self, writer: Writer) -> int:
        """Tokens of the writer's longest piece on record; 0 of one who wrote none."""
        of = self.lengths.get(writer)
        return 0 if of is None else max((turn[-1] for turn in (*of.last, *of.others) if turn), default=0)


def kind_of(before: bool, after: bool, answered: bool) -> int:
    """A draft's place in `Scores.kinds`, by whether an error stands before it and after it."""
    return 2 * (after + (before and after)) + answered
