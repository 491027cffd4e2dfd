"""Claims about the page: whole, self-contained, escaped, and saying what the runs' numbers say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from atts_runtime.report.page import Page, page
from atts_runtime.report.rates_by_m import r_against_m
from atts_runtime.report.roof import roofline
from atts_runtime.report.tables import outcomes
from tests.runtime.report.made import Document, count, edit, read
from tests.runtime.scripted import record_run, settings

Make = Callable[[Path], tuple[Page, Document]]
HOSTILE = '<script>alert("$x$")</script> & \x1b'


def made(*runs: Path) -> tuple[Page, Document]:
    """The page of runs, and the same taken apart."""
    found = page(read(*runs), lambda _: None)
    return found, Document(found.html)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Document]:
    """Two policies at two m, one without decisions, all with intensity, with r falling at the barrier alone."""
    folder = tmp_path_factory.mktemp("study")
    runs = []
    for policy, m, r in (
        ("barrier", 2, 0.4),
        ("barrier", 4, 0.1),
        ("async-adaptive", 4, 0.5),
        ("target-only", 2, 0.6),
    ):
        run = folder / f"{policy}-{m}"
        record_run(run, settings(policy, chains=m))
        count(run, r=r)
        runs.append(run)
    return made(*runs)


def test_every_figure_leads_with_its_finding(study: tuple[Page, Document]) -> None:
    found, document = study
    for finding in found.findings:
        assert " ".join(finding.replace("\xa0", " ").split()) in document.text
    assert document.tags.count("svg") == 5 + 4  # the figures, and the chains of each run
    assert len(found.findings) == 9


def test_r_is_told_by_policy_and_m(study: tuple[Page, Document]) -> None:
    _, document = study
    assert "falls from 0.4 at m = 2 to 0.1 at m = 4 for barrier" in document.text
    assert "; 0.5 at m = 4 for async-adaptive; 0.6 at m = 2 for target-only" in document.text


def test_the_roofline_and_the_wall_say_what_the_counts_say(study: tuple[Page, Document]) -> None:
    _, document = study
    assert "reaches 4.0% of its roof, below the machine balance, where memory sets the roof" in document.text
    assert "spends 2% of the wall at the roof's pace and 58% on overhead" in document.text
    assert "bench: 80 GFLOP/s, 20 GB/s (measured)" in document.text


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(study: tuple[Page, Document]) -> None:
    found, document = study
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(document.tags)
    assert not [name for name, _ in document.attributes if name.startswith("on")]
    assert not re.search(r"https?:|@import|url\((?!#)", found.html)
    references = {value for name, value in document.attributes if name.endswith("href")}
    references |= {f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", found.html)}
    ids = [f"#{value}" for name, value in document.attributes if name == "id"]
    assert references <= set(ids)
    assert len(ids) == len(set(ids))


def test_it_follows_the_readers_light_or_dark(study: tuple[Page, Document]) -> None:
    found, document = study
    assert "@media (prefers-color-scheme:dark)" in found.html
    fixed = {
        color for name, value in document.attributes if name == "style" for color in re.findall(r"#[0-9a-f]{6}", value)
    }
    assert fixed <= {"#0d0f12"}  # the text on bars, whose colours are light in both


def test_every_number_of_the_outcomes_has_a_provenance(study: tuple[Page, Document]) -> None:
    found, _ = study
    outcomes = found.html.split("<h2>Outcomes</h2>")[1].split("<h2>")[0]
    rows = re.findall(r"<tr>.*?</tr>", outcomes)[1:]
    assert len(rows) > 15
    for row in rows:
        assert re.search(r'<td class="from">(measured|analytic)', row), row


@pytest.mark.slow
def test_the_same_runs_make_the_same_page(tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-marginal", questions=1, chains=2))
    assert len({made(tmp_path)[0].html for _ in range(8)}) == 1


def test_a_run_without_counts_says_unknown_and_never_zero(tmp_path: Path) -> None:
    summary = record_run(tmp_path, settings("barrier"))
    for key in ("intensity", "calibration"):
        del summary[key]
    edit(tmp_path / "summary.json", intensity=None)
    runs = read(tmp_path)
    for figure, said in ((r_against_m, "r is unknown"), (roofline, "The roofline is unknown")):
        shown = figure(runs)
        assert shown.finding.startswith(said)
        assert not shown.result
    r = re.search(r"<td>r, T_s = stall of chains</td>(<td.*?</td>)", outcomes(runs))
    assert r is not None
    assert r[1] == '<td class="unknown">unknown</td>'


@pytest.mark.parametrize("name", ["url(#a", 'see url(#b" id="c) href="#d', ' d="M 1.25 1.25"'])
def test_names_that_read_like_a_figure_s_own_marks_are_texts(name: str, tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-adaptive", questions=2, chains=2))
    lines = (tmp_path / "chains.jsonl").read_text()
    told = json.dumps(name)
    (tmp_path / "chains.jsonl").write_text(re.sub(r'"question_id": "[^"]*"', lambda m: f'"question_id": {told}', lines))
    count(tmp_path)
    found, document = made(tmp_path)
    assert name[:8] in document.text
    for figure in re.findall(r"<svg.*?</svg>", found.html, flags=re.DOTALL):
        ElementTree.fromstring(figure.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def test_names_and_texts_of_a_run_are_shown_not_obeyed(tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-adaptive", questions=2, chains=2))
    lines = (tmp_path / "chains.jsonl").read_text()
    lines = re.sub(r'"question_id": "[^"]*"', '"question_id": "<script>x</script>$^{"', lines)
    lines = re.sub(r'"answer": "[^"]*"', '"answer": "<script>"', lines)
    lines = lines.replace('"reason": "answered", "detail": null', '"reason": "failed", "detail": "<script>no</script>"')
    (tmp_path / "chains.jsonl").write_text(lines)
    count(tmp_path, hardware={"name": HOSTILE, "kind": HOSTILE, "flops_per_s": 1e9, "bytes_per_s": 1e9})
    edit(tmp_path / "manifest.json", versions={HOSTILE: HOSTILE}, hardware={"cpu": HOSTILE}, sessions=[HOSTILE])
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace('"async-adaptive"', '"<script>policy</script>"'))
    found, document = made(tmp_path)
    assert "script" not in document.tags
    assert "0: <script>x</s..." in document.text
    assert "by: <script>no</script>" in document.text
    assert 'alert("$x$")' in document.text
    assert "<script" not in found.html
