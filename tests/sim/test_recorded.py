"""Recorded runs and published traces answer a simulation's calls as they were recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime.control import ChainId, Limits
from atts_runtime.control.commands import Draft, Score, TakeOver
from atts_runtime.errors import InputError
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineSpec
from atts_sim.clock import Clock
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.published import read_trace
from atts_sim.recorded import Recorded, follow_record, from_records, read_run
from atts_sim.simrun import SimRun
from tests.runtime.scripted import drive, record_run, settings
from tests.tables import with_metadata

COST = AffineCost(overhead_s=0.01, token_s=1e-4, weights_s=0.02, kept_s=1e-6)
Row = tuple[int, int, str, int | None, float | None]
"""Sample, turn, kind, tokens, perplexity."""

ROWS: list[Row] = [
    (0, 0, "draft", 50, None), (0, 0, "score", None, 1.5), (0, 0, "target", 40, None),
    (0, 1, "draft", 30, None), (0, 1, "score", None, 2.0),
    (1, 0, "draft", 20, None), (1, 0, "score", None, 1.2),
    (1, 1, "draft", 10, None), (1, 1, "score", None, 3.0), (1, 1, "target", 0, None),
    (2, 0, "draft", 60, None), (2, 0, "score", None, 1.1),
    (2, 1, "draft", 0, None),
    (3, 0, "draft", 5, None), (3, 0, "score", None, 1.0),
    (3, 1, "draft", 5, None), (3, 1, "score", None, 1.0),
    (3, 2, "draft", 5, None), (3, 2, "score", None, 1.0),
]  # fmt: skip


def trace_of(folder: Path, rows: list[Row], answers: tuple[str, ...] = ("7", "7", "invalid", "invalid")) -> Path:
    """Two questions of two chains each."""
    path = folder / "made.events.parquet"
    columns = ["sample", "turn", "kind", "tokens", "ppl"]
    events = pd.DataFrame(rows, columns=columns).astype({"tokens": "Int64", "ppl": "float64"})
    events.assign(problem=events["sample"] // 2).to_parquet(path)
    samples = {"sample": range(4), "problem": [0, 0, 1, 1], "duration_s": 1.0, "final_answer": answers}
    pd.DataFrame(samples | {"question_chars": [80, 80, 41, 41]}).to_parquet(folder / "made.samples.parquet")
    return path


def simulate(recorded: Recorded) -> SimRun:
    clock = Clock()
    engines: Any = {role: BatchingEngine(clock, EngineSpec(), COST) for role in ("draft", "target")}
    return SimDriver(follow_record(recorded), Limits(recorded.turns, 600, 600), recorded, engines, clock).run()


def test_a_trace_is_replayed_call_by_call(tmp_path: Path) -> None:
    run = simulate(read_trace(trace_of(tmp_path, ROWS)))
    made = {(2 * r.chain.question + r.chain.index, r.turn, r.kind): r.new_tokens for r in run.requests}
    scored = {(s, t): n for (s, t, kind), n in made.items() if kind == "score"}
    assert {key: n for key, n in made.items() if key[2] == "draft"} == {
        (s, t, "draft"): tokens for s, t, kind, tokens, _ in ROWS if kind == "draft" and tokens
    }
    assert {key: n for key, n in made.items() if key[2] == "takeover"} == {
        (0, 0, "takeover"): 40,
        (1, 1, "takeover"): 1,
    }
    assert scored == {(s, t): made[s, t, "draft"] for s, t, kind, *_ in ROWS if kind == "score"}
    ends = {2 * f.chain.question + f.chain.index: (f.reason, f.turns) for f, _ in run.finished}
    assert ends == {0: ("answered", 2), 1: ("answered", 2), 2: ("ended", 1), 3: ("turns", 3)}
    assert set(run.correct.values()) == {None}


def test_prompts_of_a_trace_have_a_token_for_four_characters_and_counts_are_rescaled(tmp_path: Path) -> None:
    recorded = read_trace(trace_of(tmp_path, ROWS), token_scale=0.5)
    assert [recorded.prompt_tokens(q, role) for q in (0, 1) for role in ("draft", "target")] == [20, 20, 10, 10]
    assert recorded.written(Draft(0, ChainId(0, 0), 0, 500)).tokens == 25


def test_what_was_not_recorded_raises_or_is_the_nearest(tmp_path: Path) -> None:
    path = trace_of(tmp_path, ROWS)
    asked = TakeOver(0, ChainId(0, 0), 1, 500, False)
    with pytest.raises(InputError, match=r"no takeover of chain 0\.0 in turn 1; .*nearest"):
        read_trace(path).written(asked)
    nearest = read_trace(path, unrecorded="nearest")
    stand_in = nearest.written(asked)
    assert (stand_in.tokens, stand_in.answered) == (1, True)  # chain 1's of the same turn; the chain ends as recorded
    assert nearest.written(TakeOver(0, ChainId(1, 0), 0, 500, False)).tokens == round((40 + 1) / 2)
    for command in (Draft(0, ChainId(0, 0), 2, 500), Score(0, ChainId(0, 0), 2)):
        with pytest.raises(InputError, match="the recording has no"):
            nearest.ell(command) if isinstance(command, Score) else nearest.written(command)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(s, 0, "draft", 5, None) for s in range(3)], "no events of sample 3"),
        ([*ROWS[:2], *ROWS[3:5], (0, 3, "draft", 5, None), *ROWS[5:]], "a draft in turn 3 follows on turn 1"),
        ([(0, 0, "draft", 5, None), (0, 0, "score", None, 0.0), *ROWS[5:]], "perplexity of 0.0"),
        ([(0, 0, "fork", 5, None), *ROWS[5:]], "fork"),
        ([(0, 1, "draft", 0, None), *ROWS[5:]], "sample 0: a draft in turn 1 follows on nothing"),
        ([(0, 0, "draft", None, None), *ROWS[5:]], "sample 0: a piece of nan tokens"),
        ([(0, 0, "draft", -5, None), *ROWS[5:]], "sample 0: a piece of -5 tokens"),
        ([(0, 0, "draft", 2**60, None), *ROWS[5:]], r"sample 0: a piece of 1.15292e\+18 tokens"),
        ([(0, 0, "draft", 5, None), (0, 0, "score", None, None), *ROWS[5:]], "perplexity of nan"),
    ],
)
def test_a_trace_that_makes_no_chains_is_refused(tmp_path: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trace(trace_of(tmp_path, rows))


NAN, TEXT = float("nan"), "many"


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("events", "sample", NAN, "missing or negative sample"),
        ("events", "turn", -1, "missing or negative turn"),
        ("events", "turn", 0.5, "a turn that is no whole number"),
        ("events", "turn", float("inf"), "a turn that is no whole number"),
        ("events", "tokens", TEXT, "other than numbers in column tokens"),
        ("events", "tokens", float("inf"), "a piece of inf tokens"),
        ("events", "ppl", TEXT, "other than numbers in column ppl"),
        ("samples", "problem", NAN, "missing or negative problem"),
        ("samples", "problem", TEXT, "other than numbers in column problem"),
        ("samples", "question_chars", NAN, "missing or negative question_chars"),
        ("samples", "question_chars", TEXT, "other than numbers in column question_chars"),
        ("samples", "duration_s", TEXT, "other than numbers in column duration_s"),
    ],
)
def test_a_trace_of_something_else_than_numbers_is_refused(
    tmp_path: Path, table: str, column: str, value: object, message: str
) -> None:
    path = trace_of(tmp_path, ROWS)
    spoilt = path.with_name(f"made.{table}.parquet")
    pd.read_parquet(spoilt).assign(**{column: value}).to_parquet(spoilt)
    with pytest.raises(InputError, match=f"^trace .*{table}.parquet.* {message}"):
        read_trace(path)


def test_a_duration_or_an_answer_that_a_trace_lacks_is_not_known(tmp_path: Path) -> None:
    path = trace_of(tmp_path, ROWS)
    samples = path.with_name("made.samples.parquet")
    answers = pd.array([None, "7", "invalid", "invalid"], dtype="string")
    pd.read_parquet(samples).assign(duration_s=NAN, final_answer=answers).to_parquet(samples)
    recorded = read_trace(path)
    assert {chain.duration_s for chain in recorded.recorded.values()} == {None}


def test_a_trace_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_trace(tmp_path / "none.events.parquet")
    path = trace_of(tmp_path, ROWS)
    pd.read_parquet(path).drop(columns="tokens").to_parquet(path)
    with pytest.raises(InputError, match="lacks the columns tokens"):
        read_trace(path)
    path.write_text("no table")
    with pytest.raises(InputError, match="not a Parquet table"):
        read_trace(path)
    with_metadata(trace_of(tmp_path, ROWS), "[" * 100_000)
    with pytest.raises(InputError, match="not a Parquet table"):
        read_trace(path)


@pytest.mark.parametrize("takeover", ["continue", "resample"])
def test_a_run_of_ours_is_replayed_with_its_verdicts_ends_and_marks(tmp_path: Path, takeover: str) -> None:
    config = settings("async-marginal", takeover=takeover)
    record_run(tmp_path / "run", config)
    records = drive(config).records
    recorded = read_run(tmp_path / "run")
    run = simulate(recorded)
    calls = {(r.chain, r.turn, r.kind): r.new_tokens for r in run.requests}
    assert calls == {
        (chain, c.turn, c.kind): max(1, c.tokens_new)
        for chain, record in records.items()
        for c in record.calls
        if (chain, c.turn, c.kind) in calls
    }
    assert len(calls) == sum(len(record.calls) for record in records.values())
    assert {f.chain: (f.reason, f.turns) for f, _ in run.finished} == {
        chain: (record.reason, record.turns) for chain, record in records.items()
    }
    assert run.correct == {chain: record.correct for chain, record in records.items()}


def test_part_of_a_recording_is_its_questions_renumbered(tmp_path: Path) -> None:
    whole = read_trace(trace_of(tmp_path, ROWS))
    part = whole.part([1])
    assert part.questions == 1
    assert part.prompt_tokens(0, "draft") == whole.prompt_tokens(1, "draft")
    assert part.written(Draft(0, ChainId(0, 0), 0, 500)) == whole.written(Draft(0, ChainId(1, 0), 0, 500))


def test_missing_chains_and_failed_ones_are_refused(tmp_path: Path) -> None:
    records = list(drive(settings("draft-only")).records.values())
    with pytest.raises(InputError, match="same number of chains"):
        from_records(records[1:], replaces=False)
    with pytest.raises(InputError, match="cannot read"):
        read_run(tmp_path)


def test_chains_that_were_stopped_are_refused() -> None:
    records = list(drive(settings("draft-only")).records.values())
    records[0].reason = "stopped"
    with pytest.raises(InputError, match=r"the run has 1 stopped chains: .* give a run without early stops"):
        from_records(records, replaces=False)
