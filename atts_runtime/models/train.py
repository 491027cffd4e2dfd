"""Train the bundled pair from a seed: ``python -m atts_runtime.models.train STAGE --out DIR``.

Stages, in order; ``all`` runs them one after another:

``draft``    a small model, on solutions with synthetic slips. Two thirds of the way it is set aside as the draft,
             which errs often enough there to need a guard; at the end it is the seedling of the target.
``harvest``  collects the draft's own wrong steps, on questions outside the held-out split
``solve``    grows the seedling to three times its depth and trains it on text that holds the draft's wrong steps and
             their corrections
``mend``     trains it on, with more of those and a learning rate that falls to its end: the target

All is float32 on a fixed number of threads (`--threads`; the shipped pair: 2), so that the same seed gives the same
weights on the same kind of CPU.
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
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atts_runtime.models.batches import batches
from atts_runtime.models.corpus import Part, mixed, synthetic
from atts_runtime.models.growth import grow
from atts_runtime.models.harvest import harvest, read_harvest, write_harvest
from atts_runtime.models.tokenizer import BOS, EOS, PAD, UNK, build_tokenizer


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a Llama-type model with heads of 32."""

    layers: int
    width: int
    heads: int
    ffn: int


@dataclass(frozen=True, slots=True)
class Phase:
    """How long to train on what. `tokens` counts every token seen, padding excluded; `horizon` is where the learning
    rate would have fallen to its end, if that is not `tokens`.

    `harvested` is the share of solutions with the draft's own wrong steps, the others being synthetic.
    `first_weight` is the loss weight of a paragraph's first token, where a model says "Wait, " or goes on.
    `detect` weighs a second loss: a linear probe, thrown away afterwards, tells from the input of the last layer
    whether something in the paragraph is wrong by then, at every token, where "Wait, " tells it once.
    """

    tokens: int
    lr: float
    batch: int
    seed: int
    harvested: float = 0.0
    first_weight: float = 1.0
    detect: float = 0.0
    horizon: int | None = None


SHAPES = {
    "draft": Shape(layers=2, width=96, heads=3, ffn=384),
    "target": Shape(layers=6, width=128, heads=4, ffn=512),
}
PHASES = {
    "draft": Phase(tokens=12_000_000, lr=3e-3, batch=16, seed=11),
    "solve": Phase(
        tokens=7_000_000,
        lr=1.5e-3,
        batch=8,
        seed=15,
        harvested=0.4,
        first_weight=8.0,
        detect=0.5,
        horizon=12_000_000,
    ),
    "mend": Phase(tokens=6_500_000, lr=8e-4, batch=10, seed=16, harvested=0.6, first_weight=4.0, detect=0.5),
}
DRAFT_TOKENS = 8_000_000
_GROWN_INTO = (0, 2)  # layers of the target that the seedling's two become
_HARVEST_SEED, _HARVEST_QUESTIONS, _KEPT_BACK = 21, 8_000, 200  # the last are kept back, to compare recipes by
MAX_POSITIONS = 2048
_HEAD_DIM = 32


def build_model(shape: Shape) -> LlamaForCausalLM:
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.width,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=_HEAD_DIM,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def fit(
    model: Any,
    corpus: Iterator[list[Part]],
    phase: Phase,
    log: Path,
    on_tokens: Callable[[int], None] = lambda seen: None,
) -> None:
    """AdamW, linear warm-up over 2% of the horizon, then cosine to a hundredth of the peak rate.

    `on_tokens` is called after every step with the tokens seen so far.
    """
    probe = torch.nn.Linear(model.config.hidden_size, 1) if phase.detect else None
    trained = [*model.parameters(), *(probe.parameters() if probe is not None else ())]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=phase.lr, betas=(0.9, 0.98), fused=True)
    last_input: list[torch.Tensor] = []
    hook = model.model.layers[-1].register_forward_pre_hook(lambda _, args: last_input.append(args[0]))
    model.train()
    seen, step, start = 0, 0, time.perf_counter()
    with log.open("w") as out, Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{log.stem}, tokens", total=phase.tokens)
        for batch in batches(corpus, phase.batch, phase.first_weight):
            progress = seen / (phase.horizon or phase.tokens)
            rate = min(progress / 0.02, 1.0) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
            for group in optimizer.param_groups:
                group["lr"] = phase.lr * max(rate, 1e-3)
            logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1]
            nats = F.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
            weights = batch.weights[:, 1:].flatten()
            total = loss = (nats * weights).sum() / weights.sum()
            before_last = last_input.pop()
            if probe is not None:
                told = probe(before_last)[..., 0][batch.real]
                total = loss + phase.detect * F.binary_cross_entropy_with_logits(told, batch.wrong[batch.real])
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            seen, step = seen + int(batch.real.sum()), step + 1
            on_tokens(seen)
            bar.update(task, completed=seen)
            if step % 50 == 0:
                line = {
                    "step": step,
                    "tokens": seen,
                    "loss": round(loss.item(), 4),
                    "extra": round(total.item() - loss.item(), 4),
                    "s": round(time.perf_counter() - start, 1),
                }
                out.write(json.dumps(line) + "\n")
                out.flush()
            if seen >= phase.tokens:
                break
    hook.remove()
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


def train_draft(out: Path) -> None:
    """The seedling, and on the way to it the draft."""
    phase = PHASES["draft"]
    torch.manual_seed(phase.seed)
    model = build_model(SHAPES["draft"])
    done = False

    def set_aside(seen: int) -> None:
        nonlocal done
        if seen >= DRAFT_TOKENS and not done:
            save(model, out / "draft")
            done = True

    fit(model, synthetic(phase.seed), phase, out / "draft.log", set_aside)
    save(model, out / "seedling")


def harvest_draft(out: Path) -> None:
    """The draft's wrong steps."""
    found = asyncio.run(harvest(str(out / "draft"), _HARVEST_SEED, _HARVEST_QUESTIONS))
    write_harvest(found, out / "harvest.jsonl")


def train_solver(out: Path) -> None:
    """The seedling, grown and trained on."""
    torch.manual_seed(PHASES["solve"].seed)
    model = grow(load(out / "seedling"), build_model(SHAPES["target"]), _GROWN_INTO)
    _train_on_harvest(model, "solve", out)


def train_target(out: Path) -> None:
    """The solver, trained to say when something is wrong."""
    torch.manual_seed(PHASES["mend"].seed)
    _train_on_harvest(load(out / "solver"), "mend", out)


def _train_on_harvest(model: Any, name: str, out: Path) -> None:
    phase, found = PHASES[name], read_harvest(out / "harvest.jsonl")[:-_KEPT_BACK]
    fit(model, mixed(phase.seed, found, phase.harvested), phase, out / f"{name}.log")
    save(model, out / {"solve": "solver", "mend": "target"}[name])


_STAGES = {"draft": train_draft, "harvest": harvest_draft, "solve": train_solver, "mend": train_target}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("stage", choices=[*_STAGES, "all"])
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; stages find each other's there")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    for stage in _STAGES if args.stage == "all" else [args.stage]:
        _STAGES[stage](args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
