"""The sans-I/O controller: events in, commands out.

Rules, for every chain::

    stage        event      next
    waiting      (released) drafting           taking over where the policy never drafts
    drafting     Drafted    scoring            turn end where the policy never scores
    scoring      Scored     held               until the policy's verdict, which may come at once
    held         (verdict)  taking over        turn end if the segment stands
    taking over  TakenOver  turn end
    any call     Failed     over
    turn end                over               if answered, ended or out of turns
                            waiting            until the policy lets the next turn start, which may be at once

A chain also waits (`Hold` with cause ``admission``) while its question is not among the `questions_in_flight`.
Every call is answered by exactly one event; an event for any other call raises `ProtocolError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from atts_runtime.control.commands import Admit, Alarmed, Command, Decided, Draft, Finish, Hold, Reason, Score, TakeOver
from atts_runtime.control.events import ChainId, Drafted, Event, Failed, Scored, TakenOver
from atts_runtime.control.policies import Due, Policy, Verdict


class ProtocolError(RuntimeError):
    """The driver broke the protocol: an event for a call that is not open, or of the wrong kind."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Size of the work: `turns` a chain, tokens a segment and a takeover, questions in flight (None: all)."""

    turns: int
    draft_tokens: int
    takeover_tokens: int
    questions_in_flight: int | None = None

    def __post_init__(self) -> None:
        for name in ("turns", "draft_tokens", "takeover_tokens", "questions_in_flight"):
            value = getattr(self, name)
            unlimited = value is None and name == "questions_in_flight"
            if not unlimited and (value is None or value < 1):
                raise ValueError(f"{name} must be at least 1, got {value}")


Stage = Literal["waiting", "drafting", "scoring", "held", "taking over", "over"]
"""Where a chain is; see the table above."""


@dataclass(slots=True)
class _Chain:
    stage: Stage = "waiting"
    turn: int = 0
    answered: bool = False
    ended: bool = False


_GoOn = Callable[[ChainId, list[Command]], None]


class Controller:
    """Drives all chains of a run through one policy. `start` once, then `handle` each event."""

    def __init__(self, policy: Policy, limits: Limits, *, questions: int, chains: int) -> None:
        if questions < 1 or chains < 1:
            raise ValueError(f"a run needs questions and chains, got {questions} and {chains}")
        self.policy, self.limits = policy, limits
        self._chains = {ChainId(q, i): _Chain() for q in range(questions) for i in range(chains)}
        self._alive = dict.fromkeys(range(questions), chains)
        self._to_come = deque(range(questions))
        self._queue: deque[int] = deque()
        self._admitted: set[int] = set()
        self._parked: dict[int, list[tuple[ChainId, _GoOn]]] = {q: [] for q in range(questions)}
        self._open: dict[int, ChainId] = {}
        self._calls = 0
        self._banked = policy.pre_sample != "all"
        policy.expect(questions, chains, limits.turns, limits.questions_in_flight)

    @property
    def done(self) -> bool:
        """Whether every chain is over."""
        return not any(self._alive.values())

    def start(self, arrived: int | None = None) -> list[Command]:
        """First commands: turn 0 of the admitted questions, or of all where the policy pre-samples across questions.

        `arrived`: only so many questions are there, the first ones, and `arrive` brings each of the others (None: all
        are). Raises ValueError where the policy needs them all.
        """
        out: list[Command] = []
        arrived = len(self._to_come) if arrived is None else arrived
        if self.policy.pre_sample == "all":
            if arrived < len(self._to_come):
                raise ValueError(f"{self.policy.name} begins with first segments of all questions: all must be there")
            self._queue, self._to_come = self._to_come, deque()
            for chain in self._chains:
                self._start_turn(chain, out)
        else:
            for _ in range(arrived):
                self._come(out)
            self._admit(out)
        return out

    def arrive(self) -> list[Command]:
        """Commands that follow from the arrival of the next question."""
        out: list[Command] = []
        self._come(out)
        self._admit(out)
        return out

    def _come(self, out: list[Command]) -> None:
        question = self._to_come.popleft()
        self._queue.append(question)
        for index in range(self._alive[question]):
            self._park(ChainId(question, index), self._start_turn, out)

    def handle(self, event: Event) -> list[Command]:
        """Commands that follow from one event, in order."""
        chain = self._open.get(event.call)
        if chain is None:
            raise ProtocolError(f"no open call {event.call}: {event}")
        state = self._chains[chain]
        out: list[Command] = []
        match state.stage, event:
            case ("drafting", Drafted(answered=answered, ended=ended)):
                state.answered, state.ended = answered, ended
                if self.policy.scores:
                    state.stage = "scoring"
                    out.append(Score(self._call(chain), chain, state.turn))
                else:
                    self._end_turn(chain, out)
            case ("scoring", Scored(ell=ell, settled=settled)):
                state.stage = "held"
                self._apply(chain, self.policy.scored(chain, state.turn, ell, settled), out)
                if state.stage == "held":
                    out.append(Hold(chain, state.turn, self.policy.hold_for_verdict))
            case ("taking over", TakenOver(answered=answered, ended=ended)):
                state.answered, state.ended = answered, ended
                self._end_turn(chain, out)
            case (_, Failed(reason=reason)):
                self._finish(chain, "failed", out, reason)
            case _:
                raise ProtocolError(f"{type(event).__name__} cannot answer a call in stage {state.stage!r}: {event}")
        del self._open[event.call]
        if self._banked:
            self._admit(out)
        return out

    def _call(self, chain: ChainId) -> int:
        call = self._calls
        self._calls += 1
        self._open[call] = chain
        return call

    def _start_turn(self, chain: ChainId, out: list[Command]) -> None:
        state = self._chains[chain]
        if self.policy.drafts:
            state.stage = "drafting"
            out.append(Draft(self._call(chain), chain, state.turn, self.limits.draft_tokens))
        else:
            self._take_over(chain, out)

    def _take_over(self, chain: ChainId, out: list[Command]) -> None:
        state = self._chains[chain]
        state.stage = "taking over"
        replace = self.policy.knobs.replace and self.policy.drafts
        out.append(TakeOver(self._call(chain), chain, state.turn, self.limits.takeover_tokens, replace))

    def _apply(self, chain: ChainId, due: Due, out: list[Command]) -> None:
        """Carry out what is due after an event of `chain`."""
        self._alarm(chain, due, out)
        self._carry_out(due, out)

    def _alarm(self, chain: ChainId, due: Due, out: list[Command]) -> None:
        for alarm in due.alarms:
            out.append(Alarmed(chain, self._chains[chain].turn, alarm))

    def _carry_out(self, due: Due, out: list[Command]) -> None:
        if due.verdicts and not self._banked:
            self._banked = True
            self._admit(out)
        for verdict in due.verdicts:
            self._decide(verdict, out)
        for starting in due.starts:
            self._chains[starting].turn += 1
            self._start_turn(starting, out)

    def _decide(self, verdict: Verdict, out: list[Command]) -> None:
        chain, state = verdict.chain, self._chains[verdict.chain]
        grounds = verdict.p_value, verdict.alpha, verdict.taken_over, verdict.bank
        out.append(Decided(chain, state.turn, verdict.ell, *grounds))
        go_on = self._take_over if verdict.taken_over else self._end_turn
        if chain.question in self._admitted:
            go_on(chain, out)
        else:
            self._park(chain, go_on, out)

    def _end_turn(self, chain: ChainId, out: list[Command]) -> None:
        state = self._chains[chain]
        if state.answered or state.ended or state.turn + 1 == self.limits.turns:
            reason: Reason = "answered" if state.answered else "ended" if state.ended else "turns"
            self._finish(chain, reason, out)
            return
        state.stage = "waiting"
        self._apply(chain, self.policy.turn_ended(chain, state.turn), out)
        if state.stage == "waiting":
            out.append(Hold(chain, state.turn, self.policy.hold_for_turn))

    def _finish(self, chain: ChainId, reason: Reason, out: list[Command], detail: str | None = None) -> None:
        state = self._chains[chain]
        state.stage = "over"
        self._alive[chain.question] -= 1
        if not self._alive[chain.question]:
            self._admitted.discard(chain.question)
        due = self.policy.left(chain)
        self._alarm(chain, due, out)
        out.append(Finish(chain, state.turn + 1, reason, detail))
        self._carry_out(due, out)

    def _park(self, chain: ChainId, go_on: _GoOn, out: list[Command]) -> None:
        state = self._chains[chain]
        state.stage = "waiting"  # its verdict is in: it no longer waits for the bank
        self._parked[chain.question].append((chain, go_on))
        out.append(Hold(chain, state.turn, "admission"))

    def _admit(self, out: list[Command]) -> None:
        """Admit waiting questions while there is room; a loop, because an admitted question may end at once."""
        limit = self.limits.questions_in_flight
        while self._queue:
            if limit is not None and len(self._admitted) >= limit:
                return
            question = self._queue.popleft()
            if not self._alive[question]:
                continue
            self._admitted.add(question)
            out.append(Admit(question))
            for chain, go_on in self._parked.pop(question):
                go_on(chain, out)
