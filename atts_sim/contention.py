"""What a step takes in a run: slower while the other engine of the process is in one, and with rows that just joined.

For engines that ask for the cost of every step when it begins (`reference`, `mixed_reference`). `engine.BatchingEngine`
asks for runs of steps, during which the other may begin and end many.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from atts_sim.calibrate import EngineCosts
from atts_sim.calls import EngineSpec, SimEngine
from atts_sim.clock import Clock
from atts_sim.correction import Growth, Recency
from atts_sim.cost import Cost, DecodeLines, Phase, StepShape
from atts_sim.plain import plain_engine

Name = TypeVar("Name")


class Contended:
    """A `cost.StepCost` of one engine; `rivals` are those of the others, to be filled before the clock runs."""

    def __init__(self, clock: Clock, costs: EngineCosts) -> None:
        self.rivals: list[Contended] = []
        self._clock, self._costs, self._recency, self._growth = clock, costs, Recency(), Growth()
        self._busy_until_s = -1.0

    @property
    def row_stops(self) -> tuple[int, ...]:
        """As the profile has them."""
        return self._costs.model.row_stops

    @property
    def group_s(self) -> float:
        """As the profile has it."""
        return self._costs.model.group_s

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        """Of the step that begins now."""
        now = self._clock.now
        beside = any(rival._busy_until_s > now for rival in self.rivals)
        stated, inside = self._costs.model.cost(phase, shape)
        f = self._recency.of(shape.rows, shape.joined or 0) if phase == "decode" else 0.0
        grown = self._growth.of(shape.rows, shape.longest_kept) if phase == "append" else 0
        seconds = self._costs.corrections[phase].seconds(stated, shape.rows, f, float(beside), grown)
        self._busy_until_s = now + seconds
        return Cost(seconds, inside)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        raise TypeError("how long a run of steps takes depends on the other engine: step through it, with `cost`")


def contending(clock: Clock, asked: Mapping[Name, tuple[EngineSpec, EngineCosts]]) -> dict[Name, SimEngine]:
    """Engines of one process, by the names that they are asked for."""
    costs = {name: Contended(clock, own) for name, (_, own) in asked.items()}
    for mine in costs.values():
        mine.rivals = [other for other in costs.values() if other is not mine]
    return {name: plain_engine(clock, spec, costs[name]) for name, (spec, _) in asked.items()}
