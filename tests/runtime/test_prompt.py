"""A question reaches a model through its chat template where it has one, with the system message where there is one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from atts_runtime.cli import main
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.prompt import Prompt

TEMPLATE = "{% for message in messages %}{{ message['role'][0] }}{{ message['content'] }}{% endfor %} = "

REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


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


def test_a_question_is_encoded_once_and_told_from_the_same_with_a_system_message(vocabulary: Vocabulary) -> None:
    encoded = []
    encode = vocabulary.tokenizer.encode
    vocabulary.tokenizer.encode = lambda text, **options: (encoded.append(text), encode(text, **options))[1]
    alone, both = "1+2", Prompt("1+2", "(a)")
    ids = vocabulary.encode_prompt(alone)
    ids.append(0)  # what a caller makes of them is its own
    assert vocabulary.encode_prompt(alone) == vocabulary.encode_prompt(Prompt("1+2")) == ids[:-1]
    assert vocabulary.decode(vocabulary.encode_prompt(both)) == "(a)\n\n1+2"
    assert encoded == ["1+2", "(a)\n\n1+2"]


def test_a_vocabulary_goes_with_the_last_that_needs_it(tiny_draft: Path) -> None:
    """Models are vocabularies: one that only the garbage collector frees would stay beside the next."""
    from transformers import AutoTokenizer

    mine = Vocabulary(AutoTokenizer.from_pretrained(tiny_draft), "tiny")
    mine.encode_prompt("1+2")
    seen = weakref.ref(mine)
    gc.disable()
    try:
        del mine
        assert seen() is None
    finally:
        gc.enable()


def test_a_prompt_is_the_text_of_its_question() -> None:
    assert Prompt("1+2", "be brief") == "1+2"
    assert [m["role"] for m in Prompt("1+2", "be brief").messages] == ["system", "user"]
    assert Prompt("1+2").messages == [{"role": "user", "content": "1+2"}]


@pytest.mark.parametrize(
    ("template", "more", "said"),
    [
        (
            REFUSING,
            ["--system-prompt", "(a)"],
            "with a system message: System role not supported; leave --system-prompt out",
        ),
        ("{% if %}", [], "does not take a question: Expected an expression"),
        ("{{ messages[0]['content'] + 1 }}", [], "mend chat_template in its folder"),
    ],
)
def test_a_chat_template_that_does_not_take_the_question_is_named_before_the_run(
    template: str,
    more: list[str],
    said: str,
    tiny_target: Path,
    variant: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = str(variant(tiny_target, "tokenizer_config.json", chat_template=template))
    task = tmp_path / "task.jsonl"
    task.write_text('{"question": "1+2", "answer": 3}')
    study = ["--task", str(task), "--draft", model, "--target", model, "--out", str(tmp_path / "run")]
    assert main(["run", *study, *more]) == 2
    *_, wrong = capsys.readouterr().err.splitlines()
    assert wrong.startswith(f"atts-runtime run: the chat template of '{model}' does not take a question")
    assert said in wrong
    assert not list((tmp_path / "run").glob("*"))
