"""A configuration of the runtime under simulated time: its policy, limits and engines, with costs and a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from atts_runtime.config import RunConfig
from atts_runtime.errors import InputError
from atts_runtime.session import roles
from atts_sim.arrivals import refuse_late
from atts_sim.calibrate import Costs
from atts_sim.calls import EngineSpec, SimEngine
from atts_sim.clock import Clock
from atts_sim.contention import Contended
from atts_sim.desk import Role
from atts_sim.driver import SimDriver
from atts_sim.reference import ReferenceEngine
from atts_sim.simrun import SimRun
from atts_sim.workload import Workload


def run_twin(
    config: RunConfig,
    workload: Workload,
    costs: Costs,
    *,
    arrivals_s: Sequence[float] | None = None,
) -> SimRun:
    """What the configuration would do, step by step, with the engines in each other's way as `costs` has it.

    Raises InputError where the costs lack an engine that the policy uses, or it cannot take arrivals over time.
    """
    clock = Clock()
    contended: dict[str, Contended] = {}
    engines: dict[Role, SimEngine] = {}
    by_name: dict[str, SimEngine] = {}
    for role, of in roles(config).items():
        name = next(iter(costs.engines)) if costs.one_engine else of
        if name not in costs.engines:
            raise InputError(f"nothing says what a step of the {role} engine costs; fit on a run that used it")
        if name not in by_name:
            own = costs.engines[name]
            contended[name] = Contended(clock, own)
            spec = EngineSpec(config.max_rows, own.step_tokens, config.kv_budget_tokens, per_call=own.per_call)
            by_name[name] = ReferenceEngine(clock, spec, contended[name])
        engines[cast(Role, role)] = by_name[name]
    for mine in contended.values():
        mine.rivals = [other for other in contended.values() if other is not mine]
    policy = config.recipe(config.knobs)
    if arrivals_s is not None:
        refuse_late(policy, arrivals_s)
    driver = SimDriver(
        policy, config.limits, workload, engines, clock, handling_s=costs.handling_s, arrivals_s=arrivals_s
    )
    return driver.run()
