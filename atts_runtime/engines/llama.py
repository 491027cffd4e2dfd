"""The forward pass of Llama-type models in few kernels, for CPU, where small models spend their time between kernels.

Same weights and same mathematics as transformers: query, key and value are one matrix product, gate and up
another, the residual is added by the product before it, and all rows write their new KV with one copy. The
weights are shared with the transformers model, and `FusedLlama.of` compares the two on loading. The blocks run as
TorchScript: two engines in one process would otherwise take turns at the interpreter, kernel by kernel.
"""

from __future__ import annotations

from typing import Any, Self, TypeAlias

import torch
from torch.nn import functional as F

from atts_runtime.engines.scripted import scripted

_FAMILIES = {"llama", "mistral", "qwen2"}
_STATIC_ROPE = {"default", "linear", "llama3"}
_TOLERANCE = 1e-3  # of logits: float32 rounding leaves about 1e-5


Group: TypeAlias = tuple[torch.Tensor, int, int]
"""Rows that attend together: their KV [layers, 2, rows or more, kv_heads, time or more, head_dim], how many they are,
and time, the positions that they attend over."""


class FusedLlama:
    """A drop-in for the transformers forward pass; make it with `of`."""

    def __init__(self, model: Any) -> None:
        body, config = model.model, model.config
        self._embedding: torch.Tensor = body.embed_tokens.weight
        self._head: torch.Tensor = model.lm_head.weight
        self._norm: torch.Tensor = body.norm.weight
        self._eps: float = config.rms_norm_eps
        self._inverse_frequency: torch.Tensor = body.rotary_emb.inv_freq
        self._rope_scale: float = body.rotary_emb.attention_scaling
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._dim: int = body.layers[0].self_attn.head_dim
        fused = [_fuse(block) for block in body.layers]
        self._weights = [weights for weights, _ in fused]
        self._qkv_biases = [bias for _, bias in fused]

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """The fused pass of `model`; None where the model is of another make or computes something else."""
        config = model.config
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        known = config.model_type in _FAMILIES and config.hidden_act == "silu" and rope in _STATIC_ROPE
        if not known or not all(_is_plain(block) for block in model.model.layers):
            return None
        positions = torch.arange(5).expand(2, 5)
        ids = positions.remainder(config.vocab_size)
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits
            fused = cls(model)
            shape = (len(fused._weights), 2, 2, fused._kv_heads, 5, fused._dim)
            got = fused(ids, positions, [(torch.zeros(shape, dtype=torch.float32), 2, 5)], every=True)
        return fused if torch.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE) else None

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, groups: list[Group], *, every: bool) -> torch.Tensor:
        """Logits [rows, new, vocab] (with `every` false [rows, 1, vocab]) of `ids` [rows, new] at `positions`.

        Rows attend in `groups`, one after the other. A group's KV receives the new keys and values; token j of a row
        attends to the row's positions up to its own, out of the group's. Rows beyond all groups are padding, of which
        nothing is kept.
        """
        return _forward(
            ids,
            positions,
            groups,
            every,
            self._weights,
            self._qkv_biases,
            (self._embedding, self._norm, self._head),
            (self._inverse_frequency, self._rope_scale),
            (self._heads, self._kv_heads, self._dim),
            self._eps,
        )


def _is_plain(block: Any) -> bool:
    """Whether a block has float32 linear layers, none quantised, and biases at most of query, key and value."""
    attention, mlp = block.self_attn, block.mlp
    free = (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, *free)
    return all(type(x) is torch.nn.Linear and x.weight.dtype == torch.float32 for x in linears) and all(
        x.bias is None for x in free
    )


def _fuse(block: Any) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """A block's weights in the order in which `_forward` uses them, and its bias of query, key and value."""
    attention, mlp = block.self_attn, block.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    bias = None if projections[0].bias is None else torch.cat([p.bias.detach() for p in projections])
    weights = [
        block.input_layernorm.weight.detach(),
        _join(*projections),
        attention.o_proj.weight.detach().t(),
        block.post_attention_layernorm.weight.detach(),
        _join(mlp.gate_proj, mlp.up_proj),
        mlp.down_proj.weight.detach().t(),
    ]
    return weights, bias


def _join(*linears: Any) -> torch.Tensor:
    """One weight of several, which become views of it."""
    joined = torch.cat([linear.weight.detach() for linear in linears])
    for linear, part in zip(linears, joined.split([len(linear.weight) for linear in linears]), strict=True):
        linear.weight.data = part
    return joined


@scripted
def _normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square normalisation; torch's own takes three times as long on few rows."""
    return x * x.square().mean(-1, keepdim=True).add_(eps).rsqrt_() * weight


@scripted
def _forward(
    ids: torch.Tensor,
    positions: torch.Tensor,
    groups: list[tuple[torch.Tensor, int, int]],
    every: bool,
    weights: list[list[torch.Tensor]],
    qkv_biases: list[torch.Tensor | None],
    ends: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    rope: tuple[torch.Tensor, float],
    shape: tuple[int, int, int],
    eps: float,
) -> torch.Tensor:
    """See `FusedLlama.__call__`; `shape` is heads, heads of keys, and their width."""
    heads, kv_heads, dim = shape
    embedding, norm, head = ends
    rows, new = ids.size(0), ids.size(1)
    sharing, rotated = heads // kv_heads, heads + kv_heads

    angle = positions.reshape(-1, 1) * rope[0]
    cosine, sine = angle.cos() * rope[1], angle.sin() * rope[1]
    cosine = torch.cat((cosine, cosine), -1).unsqueeze(1)
    sine = torch.cat((-sine, sine), -1).unsqueeze(1)

    # Where each new token's keys, and then values, go in a layer's cache seen as a list of head vectors; and 0 where a
    # token may look, -inf elsewhere. Heads that share keys stand below each other, as if more tokens.
    slots: list[torch.Tensor] = []
    masks: list[torch.Tensor] = []
    count = torch.arange(max([max(time, attending, 2 * kv_heads) for _, attending, time in groups]))
    both = count[: 2 * kv_heads]
    own_head, value_rows = both % kv_heads, (both >= kv_heads) * kv_heads
    first = 0
    for kv, attending, time in groups:
        own = positions[first : first + attending].view(attending, 1, new, 1)
        line = own_head + value_rows * kv.size(2) + (count[:attending] * kv_heads).view(-1, 1, 1, 1)
        slots.append((line * kv.size(4) + own).reshape(-1))
        mask = torch.zeros(attending, 1, new, time, dtype=kv.dtype).masked_fill_(count[:time] > own, float("-inf"))
        masks.append(mask if sharing == 1 else mask.repeat(1, 1, sharing, 1))
        first += attending

    hidden = F.embedding(ids.reshape(-1), embedding)
    seen = torch.zeros(rows * new, heads * dim, dtype=hidden.dtype)
    for i, layer in enumerate(weights):
        qkv = F.linear(_normed(hidden, layer[0], eps), layer[1], qkv_biases[i]).view(rows * new, -1, dim)
        qk = qkv[:, :rotated]
        swapped = qk.roll(dim // 2, -1)
        qk.mul_(cosine).addcmul_(swapped, sine)
        start = 0
        for g, (kv, attending, time) in enumerate(groups):
            cache, end = kv[i], start + attending * new
            cache.view(-1, dim).index_copy_(0, slots[g], qkv[start:end, heads:].reshape(-1, dim))
            query = qkv[start:end, :heads].view(attending, new, kv_heads, sharing, dim)
            query = query.permute(0, 2, 3, 1, 4).flatten(2, 3)
            keys, values = cache[0, :attending, :, :time], cache[1, :attending, :, :time]
            found = F.scaled_dot_product_attention(query, keys, values, attn_mask=masks[g])
            found = found.view(attending, kv_heads, sharing, new, dim).permute(0, 3, 1, 2, 4)
            seen[start:end] = found.reshape(attending * new, heads * dim)
            start = end
        hidden = torch.addmm(hidden, seen, layer[2])
        gate, up = F.linear(_normed(hidden, layer[3], eps), layer[4]).chunk(2, -1)
        hidden = torch.addmm(hidden, F.silu(gate).mul_(up), layer[5])
    if not every:
        hidden = hidden.view(rows, new, -1)[:, -1]
    return F.linear(_normed(hidden, norm, eps), head).view(rows, -1, head.size(0))
