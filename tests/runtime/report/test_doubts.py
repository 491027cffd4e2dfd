"""Claims about the warnings: each names what makes a number doubtful, and a sound run has none but its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_runtime.profiler.device import QUICK
from atts_runtime.report.doubts import doubts
from tests.runtime.report.made import HARDWARE, count, edit, phase, read
from tests.runtime.scripted import Fault, pair, record_run, settings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run without anything to warn of."""
    run = tmp_path / "run"
    record_run(run, settings("barrier"))
    count(run)
    row = {"t_s": 0.5, "engine": "draft", "source": "measured", "metric": "kv", "value": 3.0, "unit": "tokens"}
    pd.DataFrame([row]).to_parquet(run / "telemetry.parquet")
    return run


def said(*runs: Path) -> str:
    """All warnings, a line each."""
    return "\n".join(doubts(read(*runs))).replace("\xa0", " ")


def test_a_sound_run_has_no_warning(run: Path) -> None:
    assert said(run) == ""


def test_failed_chains_are_counted_with_their_most_frequent_reason(tmp_path: Path) -> None:
    engines = pair(target={"faults": {ChainId(0, i): Fault("error", "score") for i in range(3)}})
    record_run(tmp_path, settings("async-marginal", retries=0), engines)
    assert "3 of 12 chains failed; 3 of them by: " in said(tmp_path)
    assert "scripted error" in said(tmp_path)


def test_answers_that_could_not_be_checked_are_counted(run: Path) -> None:
    lines = (run / "chains.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records[:2]:
        record["correct"] = None
    (run / "chains.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert f"2 of {len(records)} answers could not be checked" in said(run)


def test_further_attempts_feed_some_of_the_prefix_again_which_is_no_want_of_kv(tmp_path: Path) -> None:
    record_run(tmp_path, settings("self-reject"))
    tokens = json.loads((tmp_path / "summary.json").read_text())["tokens"]
    edit(tmp_path / "summary.json", tokens=tokens | {"score_prefix_recomputed": 139})
    assert "prefix tokens again" not in said(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hardware": None}, "no one hardware profile"),
        ({"hardware": HARDWARE | {"name": QUICK}}, "was measured quickly"),
        ({"hardware": HARDWARE | {"kind": "datasheet"}}, "is from a data sheet"),
        ({"hardware": HARDWARE | {"kind": "fake"}}, "is fake"),
        ({"hardware": HARDWARE | {"flops_per_s": 1e9}}, "decode of the draft reaches 160% of the roof"),
    ],
)
def test_a_doubtful_profile_is_named(change: dict[str, Any], named: str, run: Path) -> None:
    count(run, **change)
    assert named in said(run)


def test_without_counts_it_is_not_the_hardware_profile_that_is_missed(tmp_path: Path) -> None:
    record_run(tmp_path / "off", settings("barrier", profiler="off"))
    assert "it ran with --profiler off" in said(tmp_path / "off")
    record_run(tmp_path / "on", settings("barrier"))  # on engines that do not count
    assert "FLOPs of the draft and the target were not counted" in said(tmp_path / "on")
    assert "hardware profile" not in said(tmp_path / "off") + said(tmp_path / "on")


def test_evictions_alarms_sessions_and_recomputed_prefixes_are_named(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["engines"]["target"] |= {"evictions": 7, "preemptions": 3}
    tokens = summary["tokens"] | {"score_prefix_recomputed": 1234}
    told = {"alpha_t": {"min": 0.1, "max": 0.3}, "fallback_rate": 0.7, "alarms": [{"monitor": "drift"}, {}]}
    edit(run / "summary.json", engines=summary["engines"], tokens=tokens, calibration=told)
    edit(run / "manifest.json", sessions=["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"])
    warnings = said(run)
    assert "the target dropped the KV of 7 idle chains" in warnings
    assert "compute 1,234 prefix tokens again" in warnings
    assert "broke off 3 requests for want of KV" in warnings
    assert "raised 2 alarms" in warnings
    assert "70% of the decisions had no cohort" in warnings
    assert "2 sessions" in warnings


def test_times_that_miss_the_wall_are_named(run: Path) -> None:
    edit(run / "summary.json", wall_s=11.0)
    assert "the draft's times miss the wall by -1.00 s" in said(run)


def test_a_run_that_has_not_ended_says_so(run: Path) -> None:
    (run / "summary.json").unlink()
    assert "the run has not ended" in said(run)
    assert "r, T_c, T_m and the roof are unknown" not in said(run)


@pytest.mark.parametrize("name", ["events", "samples", "telemetry"])
def test_a_table_that_is_missing_or_half_written_is_named_and_done_without(name: str, run: Path) -> None:
    table = run / f"{name}.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    assert f"{name}.parquet" in said(run)
    table.write_bytes(b"")
    assert f"{name}.parquet" in said(run)
    table.unlink()
    assert f"{name}.parquet is missing" in said(run)


def test_runs_on_other_work_or_machines_are_not_compared_in_silence(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    record_run(other, settings("barrier", seed=1, threads=2))
    count(other, hardware=HARDWARE | {"name": "another"})
    edit(other / "manifest.json", hardware={"cpu": "another", "cores": 1})
    warnings = said(run, other)
    assert "The runs differ in seed: they are not compared on the same work" in warnings
    assert "The runs differ in threads" in warnings
    assert "The runs differ in hardware" in warnings
    assert "different hardware profiles" in warnings


def test_what_holds_for_all_runs_is_said_once(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    record_run(other, settings("target-only"))
    for path in (run, other):
        count(path, hardware=HARDWARE | {"kind": "fake"}, engines={"target": {"phases": {"decode": phase(1, 1, 1, 1)}}})
    fake = [line for line in said(run, other).splitlines() if "is fake" in line]
    assert fake == ["All runs: the hardware profile bench is fake: what follows from it means nothing"]


def test_outages_and_requests_made_again_are_told(run: Path) -> None:
    outage = {"endpoint": "http://one:8000", "cause": "<b>refused</b>", "t_start_s": 2.0, "t_end_s": 5.5}
    summary = json.loads((run / "summary.json").read_text())
    summary["engines"]["target"] |= {"outages": [outage, outage | {"t_end_s": None}], "retried": 12, "throttled": 7}
    edit(run / "summary.json", engines=summary["engines"])
    told = said(run)
    assert (
        "target's endpoint http://one:8000 was down for 3.50 s from 2.00 s on, then it came back: <b>refused</b>"
        in told
    )
    assert "was down for 8.00 s from 2.00 s on, to the end of the run" in told
    assert "12 requests to the target's servers were made again, 7 of them because a server asked to come later" in told
    edit(run / "summary.json", engines={"target": {"outages": "many"}})
    with pytest.raises(InputError, match="outages is no list of objects"):
        said(run)
