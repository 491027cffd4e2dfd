"""A session: engines loaded once, then one or more runs on them, each into its own run directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from atts_runtime.bundled import model_path
from atts_runtime.collector import loaded_left_alone
from atts_runtime.config import SERVED_BY, RunConfig
from atts_runtime.control import Knobs
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine, EngineStats
from atts_runtime.engines.vocabulary import local_path
from atts_runtime.errors import InputError
from atts_runtime.kvroom import bounded, longest_chain
from atts_runtime.machine import threads_each
from atts_runtime.profiler.device import DevicePeak, device_peak
from atts_runtime.profiler.intensity import EngineRun, run_intensity
from atts_runtime.rundir import RunDir
from atts_runtime.summary import steps_table, summarize, tables
from atts_runtime.tasks.base import Task
from atts_runtime.tasks.load import load_task
from atts_runtime.telemetry import OnProgress, Telemetry

if TYPE_CHECKING:
    from atts_runtime.engines.http_server import Servers


def roles(config: RunConfig) -> dict[str, str]:
    """The roles that a policy uses, and whose model serves each: the target's serves both under a policy of one model.

    Its distinct values are the engines that a run needs.
    """
    recipe = config.recipe
    used = (("draft", recipe.drafts), ("target", recipe.uses_target))
    return {role: "target" if recipe.one_model else role for role, uses in used if uses}


@contextlib.asynccontextmanager
async def engines_for(config: RunConfig, needed: set[str]) -> AsyncIterator[dict[str, Engine]]:
    """Start the engines of the needed roles; draft and target share one where they are the same model.

    Raises InputError where a model cannot serve.
    """
    models = {role: local_path(model_path(getattr(config, role), role)) for role in sorted(needed)}
    if config.engine == "http":  # one engine is what both roles name alike
        models = {
            role: json.dumps([model, *(getattr(config, f"{role}_{what}") for what in SERVED_BY)])
            for role, model in models.items()
        }
    by_model = {"transformers": _embedded, "vllm": _vllm, "http": _http}[config.engine](config, models)
    started: list[Engine] = []
    try:
        for engine in by_model.values():
            started.append(engine)
            await engine.start()
        with loaded_left_alone():
            yield {role: by_model[model] for role, model in models.items()}
    finally:
        await asyncio.gather(*(engine.close() for engine in started))


def load(config: RunConfig) -> tuple[RunConfig, Task]:
    """The task, and the settings with its data pinned: a resumed run reads the revision that the first one read.

    Raises InputError where the task cannot be loaded.
    """
    task = load_task(config.task, config.questions, config.seed, system=config.system_prompt)
    assert task.source is not None
    return replace(config, task=task.source.spec), task


def check_engine(config: RunConfig, needed: set[str]) -> None:
    """Raises InputError where the engine that was asked for is not installed, or its servers are not named."""
    if config.engine == "http":
        for role in sorted(needed):
            _servers(config, role, model_path(getattr(config, role), role), scores=False)
    if config.engine == "vllm":
        from atts_runtime.engines.vllm_launch import require

        require()


def _embedded(config: RunConfig, models: Mapping[str, str]) -> dict[str, Engine]:
    """An engine a model, by model; `models` by role."""
    from atts_runtime.engines.transformers import TransformersEngine

    return {
        model: TransformersEngine(
            model,
            name=role,
            max_rows=config.max_rows,
            kv_budget_tokens=config.kv_budget_tokens,
            device=config.device,
            threads=config.threads or threads_each(),
        )
        for model, role in _first_roles(models).items()
    }


def _vllm(config: RunConfig, models: Mapping[str, str]) -> dict[str, Engine]:
    """Likewise. Engines on one device share its memory in proportion to their weights."""
    from atts_runtime.engines.vllm import VllmEngine
    from atts_runtime.engines.vllm_launch import Launch, shares

    named = _first_roles(models)
    args = {role: config.engine_args(role) for role in named.values()}
    parts = shares({role: (model, args[role].get("device_ids")) for model, role in named.items()})
    return {
        model: VllmEngine(
            Launch(
                model,
                role,
                config.max_rows,
                kv_tokens=config.kv_budget_tokens,
                device=config.device,
                threads=config.threads or threads_each(),
                share=parts[role],
                greedy=config.temperature == 0,
                args=args[role],
            ),
            scores=models.get("target") == model,
        )
        for model, role in named.items()
    }


def _http(config: RunConfig, models: Mapping[str, str]) -> dict[str, Engine]:
    """Likewise, by the JSON of a model and where and how it is served."""
    from atts_runtime.engines.http import HttpEngine

    engines: dict[str, Engine] = {}
    for served, role in _first_roles(models).items():
        here = {name for name, other in models.items() if other == served}
        servers = _servers(config, role, json.loads(served)[0], scores="target" in here)
        engines[served] = HttpEngine(servers)
    return engines


def _servers(config: RunConfig, role: str, model: str, *, scores: bool) -> Servers:
    """A role's servers; raises InputError where they are not named, or a key is not set."""
    from atts_runtime.engines.http_channel import endpoints, key_in
    from atts_runtime.engines.http_server import Servers, Wanted

    urls, option = getattr(config, f"{role}_url"), f"--{role}-key-env"
    if urls is None:
        raise InputError(f"engine http needs --{role}-url, the address of the {role}'s server")
    return Servers(
        Wanted(role, model, getattr(config, f"{role}_name"), scores),
        endpoints(urls, f"--{role}-url"),
        key=key_in(getattr(config, f"{role}_key_env"), option),
        key_option=option,
        timeout_s=config.call_timeout_s,
        retries=config.retries,
        patience_s=config.patience_s,
    )


def _first_roles(models: Mapping[str, str]) -> dict[str, str]:
    """By model, the first of the roles that it serves."""
    return {model: role for role, model in reversed(list(models.items()))}


def check_context(config: RunConfig, task: Task, engines: dict[str, Engine]) -> None:
    """Raises InputError where a model does not take a question, its context not the longest chain that may come, or the
    target's KV memory not the takeovers of a budget."""
    knobs_for(config, task, engines)
    for role, engine in engines.items():
        prompt, longest_question = max((engine.prompt_tokens(each.prompt), each.id) for each in task.questions)
        limit = engine.max_context_tokens
        if limit is None:
            continue
        if prompt >= limit:
            raise InputError(
                f"question {longest_question!r} has {prompt} tokens but the {role} model's context is {limit}; "
                "leave it out, or have the model served with a longer context (max_model_len)"
            )
        longest = longest_chain(config, prompt)
        if longest > limit:
            raise InputError(
                f"a chain may reach {longest} tokens (prompt {prompt} + {config.turns} turns of "
                f"{config.draft_tokens} + {config.takeover_tokens}) but the {role} model's context is {limit}; "
                "lower --turns, --draft-tokens or --takeover-tokens"
            )


def knobs_for(config: RunConfig, task: Task, engines: dict[str, Engine]) -> Knobs:
    """What the policy is told: the settings, and how many takeovers the target's KV memory holds at a time.

    Raises InputError where a budget is more than that.
    """
    target = engines.get("target")
    if config.recipe.gate.name != "budget" or target is None:
        return config.knobs
    capacity = config.kv_budget_tokens or target.stats().kv_capacity_tokens
    return bounded(config, max(target.prompt_tokens(question.prompt) for question in task.questions), capacity)


def check_hardware(config: RunConfig, engines: dict[str, Engine]) -> None:
    """Raises InputError where the hardware profile that was asked for does not fit the engines."""
    _peaks(config, engines.values())


async def run_once(
    config: RunConfig, task: Task, engines: dict[str, Engine], run_dir: RunDir, on_progress: OnProgress
) -> dict[str, Any]:
    """One run to its end: summary written and returned. When cancelled, finished chains stay in the run directory."""
    used = {role: engines[of] for role, of in roles(config).items()}
    distinct = {id(engine): engine for engine in used.values()}
    peaks = _peaks(config, distinct.values())
    resumed = bool(run_dir.finished)
    run_dir.note("task", task.told())
    knobs = knobs_for(config, task, used)
    driver = Driver(config, task, used, knobs=knobs, finished=run_dir.finished, on_finish=run_dir.add)
    telemetry = Telemetry(driver, used, on_progress, gpus=config.profiler == "on")
    try:
        async with telemetry:
            for engine in distinct.values():  # only now: what NVML takes to wake is no idle time of theirs
                await engine.reset(counted=config.profiler == "on")
            await driver.run()
            await asyncio.gather(*(engine.settled() for engine in distinct.values()))
            wall_s = driver.now_s  # with the step that answered the last call, as the engines' own seconds have it
            stats = {key: _timed(engine.stats(), driver.zero_s) for key, engine in distinct.items()}
    finally:
        run_dir.close()
    seen = {
        key: EngineRun(stats[key], engine.steps(), peaks[key], *_device(engine, distinct.values(), telemetry))
        for key, engine in distinct.items()
    }
    on_progress(driver.progress)
    records = sorted(run_dir.finished, key=lambda record: record.chain)  # tied majorities go by order
    runs = {role: seen[id(engine)] for role, engine in used.items()}
    summary = summarize(
        records,
        task,
        config=config,
        wall_s=wall_s,
        engines={role: run.stats for role, run in runs.items()},
        shared_engine=len(distinct) < len(used),
        run_dir=str(run_dir.path),
        intensity=run_intensity(records, runs, wall_s, whole=not resumed),
        whole=not resumed,
    )
    run_dir.note("models", {role: _dimensions(engine) for role, engine in used.items()})
    run_dir.note("gpus", telemetry.gpus())
    made = {**tables(records, task, config.chains), "telemetry": telemetry.table()}
    run_dir.finalize(summary, made | steps_table(runs, driver.zero_s))
    return summary


def _timed(stats: EngineStats, zero_s: float) -> EngineStats:
    """With outages on the run's clock."""
    for outage in stats.outages or ():
        outage.t_start_s = max(0.0, outage.t_start_s - zero_s)
        outage.t_end_s = None if outage.t_end_s is None else outage.t_end_s - zero_s
    return stats


def _peaks(config: RunConfig, engines: Iterable[Engine]) -> dict[int, DevicePeak | None]:
    """By the engine's id; None where nothing is counted against it."""
    if config.profiler == "off":
        return {id(engine): None for engine in engines}
    return {id(engine): device_peak(engine.placement, config.hardware) for engine in engines}


def _dimensions(engine: Engine) -> dict[str, Any]:
    """An engine's model as the manifest has it, or why nothing of it can be counted."""
    return {"unknown": engine.uncounted} if engine.spec is None else asdict(engine.spec)


def _device(engine: Engine, engines: Iterable[Engine], telemetry: Telemetry) -> tuple[float | None, float | None]:
    """Joules and bytes of an engine's GPU, where no other engine is on it."""
    here = engine.placement
    alone = sum(other.placement == here for other in engines) == 1
    return (telemetry.joules(here), telemetry.dram_bytes(here)) if alone else (None, None)
