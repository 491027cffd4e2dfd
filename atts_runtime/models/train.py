"""Train the bundled pair from a seed: ``python -m atts_runtime.models.train STAGE --out DIR``.

Stages, in order:

``draft``    a small model, on solutions with synthetic slips. Two thirds of the way it is set aside as the draft,
             which errs often enough there to need a guard; at the end it is the seedling of the target.
``harvest``  collects the draft's own wrong steps, on questions outside the held-out split
``target``   grows the seedling to six times its depth and trains it on text that holds the draft's wrong steps and
             their corrections

All is float32 on a fixed number of threads (`--threads`; the shipped pair: 1, and 2 for ``target``), so that the
same seed gives the same weights on the same kind of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    """Shape of a model and how long it trains. `tokens` counts every token seen, padding excluded."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    tokens: int
    lr: float
    batch: int
    seed: int


RECIPES = {
    "draft": Recipe(layers=2, width=96, heads=3, kv_heads=3, ffn=384, tokens=12_000_000, lr=3e-3, batch=16, seed=11),
    "target": Recipe(layers=12, width=96, heads=3, kv_heads=3, ffn=384, tokens=4_500_000, lr=1.5e-3, batch=12, seed=15),
}
DRAFT_TOKENS = 8_000_000
_GROWN_AFTER = {0: 4, 1: 6}  # new layers of the target after each of the seedling's two
_HARVEST_SHARE = 0.4
_HARVEST_SEED, _HARVEST_QUESTIONS = 21, 8_000
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


def grow(seedling: LlamaForCausalLM, recipe: Recipe) -> LlamaForCausalLM:
    """A deeper model that computes what `seedling` does: the layers put in write nothing until they are trained."""
    model = build_model(recipe)
    grown, old = model.model, seedling.model
    grown.embed_tokens.load_state_dict(old.embed_tokens.state_dict())
    grown.norm.load_state_dict(old.norm.state_dict())
    at = 0
    for index, layer in enumerate(old.layers):
        grown.layers[at].load_state_dict(layer.state_dict())
        for new in grown.layers[at + 1 : at + 1 + _GROWN_AFTER[index]]:
            torch.nn.init.zeros_(new.self_attn.o_proj.weight)
            torch.nn.init.zeros_(new.mlp.down_proj.weight)
        at += 1 + _GROWN_AFTER[index]
    return model


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


def fit(
    model: Any,
    corpus: Iterator[list[Part]],
    recipe: Recipe,
    log: Path,
    on_tokens: Callable[[int], None] = lambda seen: None,
) -> None:
    """AdamW, linear warm-up over 2% of the tokens, then cosine to a hundredth of the peak rate.

    `on_tokens` is called after every step with the tokens seen so far.
    """
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
            on_tokens(seen)
            if step % 50 == 0:
                line = {
                    "step": step,
                    "tokens": seen,
                    "loss": round(loss.item(), 4),
                    "s": round(time.perf_counter() - start, 1),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()
            if seen >= recipe.tokens:
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


def train_draft(out: Path) -> None:
    """The seedling, and on the way to it the draft."""
    recipe = RECIPES["draft"]
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)

    def set_aside(seen: int) -> None:
        if seen >= DRAFT_TOKENS and not (out / "draft").exists():
            save(model, out / "draft")

    fit(model, synthetic(recipe.seed), recipe, out / "draft.log", set_aside)
    save(model, out / "seedling")


def train_target(out: Path) -> None:
    """The seedling, grown and trained on."""
    recipe = RECIPES["target"]
    torch.manual_seed(recipe.seed)
    model = grow(load(out / "seedling"), recipe)
    fit(model, mixed(recipe.seed, read_harvest(out / "harvest.jsonl"), _HARVEST_SHARE), recipe, out / "target.log")
    save(model, out / "target")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=["draft", "harvest", "target"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; stages find each other's there")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage == "draft":
        train_draft(args.out)
    elif args.stage == "harvest":
        found = asyncio.run(harvest(str(args.out / "draft"), _HARVEST_SEED, _HARVEST_QUESTIONS))
        write_harvest(found, args.out / "harvest.jsonl")
    else:
        train_target(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
