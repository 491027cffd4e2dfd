"""A session: engines loaded once, then one or more runs on them, each into its own run directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atts_runtime.config import BUNDLED, RunConfig
from atts_runtime.control import POLICIES
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine
from atts_runtime.errors import InputError
from atts_runtime.profiler.device import device_peak
from atts_runtime.profiler.intensity import EngineRun, run_intensity
from atts_runtime.rundir import RunDir
from atts_runtime.summary import steps_table, summarize, tables
from atts_runtime.tasks.base import Task
from atts_runtime.telemetry import OnProgress, Telemetry

_MODELS = Path(__file__).parent / "models"


def roles(policy: str) -> tuple[str, ...]:
    """Which engines a policy uses."""
    kind = POLICIES[policy]
    return tuple(role for role, used in (("draft", kind.drafts), ("target", kind.scores or not kind.drafts)) if used)


@contextlib.asynccontextmanager
async def engines_for(config: RunConfig, needed: set[str]) -> AsyncIterator[dict[str, Engine]]:
    """Start the engines of the needed roles; draft and target share one where they are the same model.

    Raises InputError where a model cannot serve.
    """
    from atts_runtime.engines.transformers import TransformersEngine

    models = {role: _model_path(getattr(config, role), role) for role in sorted(needed)}
    by_model: dict[str, Engine] = {}
    # The same threads under every policy, and never more than cores: oversubscribed, OpenMP spins and crawls.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = config.threads or max(1, cores // 2)
    for role, model in models.items():
        if model not in by_model:
            by_model[model] = TransformersEngine(
                model,
                name=role,
                max_rows=config.max_rows,
                kv_budget_tokens=config.kv_budget_tokens,
                device=config.device,
                threads=threads,
                meter=config.profiler == "on",
            )
    started: list[Engine] = []
    try:
        for engine in by_model.values():
            started.append(engine)
            await engine.start()
        yield {role: by_model[model] for role, model in models.items()}
    finally:
        for engine in started:
            await engine.close()


def _model_path(model: str, role: str) -> str:
    return str(_MODELS / role) if model == BUNDLED else model


def check_context(config: RunConfig, task: Task, engines: dict[str, Engine]) -> None:
    """Raises InputError where the longest chain that the settings allow would not fit a model's context."""
    for role, engine in engines.items():
        limit = engine.max_context_tokens
        if limit is None:
            continue
        prompt = max(engine.prompt_tokens(question.prompt) for question in task.questions)
        longest = prompt + config.turns * (config.draft_tokens + config.takeover_tokens)
        if longest > limit:
            raise InputError(
                f"a chain may reach {longest} tokens (prompt {prompt} + {config.turns} turns of "
                f"{config.draft_tokens} + {config.takeover_tokens}) but the {role} model's context is {limit}; "
                "lower --turns, --draft-tokens or --takeover-tokens"
            )


async def run_once(
    config: RunConfig, task: Task, engines: dict[str, Engine], run_dir: RunDir, on_progress: OnProgress
) -> dict[str, Any]:
    """One run to its end: summary written and returned. When cancelled, finished chains stay in the run directory."""
    used = {role: engines[role] for role in roles(config.policy)}
    distinct = {id(engine): engine for engine in used.values()}
    profiled = config.profiler == "on"
    peaks = {
        key: device_peak(engine.placement, config.hardware) if profiled else None for key, engine in distinct.items()
    }
    for engine in distinct.values():
        await engine.reset()
    resumed = bool(run_dir.finished)
    driver = Driver(config, task, used, finished=run_dir.finished, on_finish=run_dir.add)
    telemetry = Telemetry(driver, used, on_progress, gpus=profiled)
    try:
        async with telemetry:
            wall_s = await driver.run()
            await asyncio.gather(*(engine.settled() for engine in distinct.values()))
            seen = {key: EngineRun(engine.stats(), engine.steps(), peaks[key]) for key, engine in distinct.items()}
    finally:
        run_dir.close()
    on_progress(driver.progress)
    records = sorted(run_dir.finished, key=lambda record: record.chain)  # tied majorities go by order
    runs = {role: seen[id(engine)] for role, engine in used.items()}
    summary = summarize(
        records,
        task,
        policy=config.policy,
        wall_s=wall_s,
        engines={role: run.stats for role, run in runs.items()},
        shared_engine=len(distinct) < len(used),
        run_dir=str(run_dir.path),
        intensity=run_intensity(records, runs, wall_s, whole=not resumed),
    )
    specs = {role: engine.spec for role, engine in used.items()}
    run_dir.note("models", {role: None if spec is None else asdict(spec) for role, spec in specs.items()})
    run_dir.note("gpus", telemetry.gpus())
    made = {**tables(records, task, config.chains), "telemetry": telemetry.table()}
    run_dir.finalize(summary, made | steps_table(runs, driver.zero_s))
    return summary
