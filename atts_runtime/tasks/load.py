r"""Loading a task by name: the bundled one, one of the paper's data sets, a JSONL file, or any data set of the hub.

`rows` describes a JSONL file's form; hub data sets are read by the same keys, save that their questions are named by
position.
"""

from __future__ import annotations

import hashlib
import os.path
from itertools import islice
from pathlib import Path

from atts_runtime.errors import InputError
from atts_runtime.tasks import arithmetic
from atts_runtime.tasks.answers import Answers, ChoiceAnswers, ExactAnswers, MathAnswers
from atts_runtime.tasks.base import Question, Source, Task
from atts_runtime.tasks.hub import HubData, Place, fetch, named_rows, place, rows
from atts_runtime.tasks.named import NAMED, named
from atts_runtime.tasks.prompts import in_steps, put
from atts_runtime.tasks.rows import Form, jsonl_rows, questions_of

__all__ = ["BUNDLED", "DEFAULT_QUESTIONS", "load_task"]

BUNDLED = "arithmetic"
DEFAULT_QUESTIONS = 16
"""How many questions the endless bundled task gives when no number is asked for."""


def load_task(spec: str, n_questions: int | None, seed: int, *, system: str | None = None) -> Task:
    """The task that ``spec`` names, with its first ``n_questions`` questions (None: all; bundled task: 16).

    ``spec`` is one of

    - ``arithmetic``: the bundled task, held-out side, drawn by ``seed``; ``arithmetic:N`` is the same with N terms in
      every question, 4 to 9;
    - a name of `NAMED`, such as ``math500``, in any of its usual spellings;
    - a path that ends in ``.jsonl`` or names an existing file;
    - ``NAME[@CONFIG][:SPLIT][#REVISION]``: a hub data set, for instance ``openai/gsm8k@main:test``. Without a split it
      is ``test`` if there is one, else ``train``.

    What is on the hub needs the optional package ``datasets`` and a network or a cache. ``seed`` also shuffles the
    options of multiple-choice questions. ``system`` is the message that a chat template puts before every question.

    Raises :class:`InputError` for a bad number, an unreadable source or a bad row, which it names.
    """
    if n_questions is not None and n_questions < 1:
        raise InputError(f"the number of questions must be at least 1, not {n_questions}")
    name, _, terms = spec.partition(":")
    if name == BUNDLED:
        if system is not None:
            raise InputError(f"{BUNDLED}: its models know no system message; leave --system-prompt out")
        return _arithmetic(DEFAULT_QUESTIONS if n_questions is None else n_questions, seed, terms)
    path = Path(spec)
    # Path's own raise where a name is too long, as a question in place of a task is.
    if path.suffix.lower() == ".jsonl" or os.path.isfile(path):  # noqa: PTH113
        questions = questions_of(jsonl_rows(path), Form(put, system, seed))
        source = Source("jsonl", spec, {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        return _task(path.stem, questions, n_questions, source)
    if os.path.isdir(path):  # noqa: PTH112
        raise InputError(f"{spec!r} is a directory; name a .jsonl file in it")
    if (known := named(spec)) is not None:
        return _named(known, n_questions, Form(in_steps, system, seed))
    asked = place(spec)
    if asked is None:
        raise InputError(
            f"no task {spec!r}; give {BUNDLED}, {', '.join(NAMED)}, the path of an existing file, or a hub data set: "
            "NAME[@CONFIG][:SPLIT][#REVISION]"
        )
    data = fetch(asked, spec)
    # Only as many rows as asked for are read, so a large data set costs no more than a small one.
    questions = questions_of(islice(rows(data), n_questions), Form(put, system, seed))
    return _task(spec, questions, n_questions, _source(str(data.place), data))


def _named(name: str, n_questions: int | None, form: Form) -> Task:
    task = NAMED[name]
    data = fetch(Place(task.path, task.config, task.split, task.revision), name, gated=task.gated)
    questions = questions_of(islice(named_rows(name, data), n_questions), form)
    return _task(name, questions, n_questions, _source(name, data), last_number=task.last_number)


def _source(spec: str, data: HubData) -> Source:
    found = data.place
    return Source(
        "hub",
        spec,
        {"path": found.path, "config": found.config, "split": found.split, "revision": found.revision},
    )


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
    return Task(name, questions, arithmetic.PARAGRAPH, ExactAnswers(), Source("bundled", name))


def _task(
    name: str, questions: tuple[Question, ...], n_questions: int | None, source: Source, *, last_number: bool = False
) -> Task:
    said = source.spec if source.kind == "jsonl" else name
    if not questions:
        raise InputError(f"{said} holds no questions; give it at least one")
    if n_questions is not None and n_questions > len(questions):
        raise InputError(f"{said} has {len(questions)} questions, {n_questions} were asked for; ask for fewer")
    choice = questions[0].order is not None
    answers: Answers = ChoiceAnswers() if choice else MathAnswers(last_number=last_number)
    return Task(name, questions[:n_questions], None, answers, source)
