"""Tokens per second of the embedded engine and of plain `model.generate`, on the same prompts at several sizes.

    python -m tests.benchmarks.bench_engine --sizes 1,4,16,64 --tokens 100 --repeats 3 [--record]

Each of N chains draws exactly so many tokens at temperature 1: the end of text is switched off on both sides. The
engine gets N calls at once, `generate` one left-padded batch of N. Both compute the prompts within the time taken, on
one thread in the same dtype; repeats are interleaved and the medians are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import atts_runtime
from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import GenerateCall
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.models.train import SHAPES, build_model, save
from atts_runtime.tasks.arithmetic import questions
from tests.benchmarks import record

BUNDLED = Path(atts_runtime.__file__).parent / "models" / "target"
SEED = 0


@contextmanager
def model_folder(model: str | None) -> Iterator[str]:
    """The model asked for, else the bundled target, else one of its shape with random weights."""
    if model is not None or (BUNDLED / "config.json").exists():
        yield model or str(BUNDLED)
        return
    with tempfile.TemporaryDirectory() as folder:
        save(build_model(SHAPES["target"]), Path(folder) / "random-target")
        yield str(Path(folder) / "random-target")


async def engine_seconds(engine: TransformersEngine, prompts: list[str], tokens: int) -> float:
    """Wall time of one call a prompt, all at once, on an engine that holds nothing yet."""
    await engine.reset()
    calls = [GenerateCall(ChainId(i, 0), p, (), tokens, 1.0, None, (SEED, i)) for i, p in enumerate(prompts)]
    start = time.perf_counter()
    results = await asyncio.gather(*map(engine.generate, calls))
    seconds = time.perf_counter() - start
    assert all(len(result.piece.ids) == tokens for result in results)
    return seconds


@torch.inference_mode()
def plain_seconds(model: Any, tokenizer: Any, prompts: list[str], tokens: int) -> float:
    """Wall time of `generate` on one batch of the prompts."""
    torch.manual_seed(SEED)
    start = time.perf_counter()
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    options: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    out = model.generate(**inputs.to(model.device), **options, max_new_tokens=tokens)
    seconds = time.perf_counter() - start
    assert out.shape[1] == inputs["input_ids"].shape[1] + tokens
    return seconds


async def measure(folder: str, sizes: list[int], tokens: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    """A row a size: tokens per second of every repeat, engine and plain in turn."""
    torch.set_num_threads(threads)
    engine = TransformersEngine(folder, name="bench", max_rows=max(sizes), threads=threads)
    await engine.start()
    lm = engine._live.lm
    # Both sides run on past the end of text, so that every chain does the same work.
    lm.eos_ids = frozenset()
    lm.model.generation_config.eos_token_id = None
    if lm.tokenizer.pad_token_id is None:
        lm.tokenizer.pad_token = lm.tokenizer.eos_token
    lm.model.generation_config.pad_token_id = lm.tokenizer.pad_token_id
    prompts = [question.prompt for question in islice(questions(SEED), max(sizes))]
    rows = []
    for size in sizes:
        batch = prompts[:size]
        row: dict[str, Any] = {"size": size, "engine": [], "plain": []}
        await engine_seconds(engine, batch, 4)
        plain_seconds(lm.model, lm.tokenizer, batch, 4)
        for _ in range(repeats):
            row["engine"].append(size * tokens / await engine_seconds(engine, batch, tokens))
            row["plain"].append(size * tokens / plain_seconds(lm.model, lm.tokenizer, batch, tokens))
        row["ratio"] = statistics.median(row["engine"]) / statistics.median(row["plain"])
        rows.append(row)
    await engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="tokens/s of the embedded engine and of plain generate")
    parser.add_argument("--model", help="folder or hub id (default: the bundled target, or its shape at random)")
    parser.add_argument("--sizes", default="1,4,16,64", help="concurrent chains, comma-separated")
    parser.add_argument("--tokens", type=int, default=100, help="tokens that each chain generates")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write the table into docs/runtime.md")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    with model_folder(args.model) as folder:
        rows = asyncio.run(measure(folder, sizes, args.tokens, args.repeats, threads=1))
        name = Path(folder).name
    shown = []
    for row in rows:
        speeds = (f"{statistics.median(row[side]):,.0f}" for side in ("engine", "plain"))
        shown.append((str(row["size"]), *speeds, f"{row['ratio']:.2f}"))
    columns = ("chains", "engine, tokens/s", "generate, tokens/s", "ratio")
    if args.record:
        record.write("engine-speed", record.new(record.asked("tests.benchmarks.bench_engine"), columns, shown))
    if args.json:
        print(json.dumps({"model": name, "tokens": args.tokens, "rows": rows}))
        return
    table = Table(title=f"{name}, {args.tokens} tokens a chain, median of {args.repeats}")
    for column in columns:
        table.add_column(column, justify="right")
    for cells in shown:
        table.add_row(*cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
