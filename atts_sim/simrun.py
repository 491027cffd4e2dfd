"""What a simulation leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from atts_runtime.control import Alarmed, ChainId, Decided, Finish
from atts_runtime.control.commands import Cause
from atts_runtime.control.votes import Vote
from atts_sim.calls import Totals
from atts_sim.desk import Request, Role


@dataclass(slots=True)
class SimRun:
    """What a simulation left: requests that were answered, in the order in which they were made; waits (chain, cause,
    from, to), verdicts, ends, times of arrival and admission by question; what each chain answers, whether it is right,
    and the rule by which they vote; the engines' totals by role, one object under both where they share one.
    one_device: the engines' steps take turns."""

    questions: int
    chains: int
    wall_s: float = 0.0
    requests: list[Request] = field(default_factory=list)
    holds: list[tuple[ChainId, Cause, float, float]] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    finished: list[tuple[Finish, float]] = field(default_factory=list)
    arrived_s: tuple[float, ...] = ()
    admitted_s: dict[int, float] = field(default_factory=dict)
    alarms: list[Alarmed] = field(default_factory=list)
    totals: dict[Role, Totals] = field(default_factory=dict)
    correct: dict[ChainId, bool | None] = field(default_factory=dict)
    answers: dict[ChainId, str | None] = field(default_factory=dict)
    vote: Vote = field(default_factory=Vote)
    events: int = 0
    one_device: bool = False
