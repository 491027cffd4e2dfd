"""The shape of a decoder-only transformer: all that its parameters, FLOPs and bytes follow from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from atts_runtime.errors import InputError
from atts_runtime.profiler.provenance import whole
from atts_runtime.profiler.published import fields_of_config, fields_of_profile

__all__ = ["Experts", "ModelSpec"]


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture-of-experts layers of a model; its other layers have a dense MLP.

    layers           how many layers are mixtures
    experts          routed experts in each
    per_token        experts that a token is sent to
    ffn              inner width of one expert
    shared_ffn       inner width of the expert that every token passes, mixed in by a gate of one output (as in
                     Qwen2-MoE); None: there is none
    """

    layers: int
    experts: int
    per_token: int
    ffn: int
    shared_ffn: int | None = None

    def __post_init__(self) -> None:
        _whole(self, "layers", "experts", "per_token", "ffn", *([] if self.shared_ffn is None else ["shared_ffn"]))
        if self.per_token > self.experts:
            raise InputError(f"a token cannot go to {self.per_token} of {self.experts} experts; lower per_token")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Dimensions of a model of the Llama make: RMS norms, rotary positions, full causal attention, KV per `kv_heads`.

    width                 of the residual stream
    heads, kv_heads       query heads, and key (or value) heads that they share
    ffn                   inner width of a dense MLP; None where every layer is a mixture
    tied                  the logits use the embedding's weights
    gated_mlp             an MLP has three matrices (gate, up, down), else two
    qkv_bias, out_bias    biases of query, key and value, and of the attention's output
    mlp_bias              biases of a dense MLP
    qk_norm               a norm over `head_dim` on queries and on keys
    bytes_per_weight, bytes_per_kv_element
                          as served, which need not be as published; a fraction where several weights share a byte
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int | None
    vocab: int
    tied: bool
    bytes_per_weight: float
    bytes_per_kv_element: float
    gated_mlp: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None

    def __post_init__(self) -> None:
        _whole(self, "layers", "width", "heads", "kv_heads", "head_dim", "vocab")
        if self.heads % self.kv_heads:
            raise InputError(f"{self.name}: heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.experts is not None and self.experts.layers > self.layers:
            raise InputError(f"{self.name}: {self.experts.layers} mixture layers exceed its {self.layers} layers")
        if self.dense_layers:
            _whole(self, "ffn")
        for name in ("bytes_per_weight", "bytes_per_kv_element"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:
                raise InputError(f"{self.name}: {name} must be positive and finite, got {value!r:.40}")

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any] | str | Path | Any,
        *,
        bytes_per_weight: float | None = None,
        bytes_per_kv_element: float | None = None,
    ) -> Self:
        """The spec of a Hugging Face config: a mapping, a config.json or the folder that holds one, or a config object.

        Bytes that are not given are those of the config's dtype. Raises InputError, naming the field, where one is
        missing or unusable, and for architectures whose counts are not known here (`published.FAMILIES` are).
        """
        return cls._built(fields_of_config(config, bytes_per_weight, bytes_per_kv_element))

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """The spec of a profile (`profiles/models/*.toml`), its totals checked; InputError says what is amiss."""
        fields, totals = fields_of_profile(path)
        try:
            spec = cls._built(fields)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        for name, stated in totals.items():
            if (computed := getattr(spec, name)) != stated:
                raise InputError(f"{path}: totals.{name} is {stated}, but the dimensions give {computed}; correct one")
        return spec

    @classmethod
    def _built(cls, fields: dict[str, Any]) -> Self:
        experts = fields.pop("experts", None)
        return cls(**fields, experts=None if experts is None else Experts(**experts))

    @property
    def dense_layers(self) -> int:
        """Layers with a dense MLP."""
        return self.layers - (self.experts.layers if self.experts else 0)

    @property
    def parameters(self) -> int:
        """All weights, shared ones once."""
        routed = self.experts.experts if self.experts else 0
        return self.embedding_parameters + self.head_parameters + self._trunk_parameters(routed)

    @property
    def active_parameters(self) -> int:
        """Weights that serve one token: all but the experts it is not sent to; embedding and head included."""
        routed = self.experts.per_token if self.experts else 0
        return self.embedding_parameters + self.head_parameters + self._trunk_parameters(routed)

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding table [vocab, width], also the head's where they are tied."""
        return self.vocab * self.width

    @property
    def head_parameters(self) -> int:
        """Weights [vocab, width] that the logits have to themselves: none where they are tied."""
        return 0 if self.tied else self.vocab * self.width

    @property
    def common_parameters(self) -> int:
        """Weights that every token passes between embedding and head: all but those of routed experts."""
        return self._trunk_parameters(0)

    @property
    def expert_parameters(self) -> int:
        """Weights of one routed expert in one layer; 0 for a dense model."""
        return self._mlp_elements(self.experts.ffn) if self.experts else 0

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes of the keys and values that a token leaves in the cache, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_kv_element

    @property
    def multiplied_elements(self) -> int:
        """Elements of the matrices that one token is multiplied by between embedding and head (no bias, no norm)."""
        elements = self.layers * self._attention_elements
        if self.ffn is not None:
            elements += self.dense_layers * self._mlp_elements(self.ffn)
        if self.experts is not None:
            routed = self.experts.per_token * self.expert_parameters
            elements += self.experts.layers * (self._mixture_elements(self.experts) + routed)
        return elements

    @property
    def _attention_elements(self) -> int:
        """Of the query, key, value and output matrices of a layer."""
        return self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    def _mlp_elements(self, ffn: int) -> int:
        return (3 if self.gated_mlp else 2) * self.width * ffn

    def _mixture_elements(self, experts: Experts) -> int:
        """Of a mixture layer's matrices that every token passes: the router, the shared expert and its gate."""
        shared = 0 if experts.shared_ffn is None else self._mlp_elements(experts.shared_ffn) + self.width
        return self.width * experts.experts + shared

    def _trunk_parameters(self, routed: int) -> int:
        """Weights between embedding and head, last norm included, with so many routed experts a mixture layer."""
        vectors = 2 * self.width  # two norms
        vectors += self.qkv_bias * (self.heads + 2 * self.kv_heads) * self.head_dim
        vectors += self.out_bias * self.width
        vectors += self.qk_norm * 2 * self.head_dim
        weights = self.layers * (self._attention_elements + vectors) + self.width
        if self.ffn is not None:
            biases = self.mlp_bias * ((2 if self.gated_mlp else 1) * self.ffn + self.width)
            weights += self.dense_layers * (self._mlp_elements(self.ffn) + biases)
        if self.experts is not None:
            weights += self.experts.layers * (self._mixture_elements(self.experts) + routed * self.expert_parameters)
        return weights


def _whole(spec: Any, *names: str) -> None:
    """Raise InputError unless each of these fields is a whole number above 0."""
    for name in names:
        value = getattr(spec, name)
        whole(f"{getattr(spec, 'name', 'experts')}: {name}", value)
