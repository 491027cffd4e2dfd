"""A Hugging Face causal language model, loaded and checked: weights, tokenizer and one ragged forward pass."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from atts_runtime.engines.kv import NEW_ALIGN, ROW_ALIGN, KvBuffer, RowCache, aligned, aligned_time
from atts_runtime.engines.llama import FusedLlama
from atts_runtime.engines.steps import Executed
from atts_runtime.engines.torch_device import torch_device
from atts_runtime.engines.vocabulary import Vocabulary, as_list, local_path
from atts_runtime.errors import InputError

# One append pass holds the logits of all its tokens: bound them, and how long decoding rows wait for the pass.
_STEP_LOGITS_BYTES = 256 * 2**20
_STEP_TOKENS = {"cpu": 1024, "cuda": 4096}


Grouped: TypeAlias = tuple[KvBuffer, int, int | None]
"""Rows that attend together: their buffer, how many they are, and the positions that they attend over (None: as many as
the longest needs)."""


# transformers builds models under a process-wide meta device: two loads at once corrupt each other.
_LOADING = threading.Lock()


class CausalLM(Vocabulary):
    """Weights and tokenizer of a model by folder or hub id; float32 on CPU, bfloat16 on CUDA.

    Raises InputError where the device is none to run on, the folder or id holds no causal language model, its
    tokenizer has no end-of-text token, or its attention is not plain causal attention over the whole context.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        self.device = torch_device(device)
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        tokenizer = self._load(model)
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

    def _load(self, model: str) -> Any:
        """Load the weights; returns the tokenizer."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        path = local_path(model)
        try:
            with _LOADING:
                tokenizer = AutoTokenizer.from_pretrained(path)
                loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=self.dtype, attn_implementation="sdpa")
        except Exception as error:  # over files that are not a model's, transformers may fail in any way
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

    def buffer(self, time: int = 0) -> KvBuffer:
        """An empty KV buffer of this model's shape, its rows of `time` positions to begin with."""
        return KvBuffer(self.layers, self.kv_heads, self.head_dim, self.dtype, self.device, time)

    @property
    def groups_rows(self) -> bool:
        """Whether rows of a decode attend in groups by length; else all over as many positions as the longest needs."""
        return self._fused is not None

    def append_pass(
        self, buffer: KvBuffer, new_ids: list[list[int]], starts: list[int]
    ) -> tuple[torch.Tensor, Executed]:
        """Feed row i of `buffer` the ids `new_ids[i]` from position `starts[i]` on.

        Returns float logits [rows, longest or more, vocab]. Rows that are shorter are padded on the right; what the
        padding writes is overwritten before it is read.
        """
        rows, longest = len(new_ids), aligned(max(map(len, new_ids)), NEW_ALIGN)
        time = aligned_time(max(starts) + longest)
        buffer.reserve(rows, time)
        # One call for all rows: one for each took a tenth of the draft's step.
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in new_ids])
        positions = torch.tensor(starts)[:, None] + torch.arange(longest)
        logits = self._forward(ids, positions, [(buffer, rows, time)], every=True)
        return logits, Executed(rows * longest, rows * longest * time, 1)

    def decode_pass(
        self, groups: Sequence[Grouped], ids: list[int], starts: list[int]
    ) -> tuple[torch.Tensor, Executed]:
        """Feed each row an id at its position, group by group; returns float logits [rows, vocab].

        A model that does not group rows takes one group.
        """
        rows = len(ids)
        padding = [0] * (aligned(rows, ROW_ALIGN) - rows)
        tokens = rows + len(padding)
        if not self.groups_rows:  # its padding attends too
            [(buffer, _, _)] = groups
            time = aligned_time(max(starts) + 1)
            buffer.reserve(tokens, time)
            parts = [(buffer, tokens, time)]
        else:
            parts = [(buffer, count, time or 0) for buffer, count, time in groups]
        fed, positions = torch.tensor(ids + padding)[:, None], torch.tensor(starts + padding)[:, None]
        logits = self._forward(fed, positions, parts, every=False)[:rows, -1]
        return logits, Executed(tokens, sum(count * time for _, count, time in parts), len(parts))

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, groups: list[tuple[KvBuffer, int, int]], *, every: bool
    ) -> torch.Tensor:
        """See `FusedLlama`; what is not fused takes one group."""
        if self._fused is not None:
            return self._fused(ids, positions, [(buffer.kv, rows, time) for buffer, rows, time in groups], every=every)
        [(buffer, _, time)] = groups
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
        logits: torch.Tensor = out.logits
        return logits
