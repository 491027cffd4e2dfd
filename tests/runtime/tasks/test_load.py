"""Tasks load from the bundled generator and JSONL files; bad input is one line that says where and what."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_runtime.prompt import Prompt
from atts_runtime.tasks import arithmetic
from atts_runtime.tasks.answers import ChoiceAnswers
from atts_runtime.tasks.load import DEFAULT_QUESTIONS, load_task
from atts_runtime.tasks.prompts import INSTRUCTION

GOOD = {"question": "1 + 1?", "answer": "2"}


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def error_of(spec: str, n_questions: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_task(spec, n_questions, 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_loading_imports_no_heavy_package() -> None:
    code = (
        "import sys, atts_runtime.tasks.load; "
        "print(sorted({'torch', 'datasets', 'math_verify', 'sympy', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# The bundled task


def test_the_bundled_task_gives_held_out_questions_with_their_answers() -> None:
    task = load_task("arithmetic", None, 3)
    drawn = arithmetic.questions(3)
    assert len(task.questions) == DEFAULT_QUESTIONS == 16
    assert task.segment_stop == "\n\n"
    for index, question in enumerate(task.questions):
        expected = next(drawn)
        assert expected.held_out
        assert (question.id, question.prompt, question.answer) == (
            f"arithmetic/3/{index}",
            expected.prompt,
            expected.answer,
        )


def test_a_worked_solution_of_the_bundled_task_is_correct() -> None:
    task = load_task("arithmetic", 5, 0)
    solutions = arithmetic.questions(0)
    for question in task.questions:
        text = "".join(next(solutions).paragraphs)
        assert task.is_correct(task.extract(text), question.answer)


def test_fewer_questions_are_the_first_of_more() -> None:
    assert load_task("arithmetic", 5, 0).questions == load_task("arithmetic", 30, 0).questions[:5]


def test_the_seed_decides_the_bundled_data_and_so_the_fingerprint() -> None:
    assert load_task("arithmetic", 5, 0).fingerprint == load_task("arithmetic", 5, 0).fingerprint
    assert load_task("arithmetic", 5, 0).fingerprint != load_task("arithmetic", 5, 1).fingerprint


@pytest.mark.parametrize("n_questions", [0, -1])
def test_fewer_than_one_question_is_refused(n_questions: int) -> None:
    assert error_of("arithmetic", n_questions) == f"the number of questions must be at least 1, not {n_questions}"


@pytest.mark.parametrize("terms", [4, 9])
def test_the_bundled_task_with_a_number_has_that_many_terms(terms: int) -> None:
    task = load_task(f"arithmetic:{terms}", 5, seed=3)
    assert [question.prompt.partition("\n\n")[0].count("(") for question in task.questions] == [terms - 1] * 5
    assert task.fingerprint != load_task("arithmetic", 5, seed=3).fingerprint


@pytest.mark.parametrize("terms", ["3", "10", "x", "-4"])
def test_a_number_of_terms_that_the_models_never_saw_is_refused(terms: str) -> None:
    with pytest.raises(InputError, match=f"arithmetic:{terms}"):
        load_task(f"arithmetic:{terms}", 5, seed=3)


# JSONL files


@pytest.mark.parametrize("key", ["question", "problem", "prompt"])
def test_a_row_gives_a_question_under_any_of_the_known_keys(tmp_path: Path, key: str) -> None:
    task = load_task(write(tmp_path / "sums.jsonl", {key: "1 + 1?\n", "answer": " 2 ", "extra": []}), None, 0)
    (question,) = task.questions
    assert (question.id, question.prompt, question.answer) == ("sums/1", "1 + 1?" + INSTRUCTION, "2")
    assert (task.name, task.segment_stop) == ("sums", None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [(4, "4"), (27.0, "27"), (2.5, "2.5"), (1e300, "1e+300"), (-0.0, "0"), ("6 * 12 = 72\n#### 72", "72"), ("x", "x")],
)
def test_an_answer_may_be_text_or_a_number(tmp_path: Path, answer: object, text: str) -> None:
    task = load_task(write(tmp_path / "t.jsonl", {"question": "?", "answer": answer}), None, 0)
    assert task.questions[0].answer == text


def test_ids_come_from_the_row_or_else_from_the_line_number(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": "a", "question": "?", "answer": 1}\r\n\n{"question": "?", "answer": 1}\n{"id": 7, ')
    with path.open("a") as file:
        file.write('"question": "?", "answer": 1}')
    assert [question.id for question in load_task(str(path), None, 0).questions] == ["a", "t/3", "7"]


def test_any_existing_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert len(load_task(write(tmp_path / "questions.txt", GOOD, GOOD), None, 0).questions) == 2


def test_a_byte_order_mark_and_a_line_separator_in_text_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('\ufeff{"question": "a\u2028b", "answer": 1}\n', encoding="utf-8")
    assert load_task(str(path), None, 0).questions[0].prompt == "a\u2028b" + INSTRUCTION


def test_a_number_takes_the_first_questions_and_the_seed_changes_nothing(tmp_path: Path) -> None:
    spec = write(tmp_path / "t.jsonl", GOOD, GOOD, GOOD)
    assert [question.id for question in load_task(spec, 2, 0).questions] == ["t/1", "t/2"]
    assert load_task(spec, 2, 0).fingerprint == load_task(spec, 2, 1).fingerprint


def test_more_questions_than_the_file_holds_is_refused_with_the_number_there_are(tmp_path: Path) -> None:
    spec = write(tmp_path / "t.jsonl", GOOD, GOOD)
    assert error_of(spec, 3) == f"{spec} has 2 questions, 3 were asked for; ask for fewer"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"question": "?", ', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"question": "?", "answer": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'["?", 1]', "not an object"),
        (b"null", "not an object"),
        (b'{"answer": 1}', "no question text; give one of question, problem, prompt"),
        (b'{"question": null, "answer": 1}', "no question text"),
        (b'{"question": " ", "answer": 1}', "question must be text that is not empty"),
        (b'{"problem": 5, "answer": 1}', "problem must be text that is not empty"),
        (b'{"question": "?"}', "no answer"),
        (b'{"question": "?", "answer": null}', "no answer"),
        (b'{"question": "?", "answer": " "}', "answer is empty"),
        (b'{"question": "?", "answer": "72 ####"}', "answer is empty"),
        (b'{"question": "?", "answer": true}', "answer must be text or a finite number, not True"),
        (b'{"question": "?", "answer": NaN}', "answer must be text or a finite number, not nan"),
        (b'{"question": "?", "answer": [1]}', "answer must be text or a finite number, not [1]"),
        (b'{"question": "?", "answer": 1, "id": ""}', "id must be"),
        (b'{"question": "?", "answer": 1, "id": 1.5}', "id must be"),
        (b'{"question": "?", "answer": 1, "id": "first"}', "id 'first' is already used at"),
        (b'{"question": "\\ud800", "answer": 1}', "half a surrogate pair"),
        (b'{"problem": "?", "answer": 1}', "the text stands under problem, at"),
        (b'{"question": "?", "answer": "a", "choices": ["a", "b"]}', "has choices,"),
        (b'{"question": "?", "answer": "a", "choices": "ab"}', "choices must be a list of texts"),
        (b'{"question": "?", "answer": "a", "choices": ["a", ""]}', "choices must be a list of texts"),
        (b'{"question": "?", "answer": "a", "choices": ["a"]}', "choices must be 2 to 10 different texts"),
        (b'{"question": "?", "answer": "a", "choices": ["a", "a "]}', "choices must be 2 to 10 different texts"),
        (b'{"question": "?", "answer": "C", "choices": ["a", "b"]}', "answer is none of the choices"),
        (b'{"question": "\xff", "answer": 1}', "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"id": "first", "question": "?", "answer": 1}\n\n' + line + b"\n")
    message = error_of(str(path))
    assert message.startswith(f"{path}:3: ")
    assert complaint in message


def test_an_id_that_collides_with_a_default_one_is_refused(tmp_path: Path) -> None:
    spec = write(tmp_path / "t.jsonl", {**GOOD, "id": "t/2"}, GOOD)
    assert error_of(spec) == f"{spec}:2: id 't/2' is already used at {spec}:1; make ids unique"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    assert error_of(str(path)) == f"{path} holds no questions; give it at least one"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    assert error_of(str(path)) == f"{path}: no such file; check the path"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").mkdir()
    assert "cannot be read" in error_of(str(tmp_path / "d.jsonl"))
    assert "is a directory; name a .jsonl file in it" in error_of(str(tmp_path))
    assert error_of("What is the sum of 1 and 2? " * 20)  # longer than a name may be


# Multiple choice

COLOURS = ["red", "green", "blue"]


@pytest.mark.parametrize("answer", ["green", "B"])
def test_options_are_shown_in_an_order_that_the_answer_follows(tmp_path: Path, answer: str) -> None:
    rows = [{"id": f"q{i}", "question": "?", "choices": COLOURS, "answer": answer} for i in range(20)]
    task = load_task(write(tmp_path / "t.jsonl", *rows), None, 0)
    assert isinstance(task.answers, ChoiceAnswers)
    for question in task.questions:
        assert f"\n{question.answer}. green\n" in question.prompt
        assert question.order is not None
        shown = [COLOURS["ABC".index(letter)] for letter in question.order]
        assert "".join(f"\n{letter}. {colour}" for letter, colour in zip("ABC", shown, strict=True)) in question.prompt
    assert len({question.order for question in task.questions}) > 2
    assert task.told()["orders"] == {question.id: question.order for question in task.questions}


def test_the_order_of_options_depends_on_seed_and_question_alone(tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "question": "?", "choices": COLOURS, "answer": "red"} for i in range(20)]
    spec, backwards = write(tmp_path / "t.jsonl", *rows), write(tmp_path / "b.jsonl", *reversed(rows))
    task = load_task(spec, None, 0)
    assert task.questions == load_task(spec, None, 0).questions
    assert task.questions[:3] == load_task(spec, 3, 0).questions
    assert set(task.questions) == set(load_task(backwards, None, 0).questions)
    assert task.fingerprint != load_task(spec, None, 1).fingerprint


def test_a_choice_task_names_the_right_option_right(tmp_path: Path) -> None:
    task = load_task(write(tmp_path / "t.jsonl", {"question": "?", "choices": COLOURS, "answer": "blue"}), None, 5)
    (question,) = task.questions
    assert task.is_correct(task.extract(f"\\boxed{{{question.answer}}}"), question.answer)
    wrong = next(letter for letter in "ABC" if letter != question.answer)
    assert not task.is_correct(task.extract(f"\\boxed{{{wrong}}}"), question.answer)


# What a run keeps


def test_a_file_is_told_by_its_digest(tmp_path: Path) -> None:
    spec = write(tmp_path / "t.jsonl", GOOD)
    told = load_task(spec, None, 0).told()
    assert told["source"] == "jsonl"
    assert told["sha256"] == hashlib.sha256((tmp_path / "t.jsonl").read_bytes()).hexdigest()
    assert "orders" not in told


def test_a_system_message_goes_with_every_question(tmp_path: Path) -> None:
    spec = write(tmp_path / "t.jsonl", GOOD, GOOD)
    for question in load_task(spec, None, 0, system="Be brief.").questions:
        assert isinstance(question.prompt, Prompt)
        assert [message["role"] for message in question.prompt.messages] == ["system", "user"]
        assert question.prompt.plain == f"Be brief.\n\n{question.prompt}"
    with pytest.raises(InputError, match="no system message"):
        load_task("arithmetic", 1, 0, system="Be brief.")
