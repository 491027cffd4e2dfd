"""What vLLM serves: the model's vocabulary, dimensions, context and place, as the runtime wants them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atts_runtime.engines.base import Placement
from atts_runtime.engines.vllm_launch import Launch
from atts_runtime.engines.vocabulary import Vocabulary, as_list
from atts_runtime.errors import InputError
from atts_runtime.profiler.modelspec import ModelSpec


@dataclass(frozen=True, slots=True)
class Served:
    """A model under vLLM. `spec` None: not known, `uncounted` says why."""

    vocabulary: Vocabulary
    max_context_tokens: int
    kv_capacity_tokens: int | None
    spec: ModelSpec | None
    uncounted: str | None
    placement: Placement | None

    @classmethod
    def of(cls, llm: Any, wanted: Launch, vocabulary: Vocabulary) -> Served:
        """Of an `AsyncLLM` that has started."""
        config = llm.vllm_config
        spec, uncounted = _spec(config)
        blocks = config.cache_config.num_gpu_blocks
        return cls(
            vocabulary,
            config.model_config.max_model_len,
            blocks * config.cache_config.block_size if blocks else None,
            spec,
            uncounted,
            _placement(config, wanted),
        )


def vocabulary_of(model: str) -> Vocabulary:
    """The vocabulary of a folder or hub id; raises InputError where there is none, or another model's."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        config: Any = AutoConfig.from_pretrained(model).get_text_config()
        try:
            ends = GenerationConfig.from_pretrained(model).eos_token_id
        except OSError:  # it has none
            ends = config.eos_token_id
    except Exception as error:  # over files that are not a model's, transformers may fail in any way
        raise InputError(f"model {model!r} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    vocabulary = Vocabulary(tokenizer, model, as_list(ends))
    if vocabulary.size > config.vocab_size:
        raise InputError(
            f"the tokenizer of {model!r} has ids up to {vocabulary.size - 1}, its model {config.vocab_size} of them; "
            "give the folder the tokenizer that the model was trained with"
        )
    return vocabulary


def _spec(config: Any) -> tuple[ModelSpec | None, str | None]:
    """The model's dimensions as it is served, or why they are not known."""
    model, cache = config.model_config, config.cache_config
    element = float(model.dtype.itemsize)
    weight: float | None = element
    if model.quantization is not None:
        stated = getattr(model.hf_config, "quantization_config", None) or {}
        bits = stated.get("bits", stated.get("weight_bits")) if isinstance(stated, dict) else None
        weight = 1.0 if "fp8" in model.quantization else None if bits is None else bits / 8
    if weight is None:
        return None, f"bytes a weight of quantisation {model.quantization!r} are not known"
    kv = 1.0 if str(cache.cache_dtype).startswith("fp8") else element
    try:
        spec = ModelSpec.from_config(model.hf_text_config, bytes_per_weight=weight, bytes_per_kv_element=kv)
    except InputError as error:
        return None, str(error)
    return spec, None


def _placement(config: Any, wanted: Launch) -> Placement | None:
    if config.parallel_config.world_size > 1 or config.parallel_config.data_parallel_size > 1:
        return None
    kind = config.device_config.device_type
    dtype = str(config.model_config.dtype).removeprefix("torch.")
    if kind == "cpu":
        return Placement("cpu", None, dtype, wanted.threads)
    ids = wanted.args.get("device_ids")
    return Placement(kind, int(ids[0]) if ids else 0, dtype, None)
