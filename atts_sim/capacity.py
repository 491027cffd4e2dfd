"""How much KV a device holds beside a model's weights: derived, not guessed."""

from __future__ import annotations

from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import HardwareProfile
from atts_runtime.profiler.modelspec import ModelSpec

_GIB = 1 << 30
_LOGIT_BYTES = 4  # engines compute the distribution over the vocabulary in float32


def kv_blocks(
    spec: ModelSpec,
    hardware: HardwareProfile,
    *,
    block_tokens: int = 16,
    share: float = 0.9,
    reserve_bytes: float | None = None,
    step_tokens: int = 8192,
    max_rows: int = 256,
    tp: int = 1,
) -> int:
    """Blocks of KV that `tp` such devices hold: (memory * share - weights - reserve) / bytes of a block.

    share: of the memory that the engine takes (vLLM's ``gpu_memory_utilization``); reserve_bytes: what its steps need
    beside, on all devices together (None: `activation_bytes`). Raises InputError where the profile lacks the memory or
    it is too small, by how many GiB.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of memory for an engine must lie above 0 and be at most 1, got {share}")
    if block_tokens < 1 or tp < 1:
        raise InputError(f"block_tokens and tp must be at least 1, got {block_tokens} and {tp}")
    if hardware.memory_bytes is None:
        raise InputError(
            f"hardware profile {hardware.name} has no limits.memory_bytes, from which KV is derived; add it"
        )
    reserve = activation_bytes(spec, step_tokens, max_rows) if reserve_bytes is None else reserve_bytes
    weights = spec.parameters * spec.bytes_per_weight
    room = hardware.memory_bytes.value * share * tp
    block = spec.kv_bytes_per_token * block_tokens
    left = room - weights - reserve
    if left < block:
        raise InputError(
            f"{spec.name} does not fit on {tp} x {hardware.name}: its weights take {weights / _GIB:.1f} GiB and its "
            f"steps {reserve / _GIB:.1f} GiB of {room / _GIB:.1f} GiB, {(block - left) / _GIB:.1f} GiB too much; "
            "take more devices, a larger one, or fewer bytes a weight"
        )
    return int(left // block)


def activation_bytes(spec: ModelSpec, step_tokens: int, max_rows: int) -> float:
    """Memory that a step of so many tokens needs at its fullest, analytic: the residual stream twice and the widest
    inner layer, at the weights' precision or two bytes, and float32 logits of a row each."""
    inner = spec.ffn or 0
    if spec.experts is not None:
        inner = max(inner, spec.experts.per_token * spec.experts.ffn + (spec.experts.shared_ffn or 0))
    wide = max(inner * (2 if spec.gated_mlp else 1), (spec.heads + 2 * spec.kv_heads) * spec.head_dim)
    return step_tokens * (2 * spec.width + wide) * max(2.0, spec.bytes_per_weight) + (
        max_rows * spec.vocab * _LOGIT_BYTES
    )
