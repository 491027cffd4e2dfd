"""What vLLM's prefix cache saves a run, and what the barrier costs under vLLM. Run it in the environment that has vLLM:

    .venv-vllm/bin/python tests/benchmarks/bench_vllm.py

prefixes  a run's scores: prefix tokens computed again, against those of resending everything
reuse     seconds of a round of scores with the prefix cache and without, two engines taking turns in one process
barrier   wall ratio barrier / async-marginal by chains, runs interleaved on the same engines; r and T_s of either
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from atts_runtime.chain import Progress
from atts_runtime.config import RunConfig
from atts_runtime.control import ChainId
from atts_runtime.engines.base import Engine, Piece, ScoreCall
from atts_runtime.records import CallRecord
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.load import load_task

CHAINS_SCORED = 8
SEGMENT_TOKENS = 48
CONTEXTS = (128, 512, 1024, 1900)
LETTERS = 12  # ids 4..15 of the bundled vocabulary are ordinary words


def run_config(block: int, **options: Any) -> RunConfig:
    """The bundled pair under vLLM on sums of ten terms, whose chains take about ten turns."""
    args = json.dumps({"block_size": block})
    return replace(
        RunConfig(task="arithmetic:9", engine="vllm", turns=24, draft_args=args, target_args=args), **options
    )


async def run(config: RunConfig, engines: dict[str, Engine]) -> tuple[dict[str, Any], list[CallRecord]]:
    """A run's summary and its scores."""
    task = load_task(config.task, config.questions, config.seed)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder) / "run", config, "")
        summary = await run_once(config, task, engines, run_dir, _quiet)
    return summary, [call for record in run_dir.finished for call in record.calls if call.kind == "score"]


def _quiet(progress: Progress) -> None:
    """No progress."""


async def prefixes(block: int, console: Console) -> None:
    config = run_config(block, questions=8, chains=8)
    async with engines_for(config, {"draft", "target"}) as engines:
        summary, scores = await run(config, engines)
    sent = sum(call.tokens_cached + call.tokens_prefilled for call in scores)
    again = sum(call.tokens_recomputed for call in scores)
    over = sum(max(0, call.tokens_recomputed - block) for call in scores)
    console.print(
        f"prefixes, blocks of {block}: {len(scores)} scores, {summary['turns_mean']:.1f} turns a chain; resending "
        f"everything computes {sent} prefix tokens, the cache leaves {again} to compute again "
        f"({again / sent:.1%}), {over} of them beyond one block a call ({over / sent:.1%})"
    )


async def reuse(block: int, repeats: int, console: Console) -> None:
    from atts_runtime.engines.vllm import VllmEngine
    from atts_runtime.engines.vllm_launch import Launch

    models = Path(__file__).parents[2] / "atts_runtime" / "models"
    engines = {
        name: VllmEngine(
            Launch(
                str(models / "target"),
                name,
                64,
                threads=1,
                share=0.2,
                args={"block_size": block, "enable_prefix_caching": name == "cached"},
            )
        )
        for name in ("cached", "anew")
    }
    rng = np.random.default_rng(0)
    table = Table(title=f"seconds of {CHAINS_SCORED} scores of {SEGMENT_TOKENS} tokens, median of {repeats}")
    for column in ("prefix tokens", "cached, s", "anew, s", "anew / cached", "all ratios"):
        table.add_column(column, justify="right")
    try:
        for engine in engines.values():
            await engine.start()
        for context in CONTEXTS:
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            for repeat in range(repeats + 1):  # the first round compiles
                before = [_letters(rng, context) for _ in range(CHAINS_SCORED)]
                first, second = ([_letters(rng, SEGMENT_TOKENS) for _ in before] for _ in range(2))
                for name, engine in engines.items():
                    await engine.reset()
                    vocab = engine._live.vocabulary.vocab
                    warm = [[_piece(b, vocab), _piece(s, vocab)] for b, s in zip(before, first, strict=True)]
                    await _score(engine, warm)
                    asked = [[*pieces, _piece(s, vocab)] for pieces, s in zip(warm, second, strict=True)]
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
    finally:
        await asyncio.gather(*(engine.close() for engine in engines.values()))
    console.print(table)


def _letters(rng: np.random.Generator, n: int) -> tuple[int, ...]:
    return tuple(int(i) for i in 4 + rng.integers(LETTERS, size=n))


def _piece(ids: tuple[int, ...], vocab: str) -> Piece:
    return Piece("", ids, vocab)


async def _score(engine: Engine, chains: list[list[Piece]]) -> None:
    calls = [ScoreCall(ChainId(0, i), "1\n\n", tuple(pieces)) for i, pieces in enumerate(chains)]
    await asyncio.gather(*(engine.score(call) for call in calls))


async def barrier(block: int, chains: list[int], repeats: int, questions: int, console: Console) -> None:
    base = run_config(block, questions=questions, questions_in_flight=1)
    table = Table(title=f"{base.task}, {questions} questions, one in flight, alpha {base.alpha:g}, median of {repeats}")
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
    async with engines_for(base, {"draft", "target"}) as engines:
        for m in chains:
            seen: dict[str, list[dict[str, Any]]] = {"barrier": [], "async-marginal": []}
            for _ in range(repeats):
                for policy, summaries in seen.items():
                    summaries.append((await run(replace(base, chains=m, policy=policy), engines))[0])
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
    parser.add_argument("--parts", default="prefixes,reuse,barrier")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--chains", default="16,64")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    console = Console(width=130)
    if importlib.util.find_spec("vllm") is None:
        console.print("bench_vllm: vLLM is not installed here; make test-vllm sets up .venv-vllm, run it from there")
        return
    parts, block = args.parts.split(","), args.block_size
    if "prefixes" in parts:
        asyncio.run(prefixes(block, console))
    if "reuse" in parts:
        asyncio.run(reuse(block, args.repeats, console))
    if "barrier" in parts:
        chains = [int(m) for m in args.chains.split(",")]
        asyncio.run(barrier(block, chains, args.repeats, args.questions, console))


if __name__ == "__main__":
    main()
