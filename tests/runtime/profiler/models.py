"""Random small models of every known make, and what torch counts when they run."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from atts_runtime.profiler import Fed, ModelSpec

DENSE: dict[str, Any] = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
MIXTURES: dict[str, Any] = {"mixtral": MixtralConfig, "qwen2_moe": Qwen2MoeConfig, "qwen3_moe": Qwen3MoeConfig}


@st.composite
def configs(draw: st.DrawFn, makes: dict[str, Any]) -> Any:
    """A config of one of `makes`, every dimension drawn on its own as far as the architecture lets it."""
    make = draw(st.sampled_from(sorted(makes)))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads = kv_heads * group
    head_dim = 2 * draw(st.integers(1, 6))
    options: dict[str, Any] = {
        "vocab_size": draw(st.integers(5, 60)),
        # qwen2 and its mixture have no head_dim of their own.
        "hidden_size": heads * head_dim if make.startswith("qwen2") else heads * draw(st.integers(1, 9)),
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": draw(st.booleans()),
        "max_position_embeddings": 256,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if not make.startswith("qwen2"):
        options["head_dim"] = head_dim
    if make in ("llama", "qwen3", "qwen3_moe"):
        options["attention_bias"] = draw(st.booleans())
    if make == "llama":
        options["mlp_bias"] = draw(st.booleans())
    if make in ("mistral", "mixtral"):
        options["sliding_window"] = None
    if make in MIXTURES:
        experts = draw(st.integers(1, 5))
        options["num_experts_per_tok"] = draw(st.integers(1, experts))
        options["num_local_experts" if make == "mixtral" else "num_experts"] = experts
    if make in ("qwen2_moe", "qwen3_moe"):
        options["moe_intermediate_size"] = draw(st.integers(1, 20))
        options["decoder_sparse_step"] = draw(st.integers(1, 2))
        options["mlp_only_layers"] = draw(st.lists(st.integers(0, 3), max_size=2, unique=True))
    if make == "qwen2_moe":
        options["shared_expert_intermediate_size"] = draw(st.integers(1, 20))
        options["qkv_bias"] = draw(st.booleans())
    return makes[make](**options)


def built(config: Any, dtype: torch.dtype = torch.float32) -> tuple[Any, ModelSpec]:
    """A model with random weights whose every product torch can count, and its spec."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=dtype).eval()
    if hasattr(config, "num_experts_per_tok"):
        model.set_experts_implementation("eager")  # the grouped kernels are not known to the counter
    size = dtype.itemsize
    return model, ModelSpec.from_config(model.config, bytes_per_weight=size, bytes_per_kv_element=size)


def counted(model: Any, fed: Fed, rows: int) -> tuple[int, Any]:
    """FLOPs by FlopCounterMode of a step that feeds so many rows alike, and the KV cache after it."""
    vocab, past = model.config.vocab_size, None
    new, cached = fed.new_tokens, fed.cached_tokens
    ids = torch.arange(rows * (cached + new)).remainder(vocab).view(rows, -1)
    with torch.inference_mode():
        if cached:
            past = model(input_ids=ids[:, :cached], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            out = model(input_ids=ids[:, cached:], past_key_values=past, use_cache=True, logits_to_keep=fed.logit_rows)
    assert out.logits.shape == (rows, fed.logit_rows, vocab)
    return int(counter.get_total_flops()), out.past_key_values
