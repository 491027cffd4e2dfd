"""The page about a sweep: whole, safe, and saying what is doubtful."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from atts_sim.pool import InProcess
from atts_sim.report.page import Page, lead, write_report
from atts_sim.study import Study
from atts_sim.sweep import Swept, sweep
from tests.sim.made_studies import H100, made_study, made_trace

SWEEP = """
[sweep]
policy = ["barrier", "async-marginal"]
chains = [2, 4, 5]
"""


class Tags(HTMLParser):
    """Every tag and every address that the page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def written(study: Study, folder: Path) -> tuple[Page, str, Swept]:
    found = sweep(study, InProcess(study), None)
    page = write_report(folder / "page.html", study, found)
    return page, page.path.read_text(), found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Page, str, Swept]:
    folder = tmp_path_factory.mktemp("sweep")
    study = made_study(made_trace(folder), SWEEP, engines=H100)
    return study, *written(study, folder)


def test_the_page_needs_nothing_else_and_has_its_figures(whole: tuple[Study, Page, str, Swept]) -> None:
    _, page, text, _ = whole
    tags = Tags(text)
    assert "script" not in tags.tags
    assert "image" not in tags.tags
    assert all(address.startswith("#") for address in tags.addresses)
    assert tags.tags.count("svg") == 3
    assert len(page.findings) == 3
    assert any("m = 2" in finding for finding in page.findings)


def test_the_page_begins_with_the_outcome(whole: tuple[Study, Page, str, Swept]) -> None:
    study, _, text, found = whole
    assert found.best is not None
    first = text.split('<ul class="lead"><li>')[1].split("</li>")[0]
    assert first == lead(study, found)
    for axis in study.axes:
        assert str(found.best.parameters[axis.name]) in first
    assert lead(study, replace(found, best=None)).startswith("No point is admissible")


def test_what_comes_from_the_study_is_escaped(tmp_path: Path) -> None:
    more = "[study]\nname = '<script>alert(1)</script>'\nabout = '<b>x'\n"
    _, text, _ = written(made_study(made_trace(tmp_path), more), tmp_path)
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


def test_points_that_failed_and_analytic_engines_are_warned_of(whole: tuple[Study, Page, str, Swept]) -> None:
    _, page, text, found = whole
    assert sum(row.error is not None for row in found.rows) == 2
    assert "2 of 6 points cannot be simulated; the reasons are below" in page.warnings
    assert any("analytic" in warning for warning in page.warnings)
    assert "the recording has 4" in text


def test_steps_outside_a_profile_are_warned_of_by_engine(tmp_path: Path) -> None:
    more = "[settings]\nmax_rows = 100\n[sweep]\npolicy = ['barrier', 'async-marginal']\n"
    page, _, _ = written(made_study(made_trace(tmp_path, chains=20, questions=5), more), tmp_path)
    assert "draft: 2 of 2 points have steps outside what the engine's profile measured" in page.warnings


def test_a_single_point_has_a_page_too(tmp_path: Path) -> None:
    page, text, _ = written(made_study(made_trace(tmp_path)), tmp_path)
    assert "A heat map needs a grid" in text
    assert "There is no front to show" in text
    assert page.findings == []


def test_the_same_sweep_makes_the_same_page(whole: tuple[Study, Page, str, Swept], tmp_path: Path) -> None:
    study, _, text, found = whole
    assert write_report(tmp_path / "again.html", study, found).path.read_text() == text
