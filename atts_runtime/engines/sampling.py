"""Sampling by inverse transform, from each call's own stream of uniforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from atts_runtime.engines.scripted import scripted


def stream(seed: tuple[int, ...], n: int) -> np.ndarray:
    """`n` uniforms in [0, 1) that `seed` alone fixes."""
    return np.random.default_rng(seed).random(n)


def sample(logits: torch.Tensor, temperatures: Sequence[float], uniforms: Sequence[float]) -> list[int]:
    """One token a row from `logits` [rows, vocab]: the smallest id whose cumulative probability exceeds the
    row's uniform. Temperature 0 takes the most likely token."""
    tokens: list[int] = _draw(logits, [t or 1.0 for t in temperatures], list(uniforms)).tolist()
    if 0.0 in temperatures:
        best = logits.argmax(dim=-1).tolist()
        return [best[i] if t == 0 else token for i, (t, token) in enumerate(zip(temperatures, tokens, strict=True))]
    return tokens


@scripted
def _draw(logits: torch.Tensor, temperatures: list[float], uniforms: list[float]) -> torch.Tensor:
    hot = torch.tensor(temperatures, dtype=torch.float32, device=logits.device).unsqueeze(1)
    cumulative = torch.softmax(logits.float() / hot, dim=-1).cumsum(dim=-1)
    u = torch.tensor(uniforms, dtype=torch.float32, device=logits.device).unsqueeze(1)
    # The last sum may fall short of 1 by rounding: scale the draw instead of the whole row. A draw that rounds to
    # the whole sum belongs to the last token that added to it, not to an impossible one after it.
    total = cumulative[:, -1:]
    draw = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, draw, right=True)[:, 0].clamp(max=logits.size(-1) - 1)
