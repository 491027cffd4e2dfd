"""Sampling by inverse transform, from each call's own stream of uniforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def stream(seed: tuple[int, ...], n: int) -> np.ndarray:
    """`n` uniforms in [0, 1) that `seed` alone fixes."""
    return np.random.default_rng(seed).random(n)


def sample(logits: torch.Tensor, temperatures: Sequence[float], uniforms: Sequence[float]) -> list[int]:
    """One token a row from `logits` [rows, vocab]: the smallest id whose cumulative probability exceeds the
    row's uniform. Temperature 0 takes the most likely token."""
    logits = logits.float()
    hot = torch.tensor([t or 1.0 for t in temperatures], device=logits.device)[:, None]
    cumulative = torch.softmax(logits / hot, dim=-1).cumsum(dim=-1)
    u = torch.tensor(uniforms, dtype=torch.float32, device=logits.device)[:, None]
    # The last sum may fall short of 1 by rounding: scale the draw instead of the whole row. A draw that rounds to
    # the whole sum belongs to the last token that added to it, not to an impossible one after it.
    total = cumulative[:, -1:]
    draw = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens: list[int] = torch.searchsorted(cumulative, draw, right=True)[:, 0].tolist()
    last = logits.shape[-1] - 1
    if 0.0 in temperatures:
        best = logits.argmax(dim=-1).tolist()
        return [best[i] if t == 0 else min(tokens[i], last) for i, t in enumerate(temperatures)]
    return [min(token, last) for token in tokens]
