"""Tasks load from the bundled generator, JSONL files and the hub; bad input is one line that says where and what."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atts_runtime.errors import InputError
from atts_runtime.tasks import arithmetic
from atts_runtime.tasks.load import DEFAULT_QUESTIONS, INSTRUCTION, load_task

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


# The hub


class FakeHub(ModuleType):
    """Stands for the package `datasets`: its splits are lists of rows, and it keeps what was asked of it."""

    def __init__(self, splits: dict[str, list[dict[str, object]]]) -> None:
        super().__init__("datasets")
        self.splits = splits
        self.asked: list[tuple[str, str | None, str | None]] = []

    def load_dataset(self, name: str, config: str | None, *, split: str | None) -> Any:
        self.asked.append((name, config, split))
        return self.splits if split is None else self.splits[split]


def use_hub(monkeypatch: pytest.MonkeyPatch, **splits: list[dict[str, object]]) -> FakeHub:
    hub = FakeHub(splits)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    return hub


def test_a_hub_data_set_gives_its_test_split_named_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use_hub(
        monkeypatch, train=[{"problem": "no", "answer": "0"}], test=[{"problem": "x", "answer": 27.0, "id": 9}]
    )
    task = load_task("owner/name", None, 0)
    assert hub.asked == [("owner/name", None, None)]
    assert [(q.id, q.prompt, q.answer) for q in task.questions] == [("owner/name/0", "x" + INSTRUCTION, "27")]
    assert task.segment_stop is None


def test_a_hub_data_set_without_a_test_split_gives_its_train_split(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, other=[], train=[{"prompt": "x", "answer": "1"}])
    assert len(load_task("name", None, 0).questions) == 1


def test_a_hub_configuration_and_split_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use_hub(monkeypatch, dev=[{"question": "x", "answer": "#### 1"}])
    assert load_task("owner/name@main:dev", None, 0).questions[0].answer == "1"
    assert hub.asked == [("owner/name", "main", "dev")]


def test_hub_rows_beyond_the_number_asked_for_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, test=[{"question": "x", "answer": "1"}, {"bad": 1}])
    assert len(load_task("name", 1, 0).questions) == 1
    assert error_of("name", 2).startswith("name, split test, row 1: no question text")


def test_more_questions_than_the_hub_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, test=[{"question": "x", "answer": "1"}])
    assert error_of("name", 2) == "name has 1 questions, 2 were asked for; ask for fewer"


def test_a_hub_data_set_without_a_usual_split_lists_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, dev=[], extra=[])
    assert error_of("name").endswith("add one of :dev, :extra")


def test_a_failure_of_the_hub_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use_hub(monkeypatch)

    def fail(*args: object, **options: object) -> None:
        raise ConnectionError("\nno network\nlong story")

    monkeypatch.setattr(hub, "load_dataset", fail)
    message = error_of("arithmatic")
    assert message.startswith("cannot load 'arithmatic' from the Hugging Face hub (no network)")


def test_without_the_optional_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert error_of("owner/name").endswith("pip install datasets")


@pytest.mark.parametrize("spec", ["a/b/c", "./questions.json", "https://example.org/x", "two words", "name:", "name@"])
def test_a_spec_that_can_be_nothing_is_refused_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    hub = use_hub(monkeypatch)
    assert error_of(spec).startswith(f"no task {spec!r}; give arithmetic, the path of an existing file, or a hub")
    assert not hub.asked


@pytest.mark.parametrize("terms", [4, 9])
def test_the_bundled_task_with_a_number_has_that_many_terms(terms: int) -> None:
    task = load_task(f"arithmetic:{terms}", 5, seed=3)
    assert [question.prompt.partition("\n\n")[0].count("(") for question in task.questions] == [terms - 1] * 5
    assert task.fingerprint != load_task("arithmetic", 5, seed=3).fingerprint


@pytest.mark.parametrize("terms", ["3", "10", "x", "-4"])
def test_a_number_of_terms_that_the_models_never_saw_is_refused(terms: str) -> None:
    with pytest.raises(InputError, match=f"arithmetic:{terms}"):
        load_task(f"arithmetic:{terms}", 5, seed=3)
