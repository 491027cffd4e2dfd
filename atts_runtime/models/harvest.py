"""The draft's own wrong paragraphs, which is what the target has to mend."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from pathlib import Path

import torch

from atts_runtime.control import ChainId
from atts_runtime.engines.base import GenerateCall, Piece
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.models.corpus import Harvest
from atts_runtime.tasks.arithmetic import PARAGRAPH, WAIT, Sum, questions

_MAX_STEP_TOKENS = 48


async def harvest(draft: str, seed: int, n_questions: int, temperature: float = 0.9) -> list[Harvest]:
    """Let the draft solve questions a paragraph at a time; keep what it gets wrong, go on from the correction."""
    engine = TransformersEngine(draft, name="draft", max_rows=128, threads=torch.get_num_threads())
    await engine.start()

    async def solve(number: int, question: Sum) -> Harvest:
        item, key = Harvest(question, {}), ChainId(number, 0)
        pieces: list[Piece] = []
        for step, right in enumerate(question.paragraphs):
            call = GenerateCall(
                key, question.prompt, tuple(pieces), _MAX_STEP_TOKENS, temperature, PARAGRAPH, (seed, number, step)
            )
            written = (await engine.generate(call)).piece
            pieces.append(written)
            if written.text and written.text.removeprefix(WAIT) != right:
                item.wrong[step] = written.text
                pieces.append(Piece(WAIT + right, (), "text"))
        engine.release(key)
        return item

    stream = enumerate(questions(seed, held_out=False))
    out: list[Harvest] = []
    try:
        while len(out) < n_questions:
            solved = await asyncio.gather(*(solve(*pair) for pair in islice(stream, 1024)))
            out += [item for item in solved if item.wrong]
    finally:
        await engine.close()
    return out


def write_harvest(items: list[Harvest], path: Path) -> None:
    with path.open("w") as out:
        for item in items:
            out.write(
                json.dumps({"first": item.question.first, "rest": item.question.rest, "wrong": item.wrong}) + "\n"
            )


def read_harvest(path: Path) -> list[Harvest]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Harvest(Sum(r["first"], tuple(r["rest"])), {int(k): v for k, v in r["wrong"].items()}) for r in rows]
