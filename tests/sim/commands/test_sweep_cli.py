"""``atts-sim sweep``, ``run`` and ``report`` as commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atts_sim.cli import main
from atts_sim.commands.progress import Lines, progress
from atts_sim.point import Points
from tests.sim.made_studies import made_trace, study_text

SWEEP = "[sweep]\npolicy = ['barrier', 'async-marginal']\nalpha = [0.1, 0.4]\n"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(study_text(made_trace(tmp_path), SWEEP))
    return path


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    return out


def test_sweep_writes_its_files_and_says_what_is_best(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", str(study), "--out", str(out), "--jobs", "1", "--json"]) == 0
    found = told(capsys)
    assert {path.name for path in out.iterdir()} == {
        "rows.jsonl", "results.parquet", "best.toml", "study.toml", "report.html"
    }  # fmt: skip
    assert (found["points"], found["errors"], found["resumed"], found["whole"]) == (4, 0, 0, True)
    assert found["best"]["parameters"]["settings.policy"] in ("barrier", "async-marginal")
    assert found["front"]
    assert main(["sweep", str(study), "--out", str(out), "--jobs", "1", "--json"]) == 0
    assert told(capsys)["resumed"] == 4


def test_sweep_shows_a_table(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(study), "--out", str(tmp_path / "out"), "--jobs", "1", "--no-report"]) == 0
    out, err = capsys.readouterr()
    assert "4 points, 4 admissible" in out
    assert out.splitlines()[-1].endswith("out: results.parquet, best.toml")
    assert err == ""
    assert main(["sweep", str(study), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("out: results.parquet, best.toml, report.html")


def test_sweep_says_why_points_are_not_admissible(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--out", str(tmp_path / "out"), "--jobs", "1", "--no-report"]
    options += ["--set", "sweep.policy=['barrier']", "--set", "sweep.alpha=[0.1]"]
    swept = ["--set", "sweep.workload.arrivals_per_s=[1e-3, 1e6]"]
    assert main(["sweep", str(study), *options, *swept]) == 0
    assert "2 points, 1 admissible, 1 saturated, 0 not to be simulated" in capsys.readouterr().out
    swept = ["--set", "sweep.chains=[1, 4]", "--set", "objective.at_most={ chains = 2 }"]
    assert main(["sweep", str(study), *options, *swept]) == 0
    assert "2 points, 1 admissible, 1 beyond the bounds, 0 not to be simulated" in capsys.readouterr().out


def test_an_interruption_keeps_what_is_done_and_the_same_command_goes_on(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rows = tmp_path / "out", Points.row
    command = ["sweep", str(study), "--out", str(out), "--jobs", "1", "--json"]

    def stopped(points: Points, place: int, chosen: Any) -> Any:
        if place == 2:
            raise KeyboardInterrupt
        return rows(points, place, chosen)

    with monkeypatch.context() as patched:
        patched.setattr(Points, "row", stopped)
        assert main(command) == 130
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["points"], found["size"], found["whole"]) == (2, 4, False)
    assert captured.err == "atts-sim sweep: interrupted; 2 rows are kept, the same command goes on\n"
    assert "the sweep was interrupted; points are missing" in (out / "report.html").read_text()
    assert main(command) == 0
    assert told(capsys)["resumed"] == 2


def test_an_interruption_before_there_is_anything_is_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("atts_sim.commands.sweep.read_study", stopped)
    assert main(["sweep", str(study)]) == 130
    assert capsys.readouterr() == ("", "atts-sim sweep: interrupted\n")


def test_a_log_has_a_line_now_and_then_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = Lines("points", lambda: now)
    for done in range(5, 11):  # five points are from an earlier session
        lines(done, 10)
        now += 10.0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "points: 7 of 10, about 30.0 s left\npoints: 9 of 10, about 10.0 s left\n"


def test_a_name_in_brackets_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    with progress("mine [/b]") as on_progress:
        on_progress(1, 2)
    assert "mine [/b]" in capsys.readouterr().err


def test_report_writes_the_page_again(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["sweep", str(study), "--out", str(out), "--jobs", "1"])
    first = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", str(out), "--json"]) == 0
    assert told(capsys)["report"] == str(out / "report.html")
    assert (out / "report.html").read_bytes() == first


def test_run_simulates_one_point(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(study), "--json", "--set", "policy=async-conditional"]) == 0
    found = told(capsys)
    assert found["parameters"]["settings.policy"] == "async-conditional"
    assert found["parameters"]["settings.alpha"] == 0.1
    assert found["figures"]["makespan_s"] > 0
    assert main(["run", str(study), "--set", "policy=barrier"]) == 0
    out = capsys.readouterr().out
    assert "makespan_s" in out
    told_of = " ".join(out.split("settings: ")[1].split("; others by default")[0].split())
    assert {"policy barrier", "questions 4", "chains 4"} <= set(told_of.split(", "))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "STUDY", "--set", "chains=9"], "chains = 9, but the recording has 4"),
        (["run", "STUDY", "--set", "alpa=0.2"], "did you mean 'alpha'?"),
        (["sweep", "STUDY", "--jobs", "0"], "--jobs must be at least 1"),
        (["sweep", "STUDY", "--jobs", "2", "--ray"], "exclude each other"),
        (["sweep", "nothing.toml"], "cannot read study nothing.toml"),
        (["run", "policy-comparison"], "workload.path is missing"),
        (["run", "barrier-scaling"], "name a fitted workload"),
        (["report", "."], "is no folder of a sweep"),
    ],
)
def test_bad_usage_is_one_line_and_exits_2(
    arguments: list[str], says: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(study) if word == "STUDY" else word for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"atts-sim {arguments[0]}: ")
    assert says in err


def test_without_an_admissible_row_the_sweep_fails(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = ["--set", "objective.at_least={ accuracy = 0.99 }"]
    assert main(["sweep", str(study), "--out", str(tmp_path / "out"), "--jobs", "1", *strict]) == 1
    assert "no row is admissible, so there is no best.toml" in capsys.readouterr().err
