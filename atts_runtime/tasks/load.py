r"""Loading a task by name: the bundled one, a JSONL file, or a data set of the Hugging Face hub.

A JSONL file holds one object a line::

    {"question": "What is $2 + 2$?", "answer": 4}
    {"id": "halves", "problem": "Simplify $\\frac{2}{4}$.", "answer": "\\frac{1}{2}"}

The text stands under ``question``, ``problem`` or ``prompt``, the answer (text or a number) under ``answer``, and
an ``id`` may name the question; other keys and blank lines are ignored. Hub data sets are read by the same keys, save
that their questions are named by position. Where an answer ends in ``#### 72``, as in GSM8K, it is ``72``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from atts_runtime.errors import InputError
from atts_runtime.tasks import arithmetic
from atts_runtime.tasks.answers import ExactAnswers, MathAnswers
from atts_runtime.tasks.base import Question, Task

__all__ = ["BUNDLED", "DEFAULT_QUESTIONS", "INSTRUCTION", "load_task"]

BUNDLED = "arithmetic"
DEFAULT_QUESTIONS = 16
"""How many questions the endless bundled task gives when no number is asked for."""

INSTRUCTION = "\n\nReason step by step and put your final answer within \\boxed{}.\n\n"
"""What follows the question in the prompt of a free-text task."""

_TEXT_KEYS = ("question", "problem", "prompt")
_SPLITS = ("test", "train")
_HUB_SPEC = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]+))?")
_GSM8K_MARK = "####"


def load_task(spec: str, n_questions: int | None, seed: int) -> Task:
    """The task that ``spec`` names, with its first ``n_questions`` questions (None: all; bundled task: 16).

    ``spec`` is one of

    - ``arithmetic``: the bundled task, held-out side, drawn by ``seed`` (which nothing else uses); ``arithmetic:N``
      is the same with N terms in every question, 4 to 9;
    - a path that ends in ``.jsonl`` or names an existing file;
    - ``NAME[@CONFIG][:SPLIT]``: a hub data set, for instance ``openai/gsm8k@main:test``. Without a split it is
      ``test`` if there is one, else ``train``. Needs the optional package ``datasets`` and a network or a cache.

    Raises :class:`InputError` for a bad number, an unreadable source or a bad row, which it names.
    """
    if n_questions is not None and n_questions < 1:
        raise InputError(f"the number of questions must be at least 1, not {n_questions}")
    name, _, terms = spec.partition(":")
    if name == BUNDLED:
        return _arithmetic(DEFAULT_QUESTIONS if n_questions is None else n_questions, seed, terms)
    path = Path(spec)
    if path.suffix.lower() == ".jsonl" or path.is_file():
        questions = _questions(_jsonl_rows(path))
        return _free_text(path.stem, questions, n_questions, source=spec)
    if path.is_dir():
        raise InputError(f"{spec!r} is a directory; name a .jsonl file in it")
    # Only as many rows as asked for are read, so a large data set costs no more than a small one.
    return _free_text(spec, _questions(islice(_hub_rows(spec), n_questions)), n_questions, source=spec)


def _arithmetic(n_questions: int, seed: int, terms: str) -> Task:
    low, high = arithmetic.MIN_TERMS, arithmetic.MAX_TERMS
    if terms:
        if not terms.isdecimal() or not low <= int(terms) <= high:
            raise InputError(f"{BUNDLED}:{terms} is no task; give {BUNDLED}:N with N terms, {low} to {high}")
        low = high = int(terms)
    name = f"{BUNDLED}:{terms}" if terms else BUNDLED
    stream = arithmetic.questions(seed, min_terms=low, max_terms=high)
    questions = tuple(
        Question(f"{name}/{seed}/{index}", question.prompt, question.answer)
        for index, question in enumerate(islice(stream, n_questions))
    )
    return Task(name, questions, arithmetic.PARAGRAPH, ExactAnswers())


def _free_text(name: str, questions: tuple[Question, ...], n_questions: int | None, source: str) -> Task:
    if not questions:
        raise InputError(f"{source} holds no questions; give it at least one")
    if n_questions is not None and n_questions > len(questions):
        raise InputError(f"{source} has {len(questions)} questions, {n_questions} were asked for; ask for fewer")
    return Task(name, questions[:n_questions], None, MathAnswers())


# Rows: both sources yield them, one reader makes questions of them.


@dataclass(frozen=True, slots=True)
class _Row:
    """An undigested row: what to call it in an error, its id unless it brings one, and its content."""

    where: str
    default_id: str
    value: object


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from error
    # Split as bytes: str.splitlines would also split at line separators inside a JSON string.
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError:
            raise InputError(f"{where}: not UTF-8 text; save the file as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({_one_line(error)}); put one object on each line") from None
        yield _Row(where, f"{path.stem}/{number}", value)


def _hub_rows(spec: str) -> Iterator[_Row]:
    match = _HUB_SPEC.fullmatch(spec)
    if match is None:
        raise InputError(
            f"no task {spec!r}; give {BUNDLED}, the path of an existing file, or a hub data set: NAME[@CONFIG][:SPLIT]"
        )
    name, config, split = match.group("name", "config", "split")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"{spec!r} is neither {BUNDLED} nor a file; to read it from the hub, run: pip install datasets"
        ) from None
    try:
        data = load_dataset(name, config, split=split)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise InputError(
            f"cannot load {spec!r} from the Hugging Face hub ({_one_line(error)}); for a local file give its path"
        ) from error
    if split is None:
        split = next((known for known in _SPLITS if known in data), None)
        if split is None:
            raise InputError(f"{spec!r} has no split test or train; add one of :{', :'.join(data)}")
        data = data[split]
    for index, row in enumerate(data):
        value = {key: row[key] for key in row if key != "id"}
        yield _Row(f"{spec}, split {split}, row {index}", f"{name}/{index}", value)


def _questions(rows: Iterable[_Row]) -> tuple[Question, ...]:
    seen: dict[str, str] = {}
    questions = []
    for row in rows:
        question = _question(row)
        if question.id in seen:
            raise InputError(f"{row.where}: id {question.id!r} is already used at {seen[question.id]}; make ids unique")
        seen[question.id] = row.where
        questions.append(question)
    return tuple(questions)


def _question(row: _Row) -> Question:
    value = row.value
    if not isinstance(value, Mapping):
        raise InputError(f'{row.where}: not an object; write {{"question": ..., "answer": ...}}')
    key = next((key for key in _TEXT_KEYS if value.get(key) is not None), None)
    if key is None:
        raise InputError(f"{row.where}: no question text; give one of {', '.join(_TEXT_KEYS)}")
    text = value[key]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{row.where}: {key} must be text that is not empty")
    question = Question(_id(row, value.get("id")), text.rstrip() + INSTRUCTION, _answer(row, value.get("answer")))
    try:
        f"{question.id}{question.prompt}{question.answer}".encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{row.where}: holds half a surrogate pair, which is not text; write whole characters"
        ) from None
    return question


def _id(row: _Row, value: object) -> str:
    if value is None:
        return row.default_id
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise InputError(f"{row.where}: id must be text that is not empty, or an integer; leave it out for the default")


def _answer(row: _Row, value: object) -> str:
    if value is None:
        raise InputError(f"{row.where}: no answer; give one under answer")
    if isinstance(value, str):
        if answer := value.rpartition(_GSM8K_MARK)[2].strip():
            return answer
        raise InputError(f"{row.where}: answer is empty; give the right answer")
    if isinstance(value, float) and math.isfinite(value):
        # Some data sets hold integers as floats; above 2**53 a float no longer says which integer is meant.
        return str(int(value)) if value.is_integer() and abs(value) <= 2**53 else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{row.where}: answer must be text or a finite number, not {_one_line(value)}")


def _one_line(value: object, limit: int = 200) -> str:
    """The first line of what an error or a value says, cut to ``limit`` characters; its type if it says nothing."""
    line = next((line.strip() for line in str(value).splitlines() if line.strip()), type(value).__name__)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
