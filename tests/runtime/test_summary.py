"""Claims about the numbers of a run, on records made by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from atts_runtime.accuracy import accuracy, wilson
from atts_runtime.config import RunConfig
from atts_runtime.engines.base import EngineStats
from atts_runtime.records import CallRecord, ChainRecord, HoldRecord
from atts_runtime.summary import summarize, tables, takeover_by_turn, tokens
from atts_runtime.tasks.answers import ExactAnswers
from atts_runtime.tasks.base import Question, Task

CONTRACT = {
    "policy": None,
    "wall_s": None,
    "questions": None,
    "chains": None,
    "accuracy": {"mean_chain", "majority", "pass_at_m"},
    "takeover_rate": None,
    "takeover_rate_by_turn": None,
    "tokens": {"draft", "scored", "score_prefix_recomputed", "takeover"},
    "latency_s": {"p50", "p95", "max"},
    "stall_s": None,
    "engines": {"draft", "target"},
    "intensity": {"r", "T_c_s", "T_m_s", "T_s_s", "T_overhead_s"},
    "lower_bound_s": None,
    "run_dir": None,
}


def task(*answers: str) -> Task:
    questions = tuple(Question(f"q{i}", f"what is {i}? ", answer) for i, answer in enumerate(answers))
    return Task("by hand", questions, None, ExactAnswers())


def chain(question: int, index: int, answer: str | None, right: str = "1", **more: Any) -> ChainRecord:
    reason = more.pop("reason", "answered")
    return ChainRecord(
        question, index, f"q{question}", reason=reason, answer=answer, correct=answer == right, turns=1, **more
    )


def summary_of(records: list[ChainRecord], of: Task, **more: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "config": RunConfig(policy="barrier"),
        "wall_s": 10.0,
        "engines": {"draft": EngineStats(), "target": EngineStats()},
        "shared_engine": False,
        "run_dir": None,
    }
    return summarize(records, of, **options | more)


# -- accuracy


def test_mean_counts_chains_majority_and_pass_count_questions() -> None:
    answers = [["1", "1", "2"], ["2", "2", "1"], ["3", "4", "5"], ["1", "1", "1"]]
    records = [chain(q, i, answer) for q, row in enumerate(answers) for i, answer in enumerate(row)]
    found = accuracy(records, task("1", "1", "1", "1"))
    assert found["mean_chain"] == pytest.approx(6 / 12)
    assert found["majority"] == pytest.approx(2 / 4)
    assert found["pass_at_m"] == pytest.approx(3 / 4)


def test_a_failed_chain_counts_as_wrong_and_does_not_vote() -> None:
    records = [chain(0, 0, "1"), chain(0, 1, None, reason="failed"), chain(0, 2, None, reason="failed")]
    found = accuracy(records, task("1"))
    assert found["mean_chain"] == pytest.approx(1 / 3)
    assert found["majority"] == 1.0
    assert summary_of(records, task("1"))["failed_chains"] == 2


def test_an_answer_that_could_not_be_checked_is_counted_and_lowers_accuracy() -> None:
    records = [chain(0, 0, "1"), chain(0, 1, "1"), chain(0, 2, "?"), chain(0, 3, "2")]
    records[2].correct = None
    records[0].calls.append(CallRecord(0, "draft", "draft"))
    found = accuracy(records, task("1"))
    assert found["mean_chain"] == pytest.approx(2 / 4)
    assert (found["unknown_chains"], found["unknown_checks"]) == (1, 0)
    assert tables(records, task("1"), 4)["samples"]["correct"].isna().tolist() == [False, False, True, False]


def test_a_question_of_which_every_chain_failed_is_wrong_everywhere() -> None:
    records = [chain(0, i, None, reason="failed") for i in range(2)] + [chain(1, i, "1") for i in range(2)]
    found = accuracy(records, task("1", "1"))
    assert (found["mean_chain"], found["majority"], found["pass_at_m"]) == (0.5, 0.5, 0.5)


def test_without_records_accuracy_is_unknown() -> None:
    assert accuracy([], task("1")) == dict.fromkeys(
        ("mean_chain", "mean_chain_ci95", "majority", "voted", "pass_at_m")
    ) | {
        "unknown_chains": 0,
        "unknown_checks": 0,
    }


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes / n, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_stays_within_zero_and_one() -> None:
    for n in (1, 3, 1000):
        for k in range(0, n + 1, max(1, n // 3)):
            low, high = wilson(k / n, n)
            assert 0 <= low <= k / n + 1e-12
            assert k / n - 1e-12 <= high <= 1


def interval(shares: list[list[bool]]) -> tuple[float, float]:
    records = [
        chain(q, i, "1" if right else "2") for q, question in enumerate(shares) for i, right in enumerate(question)
    ]
    low, high = accuracy(records, task(*["1"] * len(shares)))["mean_chain_ci95"]
    return low, high


def test_the_interval_is_wider_where_the_chains_of_a_question_agree() -> None:
    agree = interval([[True] * 4, [False] * 4] * 6)
    mixed = interval([[True, False, True, False], [False, True, True, False]] * 6)
    assert agree[1] - agree[0] > mixed[1] - mixed[0]


def test_chains_that_agree_count_as_their_questions_less_the_one_that_the_mean_took() -> None:
    assert interval([[True] * 4, [False] * 4] * 6) == pytest.approx(wilson(0.5, 11))


def test_chains_that_differ_as_chance_has_it_count_each() -> None:
    assert interval([[True, False]] * 12) == pytest.approx(wilson(0.5, 24))


def test_where_all_chains_are_right_each_question_counts_once() -> None:
    assert interval([[True] * 8] * 10) == pytest.approx(wilson(1.0, 10))


def test_a_single_question_says_little() -> None:
    low, high = interval([[True, True, False, True]])
    assert (low, high) == pytest.approx(wilson(0.75, 1))


# -- takeovers, tokens, times


def test_takeovers_by_turn_leave_turns_without_a_verdict_unknown() -> None:
    assert takeover_by_turn([(0, True), (0, False), (2, True), (0, False), (2, True)]) == [
        pytest.approx(1 / 3),
        None,
        1.0,
    ]
    assert takeover_by_turn([]) == []


def test_only_verdicts_count_for_the_takeover_rate() -> None:
    calls = [
        CallRecord(0, "draft", "draft"),
        CallRecord(0, "score", "target", ell=1.0, taken_over=True),
        CallRecord(0, "takeover", "target"),
        CallRecord(1, "score", "target", ell=1.0, taken_over=False),
        CallRecord(2, "score", "target"),
    ]
    found = summary_of([chain(0, 0, "1", calls=calls)], task("1"))
    assert found["takeover_rate"] == 0.5
    assert found["takeover_rate_by_turn"] == [1.0, 0.0]


def test_tokens_are_counted_by_who_wrote_or_scored_them() -> None:
    calls = [
        CallRecord(0, "draft", "draft", tokens_new=5, tokens_recomputed=100),
        CallRecord(0, "score", "target", tokens_new=6, tokens_recomputed=2),
        CallRecord(0, "takeover", "target", tokens_new=7, tokens_recomputed=100),
    ]
    records = [chain(0, i, "1", calls=calls) for i in range(2)]
    assert tokens(records) == {"draft": 10, "scored": 12, "score_prefix_recomputed": 4, "takeover": 14}


def test_stall_sums_barrier_and_bank_and_leaves_admission_out() -> None:
    holds = [HoldRecord("barrier", 1.0, 2.5), HoldRecord("bank", 3.0, 3.25), HoldRecord("admission", 0.0, 99.0)]
    found = summary_of([chain(0, i, "1", holds_s=holds) for i in range(2)], task("1"))
    assert found["stall_s"] == 3.5
    assert found["stall_by_cause_s"] == {"barrier": 3.0, "bank": 0.5}


def test_latency_runs_from_a_question_s_admission_to_its_last_chain() -> None:
    spans = [(0, 1.0, 4.0), (0, 1.0, 9.0), (1, 5.0, 7.0), (1, 5.0, 6.0), (2, None, 50.0)]
    records = [chain(q, i, "1", t_admitted_s=start, t_end_s=end) for i, (q, start, end) in enumerate(spans)]
    found = summary_of(records, task("1", "1", "1"))["latency_s"]
    assert found == {"p50": 5.0, "p95": pytest.approx(7.7), "max": 8.0}


def test_the_lower_bound_is_the_busier_of_two_engines() -> None:
    stats = {"draft": EngineStats(busy_s=3.0), "target": EngineStats(busy_s=5.0)}
    assert summary_of([chain(0, 0, "1")], task("1"), engines=stats)["lower_bound_s"] == 5.0
    assert summary_of([chain(0, 0, "1")], task("1"), engines=stats, shared_engine=True)["lower_bound_s"] == 8.0


def test_of_a_resumed_run_engines_know_no_lower_bound() -> None:
    stats = {"draft": EngineStats(busy_s=3.0)}
    assert summary_of([chain(0, 0, "1")], task("1"), engines=stats, whole=False)["lower_bound_s"] is None


def test_an_engine_under_two_roles_is_busy_once() -> None:
    both = EngineStats(busy_s=4.0)
    found = summary_of([chain(0, 0, "1")], task("1"), engines={"draft": both, "target": both}, shared_engine=True)
    assert found["lower_bound_s"] == 4.0


def test_idle_is_the_rest_of_the_wall() -> None:
    found = summary_of([chain(0, 0, "1")], task("1"), engines={"draft": EngineStats(busy_s=4.0)})
    assert (found["engines"]["draft"]["busy_s"], found["engines"]["draft"]["idle_s"]) == (4.0, 6.0)


# -- the whole object


def test_the_summary_has_every_key_of_the_contract() -> None:
    found = summary_of([chain(0, 0, "1")], task("1"))
    assert found.keys() >= CONTRACT.keys()
    for key, inner in CONTRACT.items():
        assert inner is None or found[key].keys() >= inner
    for engine in found["engines"].values():
        assert engine.keys() >= {"busy_s", "idle_s", "flops", "bytes"}


def test_what_is_unknown_is_none_and_never_zero() -> None:
    found = summary_of([chain(0, 0, None, reason="failed")], task("1"), engines={"draft": EngineStats()})
    assert found["takeover_rate"] is None
    assert found["takeover_rate_by_turn"] == []
    assert found["latency_s"] == {"p50": None, "p95": None, "max": None}
    stall_s = found["intensity"].pop("T_s_s")
    assert stall_s == 0.0  # known without any count: nobody waited
    assert set(found["intensity"].values()) == {None}
    engine = found["engines"]["draft"]
    assert (engine["flops"], engine["bytes"], engine["mean_decode_batch"]) == (None, None, None)
    assert summary_of([chain(0, 0, "1")], task("1"), engines={})["lower_bound_s"] is None


def test_the_summary_is_strict_json_whatever_happened() -> None:
    for records in ([], [chain(0, 0, None, reason="failed")], [chain(0, 0, "1")]):
        json.dumps(summary_of(records, task("1")), allow_nan=False)


# -- tables


def test_a_score_is_shown_as_perplexity_percentile_and_acceptance() -> None:
    calls = [CallRecord(0, "score", "target", ell=2.0, p_value=0.25, alpha=0.4, rejected=True, taken_over=True)]
    (row,) = tables([chain(1, 2, "1", calls=calls)], task("1", "1"), chains=3)["events"].to_dict("records")
    assert row["ppl"] == pytest.approx(math.exp(2.0))
    assert (row["percentile"], row["accepted"], row["taken_over"]) == (0.75, False, True)
    assert row["sample"] == 5


def test_a_huge_score_does_not_overflow_its_perplexity() -> None:
    calls = [CallRecord(0, "score", "target", ell=1e6, taken_over=True)]
    (row,) = tables([chain(0, 0, "1", calls=calls)], task("1"), chains=1)["events"].to_dict("records")
    assert math.isfinite(row["ppl"])
