"""Tiny Llama models on disk, random but lively, so that tests of the runtime need no hub and no trained weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

# A test does not time, and a busy machine is no fault of the code.
settings.register_profile("atts", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("atts")
# For tests/mutants.py, to which one failure is as good as another: mutants die sooner where none is shrunk.
settings.register_profile(
    "unshrunk", settings.get_profile("atts"), phases=[Phase.explicit, Phase.reuse, Phase.generate]
)

MAX_POSITIONS = 1024


def words_tokenizer() -> Any:
    from atts_runtime.models.tokenizer import build_tokenizer

    return build_tokenizer()


def chars_tokenizer() -> Any:
    """A token a character: the bundled tokenizer's alphabet, in another order and with other special ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    from atts_runtime.models.tokenizer import BOS, EOS, PAD, UNK

    vocab = words_tokenizer().get_vocab()
    letters = sorted({ch for word in vocab if word not in (PAD, BOS, EOS, UNK) for ch in word}, reverse=True)
    words = [*letters, UNK, EOS, PAD, BOS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, words.index(BOS))]
    )
    tokenizer.add_special_tokens([PAD, BOS, EOS, UNK])
    return tokenizer


def save_tiny(folder: Path, tokenizer: Any, *, width: int, heads: int, seed: int, eos_logit: float) -> Path:
    """A two-layer Llama with random weights, large enough that its next-token distribution moves with the context.

    Coordinate 0 of the residual stream stays constant and feeds the special tokens' logits alone, which fixes how
    likely they are: the end of text about `eos_logit` against others of standard deviation near 2, the rest never.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from atts_runtime.models.tokenizer import BOS, EOS, PAD, UNK

    bos, eos, pad, unk = (tokenizer.token_to_id(token) for token in (BOS, EOS, PAD, UNK))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.25,
        tie_word_embeddings=False,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = 2.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        model.lm_head.weight[:, 0] = 0.0
        model.lm_head.weight[[bos, eos, pad, unk]] = 0.0
        model.lm_head.weight[[bos, pad, unk], 0] = -1e3
        model.lm_head.weight[eos, 0] = eos_logit
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNK
    )
    fast.model_max_length = MAX_POSITIONS
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words for tokens, width 64, 2 heads on 1 KV head; never ends its text."""
    folder = tmp_path_factory.mktemp("models") / "target"
    return save_tiny(folder, words_tokenizer(), width=64, heads=2, seed=1, eos_logit=-1e3)


@pytest.fixture(scope="session")
def tiny_draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters for tokens, width 32, one head; never ends its text."""
    folder = tmp_path_factory.mktemp("models") / "draft"
    return save_tiny(folder, chars_tokenizer(), width=32, heads=1, seed=2, eos_logit=-1e3)


@pytest.fixture(scope="session")
def tiny_ending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_target`, but its text ends after a few tokens."""
    folder = tmp_path_factory.mktemp("models") / "ending"
    return save_tiny(folder, words_tokenizer(), width=64, heads=2, seed=1, eos_logit=4.0)


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """``variant(folder, file, **changes)``: a copy of a model folder with keys of one JSON file changed."""

    def make(folder: Path, file: str = "config.json", **changes: object) -> Path:
        copy = tmp_path / f"variant{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, copy)
        data = json.loads((copy / file).read_text(encoding="utf-8"))
        (copy / file).write_text(json.dumps(data | changes), encoding="utf-8")
        return copy

    return make
