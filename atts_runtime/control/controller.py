"""The sans-I/O controller: events in, commands out.

Rules, for every chain::

    stage        event      next
    waiting      (released) drafting           taking over where the gate has no drafts
    drafting     Drafted    scoring            held, where the gate reads the text; turn end, where it judges nothing
    scoring      Scored     held               until the gate's verdict, which may come at once
    held         (verdict)  turn end if the segment stands; else by the action: taking over, drafting again, turn end
                            with the best attempt or with a copy of another chain
    taking over  TakenOver  turn end
    turn end                over               if answered, ended or out of turns; before that
                            grading            where the vote weighs what the target has not scored yet
                            waiting            until the schedule lets the next turn start, which may be at once
    grading      Graded     over
    any call     Failed     over
    any                     over               when a stop rule says that the question is decided, or its time is up

A chain also waits (`Hold` with cause ``admission``) while its question is not among the `questions_in_flight`.
Every call is answered by exactly one event, but for those of stopped chains; any other event raises `ProtocolError`.
"""

from __future__ import annotations

from atts_runtime.control.chains import ChainState, ProtocolError
from atts_runtime.control.commands import Command, Score
from atts_runtime.control.events import ChainId, Drafted, Event, Failed, Graded, Scored, Stopped, TakenOver
from atts_runtime.control.transitions import Transitions
from atts_runtime.control.votes import weight
from atts_runtime.errors import InputError


class Controller(Transitions):
    """Drives all chains of a run through one policy. `start` once, then `handle` each event."""

    @property
    def done(self) -> bool:
        """Whether every chain is over."""
        return not any(self._admission.alive.values())

    def awaits(self, call: int) -> bool:
        """Whether an event for the call is to come. False for calls of chains that were stopped."""
        return call in self._open

    def start(self, arrived: int | None = None) -> list[Command]:
        """First commands: turn 0 of the admitted questions, or of all where the policy pre-samples across questions.

        `arrived`: only so many questions are there, the first ones, and `arrive` brings each of the others (None: all
        are). Raises ValueError where the policy needs them all.
        """
        out: list[Command] = []
        of_all = self._admission.to_come()
        arrived = of_all if arrived is None else arrived
        if self.policy.pre_sample == "all":
            if arrived < of_all:
                raise ValueError(f"{self.policy.name} begins with first segments of all questions: all must be there")
            for _ in range(of_all):
                self._admission.arrive()
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
        question = self._admission.arrive()
        for index in range(self._per_question):
            self._park(ChainId(question, index), self._start_turn, out)

    def wake(self, question: int) -> list[Command]:
        """Commands that follow from the end of a question's time.

        Raises InputError where the first question's time is up and no chain has written anything.
        """
        out: list[Command] = []
        if self._admission.alive[question]:
            if not self._begun:
                raise InputError(
                    f"the deadline of {self.policy.deadline_s:g} s is shorter than one segment takes; raise deadline_s"
                )
            self._stop(question, "deadline", out)
            self._admit(out)
        return out

    def handle(self, event: Event) -> list[Command]:
        """Commands that follow from one event, in order."""
        chain = self._open.get(event.call)
        if chain is None:
            raise ProtocolError(f"no open call {event.call}: {event}")
        state = self._chains[chain]
        out: list[Command] = []
        stage = state.stage
        if stage == "drafting" and isinstance(event, Drafted):
            self._drafted(chain, state, event, out)
        elif stage == "scoring" and isinstance(event, Scored):
            _, state.ell, state.settled = event
            self._judge(chain, state, state.ell, out)
        elif stage == "taking over" and isinstance(event, TakenOver):
            self._wrote(chain, state, event)
            self._end_turn(chain, out)
        elif stage == "grading" and isinstance(event, Graded):
            self._finish(chain, state.reason, out, weighed=weight(event.ell))
        elif isinstance(event, Failed | Stopped):
            if stage in ("drafting", "taking over"):
                self._settle(chain, state.promised, 0)
            self._finish(chain, "failed" if isinstance(event, Failed) else "stopped", out, event.reason)
        else:
            raise ProtocolError(f"{type(event).__name__} cannot answer a call in stage {stage!r}: {event}")
        self._open.pop(event.call, None)
        if self._banked and self._admission.room:
            self._admit(out)
        return out

    def _drafted(self, chain: ChainId, state: ChainState, event: Drafted, out: list[Command]) -> None:
        state.cue = event.cue
        self._wrote(chain, state, event)
        if self._gate.judges == "score":
            state.stage = "scoring"
            out.append(Score(self._call(chain, state), chain, state.turn, state.attempt))
        elif self._gate.judges == "text":
            self._judge(chain, state, None, out)
        else:
            self._end_turn(chain, out)
