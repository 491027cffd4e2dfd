"""The fused forward pass computes what transformers computes, and steps aside where it would not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from atts_runtime.engines import llama, sampling
from atts_runtime.engines.llama import FusedLlama

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}


def made(kind: Any, config: Any, **options: Any) -> Any:
    """A model with random weights, biases and norms included, large enough that every part of it matters."""
    torch.manual_seed(3)
    model = kind(config(**{**SHAPE, **options})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.3)
    return model


FUSED = {
    "llama": lambda: made(LlamaForCausalLM, LlamaConfig),
    "llama, a key per head": lambda: made(LlamaForCausalLM, LlamaConfig, num_key_value_heads=6),
    "llama, tied": lambda: made(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=True),
    "llama, llama3 rope": lambda: made(LlamaForCausalLM, LlamaConfig, rope_parameters=LLAMA3_ROPE),
    "llama, linear rope": lambda: made(LlamaForCausalLM, LlamaConfig, rope_parameters=LINEAR_ROPE),
    "qwen2, biased": lambda: made(Qwen2ForCausalLM, Qwen2Config),
    "mistral": lambda: made(MistralForCausalLM, MistralConfig, sliding_window=None),
}
LEFT_ALONE = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=48, n_layer=2, n_head=4)).eval(),
    "qwen3": lambda: made(Qwen3ForCausalLM, Qwen3Config),
    "llama, output biased": lambda: made(LlamaForCausalLM, LlamaConfig, attention_bias=True),
    "llama, mlp biased": lambda: made(LlamaForCausalLM, LlamaConfig, mlp_bias=True),
    "llama, gelu": lambda: made(LlamaForCausalLM, LlamaConfig, hidden_act="gelu"),
    "llama, dynamic rope": lambda: made(LlamaForCausalLM, LlamaConfig, rope_parameters=DYNAMIC_ROPE),
}


@pytest.mark.parametrize("name", FUSED)
@torch.inference_mode()
def test_rows_fed_piecewise_get_the_logits_of_one_whole_pass(name: str) -> None:
    model = FUSED[name]()
    ids = torch.randint(0, 50, (3, 24))
    whole = model(input_ids=ids, use_cache=False).logits
    fused = FusedLlama.of(model)
    assert fused is not None
    # More rows and time than are used, as in a buffer that was larger before, and rows at positions of their own.
    kv = torch.full((3, 2, 4, model.config.num_key_value_heads, 40, 16), 7.0)
    done = [0, 0, 0]
    for sizes in ([9, 5, 1], [1, 1, 1], [4, 8, 12], [1, 1, 1], [9, 9, 9]):
        longest = max(sizes)
        feed = torch.zeros(3, longest, dtype=torch.long)
        for row, (start, size) in enumerate(zip(done, sizes, strict=True)):
            feed[row, :size] = ids[row, start : start + size]
        positions = torch.tensor(done)[:, None] + torch.arange(longest)
        got = fused(feed, positions, [(kv, 3, 36)], every=True)
        last = fused(feed, positions, [(kv, 3, 36)], every=False)
        torch.testing.assert_close(last, got[:, -1:], rtol=1e-4, atol=1e-3)
        for row, (start, size) in enumerate(zip(done, sizes, strict=True)):
            torch.testing.assert_close(got[row, :size], whole[row, start : start + size], rtol=1e-4, atol=1e-3)
            done[row] = start + size
    assert done == [24, 24, 24]


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_other_models_are_left_to_transformers(name: str) -> None:
    assert FusedLlama.of(LEFT_ALONE[name]()) is None


def test_a_model_that_is_not_what_its_config_says_is_left_to_transformers() -> None:
    model = FUSED["llama"]()
    assert FusedLlama.of(model) is not None
    model.model.layers[1].mlp.act_fn = torch.nn.ReLU()
    assert FusedLlama.of(model) is None


def test_a_model_with_packed_weights_is_left_to_transformers() -> None:
    class Packed(torch.nn.Linear):
        """Stands for a quantised layer: its weight is not what its forward multiplies with."""

    model = FUSED["llama"]()
    old = model.model.layers[2].mlp.up_proj
    packed = model.model.layers[2].mlp.up_proj = Packed(old.in_features, old.out_features, bias=False)
    before = packed.weight.clone()
    assert FusedLlama.of(model) is None
    assert torch.equal(packed.weight, before)


def test_this_folders_engine_tests_run_both_forward_passes(serve: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> None:
        assert (client.worker.lm._fused is None) == (client.worker.lm.model.config.hidden_act == "gelu")

    serve(scenario, tiny_target)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="TorchScript ends with Python 3.13")
def test_hot_paths_run_outside_the_interpreters_lock() -> None:
    for function in (llama._forward, sampling._draw):
        assert isinstance(function, torch.jit.ScriptFunction)


def test_the_model_can_still_be_trained() -> None:
    model = FUSED["llama, tied"]()
    assert FusedLlama.of(model) is not None
    model(input_ids=torch.arange(6)[None], labels=torch.arange(6)[None]).loss.backward()
    assert model.model.layers[0].self_attn.q_proj.weight.grad is not None


@torch.inference_mode()
def test_weights_are_shared_with_the_model_which_still_works() -> None:
    model = FUSED["qwen2, biased"]()
    ids = torch.arange(12)[None]
    before = model(input_ids=ids, use_cache=False).logits
    fused = FusedLlama.of(model)
    assert fused is not None
    torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, before)
    block = model.model.layers[0]
    stores = {block.self_attn.q_proj.weight.untyped_storage().data_ptr()} | {
        block.self_attn.v_proj.weight.untyped_storage().data_ptr()
    }
    assert stores == {fused._weights[0][1].untyped_storage().data_ptr()}
