"""The bundled pair's tokenizer: a closed word list, plain JSON, read alike by transformers and vLLM."""

from __future__ import annotations

from typing import Any

from atts_runtime.tasks.arithmetic import LABELS, MAX_TERMS, PARAGRAPH, WAIT

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
_WORDS = (
    [PAD, BOS, EOS, UNK]
    + list("0123456789")
    + ["+", "-", "=", ": ", "'", " ", " = ", PARAGRAPH, WAIT, "\\boxed{", "}"]
    + [f"({label})" for label in LABELS[: MAX_TERMS - 1]]
)


def build_tokenizer() -> Any:
    """A ``tokenizers.Tokenizer`` whose tokens are the task's words; decoding joins them unchanged."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token=UNK))
    longest_first = sorted(_WORDS[4:], key=len, reverse=True)
    pattern = "|".join(_escape(word) for word in longest_first)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, _WORDS.index(BOS))]
    )
    tokenizer.add_special_tokens([PAD, BOS, EOS, UNK])
    return tokenizer


def _escape(word: str) -> str:
    return "".join(f"\\{ch}" if ch in "+-.()[]{}\\'" else ch for ch in word)
