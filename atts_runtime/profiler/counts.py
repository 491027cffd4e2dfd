"""FLOPs and bytes of an engine step, from the model's dimensions alone: the numerators of T_c and T_m.

A step feeds every sequence i of a batch n_i new tokens on top of s_i whose keys and values are cached, and computes
logits for some of the new ones. With T = sum n_i, L layers of width d, H query and G key heads of dimension h:

linear      2 * T * L * (2*d*H*h + 2*d*G*h + 3*d*ffn), a mixture's MLP being its router, the experts a token is sent
            to, and the shared expert
logits      2 * (logit rows) * d * vocab
attention   4 * L * H * h * (query-key pairs)

A multiplication and an addition are two FLOPs, and only matrix products count: norms, rotations, biases, softmax and
activations are left out, as they are by `torch.utils.flop_counter`, which the tests hold these counts against.

**Which pairs count.** `attention_flops` takes the full rectangle, n_i * (s_i + n_i): dense kernels compute it and then
mask it, the embedded engine's are of this kind, and FlopCounterMode counts it. `attention_causal_flops` takes the
pairs that causality leaves, n_i * s_i + n_i * (n_i + 1) / 2, which is what kernels that skip masked blocks
(FlashAttention, vLLM's) come down to. For decoding they agree. The embedded engine pads a batch besides: to the longest
row's new tokens, to a multiple of rows and of cached positions. What it then executes is the count of the padded batch;
what a request needs, the count of its own tokens.

**Bytes** are the least that a step can move: each weight that is used once (the embedding only in the rows looked up),
each sequence's keys and values read once, the new ones included, and the new ones written once. Activations are left
out: they fit the caches when decoding and are small beside the weights in a long prefill. Which experts a mixture
touches is chance, so those are counted in expectation (`expected_experts`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from atts_runtime.profiler.modelspec import ModelSpec

__all__ = ["Counts", "Fed", "Rates", "decode", "expected_experts", "prefill", "score", "step"]


@dataclass(frozen=True, slots=True)
class Fed:
    """What a step feeds for one sequence: new tokens, those cached before them, and how many new ones get logits."""

    new_tokens: int
    cached_tokens: int
    logit_rows: int

    def __post_init__(self) -> None:
        if self.new_tokens < 1 or self.cached_tokens < 0 or not 0 <= self.logit_rows <= self.new_tokens:
            raise ValueError(f"not a step of a sequence: {self}")


def prefill(new_tokens: int, cached_tokens: int = 0) -> Fed:
    """A prompt, or the rest of one, of which only the last token's logits are wanted."""
    return Fed(new_tokens, cached_tokens, 1)


def score(new_tokens: int, cached_tokens: int) -> Fed:
    """A segment appended to its context to be scored: every token gets logits."""
    return Fed(new_tokens, cached_tokens, new_tokens)


def decode(cached_tokens: int) -> Fed:
    """One drawn token fed to draw the next."""
    return Fed(1, cached_tokens, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """FLOPs and bytes of a step, or of several: `+` adds steps, one after the other, and `Counts()` is no step.

    Two sequences in one step are not two steps: they share its reading of the weights.
    """

    linear_flops: int = 0
    attention_flops: int = 0
    attention_causal_flops: int = 0
    logits_flops: int = 0
    weight_bytes: float = 0
    kv_read_bytes: float = 0
    kv_written_bytes: float = 0

    @property
    def flops(self) -> int:
        """As dense kernels execute them: attention over the full rectangle."""
        return self.linear_flops + self.attention_flops + self.logits_flops

    @property
    def causal_flops(self) -> int:
        """As kernels that skip what is masked execute them."""
        return self.linear_flops + self.attention_causal_flops + self.logits_flops

    @property
    def bytes(self) -> float:
        """To and from memory: weights, keys and values; no activations."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_written_bytes

    def __add__(self, other: Self) -> Self:
        return type(self)(
            linear_flops=self.linear_flops + other.linear_flops,
            attention_flops=self.attention_flops + other.attention_flops,
            attention_causal_flops=self.attention_causal_flops + other.attention_causal_flops,
            logits_flops=self.logits_flops + other.logits_flops,
            weight_bytes=self.weight_bytes + other.weight_bytes,
            kv_read_bytes=self.kv_read_bytes + other.kv_read_bytes,
            kv_written_bytes=self.kv_written_bytes + other.kv_written_bytes,
        )


def step(spec: ModelSpec, batch: Iterable[Fed]) -> Counts:
    """FLOPs and bytes of one step of `spec` that feeds the sequences of `batch`; an empty batch is no step."""
    new = rows = pairs = causal_pairs = kept = 0
    for fed in batch:
        n, s = fed.new_tokens, fed.cached_tokens
        new += n
        rows += fed.logit_rows
        kept += s + n
        pairs += n * (s + n)
        causal_pairs += n * s + n * (n + 1) // 2
    if not new:
        return Counts()
    rates = Rates(spec)
    return Counts(
        linear_flops=rates.token_flops * new,
        attention_flops=rates.pair_flops * pairs,
        attention_causal_flops=rates.pair_flops * causal_pairs,
        logits_flops=rates.logit_flops * rows,
        weight_bytes=rates.weight_bytes(new, rows),
        kv_read_bytes=rates.kv_bytes * kept,
        kv_written_bytes=rates.kv_bytes * new,
    )


class Rates:
    """A model's FLOPs a token, a query-key pair and a row of logits, and its bytes: worked out once, for many steps."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.token_flops = 2 * spec.multiplied_elements
        self.pair_flops = 4 * spec.layers * spec.heads * spec.head_dim
        self.logit_flops = 2 * spec.width * spec.vocab
        self.kv_bytes = spec.kv_bytes_per_token
        self._common, self._head = spec.common_parameters, spec.vocab * spec.width
        self._width, self._experts, self._weight = spec.width, spec.experts, spec.bytes_per_weight

    def flops(self, tokens: int, pairs: int, logit_rows: int) -> int:
        """FLOPs of new tokens, query-key pairs and rows of logits."""
        return self.token_flops * tokens + self.pair_flops * pairs + self.logit_flops * logit_rows

    def weight_bytes(self, new_tokens: int, logit_rows: int) -> float:
        """Bytes of the weights that a step reads: an embedding row a token, the common ones, expected experts, and the
        head where it is used."""
        weights: float = new_tokens * self._width + self._common + (self._head if logit_rows else 0)
        experts = self._experts
        if experts is not None:
            touched = expected_experts(experts.experts, experts.per_token, new_tokens)
            weights += experts.layers * touched * self._spec.expert_parameters
        return self._weight * weights


def expected_experts(experts: int, per_token: int, tokens: int) -> float:
    """Distinct experts of a layer that `tokens` tokens touch, expected: experts * (1 - (1 - per_token/experts)^tokens).

    Each token is taken to choose its `per_token` of the `experts` on its own, all equally likely. Among tokens that
    choose on their own this is the most: where some experts are favoured, fewer distinct ones are touched, since
    1 - (1 - p)^tokens is concave in an expert's chance p.
    """
    return experts * (1 - (1 - per_token / experts) ** tokens)
