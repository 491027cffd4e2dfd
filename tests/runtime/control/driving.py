"""A reference driver for the controller: no clock and no engine, only open calls and a scripted world.

A `World` fixes the size of the work and how every call would turn out, as a function of chain, turn and kind of
call alone, so that one world can be run in any order and under any policy. A `Driver` keeps the open calls,
answers them in the order it is told and records every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from atts_runtime.control import (
    POLICIES,
    Call,
    ChainId,
    Command,
    Controller,
    Decided,
    Draft,
    Drafted,
    Event,
    Failed,
    Finish,
    Grade,
    Graded,
    Knobs,
    Limits,
    Recipe,
    Score,
    Scored,
    TakenOver,
    TakeOver,
    recipe,
)

MAX_QUESTIONS, MAX_CHAINS, MAX_TURNS = 4, 6, 5
KINDS = (Draft, Score, TakeOver)
ATTEMPTS = 3

examples = settings(max_examples=25, deadline=None)


@dataclass(frozen=True)
class World:
    """Sizes and fates. `fates` holds one byte per call that could be made, `strangeness` one per segment."""

    questions: int
    chains: int
    limits: Limits
    knobs: Knobs
    replaces: bool
    fates: bytes
    strangeness: bytes
    order: bytes
    ties: bool
    scale: float
    failures: bool

    def knobs_for(self, policy: str) -> Knobs:
        """The knobs, without a budget that the policy would refuse."""
        budget = self.knobs.budget
        bounded = policy in ("async-adaptive", "budget")
        refused = bounded and budget is not None and not 0 < budget < self.chains
        return replace(self.knobs, budget=None) if refused else self.knobs

    def recipe(self, policy: str) -> Recipe:
        """The policy, its takeovers as this world has them."""
        made = POLICIES[policy]
        if not made.action.takes_over:
            return made
        return recipe(policy, action="resample" if self.replaces else "continue")

    def all_chains(self) -> list[ChainId]:
        return [ChainId(q, i) for q in range(self.questions) for i in range(self.chains)]

    def segment(self, chain: ChainId, turn: int) -> int:
        return (chain.question * self.chains + chain.index) * self.limits.turns + turn

    def ell(self, chain: ChainId, turn: int, attempt: int = 0) -> float:
        """A score: one of eight values where ties are wanted, else one that no other segment has."""
        at = self.segment(chain, turn)
        byte = self.strangeness[(at + attempt) % len(self.strangeness)]
        return self.scale * (byte % 8 / 4 if self.ties else byte + (at + attempt / ATTEMPTS) / 1024)

    def outcome(self, kind: type[Call], chain: ChainId, turn: int, call: int = -1, attempt: int = 0) -> Event:
        """How a call turns out: most go on, some bring an answer or the end of the chain, a few fail. Chains whose
        fates are equal give the same answer; some segments hold a cue."""
        if kind is Grade:
            return Graded(call, self.ell(chain, turn))
        at = 3 * self.segment(chain, turn) + KINDS.index(kind)
        fate = self.fates[(at + 3 * attempt) % len(self.fates)]
        if fate >= 240 and self.failures:
            return Failed(call, f"{kind.__name__} of {chain} in turn {turn} failed")
        if kind is Score:
            return Scored(call, self.ell(chain, turn, attempt))
        answered, ended = 200 <= fate < 225, 215 <= fate < 240
        said = answered, ended, str(fate % 3) if answered else None, 1 + fate % 7
        return Drafted(call, *said, cue=fate % 4 == 0) if kind is Draft else TakenOver(call, *said)


@st.composite
def worlds(draw: st.DrawFn, *, limited: bool = True, failures: bool = True, ties: bool | None = None) -> World:
    """Any world; `limited` ones may bound the questions in flight."""
    questions = draw(st.integers(1, MAX_QUESTIONS))
    chains = draw(st.integers(1, MAX_CHAINS))
    turns = draw(st.integers(1, MAX_TURNS))
    limits = Limits(turns, 7, 11, draw(st.none() | st.integers(1, 3)) if limited else None)
    knobs = Knobs(draw(alphas()), draw(st.none() | st.integers(0, MAX_CHAINS + 1)))
    segments = questions * chains * turns
    return World(
        questions,
        chains,
        limits,
        knobs,
        draw(st.booleans()),
        fates=draw(st.binary(min_size=3 * segments, max_size=3 * segments)),
        strangeness=draw(st.binary(min_size=segments, max_size=segments)),
        order=draw(orders()),
        ties=draw(st.booleans()) if ties is None else ties,
        scale=draw(st.sampled_from([1.0, 1e3, 1e300, 1e-18])),
        failures=failures,
    )


def quiet(questions: int, chains: int, turns: int, strangeness: bytes | None = None) -> World:
    """A world without answers, ends or failures; its calls are answered in the order in which they were made."""
    segments = questions * chains * turns
    return World(
        questions,
        chains,
        Limits(turns, 1, 1),
        Knobs(0.25, tie_seed=0),
        replaces=False,
        fates=bytes(3 * segments),
        strangeness=bytes(segments) if strangeness is None else strangeness,
        order=bytes(1),
        ties=False,
        scale=1.0,
        failures=False,
    )


def alphas() -> st.SearchStrategy[float]:
    """Takeover rates: those that a bank of up to 24 attains exactly, and any other."""
    attained = sorted({k / n for n in range(2, MAX_QUESTIONS * MAX_CHAINS + 1) for k in range(1, n)})
    return st.sampled_from(attained) | st.floats(0, 1, exclude_min=True, exclude_max=True)


def orders() -> st.SearchStrategy[bytes]:
    """Which of the open calls is answered next, round and round; a zero means the oldest."""
    return st.binary(min_size=64, max_size=64)


class Step(NamedTuple):
    """One event (None for the start), the call that it answered, and the commands that followed."""

    event: Event | None
    call: Call | None
    commands: tuple[Command, ...]
    done: bool


class Answer(NamedTuple):
    """An event in a timeline, with what the call that it answered was about."""

    event: Event
    call: Call

    @property
    def chain(self) -> ChainId:
        return self.call.chain

    @property
    def turn(self) -> int:
        return self.call.turn


class Driver:
    """Runs a world under a policy. Every call that the controller emits is open until it is answered."""

    def __init__(self, policy: str | Recipe, world: World) -> None:
        self.world = world
        self.policy = world.recipe(policy) if isinstance(policy, str) else policy
        self.controller = Controller(
            self.policy(world.knobs_for(self.policy.name)), world.limits, questions=world.questions, chains=world.chains
        )
        self.open: dict[int, Call] = {}
        self.steps: list[Step] = []
        self._picks = 0
        self._record(None, None, self.controller.start())

    def answer(self, number: int) -> tuple[Command, ...]:
        """Answer an open call the way the world has it."""
        call = self.open.pop(number)
        attempt = call.attempt if isinstance(call, Draft | Score) else 0
        event = self.world.outcome(type(call), call.chain, call.turn, number, attempt)
        return self._record(event, call, self.controller.handle(event))

    def wake(self, question: int) -> tuple[Command, ...]:
        """Let a question's time be up."""
        return self._record(None, None, self.controller.wake(question))

    def pick(self, among: list[int], order: bytes | None = None) -> int:
        order = self.world.order if order is None else order
        self._picks += 1
        return among[order[(self._picks - 1) % len(order)] % len(among)]

    def run(self, order: bytes | None = None) -> Driver:
        """Answer calls until none is open."""
        while self.open:
            self.answer(self.pick(list(self.open), order))
        return self

    def _record(self, event: Event | None, call: Call | None, commands: list[Command]) -> tuple[Command, ...]:
        step = Step(event, call, tuple(commands), self.controller.done)
        self.steps.append(step)
        assert len(self.steps) <= 1 + 8 * self.world.questions * self.world.chains * self.world.limits.turns
        for command in commands:
            if isinstance(command, Call):
                assert command.call not in self.open
                self.open[command.call] = command
            elif isinstance(command, Finish) and command.reason == "stopped":
                self.open = {number: call for number, call in self.open.items() if call.chain != command.chain}
        return step.commands

    @property
    def commands(self) -> list[Command]:
        return [command for step in self.steps for command in step.commands]

    @property
    def calls(self) -> list[Call]:
        return [command for command in self.commands if isinstance(command, Call)]

    @property
    def decided(self) -> list[Decided]:
        return [command for command in self.commands if isinstance(command, Decided)]

    @property
    def finishes(self) -> list[Finish]:
        return [command for command in self.commands if isinstance(command, Finish)]

    def timeline(self) -> Iterator[Answer | Command]:
        """Events and commands in the order in which they happened."""
        for step in self.steps:
            if step.event is not None and step.call is not None:
                yield Answer(step.event, step.call)
            yield from step.commands
