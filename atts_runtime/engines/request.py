"""A call as the ids that an engine feeds its model, checked. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from atts_runtime.engines.base import EngineError, GenerateCall, ScoreCall
from atts_runtime.engines.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Request:
    """`full`: prompt and pieces; those before `context` are not the call's own. `eos`: score an end of text after them.

    A call to generate has no ids of its own yet: its context is all of `full`.
    """

    prompt: tuple[int, ...]
    full: list[int]
    context: int
    eos: bool = False

    @property
    def segment(self) -> list[int]:
        """The ids to be scored."""
        return self.full[self.context :]


def drawn_until(stop: str | None, drawn: Iterable[int], vocabulary: Vocabulary) -> tuple[list[int], bool]:
    """Tokens up to the end of `stop`, for several may have come at once; whether an end of text is the last."""
    ids = list(drawn)
    if stop is not None:
        while len(ids) > 1 and stop in vocabulary.decode(ids[:-1]):
            ids.pop()
    return ids, bool(ids) and ids[-1] in vocabulary.eos_ids


def request(call: GenerateCall | ScoreCall, vocabulary: Vocabulary, max_context_tokens: int | None) -> Request:
    """The call in ids; raises EngineError where the model cannot take it."""

    def is_full(tokens: int) -> bool:
        return max_context_tokens is not None and tokens >= max_context_tokens

    prompt = tuple(vocabulary.encode_prompt(call.prompt))
    pieces = [piece.ids_in(vocabulary.vocab, vocabulary.encode) for piece in call.pieces]
    full = [*prompt, *(i for piece in pieces for i in piece)]
    if not prompt:
        raise EngineError("the prompt has no tokens")
    if is_full(len(prompt)):
        raise EngineError(f"the prompt of {len(prompt)} tokens fills the model's context of {max_context_tokens}")
    if isinstance(call, GenerateCall):
        if call.max_tokens < 1:
            raise EngineError(f"max_tokens must be at least 1, got {call.max_tokens}")
        return Request(prompt, full, len(full))
    eos = bool(call.pieces) and call.pieces[-1].eos
    context = len(full) - (len(pieces[-1]) if pieces else 0)
    if context == len(full) and not eos:
        raise EngineError("empty segment: there is nothing to score")
    if is_full(len(full) - 1):
        raise EngineError(f"context of {len(full)} tokens exceeds the model's {max_context_tokens}")
    return Request(prompt, full, context, eos)
