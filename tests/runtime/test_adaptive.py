"""Claims about runs under async-adaptive: what their records say, what a resumed one keeps, and what is shown."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from atts_runtime.cli import main
from atts_runtime.config import RunConfig
from atts_runtime.conformal import AdaptiveAlpha, tie_breaker
from atts_runtime.control import POLICIES
from atts_runtime.control.gates.adaptive import AdaptiveGate
from atts_runtime.control.gates.presampled import Conditional, Marginal
from atts_runtime.errors import InputError
from atts_runtime.records import AlarmRecord, CallRecord, ChainRecord
from atts_runtime.render import comparison_rows, comparison_table
from atts_runtime.summary import calibration, tables
from tests.runtime.scripted import drive, pair, record_run, settings, task_of, untimed

NAN = float("nan")
Verdict = tuple[ChainRecord, CallRecord]


def verdicts(records: list[ChainRecord]) -> list[Verdict]:
    return [(record, call) for record in records for call in record.calls if call.kind == "score"]


def keys(record: ChainRecord, call: CallRecord) -> tuple[Hashable, ...]:
    return ("all", ("turn", call.turn), ("question", record.question))


def adaptive(questions_in_flight: int | None = 1, **changes: Any) -> RunConfig:
    """Half of the turns are taken over, so that two scores make a bank."""
    return settings("async-adaptive", questions_in_flight=questions_in_flight, alpha=0.5, questions=4, **changes)


def budget_of(config: RunConfig, finished: list[ChainRecord], order: int) -> tuple[list[ChainRecord], AdaptiveAlpha]:
    """All records of a run that goes on from some, and what its alpha remembers."""
    outcome = drive(config, pair(order=order), finished)
    policy = outcome.driver.policy
    assert isinstance(policy.gate, AdaptiveGate)
    return [*finished, *outcome.records.values()], policy.gate.calibrator.budget


# -- what the records say


@pytest.mark.parametrize("p_value", ["plain", "smoothed"])
@pytest.mark.parametrize("kept", [0, 7])
def test_every_p_value_is_that_of_its_bank_and_every_verdict_that_of_its_alpha(p_value: str, kept: int) -> None:
    """In one session or in two: what the first left behind is in the banks of the second."""
    config = adaptive(p_value=p_value)
    records, _ = budget_of(config, [], order=1)
    if kept:
        records, _ = budget_of(config, records[:kept], order=2)
    seen = Counter[str]()
    for record, call in verdicts(records):
        assert call.bank is not None
        in_cohort = call.bank == "cohort"
        others = [
            other.ell
            for r, other in verdicts(records)
            if (r, other.turn) != (record, call.turn)
            and (other.turn == call.turn and r.question < record.question if in_cohort else other.turn == 0)
        ]
        u = tie_breaker(0, record.chain, call.turn) if p_value == "smoothed" else 1.0
        above = sum(ell > call.ell for ell in others)
        assert call.p_value == (above + u * (1 + others.count(call.ell))) / (len(others) + 1)
        assert call.taken_over == (call.p_value <= call.alpha)
        seen[call.bank] += 1
        assert (call.bank == "presample") == (call.turn == 0)
    assert seen["cohort"] > 10
    assert seen["presample"] == 16


@pytest.mark.parametrize("questions_in_flight", [1, 3, None])
def test_alpha_remembers_every_verdict_of_every_session(questions_in_flight: int | None) -> None:
    config = adaptive(questions_in_flight, gamma=0.3)
    records: list[ChainRecord] = []
    for order, kept in ((1, 0), (2, 5), (3, 11), (4, 16)):
        records, budget = budget_of(config, records[:kept], order)
        offsets: Counter[Hashable] = Counter()
        for record, call in verdicts(records):
            for key in keys(record, call):
                offsets[key] += 0.3 * (0.5 - bool(call.taken_over))
        assert len(offsets) > 5
        for key, offset in offsets.items():
            assert budget.offset(key) == pytest.approx(offset, abs=1e-9)


def test_a_resumed_run_leaves_the_records_of_finished_chains_as_they_are(tmp_path: Path) -> None:
    config = adaptive(questions_in_flight=2)
    record_run(tmp_path, config, pair(order=1))
    path = tmp_path / "chains.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:9]))
    summary = record_run(tmp_path, config, pair(order=5), resume=True)
    again = path.read_bytes().splitlines(keepends=True)
    before = {ChainRecord.from_line(line).chain: line for line in lines[:9]}
    after = {ChainRecord.from_line(line).chain: line for line in again}
    assert len(after) == len(again) == 16
    assert {chain: after[chain] for chain in before} == before
    assert summary["calibration"] == calibration(
        sorted(map(ChainRecord.from_line, again), key=lambda record: record.chain), monitored=True
    )


@pytest.mark.parametrize("policy", ["async-adaptive", "async-marginal"])
def test_a_recorded_verdict_stands_where_the_policy_depends_on_what_finished_first(policy: str) -> None:
    """The last scores of some finished chains are made so strange that nothing but their records says that they stood.
    Under a policy that would always come to the same verdict again, such records are those of another program."""
    config = settings(policy, alpha=0.5)
    finished = [r for r in drive(config).records.values() if r.calls[-1].kind == "score" and r.turns > 1][:3]
    for record in finished:
        record.calls[-1].ell = 99.0
        assert record.calls[-1].taken_over is False
    kept = [untimed(record) for record in finished]
    assert len(kept) == 3
    if policy == "async-marginal":
        with pytest.raises(RuntimeError, match="the verdict differs from the record's"):
            drive(config, pair(order=2), finished)
        return
    again, budget = budget_of(config, finished, order=2)
    assert [untimed(record) for record in again[:3]] == kept
    taken = [bool(call.taken_over) for _, call in verdicts(again)]
    assert budget.rate("all") == sum(taken) / len(taken)


# -- what is summed up


@pytest.mark.parametrize("recorded", [False, True])
def test_an_alarm_that_rings_over_finished_chains_is_recorded_once(recorded: bool) -> None:
    """Scores that rise from chain to chain; the last chain is run again."""
    config = settings("async-adaptive", questions=1, chains=60, turns=1)
    finished = sorted(drive(config).records.values(), key=lambda record: record.chain)
    for record in finished:
        score_call = record.call(0, "score")
        assert score_call is not None
        score_call.ell = float(record.index)
        record.alarms.clear()
    before = AlarmRecord(0, "completion/turn 0", "ville", 30)
    finished[29].alarms += [before] if recorded else []
    again = drive(config, finished=finished[:-1])
    alarms = [alarm for record in [*finished[:-1], *again.records.values()] for alarm in record.alarms]
    villes = [alarm for alarm in alarms if (alarm.monitor, alarm.kind) == ("completion/turn 0", "ville")]
    assert len(villes) == 1
    assert (villes == [before]) == recorded


def scored(question: int, index: int, *calls: CallRecord, alarms: tuple[AlarmRecord, ...] = ()) -> ChainRecord:
    return ChainRecord(question, index, f"q{question}", "turns", turns=1, calls=list(calls), alarms=list(alarms))


def score(turn: int, p_value: float | None, alpha: float | None, bank: str | None) -> CallRecord:
    return CallRecord(turn, "score", "target", ell=1.0, p_value=p_value, alpha=alpha, taken_over=False, bank=bank)


BY_HAND = [
    scored(0, 0, score(0, 0.9, 0.5, "presample"), score(1, 0.8, -0.25, "cold")),
    scored(
        1, 2,
        score(0, 0.9, 0.5, "presample"), CallRecord(0, "takeover", "target"), score(1, 0.8, 1.25, "cohort"),
        alarms=(AlarmRecord(1, "admission/turn 1", "ville", 7), AlarmRecord(1, "completion/turn 1", "cusum", 9)),
    ),
    scored(1, 3, score(0, 0.7, 0.4, "late"), score(1, 0.7, 0.3, "thin")),
    scored(1, 1, CallRecord(0, "draft", "draft"), CallRecord(0, "score", "target")),  # failed before a verdict
]  # fmt: skip


def test_calibration_is_summed_up_from_the_records() -> None:
    assert calibration(BY_HAND, monitored=True) == {
        "alpha_t": {"min": -0.25, "max": 1.25},
        "compared_with": {"cohort": 1, "cold": 1, "late": 1, "presample": 2, "thin": 1},
        "fallback_rate": 3 / 6,
        "alarms": [
            {"turn": 1, "monitor": "admission/turn 1", "kind": "ville", "after": 7, "question": 1, "chain": 2},
            {"turn": 1, "monitor": "completion/turn 1", "kind": "cusum", "after": 9, "question": 1, "chain": 2},
        ],
    }


def test_without_monitors_alarms_are_unknown_and_without_tests_so_is_everything() -> None:
    found = calibration(BY_HAND, monitored=False)
    assert found is not None
    assert found["alarms"] is None
    assert calibration(BY_HAND[-1:], monitored=True) is None
    assert calibration([scored(0, 0, score(0, None, None, None))], monitored=False) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_the_summary_of_a_run_has_the_calibration_that_its_policy_does(policy: str, tmp_path: Path) -> None:
    found = record_run(tmp_path, settings(policy))["calibration"]
    records = [ChainRecord.from_line(line) for line in (tmp_path / "chains.jsonl").read_bytes().splitlines()]
    assert json.loads((tmp_path / "summary.json").read_text())["calibration"] == found
    gate = POLICIES[policy].gate
    if not issubclass(gate, Marginal | Conditional):
        assert found is None
        return
    tested = [call for _, call in verdicts(records)]
    assert found["compared_with"] == Counter(call.bank for call in tested)
    assert found["alpha_t"] == {f.__name__: f([c.alpha for c in tested if c.alpha is not None]) for f in (min, max)}
    fallbacks = sum(call.bank in ("cold", "late", "thin") for call in tested)
    assert found["fallback_rate"] == fallbacks / len(tested)
    assert (found["alarms"] is None) == (policy != "async-adaptive")
    if gate is not AdaptiveGate:
        assert (set(found["compared_with"]), fallbacks) == ({"presample"}, 0)
        assert found["alpha_t"] == {"min": 0.4, "max": 0.4}


def test_the_events_have_the_bank_of_each_score_and_the_alarms_that_it_set_off() -> None:
    events = tables(BY_HAND, task_of(settings("async-adaptive")), chains=4)["events"]
    rows = events[events["sample"] == 6][["turn", "kind", "bank", "alarms"]]
    assert rows.fillna({"bank": "none"}).to_numpy().tolist() == [
        [0, "score", "presample", ""],
        [0, "target", "none", ""],
        [1, "score", "cohort", "admission/turn 1 ville; completion/turn 1 cusum"],
    ]


def test_the_events_on_disk_have_them_too(tmp_path: Path) -> None:
    record_run(tmp_path, adaptive())
    events = pd.read_parquet(tmp_path / "events.parquet")
    scores = events[events["kind"] == "score"]
    assert {"presample", "cold", "cohort"} <= set(scores["bank"])
    assert events[events["kind"] != "score"]["bank"].isna().all()
    assert set(events["alarms"]) == {""}  # sixteen chains are too few for an alarm


# -- what is shown

ROWS = ("alpha, lowest to highest", "decided without a cohort", "monitors' alarms")


def shown(policies: list[str], tmp_path: Path) -> str:
    summaries = [record_run(tmp_path / policy, settings(policy)) for policy in policies]
    out = io.StringIO()
    Console(file=out, width=200).print(comparison_table(comparison_rows(summaries), "title"))
    return out.getvalue()


def test_the_table_shows_what_adapts_for_async_adaptive_alone(tmp_path: Path) -> None:
    policies = ["async-marginal", "async-adaptive", "barrier"]
    lines = shown(policies, tmp_path).splitlines()
    found = json.loads((tmp_path / "async-adaptive" / "summary.json").read_text())["calibration"]
    expected = (
        f"{found['alpha_t']['min']:.2f} to {found['alpha_t']['max']:.2f}",
        f"{found['fallback_rate']:.1%}",
        str(len(found["alarms"])),
    )
    for label, value in zip(ROWS, expected, strict=True):
        (line,) = [line for line in lines if label in line]
        assert [cell.strip() for cell in line.split("│")[2:-1]] == ["-", value, "-"]


def test_a_table_without_it_has_none_of_these_rows(tmp_path: Path) -> None:
    text = shown(["target-only", "async-marginal", "async-conditional"], tmp_path)
    assert "takeover rate" in text
    assert not any(label in text for label in ROWS)


# -- what is refused


@pytest.mark.parametrize("gamma", [0.0, -0.1, NAN, float("inf")])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_that_is_not_positive_is_refused_under_every_policy(policy: str, gamma: float) -> None:
    with pytest.raises(InputError, match=f"gamma must be positive, got {gamma}"):
        RunConfig(policy=policy, gamma=gamma)


@pytest.mark.parametrize("budget", [0, 8])
def test_a_budget_of_none_or_of_all_chains_is_refused_where_it_sets_alpha(budget: int) -> None:
    assert RunConfig(policy="barrier", budget=budget).knobs.budget == budget
    with pytest.raises(InputError, match=f"async-adaptive needs a budget between 1 and 7, got {budget}"):
        RunConfig(policy="async-adaptive", budget=budget)


@pytest.mark.parametrize(("option", "value"), [("--gamma", "0"), ("--budget", "0"), ("--budget", "8")])
def test_the_command_line_names_the_setting_in_one_line(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--policy", "async-adaptive", option, value]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert option.removeprefix("--") in err
