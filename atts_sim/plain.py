"""The plain statement of either discipline, by what the limits are of."""

from __future__ import annotations

from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.cost import StepCost
from atts_sim.device import Device
from atts_sim.mixed_reference import MixedReference
from atts_sim.reference import ReferenceEngine
from atts_sim.stepping import Stepping


def plain_engine(clock: Clock, spec: EngineSpec, cost: StepCost, device: Device | None = None) -> Stepping:
    """The plain engine of the spec's discipline."""
    make = ReferenceEngine if spec.paged is None else MixedReference
    return make(clock, spec, cost, device)
