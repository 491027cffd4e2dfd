"""Claims about ``atts-runtime trace``: the file it leaves, what it prints, and the one line that names a mistake."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from atts_runtime.cli import main
from atts_runtime.control import POLICIES
from atts_runtime.profiler.validate import validate
from tests.runtime.scripted import record_run, settings

Capture = pytest.CaptureFixture[str]


def mistake(capture: Capture, *arguments: str) -> str:
    """The one line about a mistake; asserts exit code 2 and nothing on stdout."""
    assert main(["trace", *arguments]) == 2
    out, err = capture.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("atts-runtime trace: ")
    return err.removeprefix("atts-runtime trace: ")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    record_run(tmp_path / "run", settings("barrier"))
    return tmp_path / "run"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_trace_is_written_into_the_run_and_keeps_the_rules(policy: str, tmp_path: Path, capsys: Capture) -> None:
    record_run(tmp_path, settings(policy))
    assert main(["trace", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "trace.json") in out
    assert "ui.perfetto.dev" in out
    made = json.loads((tmp_path / "trace.json").read_text())
    assert validate(made) == []
    assert made["otherData"]["policy"] == policy
    assert not list(tmp_path.glob("*.new"))


def test_json_is_one_object_that_agrees_with_the_summary(run: Path, capsys: Capture) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert main(["trace", str(run), "--json", "--out", str(run.parent / "other.json")]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["trace"] == str(run.parent / "other.json")
    assert found["events"] == len(json.loads((run.parent / "other.json").read_text())["traceEvents"])
    assert (found["chains"], found["wall_s"]) == (12, summary["wall_s"])
    assert found["stall_s"] == pytest.approx(summary["stall_s"])
    for role, engine in found["engines"].items():
        assert engine["busy_s"] + engine["idle_s"] == pytest.approx(found["wall_s"])
        assert engine["thread_busy_s"] == summary["engines"][role]["busy_s"]
    assert not (run / "trace.json").exists()


@pytest.mark.parametrize(
    "models", [{"policy": "barrier", "draft": "one", "target": "./one"}, {"policy": "self"}], ids=str
)
def test_one_model_in_both_roles_is_one_engine(models: dict[str, str], tmp_path: Path, capsys: Capture) -> None:
    record_run(tmp_path, settings(**models))
    assert main(["trace", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engines"].keys() == {"draft and target"}


def test_text_comes_only_with_its_flag(run: Path) -> None:
    text = json.loads((run / "chains.jsonl").read_text().splitlines()[0])["text"]
    assert main(["trace", str(run)]) == 0
    assert json.dumps(text) not in (run / "trace.json").read_text()
    assert main(["trace", str(run), "--with-text"]) == 0
    assert json.dumps(text) in (run / "trace.json").read_text()


def test_a_run_that_was_stopped_is_traced_as_far_as_it_went(run: Path, capsys: Capture) -> None:
    for name in ("summary.json", "telemetry.parquet"):
        (run / name).unlink()
    chains = run / "chains.jsonl"
    chains.write_bytes(chains.read_bytes()[:-10])
    assert main(["trace", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["chains"] == 11
    assert found["engines"]["draft"]["thread_busy_s"] is None
    assert err == "atts-runtime trace: the torn last line of chains.jsonl is left out\n"


def test_telemetry_is_shown_where_there_is_some(run: Path) -> None:
    row = {"engine": "draft", "source": "measured", "metric": "kv", "unit": "tokens"}
    rows = [{"t_s": 0.5, "value": 3.0, **row}, {"t_s": 1.0, "value": None, **row}]
    pd.DataFrame(rows).to_parquet(run / "telemetry.parquet")
    assert main(["trace", str(run)]) == 0
    made = json.loads((run / "trace.json").read_text())["traceEvents"]
    assert [(e["ts"], e["args"]) for e in made if e["name"] == "kv, tokens"] == [(5e5, {"tokens": 3.0})]


def test_what_is_not_a_run_is_named(tmp_path: Path, capsys: Capture) -> None:
    assert f"{tmp_path / 'gone'} is no folder" in mistake(capsys, str(tmp_path / "gone"))
    assert "is not a run directory: it has no manifest.json" in mistake(capsys, str(tmp_path))
    (tmp_path / "manifest.json").write_text("{}")
    assert "is not a run directory: it has no chains.jsonl" in mistake(capsys, str(tmp_path))
    (tmp_path / "chains.jsonl").touch()
    assert "has no finished chain" in mistake(capsys, str(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    assert "manifest.json is not valid JSON" in mistake(capsys, str(tmp_path))


@pytest.mark.parametrize(
    ("line", "named"),
    [("{", "not a chain record"), ("{}", "not a chain record"), ("\\1", "not a chain record"), ("", "not a chain")],
)
def test_a_broken_line_is_named_by_its_number(line: str, named: str, run: Path, capsys: Capture) -> None:
    lines = (run / "chains.jsonl").read_text().splitlines()
    lines[4] = line
    (run / "chains.jsonl").write_text("\n".join(lines) + "\n")
    assert f"{run / 'chains.jsonl'} line 5: {named}" in mistake(capsys, str(run))


def test_impossible_times_and_a_chain_told_twice_are_named_by_their_lines(run: Path, capsys: Capture) -> None:
    lines = (run / "chains.jsonl").read_text().splitlines()
    (run / "chains.jsonl").write_text("\n".join([*lines, lines[2]]) + "\n")
    assert "line 13: the chain of line 3 again" in mistake(capsys, str(run))
    early = json.dumps(json.loads(lines[1]) | {"t_end_s": 0.0})
    (run / "chains.jsonl").write_text("\n".join([lines[0], early]) + "\n")
    assert "line 2: chain 1 of question 0: it ends at 0.0 s" in mistake(capsys, str(run))


def test_a_half_written_table_is_named_and_how_to_go_on(run: Path, capsys: Capture) -> None:
    telemetry = run / "telemetry.parquet"
    whole = telemetry.read_bytes()
    for part in (whole[: len(whole) // 2], b""):
        telemetry.write_bytes(part)
        named = mistake(capsys, str(run))
        assert named.startswith(f"cannot read {telemetry}: ")
        assert "remove the file" in named
    pd.DataFrame({"t_s": [1.0]}).to_parquet(telemetry)
    assert f"cannot read {telemetry}: it has no column engine" in mistake(capsys, str(run))
    assert not (run / "trace.json").exists()


def test_readings_from_before_the_run_and_such_that_are_no_numbers_are_left_out(run: Path) -> None:
    telemetry = run / "telemetry.parquet"
    rows = [(-0.2, 80.0), (0.1, 90.0), (0.2, float("inf")), (0.3, float("nan")), (float("inf"), 70.0)]
    table = pd.DataFrame(rows, columns=["t_s", "value"])
    table.assign(engine="gpu0", metric="power", unit="W", source="measured").to_parquet(telemetry)
    assert main(["trace", str(run)]) == 0
    events = json.loads((run / "trace.json").read_text())["traceEvents"]
    assert [event["args"] for event in events if event["ph"] == "C" and "power" in event["name"]] == [{"W": 90.0}]


def test_readings_that_are_texts_are_named(run: Path, capsys: Capture) -> None:
    table = pd.DataFrame({"t_s": [0.1], "engine": ["gpu0"], "metric": ["power"], "value": ["abc"], "unit": ["W"]})
    table.assign(source="measured").to_parquet(run / "telemetry.parquet")
    assert "could not convert" in mistake(capsys, str(run))


def test_an_out_that_is_no_file_gets_the_trace_and_stays(run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with (tmp_path / "read").open("wb") as read, subprocess.Popen(["cat", pipe], stdout=read) as reader:
        try:
            assert main(["trace", str(run), "--out", str(pipe)]) == 0
            assert reader.wait(30) == 0
        finally:
            reader.kill()
    assert validate(json.loads((tmp_path / "read").read_text())) == []
    assert pipe.is_fifo()


def test_an_out_that_cannot_be_written_is_named(run: Path, capsys: Capture) -> None:
    assert "is a folder; give --out" in mistake(capsys, str(run), "--out", str(run))
    gone = run / "gone" / "trace.json"
    assert f"cannot write {gone}: No such file" in mistake(capsys, str(run), "--out", str(gone))


def test_help_shows_an_example(capsys: Capture) -> None:
    assert main(["trace", "--help"]) == 0
    assert "example: atts-runtime trace" in capsys.readouterr().out
