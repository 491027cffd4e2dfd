"""A model's tokenizer as engines use it: text to ids and back, prompts, ends of text. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from atts_runtime.errors import InputError
from atts_runtime.prompt import Prompt

_PROMPTS = 1024  # questions whose ids are kept at a time: more than are in flight


class Vocabulary:
    """Ids of one tokenizer. `vocab` names them, alike for equal tokenizers; `eos_ids` are the model's ends of text.

    Args:
        tokenizer: a `transformers` tokenizer.
        model: what to call it in errors.
        more_eos_ids: ends of text beside the tokenizer's own (a chat model's generation config lists several).

    Raises InputError where the tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any, model: str, more_eos_ids: Iterable[int] = ()) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"the tokenizer of {model!r} has no eos token; set eos_token in its tokenizer_config.json")
        self.tokenizer, self._model = tokenizer, model
        self.eos_ids = frozenset([tokenizer.eos_token_id, *more_eos_ids])
        ids = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=True)
        self.vocab = hashlib.sha256(ids.encode()).hexdigest()[:16]
        self._may_end: dict[str, frozenset[int]] = {}
        self._prompts: dict[tuple[str, str | None], tuple[int, ...]] = {}

    @property
    def size(self) -> int:
        """One more than the largest id."""
        size: int = 1 + max(self.tokenizer.get_vocab().values())
        return size

    def may_end(self, stop: str) -> frozenset[int]:
        """Ids whose text holds the last character of `stop`: only after those can it have just appeared."""
        if stop not in self._may_end:
            vocab = range(len(self.tokenizer))
            texts = self.tokenizer.batch_decode([[i] for i in vocab])
            self._may_end[stop] = frozenset(i for i, text in zip(vocab, texts, strict=True) if stop[-1] in text)
        return self._may_end[stop]

    def encode(self, text: str) -> list[int]:
        """Ids of a run of text, no special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a question: through the chat template where the tokenizer has one, else as it stands. They are
        remembered: every call has its question with it, and encoding that took as long as all else in taking a call.

        Raises InputError where the template will not have it.
        """
        asked = prompt if isinstance(prompt, Prompt) else Prompt(prompt)
        key = str(asked), asked.system
        ids = self._prompts.get(key)
        if ids is None:
            ids = tuple(self._encode_prompt(asked))
            if len(self._prompts) >= _PROMPTS:
                self._prompts.clear()
            self._prompts[key] = ids
        return list(ids)

    def _encode_prompt(self, asked: Prompt) -> list[int]:
        if getattr(self.tokenizer, "chat_template", None):
            return self.encode(self._templated(asked))
        ids: list[int] = self.tokenizer.encode(asked.plain)
        if len(ids) > 1 and ids[-1] in self.eos_ids:
            ids = ids[:-1]
        return ids

    def _templated(self, asked: Prompt) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(asked.messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like; some know no system role
            mend = "mend chat_template in its folder" if asked.system is None else "leave --system-prompt out"
            said = " ".join(str(error).split())[:300].rstrip(". ")
            with_ = "" if asked.system is None else " with a system message"
            raise InputError(
                f"the chat template of {self._model!r} does not take a question{with_}: {said}; {mend}"
            ) from error
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a run of ids, special tokens left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def as_list(ids: int | list[int] | None) -> list[int]:
    """Ends of text as a generation config lists them: none, one or several."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def local_path(model: str) -> str:
    """The folder that a model's name means, or the hub id; raises InputError where the folder is missing."""
    if not (model.startswith((".", "/", "~")) or Path(model).exists()):
        return model
    path = Path(model).expanduser()
    if not path.is_dir():
        raise InputError(f"model {model!r} is not a folder; give a folder with config.json and weights, or a hub id")
    return str(path)
