"""The bundled task's questions and worked solutions are right, and its two sides stay apart."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.tasks.answers import boxed
from atts_runtime.tasks.arithmetic import LABELS, MAX_TERMS, MIN_TERMS, PARAGRAPH, Sum, columns, questions, step_text

STEP = re.compile(r"(?P<value>\d+) \((?P<label>[a-p])\)(?P<term>[+-]\d\d): (?P<work>.+) = (?P<result>\d+)\n\n")
COLUMN = re.compile(r"(?P<x>\d)(?P<op>[+-])(?P<y>\d)(?P<carried>[+-]1)?=(?P<digit>\d)(?P<passes_on>')?")


@st.composite
def sums(draw: st.DrawFn) -> Sum:
    """Any question the task allows: two-digit terms, no running value below zero."""
    first = value = draw(st.integers(10, 99))
    rest = []
    for _ in range(draw(st.integers(MIN_TERMS - 1, MAX_TERMS - 1))):
        term = draw(st.integers(10, 99))
        if term <= value and draw(st.booleans()):
            term = -term
        rest.append(term)
        value += term
    return Sum(first, tuple(rest))


@st.composite
def steps(draw: st.DrawFn) -> tuple[int, int]:
    """A running value and a signed term that does not take it below zero."""
    value = draw(st.integers(0, 999))
    return value, draw(st.integers(-min(99, value), 99))


@given(sums())
def test_every_paragraph_recomputes_from_the_question_alone(question: Sum) -> None:
    value = question.first
    *worked, last = question.paragraphs
    assert len(worked) == len(question.rest)
    for label, term, paragraph in zip(LABELS, question.rest, worked, strict=False):
        step = STEP.fullmatch(paragraph)
        assert step is not None
        assert step["label"] == label
        assert int(step["value"]) == value
        assert int(step["term"]) == term
        value += term
        assert int(step["result"]) == value
    assert last == f"\\boxed{{{value}}}"


@given(sums(), st.integers(0, 3))
def test_worked_steps_move_from_the_solution_into_the_prompt(question: Sum, worked: int) -> None:
    given_some = replace(question, worked=worked)
    assert given_some.prompt + "".join(given_some.paragraphs) == question.prompt + "".join(question.paragraphs)
    assert len(given_some.paragraphs) == len(question.paragraphs) - worked
    assert (given_some.answer, given_some.held_out) == (question.answer, question.held_out)


@given(st.integers())
def test_evaluation_questions_show_worked_steps_and_leave_two_and_the_answer(seed: int) -> None:
    for question in islice(questions(seed), 5):
        assert 1 <= question.worked <= 3
        assert len(question.paragraphs) >= 3


@given(sums())
def test_the_answer_is_what_the_solution_boxes(question: Sum) -> None:
    assert boxed("".join(question.paragraphs)) == question.answer


@given(sums())
def test_the_prompt_shows_every_term_once_under_its_label_and_closes_a_paragraph(question: Sum) -> None:
    first, *labelled = question.prompt.removesuffix(PARAGRAPH).split(" ")
    assert question.prompt.endswith(PARAGRAPH)
    assert int(first) == question.first
    assert labelled == [f"({label}){term:+d}" for label, term in zip(LABELS, question.rest, strict=False)]


@given(steps())
def test_column_digits_read_from_the_last_to_the_first_are_the_result(step: tuple[int, int]) -> None:
    value, term = step
    digits = [column.partition("=")[2].removesuffix("'") for column in columns(value, term)]
    assert int("".join(reversed(digits))) == value + term


@given(steps())
def test_every_column_adds_up_and_hands_its_carry_to_the_next(step: tuple[int, int]) -> None:
    carry = False
    for text in columns(*step):
        column = COLUMN.fullmatch(text)
        assert column is not None
        assert bool(column["carried"]) == carry
        sign = 1 if column["op"] == "+" else -1
        total = int(column["x"]) + sign * int(column["y"]) + int(column["carried"] or 0)
        assert int(column["digit"]) == total % 10
        carry = bool(column["passes_on"])
        assert carry == (not 0 <= total <= 9)
    assert not carry


def test_a_step_reads_as_documented() -> None:
    assert step_text("b", 82, -28) == "82 (b)-28: 2-8=4' 8-2-1=5 = 54"


@given(st.integers())
def test_training_questions_are_never_held_out(seed: int) -> None:
    assert not any(question.held_out for question in islice(questions(seed, held_out=False), 100))


@given(st.integers())
def test_evaluation_questions_are_all_held_out(seed: int) -> None:
    assert all(question.held_out for question in islice(questions(seed), 5))


@given(st.integers())
def test_the_two_sides_share_no_prompt(seed: int) -> None:
    training = {question.prompt for question in islice(questions(seed, held_out=False), 100)}
    assert training.isdisjoint(question.prompt for question in islice(questions(seed), 5))


@given(st.integers(), st.booleans())
def test_a_seed_fixes_the_stream(seed: int, held_out: bool) -> None:
    first, again = (list(islice(questions(seed, held_out=held_out), 5)) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("held_out", [True, False])
def test_drawn_questions_keep_the_documented_bounds(held_out: bool) -> None:
    for question in islice(questions(0, held_out=held_out), 50):
        assert MIN_TERMS <= 1 + len(question.rest) <= MAX_TERMS
        assert all(10 <= abs(term) <= 99 for term in (question.first, *question.rest))
        value = question.first
        for term in question.rest:
            value += term
            assert value >= 0
