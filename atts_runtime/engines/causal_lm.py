"""A Hugging Face causal language model, loaded and checked: weights, tokenizer and one ragged forward pass."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from atts_runtime.engines.kv import NEW_ALIGN, ROW_ALIGN, KvBuffer, RowCache, aligned, aligned_time
from atts_runtime.engines.llama import FusedLlama
from atts_runtime.errors import InputError

# One append pass holds the logits of all its tokens: bound them, and how long decoding rows wait for the pass.
_STEP_LOGITS_BYTES = 256 * 2**20
_STEP_TOKENS = {"cpu": 1024, "cuda": 4096}


# transformers builds models under a process-wide meta device: two loads at once corrupt each other.
_LOADING = threading.Lock()


class CausalLM:
    """Weights and tokenizer of a model by folder or hub id; float32 on CPU, bfloat16 on CUDA.

    Raises InputError where the folder or id holds no causal language model, its tokenizer has no end-of-text
    token, or its attention is not plain causal attention over the whole context.
    """

    def __init__(self, model: str, device: str | None = None, gguf_file: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self._load(model, gguf_file)
        config = self.model.config.get_text_config()
        self.eos_ids = self._end_ids(model)
        self._may_end: dict[str, frozenset[int]] = {}
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
        vocab = json.dumps(sorted(self.tokenizer.get_vocab().items()), ensure_ascii=True)
        self.vocab = hashlib.sha256(vocab.encode()).hexdigest()[:16]

    def _load(self, model: str, gguf_file: str | None) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        looks_local = model.startswith((".", "/", "~")) or Path(model).exists()
        path = str(Path(model).expanduser()) if looks_local else model
        if looks_local and not Path(path).is_dir():
            raise InputError(
                f"model {model!r} is not a folder; give a folder with config.json and weights, or a hub id"
            )
        options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
        try:
            with _LOADING:
                self.tokenizer: Any = AutoTokenizer.from_pretrained(path, **options)
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    path, dtype=self.dtype, attn_implementation="sdpa", **options
                )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"model {model!r} cannot be loaded as a causal language model: {reason}") from error
        self.model: Any = loaded.to(self.device).eval()
        with _LOADING:  # it builds tensors, whose default type another load may have changed
            self._fused = FusedLlama.of(self.model) if self.device.type == "cpu" else None

    def _unlisted_kind(self, config: Any) -> str:
        """Kind of a model's layers where its config does not list them: Mistral and Phi-3 name a window only."""
        window, longest = getattr(config, "sliding_window", None), self.max_context_tokens
        return "sliding_attention" if window and (longest is None or window < longest) else "full_attention"

    def _end_ids(self, model: str) -> frozenset[int]:
        if self.tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer of {model!r} has no eos token; set eos_token in its tokenizer_config.json")
        listed = self.model.generation_config.eos_token_id
        more = listed if isinstance(listed, list) else [] if listed is None else [listed]
        return frozenset([self.tokenizer.eos_token_id, *more])

    def is_full(self, tokens: int) -> bool:
        """Whether a context of so many tokens leaves no room for another."""
        return self.max_context_tokens is not None and tokens >= self.max_context_tokens

    def may_end(self, stop: str) -> frozenset[int]:
        """Ids whose text holds the last character of `stop`: only after those can it have just appeared."""
        if stop not in self._may_end:
            vocab = range(len(self.tokenizer))
            texts = self.tokenizer.batch_decode([[i] for i in vocab])
            self._may_end[stop] = frozenset(i for i, text in zip(vocab, texts, strict=True) if stop[-1] in text)
        return self._may_end[stop]

    def buffer(self) -> KvBuffer:
        """An empty KV buffer of this model's shape."""
        return KvBuffer(self.layers, self.kv_heads, self.head_dim, self.dtype, self.device)

    def encode(self, text: str) -> list[int]:
        """Ids of a run of text, no special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a question: through the chat template where the tokenizer has one, else as it stands."""
        if getattr(self.tokenizer, "chat_template", None):
            chat = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            return self.encode(text)
        ids: list[int] = self.tokenizer.encode(prompt)
        if len(ids) > 1 and ids[-1] in self.eos_ids:
            ids = ids[:-1]
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of a run of ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

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
        ids = torch.zeros(padded_rows, longest, dtype=torch.long)
        for i, row in enumerate(new_ids):
            ids[i, : len(row)] = torch.tensor(row)
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
