"""A configuration of the runtime under simulated time: its policy, limits and engines, with costs and a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from atts_runtime.config import EMBEDDED, RunConfig
from atts_runtime.errors import InputError
from atts_runtime.records import Kind
from atts_runtime.session import roles
from atts_sim.arrivals import refuse_late
from atts_sim.calibrate import Costs, EngineCosts
from atts_sim.calls import EngineSpec, Paged
from atts_sim.clock import Clock
from atts_sim.contention import contending
from atts_sim.desk import Role
from atts_sim.driver import SimDriver
from atts_sim.recorded import Recorded
from atts_sim.remembering import Remembering
from atts_sim.sending import AT_ONCE, Distant, Sender
from atts_sim.simrun import SimRun
from atts_sim.workload import Workload

_CPU_BLOCK_TOKENS = 32
"""What `engines.vllm_launch` asks for on a CPU."""


def run_twin(
    config: RunConfig,
    workload: Workload,
    costs: Costs,
    *,
    arrivals_s: Sequence[float] | None = None,
) -> SimRun:
    """What the configuration would do, step by step, with the engines in each other's way as `costs` has it.

    Raises InputError where the costs are of another engine or lack one that the policy uses, or it cannot take arrivals
    over time.
    """
    if config.engine != costs.engine:
        raise InputError(f"the costs are of engine {costs.engine}, not of {config.engine}; fit on runs of that engine")
    clock = Clock()
    names: dict[Role, str] = {}
    asked: dict[str, tuple[EngineSpec, EngineCosts]] = {}
    for role, of in roles(config).items():
        name = next(iter(costs.engines)) if costs.one_engine else of
        if name not in costs.engines:
            raise InputError(f"nothing says what a step of the {role} engine costs; fit on a run that used it")
        names[cast(Role, role)] = name
        asked.setdefault(name, (_spec(config, of, costs.engines[name]), costs.engines[name]))
    made = contending(clock, asked)
    if costs.sending != AT_ONCE:
        sender = Sender(clock, costs.sending)
        made = {name: Distant(engine, sender) for name, engine in made.items()}
    texts = workload.texts if isinstance(workload, Recorded) else None
    if config.engine != EMBEDDED and texts is not None:
        made = {name: Remembering(clock, engine, texts) for name, engine in made.items()}
    engines = {role: made[name] for role, name in names.items()}
    policy = config.recipe(config.knobs)
    if arrivals_s is not None:
        refuse_late(policy, arrivals_s)
    driver = SimDriver(policy, config.limits, workload, engines, clock, handling=costs.handling, arrivals_s=arrivals_s)
    return driver.run()


def _spec(config: RunConfig, role: str, costs: EngineCosts) -> EngineSpec:
    """The engine that the settings ask for; under vLLM without a GPU, if they do not say otherwise."""
    if config.engine != "vllm":
        return EngineSpec(
            config.max_rows, costs.step_tokens, config.kv_budget_tokens, per_call=costs.per_call, wake_s=costs.wake_s
        )
    args = config.engine_args(role)
    block = args.get("block_size", _CPU_BLOCK_TOKENS)
    blocks = None if config.kv_budget_tokens is None else -(-config.kv_budget_tokens // block)
    lengths: dict[Kind, int] = {"draft": config.draft_tokens, "takeover": config.takeover_tokens}
    budget = args.get("max_num_batched_tokens", max(costs.step_tokens, config.max_rows))
    return EngineSpec(
        config.max_rows, budget, paged=Paged(block, blocks, args.get("enable_chunked_prefill", False), lengths)
    )
