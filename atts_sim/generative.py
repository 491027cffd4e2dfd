"""A workload drawn from a model of recorded runs, so that what a policy changes has consequences.

The model, of a chain in its `turn`, after `k` takeovers, with normal effects of its question q (`Effects`):

    stop     logit P(the piece holds an answer) = a[turn] + slope_k * k + slope_pending * pending + slope_wrong * [an
             error stands before it] + progress_q, for drafts, takeovers (`pending`: the draft they follow held one) and
             for a target that writes alone
    error    a draft makes a clean chain wrong with logit P = level[turn] + hard_q + answering * [it holds an answer], a
             wrong one stays so with probability `stands`. The target, from the state before the draft that it replaces
             or from that which it continues, mends a wrong chain with probability `mends` and spoils a clean one with
             probability `spoils`. An answer is right where no error stands
    end      a piece without an answer ends its chain with a probability by kind
    length   the recorded lengths by kind, turn, and whether the piece is its chain's last
    score    ell = F^-1(Phi((z - centre) / spread)), F the recorded distribution in this turn of drafts that hold an
             answer or not, and leave the chain clean, make it wrong or leave it so, z = strange_q + chain effect +
             shift * [the turn before was taken over] + noise: within questions and chains scores are alike

All draws are functions of (seed, question, chain, turn, kind) alone: two policies, alphas or numbers of chains see the
same draft of the same chain as far as their histories agree. Where a command allows fewer tokens than the model
drew, the piece is cut there and the chain's next one goes on with it; more tokens than were recorded are never drawn.
Question q of a drawn workload is like the fitted question q modulo their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from atts_runtime.control import ChainId, Draft, Score, TakeOver
from atts_runtime.errors import InputError
from atts_sim.draws import logistic, normal, uniform
from atts_sim.recorded import Prompt
from atts_sim.workload import Written

Writer = Literal["draft", "takeover", "alone"]
WRITERS: tuple[Writer, ...] = ("draft", "takeover", "alone")
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Effects:
    """How a question differs: it is nearer its answer, its scores are stranger, its segments are more often wrong."""

    progress: float = 0.0
    strange: float = 0.0
    hard: float = 0.0


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

    def answers(self, turn: int, takeovers: int, pending: bool, wrong: bool, progress: float) -> float:
        """Probability of an answer."""
        at = self.by_turn[min(turn, len(self.by_turn) - 1)]
        return logistic(at + self.per_takeover * takeovers + self.pending * pending + self.wrong * wrong + progress)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of pieces, ascending, by turn: those that ended a chain with an answer, and the others; the last entry
    serves all later turns."""

    last: tuple[tuple[int, ...], ...]
    others: tuple[tuple[int, ...], ...]

    def draw(self, u: float, turn: int, last: bool) -> int:
        """The quantile u."""
        return int(quantile(self.last if last else self.others, turn, u))


@dataclass(frozen=True, slots=True)
class Ells:
    """Scores of one kind of draft. `by_turn`: ells, ascending. `centres`, `spreads`: mean and standard deviation of z
    of those that come to a turn, who are not as those that began."""

    by_turn: tuple[tuple[float, ...], ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]

    def at(self, turn: int, z: float) -> float:
        """The ell of a z."""
        turn = min(turn, len(self.by_turn) - 1)
        return quantile(self.by_turn, turn, _NORMAL.cdf((z - self.centres[turn]) / self.spreads[turn]))


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
    `errors` None: what was right is not on record, so neither is it drawn. `sources`: what it was fitted to."""

    replaces: bool
    prompts: tuple[Prompt, ...]
    effects: tuple[Effects, ...]
    stops: Mapping[Writer, Stops]
    lengths: Mapping[Writer, Lengths]
    scores: Scores | None
    errors: Errors | None
    elsewhere: Mapping[Writer, float]
    sources: tuple[str, ...]

    def draw(self, questions: int, chains: int, *, seed: int) -> Drawn:
        """A `Workload` of so many questions and chains."""
        if questions < 1 or chains < 1:
            raise InputError(f"a workload needs questions and chains, got {questions} and {chains}")
        return Drawn(self, questions, chains, seed)


@dataclass(slots=True)
class _Chain:
    """What a chain has done. `lag`: turns that went into the rest of a piece that was cut, `rest`; `drafted`: the turn
    of its last draft, whose nonconformity is `z`; `wrong`: an error stands, `before`: before
    that draft; `answered`: its last piece holds an answer.
    """

    lag: int = 0
    rest: Written | None = None
    takeovers: int = 0
    taken_over: bool = False
    drafted: int = -1
    z: float = 0.0
    wrong: bool = False
    before: bool = False
    answered: bool = False


class Drawn:
    """A `Workload` drawn from a `FittedWorkload`. It follows its chains, so each simulation needs one of its own.

    Raises InputError where a policy asks for what the model was not fitted to.
    """

    def __init__(self, model: FittedWorkload, questions: int, chains: int, seed: int) -> None:
        self.model, self.questions, self.chains, self.seed = model, questions, chains, seed
        self._chains: dict[ChainId, _Chain] = {}

    def prompt_tokens(self, question: int, role: str) -> int:
        prompt = self.model.prompts[question % len(self.model.prompts)]
        return prompt.draft if role == "draft" else prompt.target

    def written(self, command: Draft | TakeOver) -> Written:
        state = self._chains.setdefault(command.chain, _Chain())
        if isinstance(command, Draft):
            written = self._piece(command, "draft", state, pending=False)
            self._drafted(command, state, written.answered)
            state.taken_over = False
        elif state.drafted == command.turn:
            if command.replace != self.model.replaces:
                raise InputError(
                    f"the workload was fitted to takeovers that {'replace' if self.model.replaces else 'continue'} "
                    "the segment; fit it to a run with the other --takeover"
                )
            if command.replace:
                state.rest, state.wrong = None, state.before
            written = self._piece(command, "takeover", state, pending=state.answered)
            self._mend(command, state, written.answered)
            state.takeovers, state.taken_over = state.takeovers + 1, True
        else:
            written = self._piece(command, "alone", state, pending=False)
            self._mend(command, state, written.answered)
        state.answered = written.answered
        return written

    def ell(self, command: Score) -> float:
        state = self._chains[command.chain]
        return self._scores.kinds[kind_of(state.before, state.wrong, state.answered)].at(command.turn, state.z)

    def correct(self, chain: ChainId) -> bool | None:
        if self.model.errors is None:
            return None
        state = self._chains[chain]
        return state.answered and not state.wrong

    @property
    def _scores(self) -> Scores:
        if self.model.scores is None:
            raise InputError("the workload was fitted to runs without scores; fit it to a run of a policy that scores")
        return self.model.scores

    def _effects(self, chain: ChainId) -> Effects:
        return self.model.effects[chain.question % len(self.model.effects)]

    def _uniform(self, what: str, command: Draft | TakeOver) -> float:
        return uniform(self.seed, what, command.chain.question, command.chain.index, command.turn)

    def _drafted(self, command: Draft, state: _Chain, answered: bool) -> None:
        """Draw how strange the draft of this turn is, and whether an error stands after it."""
        scores, errors, chain = self.model.scores, self.model.errors, command.chain
        effects = self._effects(chain)
        state.drafted, state.before = command.turn, state.wrong
        if scores is not None:
            state.z = (
                effects.strange
                + scores.chain_sd * normal(self.seed, "chain", chain.question, chain.index)
                + scores.noise_sd * normal(self.seed, "score", chain.question, chain.index, command.turn)
                + scores.after_takeover * state.taken_over
            )
        if errors is not None:
            chance = errors.drafted(command.turn, effects.hard, state.wrong, answered)
            state.wrong = self._uniform("wrong", command) < chance

    def _mend(self, command: TakeOver, state: _Chain, answered: bool) -> None:
        if self.model.errors is not None:
            state.wrong = self._uniform("mend", command) < self.model.errors.written(state.wrong, answered)

    def _piece(self, command: Draft | TakeOver, writer: Writer, state: _Chain, *, pending: bool) -> Written:
        """The rest of a piece that was cut, or a new one; cut in its turn where the command allows no more."""
        piece, state.rest = state.rest, None
        if piece is None:
            piece = self._new(command, writer, state, pending=pending)
        if piece.tokens > command.max_tokens:
            state.rest = replace(piece, tokens=piece.tokens - command.max_tokens)
            state.lag += 1
            piece = Written(command.max_tokens)
        ratio = self.model.elsewhere[writer]
        return piece if ratio == 1 else replace(piece, elsewhere=max(1, round(piece.kept * ratio)))

    def _new(self, command: Draft | TakeOver, writer: Writer, state: _Chain, *, pending: bool) -> Written:
        stops = self.model.stops.get(writer)
        if stops is None:
            raise InputError(
                f"the workload was fitted to runs without {_LACKING[writer]}; fit it to a run of a policy that has them"
            )
        turn = max(0, command.turn - state.lag)
        chance = stops.answers(turn, state.takeovers, pending, state.wrong, self._effects(command.chain).progress)
        answered = self._uniform(f"{writer} answer", command) < chance
        closes = self._uniform(f"{writer} end", command) < (stops.eos if answered else stops.ends)
        tokens = self.model.lengths[writer].draw(self._uniform(f"{writer} length", command), turn, answered)
        return Written(tokens, answered=answered, ended=closes, eos=closes)


_LACKING = {"draft": "drafts", "takeover": "takeovers of drafts", "alone": "a target that writes alone (target-only)"}


def kind_of(before: bool, after: bool, answered: bool) -> int:
    """A draft's place in `Scores.kinds`, by whether an error stands before it and after it."""
    return 2 * (after + (before and after)) + answered


def quantile(by_turn: Sequence[Sequence[float]], turn: int, u: float) -> float:
    """The value below which a share u of a turn's values lies: one of them, so that ties stay ties."""
    values = by_turn[min(turn, len(by_turn) - 1)]
    return values[min(len(values) - 1, int(u * len(values)))]
