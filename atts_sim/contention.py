"""Two engines in one process slow each other down: costs that look whether the other one is in a step.

For `reference.ReferenceEngine`, which asks for the cost of every step when it begins. `engine.BatchingEngine` asks for
runs of steps, during which the other may begin and end many; it takes `calibrate.EngineCosts.beside`, an average.
"""

from __future__ import annotations

from atts_sim.calibrate import EngineCosts
from atts_sim.clock import Clock
from atts_sim.cost import Cost, DecodeLines, Phase, StepShape


class Contended:
    """A `cost.StepCost` of one engine; `rivals` are those of the others, to be filled before the clock runs."""

    def __init__(self, clock: Clock, costs: EngineCosts) -> None:
        self.rivals: list[Contended] = []
        self._clock, self._costs = clock, costs
        self._busy_until_s = -1.0

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        """Of the step that begins now."""
        now = self._clock.now
        beside = any(rival._busy_until_s > now for rival in self.rivals)
        seconds, inside = self._costs.cost(phase, shape)
        seconds *= 1 + self._costs.corrections[phase].contention * beside
        self._busy_until_s = now + seconds
        return Cost(seconds, inside)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        raise TypeError("how long a run of steps takes depends on the other engine: step through it, with `cost`")
