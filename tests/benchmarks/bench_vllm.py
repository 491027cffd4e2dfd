"""vLLM, in this process and behind servers, on the bundled pair. Run it in the environment that has vLLM:

    PYTHONPATH=. .venv-vllm/bin/python tests/benchmarks/bench_vllm.py

reuse     seconds of a round of scores with the prefix cache and without, two engines (or servers) taking turns
barrier   wall ratio barrier / async-marginal by chains, runs interleaved on the same engines; r and T_s of either
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from atts_runtime.chain import Progress
from atts_runtime.collector import loaded_left_alone
from atts_runtime.config import RunConfig
from atts_runtime.conformal import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_runtime.control import ChainId
from atts_runtime.engines.base import Engine, Piece, ScoreCall
from atts_runtime.records import ChainRecord
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.load import load_task

MODELS = Path(__file__).parents[2] / "atts_runtime" / "models"
ROLES = ("draft", "target")
CHAINS_SCORED = 8
SEGMENT_TOKENS = 48
CONTEXTS = (128, 512, 1024, 1900)


@contextlib.asynccontextmanager
async def servers(block: int, *commands: tuple[str, ...]) -> AsyncIterator[list[str]]:
    """Addresses of vLLM servers, each of a model's folder with further flags, started side by side."""
    from tests.runtime.vllm_server import VllmServer

    made = [VllmServer(Path(folder), "--block-size", str(block), *flags) for folder, *flags in commands]
    try:
        for server in made:
            server.start(wait=False)
        for server in made:
            await asyncio.to_thread(server.ready)
        yield [server.url for server in made]
    finally:
        for server in made:
            server.close()


@contextlib.asynccontextmanager
async def running(base: RunConfig, block: int) -> AsyncIterator[tuple[RunConfig, dict[str, Engine]]]:
    """The bundled pair under `base.engine`, started, and the settings that name where."""
    async with contextlib.AsyncExitStack() as stack:
        config = base
        if base.engine == "http":
            urls = await stack.enter_async_context(servers(block, *((str(MODELS / role),) for role in ROLES)))
            config = replace(base, draft_url=urls[0], target_url=urls[1])
        if base.engine == "vllm":
            args = json.dumps({"block_size": block})
            config = replace(base, draft_args=args, target_args=args)
        yield config, await stack.enter_async_context(engines_for(config, set(ROLES)))


async def run(config: RunConfig, engines: dict[str, Engine]) -> tuple[dict[str, Any], list[ChainRecord]]:
    """A run's summary and its chains."""
    task = load_task(config.task, config.questions, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder) / "run", config, "")
        summary = await run_once(config, task, engines, run_dir, _quiet)
    return summary, run_dir.finished


async def bank_of(config: RunConfig, engines: dict[str, Engine]) -> str:
    """A file of all scores of a run on other questions."""
    scores = [call.ell for chain in (await run(config, engines))[1] for call in chain.calls if call.ell is not None]
    path = Path(tempfile.mkdtemp()) / "bank.npz"
    save_bank(SealedBank(np.array(scores)), path)
    return str(path)


def _quiet(progress: Progress) -> None:
    """No progress."""


async def reuse(kind: str, block: int, repeats: int, console: Console) -> None:
    async with contextlib.AsyncExitStack() as stack:
        engines = await stack.enter_async_context(_pair(kind, block))
        rng = np.random.default_rng(0)
        table = Table(title=f"{kind}: {CHAINS_SCORED} scores of {SEGMENT_TOKENS} tokens, medians of {repeats}")
        for column in ("prefix tokens", "cached, s", "anew, s", "anew / cached", "all ratios"):
            table.add_column(column, justify="right")
        for context in CONTEXTS:
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            for repeat in range(repeats + 1):  # the first round compiles
                before = [_letters(rng, context) for _ in range(CHAINS_SCORED)]
                first, second = ([_letters(rng, SEGMENT_TOKENS) for _ in before] for _ in range(2))
                for name, engine in engines.items():
                    await engine.reset()
                    warm = [[_piece(b), _piece(s)] for b, s in zip(before, first, strict=True)]
                    await _score(engine, warm)
                    asked = [[*pieces, _piece(s)] for pieces, s in zip(warm, second, strict=True)]
                    started = time.perf_counter()
                    await _score(engine, asked)
                    if repeat:
                        seconds[name].append(time.perf_counter() - started)
            ratios = [a / c for c, a in zip(seconds["cached"], seconds["anew"], strict=True)]
            table.add_row(
                str(context + SEGMENT_TOKENS),
                *(f"{statistics.median(seconds[name]):.3f}" for name in ("cached", "anew")),
                f"{statistics.median(ratios):.1f}",
                " ".join(f"{ratio:.1f}" for ratio in ratios),
            )
        console.print(table)


@contextlib.asynccontextmanager
async def _pair(kind: str, block: int) -> AsyncIterator[dict[str, Engine]]:
    """The bundled target twice, with the prefix cache and without."""
    from atts_runtime.engines.http import HttpEngine
    from atts_runtime.engines.http_server import Servers, Wanted
    from atts_runtime.engines.vllm import VllmEngine
    from atts_runtime.engines.vllm_launch import Launch

    target, names = str(MODELS / "target"), ("cached", "anew")
    async with contextlib.AsyncExitStack() as stack:
        engines: dict[str, Engine] = {}
        if kind == "http":
            commands = (target,), (target, "--no-enable-prefix-caching")
            urls = await stack.enter_async_context(servers(block, *commands))
            for name, url in zip(names, urls, strict=True):
                engines[name] = HttpEngine(Servers(Wanted("target", target, None, scores=True), (url,)))
        else:
            for name in names:
                args = {"block_size": block, "enable_prefix_caching": name == "cached"}
                engines[name] = VllmEngine(Launch(target, name, 64, threads=1, share=0.2, args=args))
        for engine in engines.values():
            stack.push_async_callback(engine.close)
            await engine.start()
        stack.enter_context(loaded_left_alone())  # as a session does
        yield engines


def _letters(rng: np.random.Generator, n: int) -> str:
    return "".join(str(rng.integers(10)) for _ in range(n))


def _piece(text: str) -> Piece:
    return Piece(text, (), "another vocabulary")


async def _score(engine: Engine, chains: list[list[Piece]]) -> None:
    calls = [ScoreCall(ChainId(0, i), "1\n\n", tuple(pieces)) for i, pieces in enumerate(chains)]
    await asyncio.gather(*(engine.score(call) for call in calls))


async def barrier(base: RunConfig, block: int, chains: list[int], repeats: int, console: Console) -> None:
    table = Table(
        title=f"{base.engine}: {base.task}, {base.questions} questions, one in flight, alpha {base.alpha:g}, "
        f"median of {repeats}"
    )
    for column in (
        "chains",
        "policy",
        "wall, s",
        "barrier / async",
        "r",
        "T_s, s",
        "T_overhead, s",
        "takeover",
        "right",
    ):
        table.add_column(column, justify="right")
    async with running(base, block) as (base, engines):
        # With what a run draws for itself, the takeover rate of few questions is anything.
        bank = await bank_of(replace(base, seed=1), engines)
        for m in chains:
            seen: dict[str, list[dict[str, Any]]] = {"barrier": [], "async-marginal": []}
            for _ in range(repeats):
                for policy, summaries in seen.items():
                    given = bank if policy == "async-marginal" else None
                    summaries.append((await run(replace(base, chains=m, policy=policy, bank=given), engines))[0])
            walls = {policy: [summary["wall_s"] for summary in summaries] for policy, summaries in seen.items()}
            ratios = [b / a for b, a in zip(*walls.values(), strict=True)]
            for policy, summaries in seen.items():
                middle = summaries[walls[policy].index(statistics.median_low(walls[policy]))]
                intensity = middle["intensity"]
                table.add_row(
                    str(m),
                    policy,
                    f"{middle['wall_s']:.1f}",
                    f"{statistics.median(ratios):.2f} ({' '.join(f'{r:.2f}' for r in ratios)})"
                    if policy == "barrier"
                    else "",
                    f"{intensity['r']:.4f}",
                    f"{intensity['T_s_s']:.1f}",
                    f"{intensity['T_overhead_s']:.1f}",
                    f"{middle['takeover_rate']:.2f}",
                    f"{middle['accuracy']['mean_chain']:.3f}",
                )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="prefix reuse under vLLM, and async against the barrier")
    parser.add_argument("--parts", default="reuse,barrier")
    parser.add_argument("--engine", default="vllm", help="vllm or http")
    parser.add_argument("--task", default="arithmetic:9")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--chains", default="16,64", help="of barrier")
    parser.add_argument("--questions", type=int, default=4, help="of barrier")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    console = Console(width=140)
    if importlib.util.find_spec("vllm") is None:
        console.print("bench_vllm: vLLM is not installed here; make test-vllm sets up .venv-vllm, run it from there")
        return
    parts, block, repeats = args.parts.split(","), args.block_size, args.repeats
    base = RunConfig(task=args.task, engine=args.engine)
    if "reuse" in parts:
        asyncio.run(reuse(args.engine, block, repeats, console))
    if "barrier" in parts:
        chains = [int(m) for m in args.chains.split(",")]
        one = replace(base, questions=args.questions, questions_in_flight=1)
        asyncio.run(barrier(one, block, chains, repeats, console))


if __name__ == "__main__":
    main()
