"""Claims about the pieces that the page is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.report.amounts import UNKNOWN, count, fixed, percent, scaled, seconds, short
from atts_runtime.report.glossary import glossary
from atts_runtime.report.html import folded, sourced, table
from tests.runtime.report.made import Document

# HTML has no carriage return nor NUL, and text of white space alone says nothing.
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_any_text_is_read_as_it_was_written(rows: list[tuple[str, str]]) -> None:
    document = Document(table(["a", "b"], rows) + sourced(["", "x"], [(a, [b], "measured") for a, b in rows]))
    assert [text for text in document.texts if text.strip()][:2] == ["a", "b"]
    written = [text for row in rows for text in row if text.strip()]
    told = "".join(document.texts)
    assert all(text in told for text in written)
    assert set(document.tags) <= {"div", "table", "thead", "tbody", "tr", "th", "td"}


def test_what_folds_keeps_its_title() -> None:
    document = Document(folded("<b>", table(["a"], [["1"]])))
    assert document.text == "<b> a 1"
    assert "b" not in document.tags


@pytest.mark.parametrize("show", [fixed, percent, count, seconds, short, lambda value: scaled(value, "B")])
def test_none_is_unknown_and_zero_is_not(show: object) -> None:
    assert callable(show)
    assert show(None) == UNKNOWN
    assert show(0.0).startswith("0")


@pytest.mark.parametrize(
    ("value", "told"), [(0.5, "0.5 B"), (1234.0, "1.23 kB"), (2.5e12, "2.5 TB"), (3e15, "3 PB"), (-4e9, "-4 GB")]
)
def test_amounts_have_the_prefix_that_fits(value: float, told: str) -> None:
    assert scaled(value, "B") == told


@pytest.mark.parametrize("term", ["r", "T_c", "T_m", "T_s", "T_overhead", "alpha", "provenance"])
def test_the_terms_of_the_page_are_defined_on_it(term: str) -> None:
    assert f"<dt>{term}</dt>" in glossary()
