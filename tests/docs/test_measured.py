"""Tables of measured figures are those that a program wrote, and say which, where and when."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.benchmarks import record

NAMES = sorted(path.stem for path in record.FOLDER.glob("*.json"))
PLACES = [(page, name) for page in record.PAGES for name in record.shown(page)]


@pytest.mark.parametrize(("page", "name"), PLACES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_page_shows_the_table_as_it_was_written(page: Path, name: str) -> None:
    assert record.shown(page)[name] == record.read(name).markdown()


def test_every_table_is_shown_and_every_place_is_closed() -> None:
    assert sorted(name for _, name in PLACES) == NAMES
    assert len(NAMES) >= 5
    for page in record.PAGES:
        text = page.read_text(encoding="utf-8")
        marks = [len(re.findall(rf"^<!-- {mark}", text, flags=re.MULTILINE)) for mark in ("measured: ", "end -->")]
        assert marks == 2 * [len(record.shown(page))], page


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_what_made_it(name: str) -> None:
    of = record.read(name)
    python, dash_m, module, *_ = shlex.split(of.command)
    assert (python, dash_m) == ("python", "-m")
    assert "--record" in (record.ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", of.made)
    assert of.machine
    assert {len(row) for row in of.rows} == {len(of.columns)}


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns, and a row of 1"):
        record.new("python -m x", ("a", "b"), [("1",)])


def test_a_table_is_markdown_with_its_source() -> None:
    of = record.Table("python -m x", "a CPU, 2 cores", "2026-01-01", ("a", ""), (("1", ""), ("2", "x")), "Two rows.")
    table = "\n| a | |\n|---|---|\n| 1 | |\n| 2 | x |\n"
    assert of.markdown() == f"{table}\nMade by `python -m x` on a CPU, 2 cores, 2026-01-01.\n\nTwo rows.\n\n"
