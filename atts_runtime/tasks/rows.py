r"""Rows of a JSONL file or a data set become questions; a bad row is named by where it stands.

A JSONL file holds one object a line, all of one form::

    {"question": "What is $2 + 2$?", "answer": 4}
    {"id": "halves", "question": "Simplify $\\frac{2}{4}$.", "answer": "\\frac{1}{2}"}

The text stands under ``question``, ``problem`` or ``prompt``, the answer (text or a number) under ``answer``.
``choices`` lists two to ten options, of which ``answer`` is one, in full or by letter. An ``id`` may name the
question; other keys and blank lines are ignored. Where an answer ends in ``#### 72``, as in GSM8K, it is ``72``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atts_runtime.errors import InputError
from atts_runtime.prompt import Prompt
from atts_runtime.tasks.base import Question
from atts_runtime.tasks.prompts import LETTERS, MOST_OPTIONS, order_of
from atts_runtime.untrusted import json_of
from atts_runtime.wholenumbers import LARGEST_EXACT

__all__ = ["Form", "Row", "jsonl_rows", "one_line", "questions_of"]

_TEXT_KEYS = ("question", "problem", "prompt")
_GSM8K_MARK = "####"


@dataclass(frozen=True, slots=True)
class Row:
    """An undigested row: what to call it in an error, its id unless it brings one, and its content."""

    where: str
    default_id: str
    value: object


@dataclass(frozen=True, slots=True)
class Form:
    """How rows become prompts: the wording (of a text and its options), the system message, the options' seed."""

    wording: Callable[[str, Sequence[str]], str]
    system: str | None
    seed: int


def jsonl_rows(path: Path) -> Iterator[Row]:
    """The file's rows; raises InputError where it cannot be read or a line is not JSON."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    # Split as bytes: str.splitlines would also split at line separators inside a JSON string.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = json_of(line.decode())
        except UnicodeDecodeError:
            raise InputError(f"{where}: not UTF-8 text; save the file as UTF-8") from None
        except ValueError as error:
            raise InputError(f"{where}: not valid JSON ({one_line(error)}); put one object on each line") from None
        yield Row(where, f"{path.stem}/{number}", value)


def questions_of(rows: Iterable[Row], form: Form) -> tuple[Question, ...]:
    """Questions in order; raises InputError at the first bad row, at one of another form than the first, and at an id
    that is used twice."""
    seen: dict[str, str] = {}
    questions = []
    first: tuple[str, str, bool] | None = None
    for row in rows:
        key, asks_choice, question = _question(row, form)
        where, first_key, first_choice = first = first or (row.where, key, asks_choice)
        if key != first_key:
            raise InputError(f"{row.where}: the text stands under {key}, at {where} under {first_key}; use one key")
        if asks_choice != first_choice:
            has, had = ("choices", "none") if asks_choice else ("no choices", "some")
            raise InputError(f"{row.where}: has {has}, {where} has {had}; keep the two kinds in files of their own")
        if question.id in seen:
            raise InputError(f"{row.where}: id {question.id!r} is already used at {seen[question.id]}; make ids unique")
        seen[question.id] = row.where
        questions.append(question)
    return tuple(questions)


def _question(row: Row, form: Form) -> tuple[str, bool, Question]:
    """The key of its text, whether it is multiple choice, and the question."""
    value = row.value
    if not isinstance(value, Mapping):
        raise InputError(f'{row.where}: not an object; write {{"question": ..., "answer": ...}}')
    key = next((key for key in _TEXT_KEYS if value.get(key) is not None), None)
    if key is None:
        raise InputError(f"{row.where}: no question text; give one of {', '.join(_TEXT_KEYS)}")
    text = value[key]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{row.where}: {key} must be text that is not empty")
    id_, answer, order = _id(row, value.get("id")), _answer(row, value.get("answer")), ""
    options = _options(row, value.get("choices"))
    if options:
        right = _right(row, answer, options)
        shown = order_of(id_, len(options), form.seed)
        answer, order = LETTERS[shown.index(right)], "".join(LETTERS[i] for i in shown)
        options = [options[i] for i in shown]
    question = Question(id_, Prompt(form.wording(text.rstrip(), options), form.system), answer, order or None)
    try:
        f"{question.id}{question.prompt}{question.answer}".encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{row.where}: holds half a surrogate pair, which is not text; write whole characters"
        ) from None
    return key, bool(options), question


def _options(row: Row, value: object) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(option, str) and option.strip() for option in value):
        raise InputError(f"{row.where}: choices must be a list of texts that are not empty")
    options = [option.strip() for option in value]
    if not 2 <= len(options) <= MOST_OPTIONS or len(set(options)) < len(options):
        raise InputError(f"{row.where}: choices must be 2 to {MOST_OPTIONS} different texts")
    return options


def _right(row: Row, answer: str, options: list[str]) -> int:
    """Which option the answer is: one in full, else a letter."""
    if answer in options:
        return options.index(answer)
    if answer in tuple(LETTERS[: len(options)]):
        return LETTERS.index(answer)
    raise InputError(f"{row.where}: answer is none of the choices; give one in full or by letter")


def _id(row: Row, value: object) -> str:
    if value is None:
        return row.default_id
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise InputError(f"{row.where}: id must be text that is not empty, or an integer; leave it out for the default")


def _answer(row: Row, value: object) -> str:
    if value is None:
        raise InputError(f"{row.where}: no answer; give one under answer")
    if isinstance(value, str):
        if answer := value.rpartition(_GSM8K_MARK)[2].strip():
            return answer
        raise InputError(f"{row.where}: answer is empty; give the right answer")
    if isinstance(value, float) and math.isfinite(value):
        # Some data sets hold integers as floats; a large one no longer says which integer is meant.
        return str(int(value)) if value.is_integer() and abs(value) <= LARGEST_EXACT else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{row.where}: answer must be text or a finite number, not {one_line(value)}")


def one_line(value: object, limit: int = 200) -> str:
    """The first line of what an error or a value says, cut to ``limit`` characters; its type if it says nothing."""
    line = next((line.strip() for line in str(value).splitlines() if line.strip()), type(value).__name__)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
