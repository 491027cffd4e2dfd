"""Measure the bundled pair on held-out questions: ``python -m atts_runtime.models.evaluate``.

Prints, as JSON, what the model card states and a user of the pair relies on:

accuracy     mean-chain accuracy of each model alone, by the runtime's own `draft-only` and `target-only` runs
cost         FLOPs of one decoded token at a 128-token context, by torch's FlopCounterMode on eager attention
AUROC        of the target's segment score, wrong against right draft steps
repair       share of wrong draft steps after which the continuing target writes the right step; also without the steps
             that only repeat the one before, which need no mending

Steps are sampled on right prefixes, so that each is wrong by its own fault.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from atts_runtime.accuracy import wilson
from atts_runtime.chain import Progress
from atts_runtime.config import RunConfig
from atts_runtime.control import ChainId
from atts_runtime.engines.base import Engine, GenerateCall, Piece, ScoreCall
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.arithmetic import PARAGRAPH, WAIT, Sum, questions
from atts_runtime.tasks.load import load_task

_CONTEXT_TOKENS = 128
_MAX_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Step:
    """One drafted step and the target's score of it (nats per token).

    `repaired` is None for a right step; `repeats` marks a wrong one that only says the step before again.
    """

    right: bool
    ell: float
    repaired: bool | None
    repeats: bool


def decode_flops(folder: Path) -> int:
    """FLOPs of decoding one token after `_CONTEXT_TOKENS`, multiply and add counted apart."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.inference_mode():
        past = model(input_ids=torch.ones(1, _CONTEXT_TOKENS, dtype=torch.long), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.ones(1, 1, dtype=torch.long), past_key_values=past, use_cache=True)
    return int(counter.get_total_flops())


def auroc(wrong: Sequence[float], right: Sequence[float]) -> float:
    """Chance that a wrong step scores stranger than a right one, ties counted half (Mann-Whitney)."""
    from atts_runtime.conformal import Bank

    bank = Bank(right)
    counts = [bank.counts(ell) for ell in wrong]
    return sum(c.n - c.greater - c.equal / 2 for c in counts) / (len(wrong) * len(right))


async def draft_steps(
    engines: dict[str, Engine], n_questions: int, chains: int, seed: int, temperature: float
) -> list[Step]:
    """Every step of held-out questions, drafted `chains` times on the right prefix, scored and, if wrong, continued."""
    draft, target = engines["draft"], engines["target"]

    async def one(q: int, question: Sum, step: int, chain: int) -> Step:
        key = ChainId(q, step * chains + chain)
        before = "".join(question.paragraphs[:step])
        prefix = (Piece(before, (), "text"),) if before else ()
        seeds = [(seed, q, step, chain, role) for role in (0, 1)]
        call = GenerateCall(key, question.prompt, prefix, _MAX_TOKENS, temperature, PARAGRAPH, seeds[0])
        segment = (await draft.generate(call)).piece
        pieces = (*prefix, segment)
        ell = (await target.score(ScoreCall(key, question.prompt, pieces))).ell
        truth = question.paragraphs[step]
        written = segment.text.removeprefix(WAIT)
        repeats = written == question.step_before(step)
        repaired = None
        right = written == truth
        if not right:
            call = GenerateCall(key, question.prompt, pieces, _MAX_TOKENS, temperature, PARAGRAPH, seeds[1])
            repaired = (await target.generate(call)).piece.text.removeprefix(WAIT) == truth
        draft.release(key)
        target.release(key)
        return Step(right, ell, repaired, repeats)

    held_out = list(islice(questions(seed), n_questions))
    return await asyncio.gather(
        *(
            one(q, s, step, c)
            for q, s in enumerate(held_out)
            for step in range(len(s.paragraphs))
            for c in range(chains)
        )
    )


async def measure(config: RunConfig, n_questions: int) -> dict[str, Any]:
    """All figures of the card."""
    result: dict[str, Any] = {"questions": n_questions, "chains": config.chains, "temperature": config.temperature}
    task = load_task("arithmetic", n_questions, config.seed)
    async with engines_for(config, {"draft", "target"}) as engines:
        for policy in ("draft-only", "target-only"):
            run = config.with_options({"policy": policy})
            with tempfile.TemporaryDirectory() as folder:
                run_dir = RunDir.create(Path(folder) / "run", run, "")
                result[policy] = (await run_once(run, task, engines, run_dir, _quiet))["accuracy"]
        steps = await draft_steps(engines, n_questions, 2, config.seed, config.temperature)
    right, wrong = [s.ell for s in steps if s.right], [s.ell for s in steps if not s.right]
    result["steps"] = {
        "drafted": len(steps),
        "wrong_share": len(wrong) / len(steps),
        "auroc": auroc(wrong, right) if wrong and right else math.nan,
        "median_ell_right": sorted(right)[len(right) // 2] if right else None,
        "median_ell_wrong": sorted(wrong)[len(wrong) // 2] if wrong else None,
        "repair": repair_rate([s for s in steps if not s.right]),
        "repair_of_wrong_values": repair_rate([s for s in steps if not s.right and not s.repeats]),
    }
    return result


def repair_rate(wrong: Sequence[Step]) -> dict[str, Any]:
    """Share of wrong steps that the target repaired, with its Wilson interval."""
    if not wrong:
        return {"of": 0, "rate": None, "ci95": None}
    rate = sum(bool(step.repaired) for step in wrong) / len(wrong)
    return {"of": len(wrong), "rate": rate, "ci95": list(wilson(rate, len(wrong)))}


def _quiet(progress: Progress) -> None:
    """No progress."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="measure the bundled pair on held-out questions")
    parser.add_argument("--draft", default="bundled")
    parser.add_argument("--target", default="bundled")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    config = RunConfig(draft=args.draft, target=args.target, chains=args.chains, seed=args.seed)
    result = asyncio.run(measure(config, args.questions))
    here = Path(__file__).parent
    folders = {r: here / r if getattr(args, r) == "bundled" else Path(getattr(args, r)) for r in ("draft", "target")}
    flops = {role: decode_flops(folder) for role, folder in folders.items()}
    result["decode_flops"] = {**flops, "ratio": flops["target"] / flops["draft"]}
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
