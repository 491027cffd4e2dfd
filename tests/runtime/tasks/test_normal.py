"""Verdicts without computer algebra: what is spelled alike or is a plain number, and nothing that is not certain."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atts_runtime.tasks.normal import canonical, verdict


def judged(a: str, b: str) -> bool | None:
    forth, back = (verdict(canonical(x), canonical(y)) for x, y in ((a, b), (b, a)))
    assert forth == back
    return forth


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("7", "+007"),
        ("0", "-00"),
        ("$7$", "7"),
        (r"\(x\)", "x"),
        (r"$$x$$", "x"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"18 + 2\pi", r"18+2\pi"),
        (r"10,\!000", "10000"),
        (r"10{,}000", "10000"),
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "2/4"),
        ("1.50", "1.5"),
        (r"-\frac{7}{6}", "-7/6"),
        ("9" * 5000, "0" + "9" * 5000),
    ],
)
def test_equal_spellings_and_numbers_are_equal(a: str, b: str) -> None:
    assert judged(a, b) is True


@pytest.mark.parametrize(("a", "b"), [("7", "-7"), ("7", "70"), ("1/2", "1/3"), ("7", r"\frac{15}{2}")])
def test_different_integers_and_fractions_are_different(a: str, b: str) -> None:
    assert judged(a, b) is False


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("0.33", "1/3"),  # may be a rounded value
        ("1,000", "1000"),  # may be a list
        ("1 2", "12"),
        (r"1\, 1/2", "11/2"),  # a mixed number
        ("2  3", "23"),
        (r"\pi r", r"\pir"),
        ("1/0", "1"),
        ("x", "y"),
        (r"\leftarrow", r"arrow"),
        ("$1$ and $2$", "1$ and $2"),
    ],
)
def test_what_is_not_certain_is_left_open(a: str, b: str) -> None:
    assert judged(a, b) is None


@given(st.fractions(), st.fractions())
def test_fractions_are_judged_as_fractions(a: Fraction, b: Fraction) -> None:
    assert judged(str(a), f"\\frac{{{b.numerator}}}{{{b.denominator}}}".replace("{-", "{")) == (a == abs(b))


@given(st.text())
@example("\\\r:")
@example("\\\\!!")
@example("\\ri\\leftght(")
def test_any_text_has_a_canonical_form_that_stays(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)
    assert judged(text, text) is True
