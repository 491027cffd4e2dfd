"""Policies: a gate, an action, a schedule, stop rules and a vote, put together.

    gate      whose segment is rejected      `gates`
    action    what becomes of it then        `actions`
    schedule  who may start the next turn    `schedules`
    stop      when a question is decided     `stops`
    vote      which answer wins              `votes`

A `Recipe` names the parts; called with `Knobs` it makes a `Policy`, whose parts have the state of one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from atts_runtime.control.actions import Action
from atts_runtime.control.gates import Gate, PreSample
from atts_runtime.control.knobs import Knobs
from atts_runtime.control.schedules import Schedule
from atts_runtime.control.stops import Stop, TokenBudget
from atts_runtime.control.votes import Vote


class _Gated:
    """What a policy and its recipe say of themselves by their gate."""

    __slots__ = ()
    gate: Gate | type[Gate]

    @property
    def drafts(self) -> bool:
        """Whether the draft model writes."""
        return self.gate.drafts

    @property
    def scores(self) -> bool:
        """Whether the target scores segments."""
        return self.gate.judges == "score"

    @property
    def pre_sample(self) -> PreSample:
        """Whose first segments its first verdicts wait for; of a recipe: where no bank is given."""
        return self.gate.pre_sample


@dataclass(slots=True)
class Policy(_Gated):
    """The parts of one run, each an object of its own."""

    name: str
    gate: Gate
    action: Action
    schedule: Schedule = field(default_factory=Schedule)
    stops: tuple[Stop, ...] = ()
    vote: Vote = field(default_factory=Vote)
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        check_parts(self.gate, self.action, self.schedule, self.stops, self.vote)

    @property
    def asks_for_answers(self) -> bool:
        """Whether events must say which answer a chain would vote for."""
        return self.vote.grades != "nothing" or any(stop.counts_votes for stop in self.stops)


@dataclass(frozen=True, slots=True)
class Recipe(_Gated):
    """A policy by its parts. `about` is what a user reads; `one_model`: the target also drafts."""

    name: str
    about: str
    gate: type[Gate]
    action: type[Action]
    schedule: type[Schedule] = Schedule
    stops: tuple[type[Stop], ...] = ()
    vote: type[Vote] = Vote
    one_model: bool = False

    def __call__(self, knobs: Knobs) -> Policy:
        """The parts of a run; raises ValueError where they contradict each other."""
        stops = [stop(knobs) for stop in self.stops]
        if knobs.token_budget is not None:
            stops.append(TokenBudget(knobs))
        return Policy(
            self.name,
            self.gate(knobs),
            self.action(knobs),
            self.schedule(),
            tuple(stops),
            self.vote(),
            knobs.deadline_s,
        )

    @property
    def uses_target(self) -> bool:
        """Whether the target does anything."""
        writes = not self.gate.drafts or (self.gate.judges != "nothing" and self.action.takes_over)
        return writes or self.scores or self.vote.grades != "nothing"

    @property
    def paper(self) -> str | None:
        """Where what is particular about it was published."""
        return self.gate.paper or (self.vote.paper if self.vote is not Vote else None)

    @property
    def monitors(self) -> bool:
        """Whether its gate raises alarms."""
        return self.gate.monitors

    @property
    def order_free(self) -> bool:
        """Whether it comes to the same verdicts whatever finishes first."""
        return self.gate.order_free and not self.action.listens and not self.stops


def check_parts(
    gate: type[Gate] | Gate,
    action: type[Action] | Action,
    schedule: type[Schedule] | Schedule,
    stops: Sequence[type[Stop] | Stop],
    vote: type[Vote] | Vote,
) -> None:
    """Raises ValueError where parts contradict each other."""
    if gate.name == "worst" and not schedule.together:
        raise ValueError("gate worst ranks segments of one turn, which takes schedule barrier")
    if action.retries and gate.judges != "score":
        raise ValueError(f"action {action.name} keeps the best scored attempt, but gate {gate.name} has no scores")
    if action.retries and not gate.retries:
        raise ValueError(f"gate {gate.name} judges one segment a chain and turn, action {action.name} drafts several")
    for stop in stops:
        if stop.counts_votes and not vote.adds_up:
            raise ValueError(f"early stop {stop.name} counts votes, which vote {vote.name} does not")
        if vote.grades != "nothing" and not stop.weighs_votes:
            raise ValueError(f"early stop {stop.name} counts chains; it takes vote majority, not {vote.name}")
