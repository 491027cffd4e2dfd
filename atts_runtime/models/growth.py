"""Grow a small trained model into a deeper and wider one that starts out as good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


@torch.no_grad()
def grow(seedling: Any, model: Any, places: Sequence[int]) -> Any:
    """Fill `model`, which has more layers, heads and width, so that it computes what `seedling` does.

    Layer i of the seedling becomes layer `places[i]`. All that is new reads what is there, and writes zeros until it is
    trained. The norms' weights shrink, because the mean square of a width padded with zeros does.
    """
    grown, old = model.model, seedling.model
    width = old.config.hidden_size
    shrink = math.sqrt(width / grown.config.hidden_size)
    grown.embed_tokens.weight.zero_()
    grown.embed_tokens.weight[:, :width] = old.embed_tokens.weight
    grown.norm.weight[:width] = old.norm.weight * shrink
    for layer in grown.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    for place, source in zip(places, old.layers, strict=True):
        weights = dict(source.named_parameters())
        for name, new in grown.layers[place].named_parameters():
            was = weights[name]
            new[tuple(slice(n) for n in was.shape)] = was * shrink if was.ndim == 1 else was
    return model
