"""The forward pass of Llama-type models in few kernels, for CPU, where small models spend their time between kernels.

Same weights and same mathematics as transformers: query, key and value are one matrix product, gate and up
another, the residual is added by the product before it, and all rows write their new KV with one copy. The
weights are shared with the transformers model, and `FusedLlama.of` compares the two on loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional as F

_FAMILIES = {"llama", "mistral", "qwen2"}
_STATIC_ROPE = {"default", "linear", "llama3"}
_TOLERANCE = 1e-3  # of logits: float32 rounding leaves about 1e-5


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one block; `out` and `down` are transposed views."""

    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


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
        self._layers = [self._fuse(block) for block in body.layers]

    @classmethod
    def of(cls, model: Any) -> Self | None:
        """The fused pass of `model`; None where the model is of another make or computes something else."""
        config = model.config
        rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
        known = config.model_type in _FAMILIES and config.hidden_act == "silu" and rope in _STATIC_ROPE
        if not known or any(
            linear.bias is not None
            for block in model.model.layers
            for linear in (block.self_attn.o_proj, block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj)
        ):
            return None
        with torch.inference_mode():
            ids = torch.arange(2 * 5).remainder(config.vocab_size).view(2, 5)
            expected = model(input_ids=ids, use_cache=False).logits
            fused = cls(model)
            kv = torch.zeros(len(fused._layers), 2, 2, fused._kv_heads, 5, fused._dim)
            positions = torch.arange(5).expand(2, 5)
            got = fused(ids, positions, kv, 5, every=True)
        return fused if torch.allclose(got, expected, rtol=_TOLERANCE, atol=_TOLERANCE) else None

    @staticmethod
    def _fuse(block: Any) -> _Layer:
        attention, mlp = block.self_attn, block.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        bias = None if projections[0].bias is None else torch.cat([p.bias for p in projections])
        return _Layer(
            attention_norm=block.input_layernorm.weight,
            qkv=_join(*projections),
            qkv_bias=bias,
            out=attention.o_proj.weight.t(),
            mlp_norm=block.post_attention_layernorm.weight,
            gate_up=_join(mlp.gate_proj, mlp.up_proj),
            down=mlp.down_proj.weight.t(),
        )

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, kv: torch.Tensor, time: int, *, every: bool
    ) -> torch.Tensor:
        """Logits [rows, new, vocab] (with `every` false [rows, 1, vocab]) of `ids` [rows, new] at `positions`.

        `kv` [layers, 2, rows or more, kv_heads, time or more, head_dim] receives the new keys and values; token j of a
        row attends to the row's positions up to its own, out of `time`.
        """
        rows, new = ids.shape
        heads, kv_heads, dim = self._heads, self._kv_heads, self._dim
        rotated = heads + kv_heads
        cosine, sine = self._rotation(positions)
        slots = self._slots(positions, kv)
        mask = self._mask(positions, time)
        hidden = F.embedding(ids.reshape(-1), self._embedding)
        for layer, cache in zip(self._layers, kv, strict=True):
            x = F.rms_norm(hidden, hidden.shape[-1:], layer.attention_norm, self._eps)
            qkv = F.linear(x, layer.qkv, layer.qkv_bias).view(rows * new, -1, dim)
            qk = qkv[:, :rotated]
            swapped = qk.roll(dim // 2, -1)
            qk.mul_(cosine).addcmul_(swapped, sine)
            cache.view(-1, dim).index_copy_(0, slots, qkv[:, heads:].reshape(-1, dim))
            # Heads that share keys stand below each other, as if they were more new tokens.
            query = qkv[:, :heads].view(rows, new, kv_heads, heads // kv_heads, dim).permute(0, 2, 3, 1, 4)
            keys, values = cache[0, :rows, :, :time], cache[1, :rows, :, :time]
            seen = F.scaled_dot_product_attention(query.flatten(2, 3), keys, values, attn_mask=mask)
            seen = seen.view(rows, kv_heads, heads // kv_heads, new, dim).permute(0, 3, 1, 2, 4)
            hidden = torch.addmm(hidden, seen.reshape(rows * new, heads * dim), layer.out)
            x = F.rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, self._eps)
            gate, up = F.linear(x, layer.gate_up).chunk(2, -1)
            hidden = torch.addmm(hidden, F.silu(gate).mul_(up), layer.down)
        if not every:
            hidden = hidden.view(rows, new, -1)[:, -1]
        hidden = F.rms_norm(hidden, hidden.shape[-1:], self._norm, self._eps)
        return F.linear(hidden, self._head).view(rows, new if every else 1, -1)

    def _rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines [rows * new, 1, head_dim] of the rotary embedding."""
        angle = positions.reshape(-1, 1).float() * self._inverse_frequency
        cosine, sine = angle.cos() * self._rope_scale, angle.sin() * self._rope_scale
        return torch.cat((cosine, cosine), -1)[:, None], torch.cat((-sine, sine), -1)[:, None]

    def _slots(self, positions: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """Where in a layer's cache, seen as a list of head vectors, each token's keys and then values go."""
        rows, (_, _, capacity, kv_heads, time, _) = len(positions), kv.shape
        row = torch.arange(rows)[:, None, None, None]
        head = torch.arange(kv_heads)
        kind = torch.arange(2)[:, None]
        return (((kind * capacity + row) * kv_heads + head) * time + positions[:, :, None, None]).reshape(-1)

    def _mask(self, positions: torch.Tensor, time: int) -> torch.Tensor:
        """0 where a token may look and -inf elsewhere, [rows, 1, heads a key * new, time]."""
        hidden = torch.arange(time) > positions[:, None, :, None]
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
        return mask.repeat(1, 1, self._heads // self._kv_heads, 1)


def _join(*linears: Any) -> torch.Tensor:
    """One weight of several, which become views of it."""
    joined = torch.cat([linear.weight.detach() for linear in linears])
    for linear, part in zip(linears, joined.split([len(linear.weight) for linear in linears]), strict=True):
        linear.weight.data = part
    return joined
