"""A Hugging Face causal language model, loaded and checked: weights, tokenizer and one ragged forward pass."""

from __future__ import annotations

import threading
from typing import Any

import torch
from safetensors import SafetensorError

from atts_runtime.engines.kv import NEW_ALIGN, ROW_ALIGN, KvBuffer, RowCache, aligned, aligned_time
from atts_runtime.engines.llama import FusedLlama
from atts_runtime.engines.vocabulary import Vocabulary, as_list, local_path
from atts_runtime.errors import InputError

# One append pass holds the logits of all its tokens: bound them, and how long decoding rows wait for the pass.
_STEP_LOGITS_BYTES = 256 * 2**20
_STEP_TOKENS = {"cpu": 1024, "cuda": 4096}


# transformers builds models under a process-wide meta device: two loads at once corrupt each other.
_LOADING = threading.Lock()


class CausalLM(Vocabulary):
    """Weights and tokenizer of a model by folder or hub id; float32 on CPU, bfloat16 on CUDA.

    Raises InputError where the folder or id holds no causal language model, its tokenizer has no end-of-text
    token, or its attention is not plain causal attention over the whole context.
    """

    def __init__(self, model: str, device: str | None = None, gguf_file: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        tokenizer = self._load(model, gguf_file)
        super().__init__(tokenizer, model, as_list(self.model.generation_config.eos_token_id))
        config = self.model.config.get_text_config()
        self.max_context_tokens: int | None = getattr(config, "max_position_embeddings", None)
        self.layers: int = config.num_hidden_layers
        self.kv_heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.step_tokens = max(64, min(_STEP_TOKENS[self.device.type], _STEP_LOGITS_BYTES // (4 * config.vocab_size)))
        kinds = set(getattr(config, "layer_types", None) or [self._unlisted_kind(config)])
        if kinds != {"full_attention"}:
            raise InputError(
                f"model {model!r} has {', '.join(sorted(kinds - {'full_attention'}))} layers; "
                "the embedded engine takes full attention only, choose another model"
            )

    def _load(self, model: str, gguf_file: str | None) -> Any:
        """Load the weights; returns the tokenizer."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        path = local_path(model)
        options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
        try:
            with _LOADING:
                tokenizer = AutoTokenizer.from_pretrained(path, **options)
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    path, dtype=self.dtype, attn_implementation="sdpa", **options
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"model {model!r} cannot be loaded as a causal language model: {reason}") from error
        self.model: Any = loaded.to(self.device).eval()
        with _LOADING:  # it builds tensors, whose default type another load may have changed
            self._fused = FusedLlama.of(self.model) if self.device.type == "cpu" else None
        return tokenizer

    def _unlisted_kind(self, config: Any) -> str:
        """Kind of a model's layers where its config does not list them: Mistral and Phi-3 name a window only."""
        window, longest = getattr(config, "sliding_window", None), self.max_context_tokens
        return "sliding_attention" if window and (longest is None or window < longest) else "full_attention"

    def is_full(self, tokens: int) -> bool:
        """Whether a context of so many tokens leaves no room for another."""
        return self.max_context_tokens is not None and tokens >= self.max_context_tokens

    def buffer(self) -> KvBuffer:
        """An empty KV buffer of this model's shape."""
        return KvBuffer(self.layers, self.kv_heads, self.head_dim, self.dtype, self.device)

    def padded(self, starts: list[int], longest: int, *, every: bool) -> tuple[int, int, int, int]:
        """What `forward` makes of a batch: rows, rows that attend, new ids a row, cached positions a row."""
        rows = len(starts)
        longest = aligned(longest, NEW_ALIGN) if every else longest
        padded_rows = rows if every else aligned(rows, ROW_ALIGN)  # an append's new ids already come in fours
        attending = padded_rows if self._fused is None else rows
        return padded_rows, attending, longest, aligned_time(max(starts) + longest)

    def forward(self, buffer: KvBuffer, new_ids: list[list[int]], starts: list[int], *, every: bool) -> torch.Tensor:
        """Feed row i of `buffer` the ids `new_ids[i]` from position `starts[i]` on.

        Returns float logits [rows, longest, vocab], or [rows, 1, vocab] where every row feeds one token; with
        `every` false only the longest row's last column is computed, so rows must then be equally long. Rows
        that are shorter are padded on the right; what the padding writes is overwritten before it is read.
        """
        rows = len(new_ids)
        padded_rows, _, longest, time = self.padded(starts, max(len(ids) for ids in new_ids), every=every)
        buffer.reserve(padded_rows, time)
        # One call for all rows: one for each took a tenth of the draft's step.
        filled = [row + [0] * (longest - len(row)) for row in new_ids]
        ids = torch.tensor(filled + [[0] * longest] * (padded_rows - rows))
        begin = torch.tensor(starts + [0] * (padded_rows - rows))
        positions = begin[:, None] + torch.arange(longest)
        if self._fused is not None:
            return self._fused(ids, positions, buffer.kv, time, every=every, attending=rows)[:rows]
        positions = positions.to(self.device)
        mask = torch.arange(time, device=self.device) <= positions[:, None, :, None]
        # Only padding lies beyond the context, where a model with a table of positions has none.
        last = self.max_context_tokens and self.max_context_tokens - 1
        out = self.model(
            input_ids=ids.to(self.device),
            attention_mask=mask,
            position_ids=positions if last is None else positions.clamp(max=last),
            past_key_values=RowCache(buffer, positions, time),
            use_cache=True,
            logits_to_keep=0 if every else 1,
        )
        logits: torch.Tensor = out.logits[:rows]
        return logits
