"""The site builds without a warning, and the link check sees what leads nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from docs.linkcheck import broken
from tests.docs.blocks import ROOT


def made(site: Path, **pages: str) -> Path:
    for name, body in pages.items():
        path = site / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return site


def test_links_to_pages_anchors_and_elsewhere_are_fine(tmp_path: Path) -> None:
    site = made(tmp_path, a='<a href="b.html#x"></a><a href="https://example.org/#y"></a>', b='<h1 id="x"></h1>')
    assert broken(site) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [("c.html", "no such file"), ("b.html#y", "no such anchor"), ("#y", "no such anchor"), ("/c.html", "no such file")],
)
def test_a_link_that_leads_nowhere_is_named_with_its_page(tmp_path: Path, address: str, why: str) -> None:
    site = made(tmp_path, a=f'<a href="{address}"></a>', b='<h1 id="x"></h1>')
    assert broken(site) == [f"a.html: {address}: {why}"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed; make docs does the same")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert broken(tmp_path / "site") == []
