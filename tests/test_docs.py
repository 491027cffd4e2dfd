"""The documentation points at tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CONFORMAL = TESTS.parent / "docs" / "conformal.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def statements() -> dict[int, str]:
    """The numbered guarantees, each with all of its text."""
    text = CONFORMAL.read_text().split("## What is not guaranteed")[0]
    parts = re.split(r"^\*\*(\d+)\. ", text, flags=re.MULTILINE)
    return {int(number): body for number, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_the_guarantees_are_numbered_from_one_without_a_gap() -> None:
    assert list(statements()) == list(range(1, len(statements()) + 1))
    assert len(statements()) >= 7


@pytest.mark.parametrize("number", statements())
def test_each_guarantee_names_tests_that_exist(number: int) -> None:
    named = NAMED.findall(statements()[number])
    assert named
    for file, name in named:
        source = (TESTS / file).read_text()
        assert re.search(rf"^(def {name}\(|{name} = )", source, flags=re.MULTILINE), f"{file} has no {name}"
