"""Chains drawn from a fitted workload: what the calls of a policy come to, by the model that `generative` tells."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from atts_runtime.control import ChainId, Draft, Fork, Grade, Keep, Score, TakeOver
from atts_runtime.errors import InputError
from atts_sim.draws import normal, uniform
from atts_sim.generative import Effects, FittedWorkload, Scores, Writer, kind_of
from atts_sim.workload import Written


class _Segment(NamedTuple):
    """A piece in a chain's text: its place in `Scores.kinds`, its nonconformity z, its tokens."""

    turn: int
    kind: int
    z: float
    tokens: int


class _State(NamedTuple):
    """Where a chain stands. `lag`: by how many turns it is behind what its turn says, for turns that went into the rest
    of a piece that was cut, `rest`; `wrong`: an error stands; `answered`: its last piece holds an answer; `origin`: the
    chain whose text it goes on with, if not its own, and which is lost or not."""

    wrong: bool = False
    answered: bool = False
    lag: int = 0
    rest: Written | None = None
    takeovers: int = 0
    taken_over: bool = False
    origin: int | None = None


_CLEAN = _State()


@dataclass(slots=True)
class _Chain:
    """`drafted`: the turn of its last draft, `before`: its state then, `tries`: after each attempt of that turn, with
    what it wrote."""

    state: _State = _CLEAN
    text: list[_Segment] = field(default_factory=list)
    drafted: int = -1
    before: _State = _CLEAN
    tries: list[tuple[_State, _Segment]] = field(default_factory=list)


class Drawn:
    """A `Workload` drawn from a `FittedWorkload`. It follows its chains, so each simulation needs one of its own.

    Raises InputError where it is of no questions or chains, and where a policy asks for what the model was not fitted
    to.
    """

    def __init__(self, model: FittedWorkload, questions: int, chains: int, seed: int) -> None:
        if questions < 1 or chains < 1:
            raise InputError(f"a workload needs questions and chains, got {questions} and {chains}")
        self.model, self.questions, self.chains, self.seed = model, questions, chains, seed
        self._chains: dict[ChainId, _Chain] = {}
        self._nearness: dict[ChainId, tuple[float, float]] = {}

    def prompt_tokens(self, question: int, role: str) -> int:
        prompt = self.model.prompts[question % len(self.model.prompts)]
        return prompt.draft if role == "draft" else prompt.target

    def written(self, command: Draft | TakeOver) -> Written:
        chain = self._chains.setdefault(command.chain, _Chain())
        written = self._draft(command, chain) if isinstance(command, Draft) else self._take_over(command, chain)
        return replace(written, answer=self._answer(command.chain, chain.state)) if written.answered else written

    def ell(self, command: Score) -> float:
        return self._ell(self._scores, self._chains[command.chain].text[-1])

    def grade(self, command: Grade) -> float:
        """What the target wrote scores as a draft that leaves the chain as it did; all of a chain, as the mean over its
        tokens."""
        scores, text = self._scores, self._chains[command.chain].text
        graded = text if command.whole else text[-1:]
        return sum(self._ell(scores, segment) * segment.tokens for segment in graded) / sum(s.tokens for s in graded)

    def keep(self, command: Keep) -> None:
        chain = self._chains[command.chain]
        chain.state, chain.text[-1] = chain.tries[command.attempt]

    def fork(self, command: Fork) -> None:
        chain, source = self._chains[command.chain], self._chains[command.source]
        copied = source.before if source.drafted >= command.upto else source.state
        origin = command.source.index if copied.origin is None else copied.origin
        chain.state = copied._replace(lag=copied.lag + command.turn + 1 - command.upto, origin=origin)
        chain.text = [segment._replace(turn=command.turn) for segment in source.text if segment.turn < command.upto]

    def correct(self, chain: ChainId) -> bool | None:
        if self.model.errors is None:
            return None
        state = self._chains[chain].state
        return state.answered and not state.wrong

    @property
    def _scores(self) -> Scores:
        if self.model.scores is None:
            raise InputError("the workload was fitted to runs without scores; fit it to a run of a policy that scores")
        return self.model.scores

    @staticmethod
    def _ell(scores: Scores, segment: _Segment) -> float:
        return scores.kinds[segment.kind].at(segment.turn, segment.z)

    def _effects(self, chain: ChainId) -> Effects:
        return self.model.effects[chain.question % len(self.model.effects)]

    def _uniform(self, what: str, command: Draft | TakeOver) -> float:
        return uniform(self.seed, _again(what, command), command.chain.question, command.chain.index, command.turn)

    def _draft(self, command: Draft, chain: _Chain) -> Written:
        if command.attempt:
            chain.state = chain.before
            chain.text.pop()
        else:
            chain.before, chain.drafted, chain.tries = chain.state, command.turn, []
        before, errors = chain.state, self.model.errors
        written, state = self._piece(command, "draft", chain.state, pending=False)
        wrong = before.wrong
        if errors is not None:
            hard = self._effects(command.chain).hard
            chance = errors.drafted(command.turn, hard, before.wrong, written.answered)
            wrong = self._uniform("wrong", command) < chance
        chain.state = state._replace(wrong=wrong, answered=written.answered, taken_over=False)
        kind = kind_of(before.wrong, wrong, written.answered)
        chain.text.append(_Segment(command.turn, kind, self._strange(command, before), written.tokens))
        chain.tries.append((chain.state, chain.text[-1]))
        return written

    def _take_over(self, command: TakeOver, chain: _Chain) -> Written:
        state = chain.state
        writer: Writer = "takeover" if chain.drafted == command.turn else "alone"
        z = 0.0
        if writer == "takeover":
            if command.replace != self.model.replaces:
                raise InputError(
                    f"the workload was fitted to takeovers that {'replace' if self.model.replaces else 'continue'} "
                    "the segment; fit it to a run with the other --takeover"
                )
            z = chain.text[-1].z
            if command.replace:
                state = state._replace(rest=None, wrong=chain.before.wrong)
                chain.text.pop()
        written, after = self._piece(command, writer, state, pending=writer == "takeover" and state.answered)
        wrong, errors = state.wrong, self.model.errors
        if errors is not None:
            wrong = self._uniform("mend", command) < errors.written(wrong, written.answered)
        takeovers = after.takeovers + (writer == "takeover")
        chain.state = after._replace(
            wrong=wrong, answered=written.answered, takeovers=takeovers, taken_over=writer == "takeover"
        )
        chain.text.append(_Segment(command.turn, kind_of(state.wrong, wrong, written.answered), z, written.tokens))
        return written

    def _strange(self, command: Draft, before: _State) -> float:
        """How strange the draft of this turn is."""
        scores, chain = self.model.scores, command.chain
        if scores is None:
            return 0.0
        return (
            self._effects(chain).strange
            + scores.chain_sd * normal(self.seed, "chain", chain.question, chain.index)
            + scores.noise_sd * normal(self.seed, _again("score", command), chain.question, chain.index, command.turn)
            + scores.after_takeover * before.taken_over
        )

    def _piece(
        self, command: Draft | TakeOver, writer: Writer, state: _State, *, pending: bool
    ) -> tuple[Written, _State]:
        """The rest of a piece that was cut, or a new one; cut in its turn where the command allows no more."""
        piece, rest, lag = state.rest, None, state.lag
        if piece is None:
            piece = self._new(command, writer, state, pending=pending)
        if piece.tokens > command.max_tokens:
            rest, lag = replace(piece, tokens=piece.tokens - command.max_tokens), lag + 1
            piece = Written(command.max_tokens)
        ratio = self.model.elsewhere[writer]
        if ratio != 1:
            piece = replace(piece, elsewhere=max(1, round(piece.kept * ratio)))
        return piece, state._replace(rest=rest, lag=lag)

    def _new(self, command: Draft | TakeOver, writer: Writer, state: _State, *, pending: bool) -> Written:
        stops = self.model.stops.get(writer)
        if stops is None:
            raise InputError(
                f"the workload was fitted to runs without {_LACKING[writer]}; fit it to a run of a policy that has them"
            )
        turn = max(0, command.turn - state.lag)
        chain = command.chain
        near = self._near(chain if state.origin is None else ChainId(chain.question, state.origin))
        chance = stops.answers(turn, state.takeovers, pending, state.wrong, *near)
        answered = self._uniform(f"{writer} answer", command) < chance
        closes = self._uniform(f"{writer} end", command) < (stops.eos if answered else stops.ends)
        tokens = self.model.lengths[writer].draw(self._uniform(f"{writer} length", command), turn, answered)
        return Written(tokens, answered=answered, ended=closes, eos=closes)

    def _near(self, chain: ChainId) -> tuple[float, float]:
        """Level and trend of the chain's way to its answer."""
        near = self._nearness.get(chain)
        if near is None:
            first, second = (normal(self.seed, what, chain.question) for what in ("level", "trend"))
            level, trend = self._effects(chain).near.drawn(first, second)
            lost = uniform(self.seed, "lost", chain.question, chain.index) < self.model.pace.lost
            near = self._nearness[chain] = level - self.model.pace.delay * lost, trend
        return near

    def _answer(self, chain: ChainId, state: _State) -> str | None:
        """What the chain answers: the right answer, or one of the question's wrong ones."""
        if self.model.errors is None:
            return None
        if not state.wrong:
            return "right"
        u = uniform(self.seed, "wrong answer", chain.question, chain.index)
        for rank, share in enumerate(self.model.agreement):
            if u < share:
                return f"wrong {rank}"
            u -= share
        return f"wrong, of chain {chain.index} alone"


def _again(what: str, command: Draft | TakeOver) -> str:
    """The draw's name: every attempt of a turn has draws of its own."""
    return f"{what} {command.attempt}" if isinstance(command, Draft) and command.attempt else what


_LACKING = {"draft": "drafts", "takeover": "takeovers of drafts", "alone": "a target that writes alone (target-only)"}
