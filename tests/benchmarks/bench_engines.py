"""The three kinds of engine on the same questions, seeds and bank: do they answer and take over alike, and what of the
prefixes do scores compute again? Run it in the environment that has vLLM:

    PYTHONPATH=. .venv-vllm/bin/python tests/benchmarks/bench_engines.py

Differences are to the embedded engine, by question. Prefix tokens are counted against those of resending everything.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from bench_vllm import bank_of, run, running
from rich.console import Console
from rich.table import Table

from atts_runtime.accuracy import clustered_wilson
from atts_runtime.config import RunConfig
from atts_runtime.records import ChainRecord


async def agree(base: RunConfig, block: int, seeds: int, console: Console) -> None:
    title = f"{base.task}, {seeds} x {base.questions} questions x {base.chains} chains, alpha {base.alpha:g}"
    answers = Table(title=f"{title}; differences to the embedded engine by question, 95% intervals")
    for column in ("engine", "chains", "right", "difference", "decisions", "takeover rate", "difference"):
        answers.add_column(column, justify="right")
    prefixes = Table(title=f"prefix tokens that scores compute again, blocks of {block}")
    for column in (
        "engine",
        "scores",
        "turns a chain",
        "resending everything",
        "again",
        "share",
        "beyond a block a call",
    ):
        prefixes.add_column(column, justify="right")
    first: tuple[list[float], list[float]] | None = None
    for kind in ("transformers", "vllm", "http"):
        chains: list[list[ChainRecord]] = []
        async with running(replace(base, engine=kind), block) as (config, engines):
            if base.bank is None:  # one for all: what a run draws for itself would differ by luck
                base = config = replace(config, bank=await bank_of(replace(config, seed=seeds), engines))
            for seed in range(seeds):
                chains.append((await run(replace(config, seed=seed), engines))[1])
        right = _by_question(chains, lambda chain: [chain.correct is True])
        taken = _by_question(chains, lambda chain: [c.taken_over for c in chain.calls if c.taken_over is not None])
        rates = [np.mean(q) for q in right], [np.mean(q) for q in taken]
        first = first or rates
        answers.add_row(
            kind,
            *(
                cell
                for part, now, then in zip((right, taken), rates, first, strict=True)
                for cell in _told(part, now, then)
            ),
        )
        calls = [call for run_ in chains for chain in run_ for call in chain.calls if call.kind == "score"]
        sent = sum(call.tokens_cached + call.tokens_prefilled for call in calls)
        again = sum(call.tokens_recomputed for call in calls)
        over = sum(max(0, call.tokens_recomputed - block) for call in calls)
        turns = np.mean([chain.turns for run_ in chains for chain in run_])
        prefixes.add_row(
            kind, str(len(calls)), f"{turns:.1f}", str(sent), str(again), f"{again / sent:.2%}", f"{over / sent:.2%}"
        )
    console.print(answers)
    console.print(prefixes)


def _by_question(runs: Sequence[Sequence[ChainRecord]], of: Any) -> list[list[bool]]:
    """What `of` says of the chains of each question, the questions of all runs in order."""
    found: dict[tuple[int, int], list[bool]] = {}
    for seed, chains in enumerate(runs):
        for chain in chains:
            found.setdefault((seed, chain.question), []).extend(of(chain))
    return [found[key] for key in sorted(found)]


def _told(part: list[list[bool]], now: Sequence[float], then: Sequence[float]) -> tuple[str, str, str]:
    """How many there are, their share, its difference to another engine's, with intervals over questions."""
    flat = [each for question in part for each in question]
    low, high = clustered_wilson(float(np.mean(flat)), len(flat), now)
    apart = np.subtract(now, then)
    half = 1.96 * np.std(apart, ddof=1) / len(apart) ** 0.5
    return (
        str(len(flat)),
        f"{np.mean(flat):.4f} [{low:.4f}, {high:.4f}]",
        f"{np.mean(apart):+.4f} +- {half:.4f}" if half else "",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="the embedded engine, vLLM in process and vLLM behind servers")
    parser.add_argument("--task", default="arithmetic:9")
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="most of a segment and of a takeover: 24 make ten turns")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1, help="as many times as many questions")
    args = parser.parse_args()
    console = Console(width=140)
    if importlib.util.find_spec("vllm") is None:
        console.print("bench_engines: vLLM is not installed here; make test-vllm sets up .venv-vllm, run it from there")
        return
    base = RunConfig(
        task=args.task,
        questions=args.questions,
        chains=args.chains,
        draft_tokens=args.tokens,
        takeover_tokens=args.tokens,
        turns=24,
    )
    asyncio.run(agree(base, args.block_size, args.seeds, console))


if __name__ == "__main__":
    main()
