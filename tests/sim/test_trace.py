"""Claims about the reading of recorded scores, on small tables made by hand and on a run of our own."""

from __future__ import annotations

import math
import random
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_runtime.records import CallRecord, ChainRecord
from atts_sim.trace import NEEDED, Scores, read_scores
from tests.runtime.scripted import Fault, pair, record_run, settings
from tests.sim.traces import row, write_trace
from tests.tables import with_metadata

Rows = list[dict[str, Any]]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Where a test writes its table."""
    return tmp_path / "small.events.parquet"


def places(scores: Scores) -> list[tuple[int, ...]]:
    columns = (scores.question, scores.turn, scores.chain, scores.attempt)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def finished_first(scores: Scores) -> list[tuple[int, ...]]:
    return [place for _, place in sorted(zip(scores.finished.tolist(), places(scores), strict=True))]


# -- which row is which segment


@pytest.mark.parametrize("shuffled_by", range(5))
def test_scores_come_by_question_turn_chain_and_attempt_whatever_the_order_of_the_rows(
    shuffled_by: int, trace: Path
) -> None:
    expected = list(product(range(3), range(2), range(3), range(2)))
    rows = [row(q, t, c, 1.5 + i / 10, attempt=a) for i, (q, t, c, a) in enumerate(expected)]
    random.Random(shuffled_by).shuffle(rows)
    scores = read_scores(write_trace(trace, rows))
    assert places(scores) == expected
    assert scores.ell.tolist() == pytest.approx([math.log(1.5 + i / 10) for i in range(len(expected))])
    assert (len(scores), scores.questions, scores.turns, scores.path) == (36, 3, 2, trace)


def test_questions_are_counted_in_the_order_of_problem_numbers_that_may_start_anywhere_and_have_gaps(
    trace: Path,
) -> None:
    rows = [row(100, 0, 0, 1.3), row(5, 0, 0, 1.1), row(9, 0, 1, 1.25), row(9, 0, 0, 1.2), row(5, 1, 0, 1.15)]
    scores = read_scores(write_trace(trace, rows))
    assert places(scores) == [(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 0, 1, 0), (2, 0, 0, 0)]
    assert [math.exp(ell) for ell in scores.ell] == pytest.approx([1.1, 1.15, 1.2, 1.25, 1.3])


def test_a_chain_is_counted_from_the_first_sample_of_its_question(trace: Path) -> None:
    rows = [row(1, t, 0, 1.5) | {"problem": p, "sample": s} for p, s, t in [(1, 16, 0), (1, 19, 1), (0, 2, 0)]]
    assert places(read_scores(write_trace(trace, rows))) == [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 3, 0)]


def test_without_a_column_of_attempts_each_score_is_of_the_first(trace: Path) -> None:
    table = pd.DataFrame([row(0, 0, 0, 1.5), row(0, 0, 1, 1.5)]).drop(columns="attempt")
    table.to_parquet(trace)
    assert read_scores(trace).attempt.tolist() == [0, 0]


# -- where the scores are


def test_where_there_are_score_rows_other_rows_hold_no_score(trace: Path) -> None:
    rows = [row(0, 0, 0, 9.0, "draft"), row(0, 0, 0, 2.0), row(0, 0, 0, 8.0, "target"), row(0, 1, 0, math.nan, "draft")]
    scores = read_scores(write_trace(trace, rows))
    assert scores.ell.tolist() == pytest.approx([math.log(2.0)])
    assert scores.missing == 0


def test_the_self_modes_keep_each_score_in_its_draft(trace: Path) -> None:
    rows = [
        row(0, 0, 0, 2.0, "draft"),
        row(0, 0, 0, None, "fork"),
        row(0, 0, 1, 3.0, "draft"),
        row(0, 0, 1, 4.0, "target"),
    ]
    scores = read_scores(write_trace(trace, rows))
    assert scores.ell.tolist() == pytest.approx([math.log(2.0), math.log(3.0)])


def test_a_perplexity_becomes_nats_per_token(trace: Path) -> None:
    scores = read_scores(write_trace(trace, [row(0, 0, 0, 1.0), row(0, 0, 1, math.e), row(0, 0, 2, 10.0)]))
    assert scores.ell.tolist() == pytest.approx([0.0, 1.0, 2.302585092994046])


def test_nats_that_are_recorded_are_taken_as_they_are_and_a_perplexity_only_where_there_are_none(trace: Path) -> None:
    rows = [row(0, 0, 0, 2.0, ell=0.25), row(0, 0, 1, 2.0, ell=None), row(0, 0, 2, math.exp(700), ell=812.5)]
    assert read_scores(write_trace(trace, rows)).ell.tolist() == pytest.approx([0.25, math.log(2.0), 812.5])


# -- what finished first


def test_recorded_times_rank_the_scores_by_their_end(trace: Path) -> None:
    ends = [7.0, 3.5, 9.25, 0.5]
    rows = [row(q, 0, c, 1.5, t_end_s=end) for (q, c), end in zip(product(range(2), range(2)), ends, strict=True)]
    scores = read_scores(write_trace(trace, [*rows, row(0, 0, 0, None, "draft", t_end_s=None)]))
    assert scores.finished.tolist() == [2, 1, 3, 0]
    assert scores.finished_from == "recorded"


def test_scores_that_end_together_are_ranked_as_they_were_admitted(trace: Path) -> None:
    rows = [row(0, 0, c, 1.5, t_end_s=1.0) for c in (2, 0, 1)]
    assert read_scores(write_trace(trace, rows)).finished.tolist() == [0, 1, 2]


def calls(chain: int, turns: list[tuple[int, int]], problem: int = 0) -> Rows:
    """A chain whose every turn is a draft of so many tokens, its score, and a takeover of so many."""
    rows: Rows = []
    for turn, (draft, target) in enumerate(turns):
        rows += [row(problem, turn, chain, None, "draft", tokens=draft), row(problem, turn, chain, 1.5, tokens=None)]
        rows += [row(problem, turn, chain, None, "target", tokens=target)] if target else []
    return rows


def test_without_times_or_durations_a_chain_takes_as_long_as_its_tokens(trace: Path) -> None:
    scores = read_scores(write_trace(trace, calls(0, [(500, 0), (500, 0)]) + calls(1, [(300, 0), (300, 0)])))
    assert finished_first(scores) == [(0, 0, 1, 0), (0, 0, 0, 0), (0, 1, 1, 0), (0, 1, 0, 0)]
    assert scores.finished_from == "estimated"


@pytest.mark.parametrize(("draft_tokens", "first"), [(315, 1), (330, 0)])  # 10 + 100 * 28/9 + 10 = 331
def test_a_token_of_the_target_weighs_three_of_the_draft(draft_tokens: int, first: int, trace: Path) -> None:
    scores = read_scores(write_trace(trace, calls(0, [(10, 100), (10, 0)]) + calls(1, [(10, 0), (draft_tokens, 0)])))
    assert finished_first(scores)[2] == (0, 1, first, 0)


def test_without_tokens_each_call_takes_the_same_time_and_a_takeover_three_times_as_long(trace: Path) -> None:
    rows = [row(0, 0, 0, 1.5), row(0, 0, 0, None, "target"), row(0, 1, 0, 1.5)]
    rows += [row(0, turn, 1, 1.5) for turn in range(6)]
    scores = read_scores(write_trace(trace, rows))
    assert finished_first(scores).index((0, 1, 0, 0)) == 6  # 5.11: after five of the other chain's six


@pytest.mark.parametrize("durations", [None, {0: 900.0, 4: 1.0}])
def test_questions_run_one_after_another_however_long_they_take(
    durations: dict[int, float] | None, trace: Path
) -> None:
    rows = calls(0, [(9000, 0)] * 3) + calls(0, [(10, 0)] * 2, problem=1)
    scores = read_scores(write_trace(trace, rows, durations))
    assert finished_first(scores) == [(0, 0, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)]


@pytest.mark.parametrize(("durations", "first"), [({0: 1.0, 1: 2.0}, 0), ({0: 2.0, 1: 1.0}, 1)])
def test_a_recorded_duration_outdoes_the_tokens_and_the_longer_chain_finishes_later(
    durations: dict[int, float], first: int, trace: Path
) -> None:
    rows = calls(0, [(500, 0), (500, 0)]) + calls(1, [(40, 0), (40, 0)])
    scores = read_scores(write_trace(trace, rows, durations))
    assert finished_first(scores)[0] == (0, 0, first, 0)
    assert finished_first(scores)[3] == (0, 1, 1 - first, 0)


def test_the_calls_of_a_chain_share_its_duration_by_their_tokens(trace: Path) -> None:
    rows = calls(0, [(100, 0), (300, 0)]) + calls(1, [(300, 0), (100, 0)])
    scores = read_scores(write_trace(trace, rows, {0: 8.0, 1: 7.0}))  # scored at 2 and 8 s, and at 5.25 and 7 s
    assert finished_first(scores) == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 1, 0), (0, 1, 0, 0)]


# -- missing scores


@pytest.mark.parametrize("ppl", [math.nan, None, 0.0, 0.999, -2.0, math.inf])
def test_a_missing_score_stops_the_reading_with_the_count_the_row_and_the_way_out(
    ppl: float | None, trace: Path
) -> None:
    rows = [row(1, 0, 0, None, "draft"), row(1, 0, 0, 1.5), row(1, 0, 1, ppl), row(0, 0, 0, ppl), row(0, 0, 1, 1.5)]
    with pytest.raises(InputError, match=r"has 2 missing scores of 4, the first in row 2 \(ppl .*--skip-missing"):
        read_scores(write_trace(trace, rows))


@pytest.mark.parametrize("ppl", [math.nan, None, 0.0, 0.999, -2.0, math.inf])
def test_missing_scores_are_left_out_and_counted_where_that_is_asked(ppl: float | None, trace: Path) -> None:
    rows = [row(0, 0, 0, 1.5), row(0, 0, 1, ppl), row(1, 0, 0, ppl), row(2, 0, 0, 2.5)]
    scores = read_scores(write_trace(trace, rows), skip_missing=True)
    assert scores.missing == 2
    assert places(scores) == [(0, 0, 0, 0), (1, 0, 0, 0)]  # a question of which nothing is left is no question
    assert scores.ell.tolist() == pytest.approx([math.log(1.5), math.log(2.5)])


def test_leaving_out_what_is_not_missing_changes_nothing(trace: Path) -> None:
    write_trace(trace, [row(q, 0, c, 1.0 + q + c) for q in range(2) for c in range(2)])
    strict, lenient = read_scores(trace), read_scores(trace, skip_missing=True)
    assert strict.ell.tolist() == lenient.ell.tolist()
    assert (places(strict), lenient.missing) == (places(lenient), 0)


# -- files that are no trace


@pytest.mark.parametrize("lacking", [(name,) for name in NEEDED] + [("turn", "ppl")])
def test_missing_columns_are_named(lacking: tuple[str, ...], trace: Path) -> None:
    pd.DataFrame([row(0, 0, 0, 1.5)]).drop(columns=list(lacking)).to_parquet(trace)
    with pytest.raises(InputError, match=f"lacks the columns {', '.join(lacking)}; a trace has {', '.join(NEEDED)}"):
        read_scores(trace)


@pytest.mark.parametrize("content", [b"", b"question,turn\n0,1\n", b"PAR1 and no more of it PAR1"])
def test_a_file_that_is_no_parquet_table_is_named_in_one_line(content: bytes, trace: Path) -> None:
    trace.write_bytes(content)
    with pytest.raises(InputError, match=r"small\.events\.parquet") as refusal:
        read_scores(trace)
    assert "\n" not in str(refusal.value)


def test_a_table_with_metadata_that_pandas_did_not_write_is_refused(trace: Path) -> None:
    with_metadata(write_trace(trace, [row(0, 0, 0, 1.5)]), "[" * 100_000)
    with pytest.raises(InputError, match="is not a Parquet table"):
        read_scores(trace)


def test_a_table_that_is_cut_short_is_refused(trace: Path) -> None:
    whole = write_trace(trace, [row(0, 0, 0, 1.5)]).read_bytes()
    for length in (len(whole) // 2, len(whole) - 1):
        trace.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a Parquet table"):
            read_scores(trace)


def test_a_file_that_is_not_there_is_named(trace: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read trace .*small\.events\.parquet: "):
        read_scores(trace)


@pytest.mark.parametrize("kind", ["target", "fork"])
def test_a_trace_of_other_calls_only_holds_no_score(kind: str, trace: Path) -> None:
    with pytest.raises(InputError, match="holds no score"):
        read_scores(write_trace(trace, [row(0, 0, 0, 1.5, kind)]))


def test_a_trace_whose_every_score_is_missing_holds_none(trace: Path) -> None:
    with pytest.raises(InputError, match="holds no score"):
        read_scores(write_trace(trace, [row(0, 0, 0, math.nan)]), skip_missing=True)


# -- runs of our own


def scored(folder: Path) -> dict[tuple[int, ...], CallRecord]:
    """The score calls of a run, by question, turn, chain and attempt, in that order."""
    lines = (folder / "chains.jsonl").read_text().splitlines()
    records = [ChainRecord.from_line(line) for line in lines]
    return dict(sorted(((r.question, c.turn, r.index, 0), c) for r in records for c in r.calls if c.kind == "score"))


@pytest.mark.parametrize("policy", ["barrier", "async-marginal", "async-adaptive"])
def test_a_run_of_our_own_is_read_as_it_was_recorded(policy: str, tmp_path: Path) -> None:
    record_run(tmp_path / "run", settings(policy))
    scores, calls = read_scores(tmp_path / "run" / "events.parquet"), scored(tmp_path / "run")
    assert places(scores) == list(calls)
    assert scores.ell.tolist() == [call.ell for call in calls.values()]
    assert finished_first(scores) == sorted(calls, key=lambda place: calls[place].t_end_s or math.inf)
    assert (scores.finished_from, scores.missing) == ("recorded", 0)


def test_a_score_that_failed_in_a_run_of_our_own_is_a_missing_one(tmp_path: Path) -> None:
    faults = {ChainId(1, 2): Fault("nan", "score", first=1), ChainId(0, 3): Fault("error", "score", first=1)}
    record_run(tmp_path / "run", settings("async-marginal"), pair(target={"faults": faults}))
    trace, calls = tmp_path / "run" / "events.parquet", scored(tmp_path / "run")
    with pytest.raises(InputError, match=f"has 2 missing scores of {len(calls)},"):
        read_scores(trace)
    scores = read_scores(trace, skip_missing=True)
    assert scores.missing == 2
    assert places(scores) == [place for place, call in calls.items() if call.ell is not None]
