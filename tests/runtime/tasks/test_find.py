"""Where an answer stands in a chain's text; any text is survived, and reading it costs no more than its length."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atts_runtime.tasks.find import MAX_CHARS, announced, boxed, labelled, labelled_letter, last_number, letter

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


BALANCED = st.recursive(
    st.text(st.characters(exclude_characters="{}\\"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}")
        | st.tuples(st.sampled_from(["\\frac", "\\text", "\\{", "\\}", "\\\\ "]), inner).map("".join)
    ),
    max_leaves=8,
).filter(str.strip)


@given(st.text(), BALANCED, st.text(st.characters(exclude_characters="{}\\")))
def test_any_balanced_answer_that_is_boxed_is_found_again(before: str, answer: str, after: str) -> None:
    assert boxed(f"{before} \\boxed{{{answer}}}{after}") == answer


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\", "\\{", "\\boxed", "boxed{", "1"])).map("".join))
def test_what_stands_before_the_first_box_changes_nothing(text: str) -> None:
    at = text.find("\\boxed{")
    assert boxed(text) == (None if at < 0 else boxed(text[at:]))


# ANSWER: X


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ANSWER: 42\n", "42"),
        ("so\n**Answer:** x + 1.\n", "x + 1"),
        ("## Final Answer: $\\frac{1}{2}$\n", "$\\frac{1}{2}$"),
        ("Answer: 3\nNo. Answer: 9\nAnswer: 4\nDone.", "4"),
        ("ANSWER: 12 cm\n", "12 cm"),
    ],
)
def test_a_finished_answer_line_is_read_without_its_markup(text: str, found: str) -> None:
    assert labelled(text, whole=False) == labelled(text, whole=True) == found


@pytest.mark.parametrize("text", ["", "answer", "Answer:\n", "Answer: to find this we need 3\n", "The answer: 4\n"])
def test_prose_and_empty_lines_are_no_answer(text: str) -> None:
    assert labelled(text, whole=True) is None


def test_a_line_still_being_written_counts_only_in_a_whole_text() -> None:
    assert labelled("ANSWER: 1", whole=False) is None
    assert labelled("ANSWER: 1", whole=True) == "1"
    assert labelled("ANSWER: 12\n", whole=False) == "12"


@given(st.text(), st.text(string.ascii_letters + string.digits + "+-/=^(){}\\", min_size=1, max_size=3))
def test_any_labelled_answer_is_found_again(before: str, answer: str) -> None:
    assert labelled(f"{before}\nANSWER: {answer}\n", whole=False) == answer


@given(
    st.text(max_size=30), st.sampled_from("ABCDEFGHIJ"), st.sampled_from(["{}", "({})", "{}.", "**{}**", "({}) 4 m"])
)
def test_a_labelled_option_is_found_again(before: str, option: str, form: str) -> None:
    assert labelled_letter(f"{before}\nANSWER: {form.format(option)}\n", whole=False) == option


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", "B"),
        ("(C)", "C"),
        (r"\text{D}", "D"),
        (r"\textbf{(A)}", "A"),
        ("B. 42 m", "B"),
        ("$B$", "B"),
        ("A good one", None),
        ("K", None),
        ("b", None),
        ("42", None),
        ("BC", None),
        ("", None),
    ],
)
def test_an_option_is_a_capital_letter_that_stands_by_itself(answer: str, option: str | None) -> None:
    assert letter(answer) == option


# "The answer is"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The answer is 42.", "42"),
        ("The final answer is: **42**", "42"),
        ("Answer: -1,234.5, roughly", "-1,234.5"),
        ("answer is 1/2", "1/2"),
        ("The answer is 3. Wait, the answer is 4!", "4"),
        (r"Hence the answer is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("The final answer is:\n$$\\sqrt{2}$$\n", r"\sqrt{2}"),
        (r"The answer is \(2\pi\), since $r = 1$.", r"2\pi"),
        ("The answer is \\[\n\\frac{3}{4}\n\\]", r"\frac{3}{4}"),
    ],
)
def test_an_announced_number_or_formula_is_found(text: str, found: str) -> None:
    assert announced(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "so x = 3 apples",
        "then $x = 3$",
        "the answer is near",
        "the answer is 2x",
        "answer is 3^2",
        "the answer is near $x$",
        "the answer is $x",
        "the answer is $$",
    ],
)
def test_a_number_on_the_way_is_not_announced(text: str) -> None:
    assert announced(text) is None


def test_an_unboxed_answer_is_sought_near_the_end_only() -> None:
    assert announced("The answer is 3.\n" + "x" * MAX_CHARS) is None
    assert announced("x" * MAX_CHARS + "\nThe answer is 3.") == "3"
    assert labelled("ANSWER: 3\n" + "x" * MAX_CHARS, whole=True) is None


# The last number


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3 and then 4.", "4"),
        ("so 1,234 dollars", "1,234"),
        ("it is -2.50", "-2.50"),
        ("5-3", "3"),
        ("(x)-3", "3"),
        ("about 1/2", "1/2"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_is_taken_as_written(text: str, found: str | None) -> None:
    assert last_number(text) == found


@given(st.text(), st.integers())
def test_an_integer_written_last_is_the_last_number(before: str, number: int) -> None:
    assert last_number(f"{before} = {number}") == str(number)


# Any text

HOSTILE = st.lists(
    st.sampled_from(
        ["\\boxed{", "{", "}", "\\", "$", "\\(", "answer is", "ANSWER:", "\n", "*", " ", "1", ",", "/", "-"]
    )
    | st.text(max_size=3)
).map("".join)


@given(HOSTILE)
def test_no_text_makes_a_reader_fail(text: str) -> None:
    for found in (boxed(text), labelled(text, whole=True), announced(text), last_number(text)):
        assert found is None or found in text
    assert labelled_letter(text, whole=False) in {None, *"ABCDEFGHIJ"}
    letter(text)


@given(HOSTILE, HOSTILE)
def test_what_answers_a_text_under_way_still_stands_when_it_goes_on(text: str, more: str) -> None:
    if boxed(text) is not None:
        assert boxed(text + more) is not None
    if labelled(text, whole=False) is not None:
        assert labelled(text, whole=True) is not None


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "}", "answer is ", "ANSWER:", "1,", "1/", "-", "**", "\\(", "$", " "]
)
def test_a_long_hostile_text_is_read_at_once(piece: str) -> None:
    text = piece * 200_000
    for found in (boxed(text), labelled(text, whole=True), announced(text), last_number(text), letter(text)):
        assert found is None or len(found) <= len(text)
