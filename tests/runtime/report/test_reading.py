"""Claims about what the report knows of a run, without any drawing."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.control import POLICIES
from atts_runtime.engines.base import Demand, EngineStats
from atts_runtime.engines.steps import Step, Steps
from atts_runtime.errors import InputError
from atts_runtime.profiler.device import DevicePeak
from atts_runtime.profiler.intensity import EngineRun, run_intensity
from atts_runtime.records import CallRecord, ChainRecord
from atts_runtime.report.facts import EngineFacts, Hardware, Intensity, Phase, Turn
from atts_runtime.report.rates_by_m import series
from atts_runtime.report.roof import points
from atts_runtime.report.settings import common, differing
from atts_runtime.report.time_spent import parts
from atts_runtime.summary import summarize
from tests.runtime.report.made import HARDWARE, count, edit, read
from tests.runtime.scripted import record_run, settings, task_of


@pytest.mark.parametrize("policy", POLICIES)
def test_facts_agree_with_the_summary_of_the_run(policy: str, tmp_path: Path) -> None:
    summary = record_run(tmp_path, settings(policy))
    (run,) = read(tmp_path)
    assert run.takeover_rate == pytest.approx(summary["takeover_rate"])
    by_turn = [taken / verdicts if verdicts else None for verdicts, taken in run.decisions]
    assert by_turn == pytest.approx(summary["takeover_rate_by_turn"])
    assert run.stall_s == pytest.approx(summary["stall_s"])
    assert run.accuracy.mean_chain == summary["accuracy"]["mean_chain"]
    assert run.wall_s == summary["wall_s"]
    one = POLICIES[policy].one_model
    assert {engine.name: engine.busy_s for engine in run.engines} == {
        "draft and target" if one else role: engine["busy_s"] for role, engine in summary["engines"].items()
    }


def test_the_parts_of_an_engines_time_tile_the_wall(tmp_path: Path) -> None:
    record_run(tmp_path, settings("barrier"))
    count(tmp_path)
    (run,) = read(tmp_path)
    for engine in run.engines:
        assert sum(seconds for _, seconds, _ in parts(engine)) == pytest.approx(run.wall_s)
        assert len(parts(engine)) == 3


def test_without_a_profile_an_engines_time_is_busy_and_idle(tmp_path: Path) -> None:
    record_run(tmp_path, settings("barrier"))
    (run,) = read(tmp_path)
    assert [label.split(",")[0] for label, _, _ in parts(run.engines[0])] == ["busy", "idle"]


def test_a_phases_share_of_the_roof_is_of_the_memory_roof_below_the_balance(tmp_path: Path) -> None:
    record_run(tmp_path, settings("barrier"))
    count(tmp_path)
    (run,) = read(tmp_path)
    assert run.hardware is not None
    assert run.hardware.roof(2.0) == pytest.approx(40e9)
    assert run.hardware.roof(100.0) == pytest.approx(80e9)
    assert [point.share for point in points([run])] == pytest.approx([0.04, 0.04])
    count(tmp_path, hardware=None)
    assert [point.share for point in points(read(tmp_path))] == [None, None]


@pytest.mark.parametrize(
    "models",
    [
        {"policy": "barrier", "draft": "one", "target": "one"},
        {"policy": "barrier", "draft": "./one", "target": "one"},
        {"policy": "self"},
        {"policy": "self-reject", "target": "one"},
    ],
    ids=str,
)
def test_one_model_in_both_roles_is_one_engine(models: dict[str, str], tmp_path: Path) -> None:
    record_run(tmp_path, settings(**models))
    assert [engine.name for engine in read(tmp_path)[0].engines] == ["draft and target"]


def test_r_lines_are_apart_by_what_else_differs_but_not_by_seed(tmp_path: Path) -> None:
    runs = []
    for name, m, alpha, seed, r in (
        ("a", 2, 0.4, 0, 0.1),
        ("b", 4, 0.4, 0, 0.2),
        ("c", 4, 0.4, 1, 0.3),
        ("d", 2, 0.3, 0, 0.4),
    ):
        record_run(tmp_path / name, settings("barrier", chains=m, alpha=alpha, seed=seed))
        count(tmp_path / name, r=r)
        runs.append(tmp_path / name)
    lines = series(read(*runs), "r")
    assert lines == {"barrier, alpha 0.4": {2: [0.1], 4: [0.2, 0.3]}, "barrier, alpha 0.3": {2: [0.4]}}


def test_a_run_whose_parts_were_replaced_is_named_by_them(tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-marginal", action="redraft", vote="confidence"))
    (run,) = read(tmp_path)
    assert run.policy == "async-marginal, action redraft, vote confidence"
    assert run.label.replace("\xa0", " ") == "async-marginal, action redraft, vote confidence, m = 4"


def test_r_lines_name_what_makes_a_policy_only_where_one_policy_has_several(tmp_path: Path) -> None:
    runs = {
        "plain": settings("async-marginal"),
        "tries": settings("async-marginal", action="redraft", attempts=2),
        "low": settings("threshold", threshold=0.3),
        "high": settings("threshold", threshold=0.4),
    }
    for name, config in runs.items():
        record_run(tmp_path / name, config)
        count(tmp_path / name)
    assert set(series(read(*(tmp_path / name for name in ("plain", "tries"))), "r")) == {
        "async-marginal",
        "async-marginal, action redraft",
    }
    thresholds = series(read(*(tmp_path / name for name in ("low", "high"))), "r")
    assert set(thresholds) == {"threshold, threshold 0.3", "threshold, threshold 0.4"}


@pytest.mark.parametrize("policy", POLICIES)
def test_alpha_is_told_of_runs_whose_verdicts_go_by_it(policy: str, tmp_path: Path) -> None:
    record_run(tmp_path, settings(policy))
    (run,) = read(tmp_path)
    by_alpha = policy not in ("target-only", "draft-only", "threshold", "speculative-thinking", "best-of-n")
    assert run.alpha == (0.4 if by_alpha else None)


def test_settings_differ_or_are_shared_and_a_missing_one_has_its_default(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record_run(tmp_path / name, settings("barrier", alpha=0.1 if name == "a" else 0.4))
    config = tmp_path / "a" / "config.toml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("alpha")))
    runs = read(tmp_path / "a", tmp_path / "b")
    assert [(row.name, row.values) for row in differing(runs)] == [("alpha", ("0.1", "0.4"))]
    assert ("chains", ("4", "4")) in [(row.name, row.values) for row in common(runs)]


def test_labels_tell_runs_apart(tmp_path: Path) -> None:
    for name in ("x/a", "x/b", "y/b", "c"):
        (tmp_path / name).mkdir(parents=True)
        record_run(tmp_path / name, settings("target-only" if name == "c" else "barrier", questions=1, chains=2))
    labels = [run.label.replace("\xa0", " ") for run in read(*(tmp_path / name for name in ("x/a", "x/b", "y/b", "c")))]
    assert labels[0] == "barrier, m = 2 (a)"
    assert labels[1:3] == [f"barrier, m = 2 ({tmp_path / name})" for name in ("x/b", "y/b")]
    assert labels[3] == "target-only, m = 2"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"wall_s": float("nan")}, "wall_s is no number but nan"),
        ({"wall_s": "long"}, "wall_s is no number but 'long'"),
        ({"wall_s": True}, "wall_s is no number but True"),
        ({"engines": []}, "engines is no object"),
        ({"engines": {"draft": {"busy_s": float("inf")}}}, "busy_s is no number but inf"),
        ({"intensity": {"hardware": HARDWARE | {"flops_per_s": "fast"}}}, "flops_per_s is no number"),
        ({"accuracy": {"mean_chain_ci95": [0.5]}}, "mean_chain_ci95 is no interval"),
        ({"intensity": {"turns": 3}}, "turns is no list"),
        ({"intensity": {"turns": [3]}}, "turns is no list"),
        ({"wall_s": 10**400}, "wall_s is no number"),
    ],
)
def test_what_is_no_number_is_named_with_its_file(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    record_run(tmp_path, settings("barrier", questions=1, chains=2))
    edit(tmp_path / "summary.json", **changes)
    with pytest.raises(InputError, match=r"summary\.json: ") as caught:
        read(tmp_path)
    assert named in str(caught.value)


def test_a_summary_that_knows_nothing_is_all_unknown(tmp_path: Path) -> None:
    record_run(tmp_path, settings("barrier", questions=1, chains=2))
    (tmp_path / "summary.json").write_text(json.dumps({}))
    (run,) = read(tmp_path)
    assert (run.wall_s, run.accuracy.mean_chain, run.intensity.r, run.hardware) == (None, None, None, None)
    assert run.engines == []
    assert run.tokens["draft"] == sum(c.tokens_new for r in run.records for c in r.calls if c.kind == "draft")


def test_the_report_asks_for_no_number_that_a_run_does_not_write() -> None:
    demand, steps = Demand(1, 2, 1.0, 0.5), Steps()
    steps.add(Step(0.0, 0.5, 0, 1, 1, 1, 1, 1, 1, 2, 1.0, 2, 1, 1))
    stats = EngineStats(busy_s=0.5, idle_s=0.5, phases={"decode": demand}, flops_executed=2)
    peak = DevicePeak("by hand", "cpu", "float32", 1, 1.0, 1.0, "fake", "this test")
    call = CallRecord(0, "draft", "draft", t_start_s=0.0, t_end_s=0.5, flops=2, bytes=1.0)
    records = [ChainRecord(0, 0, "q", calls=[call], t_end_s=1.0)]
    told = run_intensity(records, {"draft": EngineRun(stats, steps, peak)}, 1.0, whole=True)
    assert told is not None
    config = settings("draft-only")
    task = task_of(config)
    summary = summarize(
        records, task, config=config, wall_s=1.0, engines={"draft": stats}, shared_engine=False, run_dir=None
    )
    engine = summary["engines"]["draft"] | told["engines"]["draft"]
    asked: list[tuple[type, dict[str, Any]]] = [
        (EngineFacts, engine | {"name": "draft"}),
        (Phase, engine["phases"]["decode"]),
        (Turn, told["turns"][0]),
        (Intensity, told),
        (Hardware, told["hardware"]),
    ]
    for kind, written in asked:
        assert {field.name for field in fields(kind)} <= written.keys()
