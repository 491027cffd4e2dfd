"""Padded batches of training text, with loss weights and the marks of what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from atts_runtime.engines.chains import common_prefix
from atts_runtime.models.corpus import Part
from atts_runtime.models.tokenizer import BOS, EOS, PAD, build_tokenizer
from atts_runtime.tasks.arithmetic import WAIT


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded rows of like length, shape [rows, longest] each.

    `weights` are the loss weights of predicting `ids` (0: not learned); `wrong` is 1 from the first wrong token of a
    wrong paragraph to its end, 0 elsewhere; `real` masks the padding.
    """

    ids: torch.Tensor
    weights: torch.Tensor
    wrong: torch.Tensor
    real: torch.Tensor


def batches(corpus: Iterator[list[Part]], size: int, first_weight: float) -> Iterator[Batch]:
    """Rows from the corpus; the first token of every learned part weighs `first_weight`, the others 1.

    That token is where a model says "Wait, " or goes on.
    """
    tokenizer = build_tokenizer()
    bos, eos, pad = (tokenizer.token_to_id(t) for t in (BOS, EOS, PAD))

    def row_of(parts: list[Part]) -> list[tuple[int, float, float]]:
        row = [(bos, 0.0, 0.0)]
        for part in parts:
            ids = tokenizer.encode(part.text, add_special_tokens=False).ids
            weights = [first_weight] + [1.0] * (len(ids) - 1) if part.learned else [0.0] * len(ids)
            wrong = [0.0] * len(ids)
            if part.instead_of is not None:
                wait = WAIT if part.text.startswith(WAIT) else ""
                same = common_prefix(ids, tokenizer.encode(wait + part.instead_of, add_special_tokens=False).ids)
                # What merely breaks off shows it by its end.
                wrong = [float(i >= min(same, len(ids) - 1)) for i in range(len(ids))]
            row += zip(ids, weights, wrong, strict=True)
        return [*row, (eos, 1.0, 0.0)]

    while True:
        rows = sorted((row_of(next(corpus)) for _ in range(size * 16)), key=len)
        chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
        for at in torch.randperm(len(chunks)).tolist():
            longest = max(map(len, chunks[at]))
            padded = [row + [(pad, 0.0, 0.0)] * (longest - len(row)) for row in chunks[at]]
            ids, weights, wrong = (torch.tensor([[cell[k] for cell in row] for row in padded]) for k in range(3))
            lengths = torch.tensor([len(row) for row in chunks[at]])
            yield Batch(ids, weights, wrong, torch.arange(longest) < lengths[:, None])
