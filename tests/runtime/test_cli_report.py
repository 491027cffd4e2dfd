"""Claims about ``atts-runtime report``: the file it leaves, what it prints, and the one line that names a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atts_runtime.cli import main
from tests.runtime.report.made import Document
from tests.runtime.scripted import record_run, settings

Capture = pytest.CaptureFixture[str]


def mistake(capture: Capture, *arguments: str) -> str:
    """The one line about a mistake; asserts exit code 2 and nothing on stdout."""
    assert main(["report", *arguments]) == 2
    out, err = capture.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("atts-runtime report: ")
    return err.removeprefix("atts-runtime report: ")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    record_run(tmp_path / "run", settings("barrier", questions=2, chains=2))
    return tmp_path / "run"


def test_one_run_is_reported_into_its_folder(run: Path, capsys: Capture) -> None:
    assert main(["report", str(run)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{run / 'report.html'}\n"
    assert err == ""
    assert "Run of barrier" in Document((run / "report.html").read_text(encoding="utf-8")).text
    assert not list(run.glob("*.new"))


def test_several_runs_are_reported_here_and_told_as_one_object(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    summary = record_run(tmp_path / "other", settings("target-only", questions=2, chains=2))
    monkeypatch.chdir(tmp_path)
    assert main(["report", "run", "other", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["report"] == "report.html"
    assert [(told["run"], told["policy"], told["chains"]) for told in found["runs"]] == [
        ("run", "barrier", 4),
        ("other", "target-only", 4),
    ]
    assert found["runs"][1]["wall_s"] == summary["wall_s"]
    assert found["runs"][1]["r"] is None
    assert found["findings"]
    assert any("the roof are unknown" in said for said in found["warnings"])
    assert (tmp_path / "report.html").exists()


def test_a_run_that_was_stopped_is_reported_as_far_as_it_went(run: Path, capsys: Capture) -> None:
    for name in ("summary.json", "telemetry.parquet", "events.parquet", "samples.parquet"):
        (run / name).unlink()
    chains = run / "chains.jsonl"
    chains.write_bytes(chains.read_bytes()[:-10])
    assert main(["report", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == f"atts-runtime report: the torn last line of {chains} is left out\n"
    assert found["runs"][0]["finished"] is False
    assert found["runs"][0]["chains"] == 3
    assert found["runs"][0]["wall_s"] is None


def test_what_is_no_run_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert f"{tmp_path / 'gone'} is no folder" in mistake(capsys, str(tmp_path / "gone"))
    assert "is not a run directory: it has no manifest.json" in mistake(capsys, str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "chains.jsonl").touch()
    assert "has no finished chain" in mistake(capsys, str(tmp_path))


def test_a_broken_summary_is_named_and_how_to_go_on(run: Path, capsys: Capture) -> None:
    (run / "summary.json").write_text('{"policy": ')
    named = mistake(capsys, str(run))
    assert f"{run / 'summary.json'} is not valid JSON" in named
    assert "remove the file to go on" in named
    assert not (run / "report.html").exists()


def test_the_same_run_twice_is_named_under_any_spelling(run: Path, capsys: Capture) -> None:
    again = f"{run}/../run"
    assert f"{again} is the run {run} again" in mistake(capsys, str(run), again)


def test_an_out_that_cannot_be_written_is_named(run: Path, capsys: Capture) -> None:
    assert "is a folder; give --out" in mistake(capsys, str(run), "--out", str(run))
    gone = run / "gone" / "page.html"
    assert f"cannot write {gone}: there is no folder {run / 'gone'}" in mistake(capsys, str(run), "--out", str(gone))


def test_help_shows_an_example(capsys: Capture) -> None:
    assert main(["report", "--help"]) == 0
    assert "example: atts-runtime report" in capsys.readouterr().out
