"""A model that cannot serve is one clear line; one that can is taken as its configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.engines.base import Piece
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.engines.vllm_model import vocabulary_of
from atts_runtime.errors import InputError


def error_of(folder: Path) -> str:
    async def main() -> None:
        engine = TransformersEngine(str(folder), name="bad", device="cpu", threads=1)
        try:
            await engine.start()
        finally:
            await engine.close()

    with pytest.raises(InputError) as caught:
        asyncio.run(main())
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(folder)) in message
    return message


def test_a_missing_folder(tmp_path: Path) -> None:
    assert "is not a folder" in error_of(tmp_path / "absent")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is not a folder" in error_of(tmp_path / "model.gguf")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "cannot be loaded as a causal language model" in error_of(tmp_path)


def test_a_folder_without_weights(tiny_target: Path, variant: Callable[..., Path]) -> None:
    folder = variant(tiny_target)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in error_of(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("model.safetensors", b"not tensors at all"),
        *((f"{name}.json", text) for name in ("config", "tokenizer", "tokenizer_config", "generation_config")
          for text in (b"[" * 100_000, b"[]", b"1")),
    ],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_a_damaged_file(tiny_target: Path, variant: Callable[..., Path], file: str, content: bytes) -> None:
    folder = variant(tiny_target)
    (folder / file).write_bytes(content)
    assert "cannot be loaded" in error_of(folder)
    if file != "model.safetensors":  # as servers' tokenizers are read, and vLLM's
        with pytest.raises(InputError, match="cannot be loaded"):
            vocabulary_of(str(folder))


@pytest.mark.parametrize(
    "template",
    ["{{ " + "(" * 5000, "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ 1 / 0 }}", "{{ '{x}'.format(y=1) }}"],
    ids=["nested too deep", "endless", "a division by 0", "a name that is not there"],
)
def test_a_chat_template_that_fails(template: str, tiny_target: Path, variant: Callable[..., Path]) -> None:
    vocabulary = vocabulary_of(str(variant(tiny_target, "tokenizer_config.json", chat_template=template)))
    with pytest.raises(InputError, match=r"^the chat template of .* does not take a question: ") as raised:
        vocabulary.encode_prompt("1+1")
    assert "\n" not in str(raised.value)


def test_weights_of_another_shape(tiny_target: Path, variant: Callable[..., Path]) -> None:
    assert "cannot be loaded" in error_of(variant(tiny_target, hidden_size=96))


def test_a_tokenizer_without_an_end_of_text_token(tiny_target: Path, variant: Callable[..., Path]) -> None:
    message = error_of(variant(tiny_target, "tokenizer_config.json", eos_token=None))
    assert "no eos token" in message
    assert "tokenizer_config.json" in message


def mistral(folder: Path, tokenizer: Path, **options: Any) -> Path:
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    fast = AutoTokenizer.from_pretrained(tokenizer)
    config = MistralConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        **options,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_sliding_window_attention_by_layer_types(tmp_path: Path, tiny_target: Path) -> None:
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    fast = AutoTokenizer.from_pretrained(tiny_target)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    fast.save_pretrained(tmp_path)
    assert "sliding_attention" in error_of(tmp_path)


def test_sliding_window_attention_without_layer_types(tmp_path: Path, tiny_target: Path) -> None:
    """Mistral and Phi-3 name a window and no layer types."""
    assert "sliding_attention" in error_of(mistral(tmp_path, tiny_target, sliding_window=8))


def test_a_window_that_holds_the_whole_context_is_no_window(tmp_path: Path, tiny_target: Path, serve: Any) -> None:
    async def scenario(client: Any) -> None:
        await client.generate(0)

    serve(scenario, mistral(tmp_path / "wide", tiny_target, sliding_window=64, max_position_embeddings=64))
    serve(scenario, mistral(tmp_path / "none", tiny_target, sliding_window=None))


def test_a_chat_template_frames_the_prompt_and_special_tokens_enter_once(
    serve: Any, plain: Any, tiny_target: Path, variant: Callable[..., Path]
) -> None:
    template = "{{ bos_token }}{{ messages[0]['content'] }}{% if add_generation_prompt %} = {% endif %}"
    folder = variant(tiny_target, "tokenizer_config.json", chat_template=template)

    async def scenario(client: Any) -> list[int]:
        ids: list[int] = client.worker.lm.encode_prompt("37 (a)+45")
        assert client.engine.prompt_tokens("37 (a)+45") == len(ids)
        return ids

    reference = plain(tiny_target)
    assert serve(scenario, folder) == reference.prompt("37 (a)+45") + reference.encode(" = ")
    assert serve(scenario, tiny_target) == reference.prompt("37 (a)+45")


def test_vocabularies_have_one_name_each(
    serve: Any, tiny_target: Path, tiny_ending: Path, tiny_draft: Path, tmp_path: Path
) -> None:
    """Models that share a tokenizer take each other's ids; others are given text."""
    calls: list[str] = []

    def encode(text: str) -> list[int]:
        calls.append(text)
        return [1, 2]

    async def scenario(one: Any, same: Any, other: Any) -> None:
        names = [client.worker.lm.vocab for client in (one, same, other)]
        assert names[0] == names[1] != names[2]
        piece = Piece("82", (12, 6), names[0])
        assert piece.ids_in(names[1], encode) == (12, 6)
        assert calls == []
        assert piece.ids_in(names[2], encode) == (1, 2)
        assert piece.ids_in(names[2], encode) == (1, 2)
        assert calls == ["82"]

    serve(scenario, tiny_target, tiny_ending, tiny_draft)


def test_two_engines_can_start_at_once(tiny_target: Path, tiny_draft: Path) -> None:
    async def main() -> None:
        engines = [TransformersEngine(str(f), name=f.name, device="cpu", threads=1) for f in (tiny_target, tiny_draft)]
        await asyncio.gather(*(engine.start() for engine in engines))
        assert [engine.max_context_tokens for engine in engines] == [1024, 1024]
        await asyncio.gather(*(engine.close() for engine in engines))

    asyncio.run(main())
