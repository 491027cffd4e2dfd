"""What each rule takes for an answer, when two answers are the same, and what it says when it cannot tell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.tasks.answers import Answers, ChoiceAnswers, ExactAnswers, MathAnswers
from atts_runtime.tasks.find import MAX_CHARS

ENDLESS = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def maths() -> Iterator[MathAnswers]:
    answers = MathAnswers(workers=1)
    yield answers
    answers.close()


class NoPool(MathAnswers):
    """Fails a test that would need computer algebra."""

    def __init__(self, **options: bool) -> None:
        super().__init__(**options)
        self._ask = pytest.fail  # type: ignore[assignment]


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
        (r"The answer is 3. No: \boxed{ 4 }. The answer is 5.", "4"),
        ("Answer: -1,234.5, roughly", "-1,234.5"),
        ("ANSWER: 2x + 1", "2x + 1"),
        ("I counted 3 apples", None),
        (r"put it in \boxed{}", None),
    ],
)
def test_a_box_comes_before_what_is_announced_and_a_number_on_the_way_is_none(text: str, found: str | None) -> None:
    assert NoPool().extract(text) == found


def test_the_last_number_answers_only_where_the_task_says_so() -> None:
    text = "3 + 4 makes 1,007 in all"
    assert NoPool().extract(text) is None
    assert NoPool(last_number=True).extract(text) == "1007"
    assert NoPool(last_number=True).extract(r"\boxed{7} of 9") == "7"


@pytest.mark.parametrize("text", ["The answer is 4", "The answer is 4.", "ANSWER: 4", "so 4", r"\boxed{4", ""])
def test_a_chain_under_way_has_not_answered_by_saying_what_the_answer_is(text: str) -> None:
    assert not NoPool(last_number=True).answered(text)


@pytest.mark.parametrize("text", [r"\boxed{4}", "ANSWER: 4\n", r"\boxed{4} and more"])
def test_a_box_or_a_finished_answer_line_answers(text: str) -> None:
    assert NoPool().answered(text)


RULES = (ExactAnswers(), ChoiceAnswers(), NoPool(), NoPool(last_number=True))
WRITTEN = st.lists(st.sampled_from(["\\boxed{", "{", "}", "ANSWER:", "answer is ", "\n", "A", "1", "x", " ", "$"])).map(
    "".join
)


@given(WRITTEN, st.sampled_from(RULES))
def test_a_chain_that_has_answered_has_an_answer_and_no_text_fails(text: str, rule: Answers) -> None:
    found = rule.extract(text)
    assert found is None or found == found.strip()
    if rule.answered(text):
        assert found is not None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1/2", r"\frac12"),
        ("1,000", "1000"),
        ("27.0", "27"),
        (r"\text{(B)}", "B"),
        (r"\{2, 1\}", r"\{1, 2\}"),
        ("2(x+1)", "2x+2"),
        ("5", "x = 5"),
        (r"\sqrt{8}", r"2\sqrt2"),
    ],
)
def test_equivalent_answers_are_the_same_in_either_order(maths: MathAnswers, a: str, b: str) -> None:
    assert maths.same(a, b) is True
    assert maths.same(b, a) is True
    assert maths.matches(a, b) is True


@pytest.mark.parametrize(("a", "b"), [("(1, 2)", "(2, 1)"), ("x", "y"), ("0.33", "1/2")])
def test_other_answers_are_not_the_same(maths: MathAnswers, a: str, b: str) -> None:
    assert maths.same(a, b) is False


@pytest.mark.parametrize(
    ("a", "b", "equal"), [("7", "07", True), ("7", "8", False), (" x ", "x", True), (ENDLESS, ENDLESS, True)]
)
def test_equal_spellings_and_integers_need_no_mathematics(a: str, b: str, equal: bool) -> None:
    assert NoPool().same(a, b) is equal


def test_an_overlong_answer_is_unknown_and_counted_once(maths: MathAnswers) -> None:
    before = maths.unknown
    for _ in range(2):
        assert maths.matches("x" * (MAX_CHARS + 1), "y") is None
    assert maths.unknown == before + 1


def test_an_endless_comparison_is_unknown_and_not_wrong() -> None:
    answers = MathAnswers(limit_s=1.0, workers=1)
    assert answers.matches(ENDLESS, "1") is None
    assert answers.unknown == 1
    answers.close()


# Multiple choice


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{(C)}}", "C"),
        ("so\nANSWER: D", "D"),
        (r"ANSWER: A. But no: \boxed{B}", "B"),
        (r"\boxed{42}", "42"),
        ("A good start", None),
    ],
)
def test_an_option_is_boxed_or_labelled(text: str, found: str | None) -> None:
    assert ChoiceAnswers().extract(text) == found


def test_options_are_compared_by_letter() -> None:
    assert ChoiceAnswers().matches("(B)", "B")
    assert not ChoiceAnswers().matches("42", "B")
    assert ChoiceAnswers().same("42", "42")
