"""Train the bundled pair from a seed: ``python -m atts_runtime.models.train STAGE --out DIR``.

Stages, in order (the first two of the target do not need `harvest` and can run beside `draft`):

``draft``        the small model, on solutions with synthetic slips
``target-base``  the large model, on the same kind of text
``target-more``  continues it, with a warm restart of the learning rate
``harvest``      collects the draft's own wrong steps, on questions outside the held-out split
``target-mend``  continues `target-more` on text that holds those wrong steps and their corrections
``target``       continues `target-mend` on more of it, in smaller batches

Each stage is float32 on a fixed number of threads (`--threads`; the shipped pair: 1, and 2 for ``target``), so that
the same seed gives the same weights on the same kind of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atts_runtime.control import ChainId
from atts_runtime.engines.base import GenerateCall, Piece
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.models.corpus import Harvest, Part, mixed, synthetic
from atts_runtime.models.tokenizer import BOS, EOS, PAD, UNK, build_tokenizer
from atts_runtime.tasks.arithmetic import PARAGRAPH, WAIT, Sum, questions


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape of a model and how long it trains.

    `tokens` counts every token seen, padding excluded, and sets the learning rate's schedule; training stops at
    `stop_tokens` where that is given.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    tokens: int
    lr: float
    batch: int
    seed: int
    stop_tokens: int | None = None


RECIPES = {
    "draft": Recipe(
        layers=2,
        width=96,
        heads=3,
        kv_heads=3,
        ffn=384,
        tokens=12_000_000,
        lr=3e-3,
        batch=16,
        seed=11,
        stop_tokens=8_000_000,
    ),
    "target-base": Recipe(
        layers=6, width=192, heads=6, kv_heads=2, ffn=512, tokens=3_500_000, lr=1.5e-3, batch=12, seed=12
    ),
    "target-more": Recipe(
        layers=6, width=192, heads=6, kv_heads=2, ffn=512, tokens=2_000_000, lr=1.5e-3, batch=12, seed=14
    ),
    "target-mend": Recipe(
        layers=6, width=192, heads=6, kv_heads=2, ffn=512, tokens=8_000_000, lr=1.5e-3, batch=12, seed=13
    ),
    "target": Recipe(layers=6, width=192, heads=6, kv_heads=2, ffn=512, tokens=6_000_000, lr=1.5e-3, batch=8, seed=15),
}
_CONTINUES = {"target-more": "target-base", "target-mend": "target-more", "target": "target-mend"}
_HARVEST_SHARE = {"target-mend": 0.6, "target": 0.4}
MAX_POSITIONS = 2048
_MAX_STEP_TOKENS = 48


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.width,
        intermediate_size=recipe.ffn,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.width // recipe.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def batches(corpus: Iterator[list[Part]], size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """(ids, labels, real tokens): right-padded rows of like length; labels are -100 where no loss is taken."""
    tokenizer = build_tokenizer()
    bos, eos, pad = (tokenizer.token_to_id(t) for t in (BOS, EOS, PAD))
    while True:
        rows = []
        for _ in range(size * 16):
            ids, labels = [bos], [-100]
            for piece in next(corpus):
                part = tokenizer.encode(piece.text, add_special_tokens=False).ids
                ids += part
                labels += part if piece.learned else [-100] * len(part)
            rows.append(([*ids, eos], [*labels, eos]))
        rows.sort(key=lambda row: len(row[0]))
        chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
        order = torch.randperm(len(chunks)).tolist()
        for chunk in (chunks[i] for i in order):
            longest = max(len(ids) for ids, _ in chunk)
            ids_t = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in chunk])
            labels_t = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in chunk])
            yield ids_t, labels_t, sum(len(ids) for ids, _ in chunk)


def fit(model: Any, corpus: Iterator[list[Part]], recipe: Recipe, log: Path) -> None:
    """AdamW, linear warm-up over 2% of the tokens, then cosine to a hundredth of the peak rate."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
    model.train()
    seen, step, start = 0, 0, time.perf_counter()
    with log.open("w") as out:
        for ids, labels, tokens in batches(corpus, recipe.batch):
            progress = seen / recipe.tokens
            rate = min(progress / 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * max(rate, 1e-3)
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seen, step = seen + tokens, step + 1
            if step % 50 == 0:
                line = {
                    "step": step,
                    "tokens": seen,
                    "loss": round(loss.item(), 4),
                    "s": round(time.perf_counter() - start, 1),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()
            if seen >= (recipe.stop_tokens or recipe.tokens):
                break
    model.eval()


def save(model: Any, folder: Path) -> None:
    """Weights (in float16, half the size), config, generation config and tokenizer.json in one folder."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(), bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK
    )
    fast.model_max_length = MAX_POSITIONS
    fast.save_pretrained(folder)
    half = copy.deepcopy(model).half()
    half.config.max_position_embeddings = MAX_POSITIONS
    half.save_pretrained(folder)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


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
            if written.text.removeprefix(WAIT) != right:
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=["draft", "target-base", "target-more", "harvest", "target-mend", "target"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, help="train on so many tokens (default: the recipe's)")
    parser.add_argument("--questions", type=int, default=8_000, help="harvest: questions with at least one wrong step")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage == "harvest":
        write_harvest(asyncio.run(harvest(str(args.out / "draft"), 21, args.questions)), args.out / "harvest.jsonl")
        return 0
    recipe = RECIPES[args.stage]
    if args.tokens:
        recipe = Recipe(**{**asdict(recipe), "tokens": args.tokens})
    torch.manual_seed(recipe.seed)
    model = load(args.out / _CONTINUES[args.stage]) if args.stage in _CONTINUES else build_model(recipe)
    share = _HARVEST_SHARE.get(args.stage)
    corpus = (
        synthetic(recipe.seed)
        if share is None
        else mixed(recipe.seed, read_harvest(args.out / "harvest.jsonl"), share)
    )
    fit(model, corpus, recipe, args.out / f"{args.stage}.log")
    save(model, args.out / args.stage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
