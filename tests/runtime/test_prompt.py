"""A question reaches a model through its chat template where it has one, with the system message where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.prompt import Prompt

TEMPLATE = "{% for message in messages %}{{ message['role'][0] }}{{ message['content'] }}{% endfor %} = "


@pytest.fixture
def vocabulary(tiny_draft: Path) -> Vocabulary:
    """A token a character."""
    from transformers import AutoTokenizer

    return Vocabulary(AutoTokenizer.from_pretrained(tiny_draft), "tiny")


def test_a_chat_template_gets_system_and_question(vocabulary: Vocabulary) -> None:
    vocabulary.tokenizer.chat_template = TEMPLATE.replace("[0]", "[:0]")  # the alphabet knows no s and no u
    alone, both = Prompt("1+2"), Prompt("1+2", "(a)")
    assert vocabulary.decode(vocabulary.encode_prompt(alone)) == "1+2 = "
    assert vocabulary.decode(vocabulary.encode_prompt(both)) == "(a)1+2 = "


def test_without_a_template_the_system_message_stands_before_the_question(vocabulary: Vocabulary) -> None:
    assert vocabulary.decode(vocabulary.encode_prompt(Prompt("1+2", "(a)"))) == "(a)\n\n1+2"
    assert vocabulary.encode_prompt(Prompt("1+2")) == vocabulary.encode_prompt("1+2")


def test_a_prompt_is_the_text_of_its_question() -> None:
    assert Prompt("1+2", "be brief") == "1+2"
    assert [m["role"] for m in Prompt("1+2", "be brief").messages] == ["system", "user"]
    assert Prompt("1+2").messages == [{"role": "user", "content": "1+2"}]
