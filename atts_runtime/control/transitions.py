"""What a chain's transitions do: calls, verdicts, ends. The rules are told in `controller`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from atts_runtime.control.actions import TAKE_OVER, Step
from atts_runtime.control.admission import Admission, GoOn
from atts_runtime.control.chains import Attempt, ChainState, Limits
from atts_runtime.control.commands import (
    Admit,
    Alarmed,
    Command,
    Decided,
    Draft,
    Finish,
    Fork,
    Grade,
    Hold,
    Keep,
    Reason,
    TakeOver,
    Wake,
)
from atts_runtime.control.events import ChainId, Drafted, TakenOver
from atts_runtime.control.gates import Due, Segment, Verdict
from atts_runtime.control.policies import Policy
from atts_runtime.control.votes import weight


class Transitions:
    """All chains of a run, and the steps that take one from stage to stage. Steps add their commands to `out`."""

    def __init__(self, policy: Policy, limits: Limits, *, questions: int, chains: int) -> None:
        if questions < 1 or chains < 1:
            raise ValueError(f"a run needs questions and chains, got {questions} and {chains}")
        self.policy, self.limits = policy, limits
        self._gate, self._action, self._schedule, self._stops = (
            policy.gate, policy.action, policy.schedule, policy.stops,
        )  # fmt: skip
        self._chains = {ChainId(q, i): ChainState() for q in range(questions) for i in range(chains)}
        self._per_question = chains
        self._admission = Admission(questions, chains, limits.questions_in_flight)
        self._open: dict[int, ChainId] = {}
        self._calls = 0
        self._banked = policy.pre_sample != "all"
        self._begun = False
        self._gate.expect(questions, chains, limits.turns, limits.questions_in_flight)
        self._schedule.expect(questions, chains)

    # -- calls

    def _call(self, chain: ChainId, state: ChainState) -> int:
        state.call = call = self._calls
        self._calls += 1
        self._open[call] = chain
        return call

    def _may_write(self, chain: ChainId, max_tokens: int, out: list[Command]) -> bool:
        """Whether the stop rules let the chain write on; else it is stopped."""
        for stop in self._stops:
            if not stop.starts(chain.question, max_tokens):
                self._finish(chain, "stopped", out, stop.name)
                return False
        return True

    def _wrote(self, chain: ChainId, state: ChainState, event: Drafted | TakenOver) -> None:
        self._begun = True
        state.wrote(event)
        if self._stops:
            self._settle(chain, state.promised, event.tokens)

    def _settle(self, chain: ChainId, promised: int, tokens: int) -> None:
        """Of the tokens that a call might have written it wrote so many."""
        for stop in self._stops:
            stop.wrote(chain.question, promised, tokens)

    def _start_turns(self, chains: Iterable[ChainId], out: list[Command]) -> None:
        """The next turn of each; the start of one may have ended the others."""
        for chain in chains:
            state = self._chains[chain]
            if state.stage != "over":
                state.turn += 1
                self._start_turn(chain, out)

    def _start_turn(self, chain: ChainId, out: list[Command]) -> None:
        if not self._gate.drafts:
            self._take_over(chain, out)
            return
        state = self._chains[chain]
        state.attempt = 0
        if state.tries:
            state.tries = []
        self._draft(chain, out)

    def _draft(self, chain: ChainId, out: list[Command]) -> None:
        state, max_tokens = self._chains[chain], self.limits.draft_tokens
        if not self._stops or self._may_write(chain, max_tokens, out):
            state.stage, state.promised = "drafting", max_tokens
            out.append(Draft(self._call(chain, state), chain, state.turn, max_tokens, state.attempt))

    def _take_over(self, chain: ChainId, out: list[Command]) -> None:
        state, max_tokens = self._chains[chain], self.limits.takeover_tokens
        if not self._stops or self._may_write(chain, max_tokens, out):
            state.stage, state.promised = "taking over", max_tokens
            replace = self._action.replace and self._gate.drafts
            out.append(TakeOver(self._call(chain, state), chain, state.turn, max_tokens, replace))

    # -- verdicts

    def _judge(self, chain: ChainId, state: ChainState, ell: float | None, out: list[Command]) -> None:
        state.stage = "held"
        if self._action.retries:
            state.tries.append(Attempt(state.answered, state.ended, state.answer, ell))
        due = self._gate.judge(Segment(chain, state.turn, state.attempt, ell, state.cue, state.settled))
        if due.alarms:
            self._alarm(chain, due, out)
        self._carry_out(due, (), out)
        if state.stage == "held":
            out.append(Hold(chain, state.turn, self._gate.hold))

    def _alarm(self, chain: ChainId, due: Due, out: list[Command]) -> None:
        for alarm in due.alarms:
            out.append(Alarmed(chain, self._chains[chain].turn, alarm))

    def _carry_out(self, due: Due, starts: Sequence[ChainId], out: list[Command]) -> None:
        if due.verdicts and not self._banked:
            self._banked = True
            self._admit(out)
        for verdict in due.verdicts:
            self._decide(verdict, out)
        if starts:
            self._start_turns(starts, out)

    def _decide(self, verdict: Verdict, out: list[Command]) -> None:
        chain, ell, rejected, p_value, alpha, bank = verdict
        state = self._chains[chain]
        if state.stage == "over":  # stopped while it waited
            return
        turn, attempt = state.turn, state.attempt
        go_on: GoOn = self._end_turn
        if rejected:
            step = self._action.rejected(chain, turn, attempt, ell, state.settled)
            source = None if step.source is None else step.source.index
            out.append(Decided(chain, turn, ell, p_value, alpha, True, bank, attempt, step.outcome, source, step.upto))
            go_on = self._take_over if step is TAKE_OVER else self._follow(chain, state, step, out)
        else:
            out.append(Decided(chain, turn, ell, p_value, alpha, False, bank, attempt))
            if self._action.listens:
                self._action.stands(chain, turn, ell)
        if chain.question in self._admission.admitted:
            go_on(chain, out)
        else:
            self._park(chain, go_on, out)

    def _follow(self, chain: ChainId, state: ChainState, step: Step, out: list[Command]) -> GoOn:
        """Do at once what of the action's step needs no engine."""
        if step.outcome == "redraft":
            state.attempt += 1
            return self._draft
        if step.source is not None and step.upto is not None:
            state.copied()
            out.append(Fork(chain, state.turn, step.source, step.upto))
        elif step.attempt is not None:
            state.keep(step.attempt)
            self._action.stands(chain, state.turn, state.ell)
            if step.attempt != state.attempt:
                out.append(Keep(chain, state.turn, step.attempt))
        return self._end_turn

    # -- ends

    def _end_turn(self, chain: ChainId, out: list[Command]) -> None:
        state = self._chains[chain]
        if state.answered or state.ended or state.turn + 1 == self.limits.turns:
            state.reason = "answered" if state.answered else "ended" if state.ended else "turns"
            self._close(chain, state, out)
            return
        state.stage = "waiting"
        self._gate.turn_ended(chain, state.turn)
        self._start_turns(self._schedule.turn_ended(chain), out)
        if state.stage == "waiting":
            out.append(Hold(chain, state.turn, "barrier"))

    def _close(self, chain: ChainId, state: ChainState, out: list[Command]) -> None:
        """The chain has written all: weigh its vote, where votes are weighed."""
        grades = self.policy.vote.grades
        if grades == "nothing" or state.answer is None:
            self._finish(chain, state.reason, out)
        elif grades == "piece" and state.ell is not None:
            self._finish(chain, state.reason, out, weighed=weight(state.ell))
        else:
            state.stage = "grading"
            out.append(Grade(self._call(chain, state), chain, state.turn, grades == "chain"))

    def _finish(
        self,
        chain: ChainId,
        reason: Reason,
        out: list[Command],
        detail: str | None = None,
        weighed: float | None = None,
    ) -> None:
        state, question = self._chains[chain], chain.question
        due, starts = self._leave(chain, state)
        alive = self._admission.left(question)
        self._alarm(chain, due, out)
        out.append(Finish(chain, state.turn + 1, reason, detail, weighed))
        votes = reason not in ("failed", "stopped")
        for stop in self._stops:
            if stop.voted(question, state.answer if votes else None, 1.0 if weighed is None else weighed, alive):
                self._stop(question, stop.name, out)
                break
        self._carry_out(due, starts, out)

    def _leave(self, chain: ChainId, state: ChainState) -> tuple[Due, tuple[ChainId, ...]]:
        state.stage = "over"
        self._action.left(chain)
        return self._gate.left(chain), self._schedule.left(chain)

    def _stop(self, question: int, why: str, out: list[Command]) -> None:
        """End all chains of a question that are not over."""
        chains = [ChainId(question, i) for i in range(self._per_question)]
        alive = [chain for chain in chains if self._chains[chain].stage != "over"]
        for chain in alive:  # all of them first: what the others' ends set free shall find them over
            self._chains[chain].stage = "over"
        dues = []
        for chain in alive:
            state = self._chains[chain]
            self._open.pop(state.call, None)
            due, _ = self._leave(chain, state)
            dues.append(due)
            self._admission.left(question)
            self._alarm(chain, due, out)
            out.append(Finish(chain, state.turn + 1, "stopped", why))
        for due in dues:
            self._carry_out(due, (), out)

    def _park(self, chain: ChainId, go_on: GoOn, out: list[Command]) -> None:
        state = self._chains[chain]
        state.stage = "waiting"  # its verdict is in: it no longer waits for the bank
        self._admission.park(chain, go_on)
        out.append(Hold(chain, state.turn, "admission"))

    def _admit(self, out: list[Command]) -> None:
        """Admit waiting questions while there is room; a loop, because an admitted question may end at once."""
        while (question := self._admission.next()) is not None:
            out.append(Admit(question))
            if self.policy.deadline_s is not None:
                out.append(Wake(question, self.policy.deadline_s))
            for chain, go_on in self._admission.released(question):
                if self._chains[chain].stage != "over":
                    go_on(chain, out)
