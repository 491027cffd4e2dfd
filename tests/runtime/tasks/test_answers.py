"""What counts as an answer in a chain's text, when two answers are the same, and how chains vote."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_runtime.tasks.answers import MAX_CHARS, ExactAnswers, MathAnswers, boxed
from atts_runtime.tasks.base import Question, Task

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def maths() -> Iterator[MathAnswers]:
    answers = MathAnswers()
    yield answers
    answers.close()


@pytest.fixture
def hasty() -> Iterator[MathAnswers]:
    """Its deadline is long for an ordinary check and short for an endless one."""
    answers = MathAnswers(limit_s=2.0)
    yield answers
    answers.close()


class NoWorker(MathAnswers):
    """Fails a test that would need the subprocess."""

    def __init__(self) -> None:
        self._ask = pytest.fail  # type: ignore[assignment]


def task(*answers: str, rule: ExactAnswers | MathAnswers | None = None) -> Task:
    questions = tuple(Question(f"q/{i}", f"prompt {i}", answer) for i, answer in enumerate(answers))
    return Task("test", questions, None, rule or ExactAnswers())


# Boxes


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{42}", "42"),
        (r"so \boxed{ 4 2 } it is", " 4 2 "),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1 \right.}", r"\left\{1 \right."),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\\boxed{5}", "5"),
        (r"a \\\boxed{5}", "5"),
        ("}} {\\boxed{7}", "7"),
        ("\\boxed{1\n2}", "1\n2"),
    ],
)
def test_the_last_box_gives_its_balanced_content(text: str, content: str) -> None:
    assert boxed(text) == content


@pytest.mark.parametrize("text", ["", "42", r"\boxed", r"\boxed{", r"\boxed{4", r"\boxed{\frac{1}{2}", "boxed{4}"])
def test_text_without_a_complete_box_has_none(text: str) -> None:
    assert boxed(text) is None


def test_a_box_still_being_written_does_not_hide_the_one_before() -> None:
    assert boxed(r"\boxed{1} rather \boxed{2") == "1"


def test_a_blank_box_is_a_quoted_instruction_and_no_answer() -> None:
    assert boxed(r"\boxed{3}, as \boxed{} or \boxed{ } asked") == "3"


def test_deep_nesting_is_read() -> None:
    assert boxed("{" * 100_000 + r"\boxed{" * 100_000 + "1" + "}" * 200_000) == "1"


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\", "\\{", "\\}", "1", " "])).map("".join))
@example("\\\\boxed{1}")
def test_what_a_box_gives_is_balanced_and_stands_in_the_text(text: str) -> None:
    content = boxed(text)
    if content is None:
        return
    assert f"\\boxed{{{content}}}" in text
    bare = content.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")


@given(st.text(), st.integers())
def test_a_box_written_last_is_found_after_any_text(before: str, answer: int) -> None:
    assert boxed(f"{before} \\boxed{{{answer}}}") == str(answer)


# The bundled task's rule


@pytest.mark.parametrize(("a", "b"), [("7", " 7\n"), ("7", "+007"), ("0", "-00"), ("-3", "-03"), (" a b ", "a b")])
def test_exact_answers_are_equal_as_integers_or_as_stripped_text(a: str, b: str) -> None:
    assert ExactAnswers().same(a, b)
    assert ExactAnswers().same(b, a)


@pytest.mark.parametrize(("a", "b"), [("7", "-7"), ("7", "70"), ("7", "7.0"), ("7", "1_000"), ("a", "A"), ("7", "")])
def test_exact_answers_do_no_mathematics(a: str, b: str) -> None:
    assert not ExactAnswers().same(a, b)


@given(st.integers(), st.integers())
def test_exact_answers_agree_with_integers(a: int, b: int) -> None:
    assert ExactAnswers().same(str(a), str(b)) == (a == b)


def test_an_integer_longer_than_python_converts_is_compared_all_the_same() -> None:
    assert ExactAnswers().same("0" + "9" * 10_000, "9" * 10_000)


def test_exact_answers_are_found_in_boxes_only() -> None:
    assert ExactAnswers().extract("the answer is 5") is None
    assert ExactAnswers().extract(r"\boxed{ 5 }") == "5"


# Free text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"The answer is 3. No: \boxed{4}. The answer is 5.", "4"),
        ("The answer is 42.", "42"),
        ("The final answer is: **42**", "42"),
        ("Answer: -1,234.5, roughly", "-1,234.5"),
        ("answer is 1/2", "1/2"),
        ("The answer is 3. Wait, the answer is 4!", "4"),
    ],
)
def test_boxed_and_plainly_announced_numbers_need_no_mathematics(text: str, found: str) -> None:
    assert NoWorker().extract(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "so x = 3 apples",
        "then $x = 3$",
        r"put it in \boxed{}",
        "the answer is near",
        "the answer is 2x",
        "answer is 3^2",
    ],
)
def test_a_number_on_the_way_is_no_answer(text: str) -> None:
    assert NoWorker().extract(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"Hence the answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The final answer is:\n$$\\sqrt{2}$$\n", r"\sqrt{2}"),
        (r"The answer is \(2\pi\), since $r = 1$.", r"2\pi"),
    ],
)
def test_announced_latex_is_found(maths: MathAnswers, text: str, found: str) -> None:
    assert maths.extract(text) == found


def test_an_announced_answer_is_sought_near_the_end_only() -> None:
    assert NoWorker().extract("The answer is 3.\n" + "x" * MAX_CHARS) is None
    assert NoWorker().extract("x" * MAX_CHARS + "\nThe answer is 3.") == "3"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1/2", r"\frac12"),
        ("0.5", r"$\frac{1}{2}$"),
        ("1,000", "1000"),
        ("27.0", "27"),
        (r"\text{(B)}", "B"),
        (r"\{2, 1\}", r"\{1, 2\}"),
        ("2(x+1)", "2x+2"),
        ("5", "x = 5"),
    ],
)
def test_equivalent_answers_are_the_same_in_either_order(maths: MathAnswers, a: str, b: str) -> None:
    assert maths.same(a, b)
    assert maths.same(b, a)
    assert maths.matches(a, b)


@pytest.mark.parametrize(("a", "b"), [("(1, 2)", "(2, 1)"), ("x", "y"), (r"\frac{1", "1"), ("", "0"), ("}{", "0")])
def test_other_answers_are_not_the_same(maths: MathAnswers, a: str, b: str) -> None:
    assert not maths.same(a, b)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("7", "07", True),
        ("7", "8", False),
        (" x ", "x", True),
        ("x" * (MAX_CHARS + 1), "y", False),
        (ENDLESS, ENDLESS, True),
    ],
)
def test_equal_strings_integers_and_overlong_answers_need_no_mathematics(a: str, b: str, equal: bool) -> None:
    assert NoWorker().same(a, b) == equal


def test_an_endless_computation_counts_as_not_equal_and_the_next_check_works(hasty: MathAnswers) -> None:
    assert not hasty.matches(ENDLESS, "1")
    assert hasty.matches("1/2", "0.5")


def test_a_subprocess_killed_between_checks_is_replaced(maths: MathAnswers) -> None:
    assert maths.same("1/4", "0.25")
    process = maths._worker._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert maths.same("1/8", "0.125")


def test_a_closed_rule_checks_again_when_asked(maths: MathAnswers) -> None:
    assert maths.same("1/5", "0.2")
    maths.close()
    assert maths._worker._process is None
    assert maths.same("2/5", "0.4")


def test_a_subprocess_that_cannot_start_is_an_error_and_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        MathAnswers().same("1/2", "0.5")


def test_answers_are_never_evaluated_as_code(maths: MathAnswers, tmp_path: Path) -> None:
    target = tmp_path / "created"
    code = f"__import__('pathlib').Path('{target}').touch()"
    assert not maths.same(code, "1")
    assert maths.extract(f"the answer is ${code}$") != "1"
    assert not target.exists()


def test_checks_from_many_threads_keep_their_own_replies(maths: MathAnswers) -> None:
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda n: maths.same(f"{n}/8", str((n - n % 2) / 8)), range(1, 17)))
    assert verdicts == [n % 2 == 0 for n in range(1, 17)]


# Voting and the fingerprint


def test_no_answer_is_never_correct() -> None:
    assert not task("5").is_correct(None, "5")
    assert task("5").is_correct("05", "5")


@pytest.mark.parametrize(
    ("found", "winner"),
    [
        ([], None),
        ([None, None], None),
        ([None, "3", None], "3"),
        (["1", "2", "2"], "2"),
        (["2", "1", "1", "2"], "2"),
        (["07", "8", "8", "7", "+7"], "07"),
    ],
)
def test_the_majority_is_the_largest_class_and_ties_go_to_the_first_seen(
    found: list[str | None], winner: str | None
) -> None:
    assert task("5").majority(found) == winner


def test_equivalent_answers_vote_together(maths: MathAnswers) -> None:
    assert task("5", rule=maths).majority(["3", "1/2", "3", "0.5", r"\frac12"]) == "1/2"


@given(st.lists(st.sampled_from(["1", "01", "2", "3", None])))
def test_the_majority_is_one_of_the_answers_and_no_class_is_larger(found: list[str | None]) -> None:
    votes = [int(answer) for answer in found if answer is not None]
    winner = task("5").majority(found)
    assert winner in found or not votes
    assert not votes or votes.count(int(winner or 0)) == max(map(votes.count, votes))


def test_the_fingerprint_covers_ids_prompts_and_answers_and_where_each_ends() -> None:
    questions = [("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c"), ("a", "", "bc")]
    prints = {Task("t", (Question(*fields),), None, ExactAnswers()).fingerprint for fields in questions}
    assert len(prints) == len(questions)
    assert task("1", "2").fingerprint == task("1", "2").fingerprint
    assert task("1", "2").fingerprint != task("2", "1").fingerprint


def test_a_task_needs_questions_with_ids_of_their_own() -> None:
    with pytest.raises(InputError, match="no questions"):
        task()
    question = Question("a", "b", "c")
    with pytest.raises(InputError, match="2 questions with the id 'a'"):
        Task("t", (question, question), None, ExactAnswers())
