"""Claims about the run directory: what it holds after a run, and that nothing in it contradicts the summary."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest

from atts_runtime.config import RunConfig, read_options
from atts_runtime.control import POLICIES, ChainId
from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import machine_name
from atts_runtime.records import AlarmRecord, CallRecord, ChainRecord, HoldRecord
from atts_runtime.rundir import RunDir
from tests.runtime.scripted import Fault, open_run, pair, record_run, settings, task_of

FILES = {
    "config.toml",
    "manifest.json",
    "chains.jsonl",
    "events.parquet",
    "samples.parquet",
    "telemetry.parquet",
    "summary.json",
}
TRACE_COLUMNS = {
    "sample": "int64",
    "problem": "int64",
    "seq": "int64",
    "turn": "int64",
    "attempt": "int64",
    "chars": "int64",
    "tokens": "int64",
    "ppl": "Float64",
    "percentile": "Float64",
    "accepted": "boolean",
    "forked_from": "Int64",
}
OUR_COLUMNS = {
    "t_queued_s": "float64",
    "t_start_s": "Float64",
    "t_end_s": "Float64",
    "tokens_new": "int64",
    "tokens_cached": "Int64",
    "flops": "Int64",
    "bytes": "Float64",
    "p_value": "Float64",
    "alpha": "Float64",
    "taken_over": "boolean",
}


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def records_in(path: Path) -> list[ChainRecord]:
    return [ChainRecord.from_line(line) for line in (path / "chains.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_leaves_the_files_of_the_contract_and_nothing_else(policy: str, tmp_path: Path) -> None:
    summary = record_run(tmp_path / "deep" / "run", settings(policy))
    folder = tmp_path / "deep" / "run"
    assert {file.name for file in folder.iterdir()} == FILES
    assert strict_json((folder / "summary.json").read_text()) == summary
    assert summary["run_dir"] == str(folder)
    for line in (folder / "chains.jsonl").read_text().splitlines():
        strict_json(line)
    strict_json((folder / "manifest.json").read_text())


def test_chains_are_in_order_once_the_run_is_over(tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-marginal"), pair(order=3))
    chains = [record.chain for record in records_in(tmp_path)]
    assert chains == [ChainId(q, i) for q in range(3) for i in range(4)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"questions": None, "budget": 0, "threads": 2, "device": "cpu", "kv_budget_tokens": 5},
        {"temperature": 1, "alpha": 1e-9, "call_timeout_s": float("inf"), "seed": 2**63 - 1},
        {"draft": 'a "b"\\c\n\u00e9', "out": "", "p_value": "plain", "takeover": "resample"},
    ],
)
def test_config_toml_reads_back_as_the_configuration(changes: dict[str, Any], tmp_path: Path) -> None:
    config = settings("barrier").with_options(changes)
    open_run(tmp_path, config).close()
    again = RunConfig().with_options(read_options(tmp_path / "config.toml"))
    assert again == config
    assert again.fingerprint("x") == config.fingerprint("x")


def test_the_manifest_says_what_ran_where_and_with_which_settings(tmp_path: Path) -> None:
    config = settings("barrier", seed=7)
    open_run(tmp_path, config).close()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["fingerprint"] == config.fingerprint(task_of(config).fingerprint)
    assert manifest["seed"] == 7
    assert {"python", "atts", "torch", "transformers", "numpy"} <= manifest["versions"].keys()
    assert manifest["versions"]["numpy"]
    assert {"cores", "memory_bytes", "machine"} <= manifest["hardware"].keys()
    assert manifest["hardware"]["cpu"] == machine_name()  # so that a run finds the profiles of its machine
    assert len(manifest["sessions"]) == 1


def test_the_manifest_says_which_questions_were_asked(tmp_path: Path) -> None:
    config = settings("barrier")
    record_run(tmp_path, config)
    told = json.loads((tmp_path / "manifest.json").read_text())["task"]
    fingerprint = task_of(config).fingerprint
    assert told == {"name": "arithmetic", "source": "bundled", "fingerprint": fingerprint}


@pytest.mark.parametrize("policy", POLICIES)
def test_events_have_a_row_a_call_in_the_columns_of_the_contract(policy: str, tmp_path: Path) -> None:
    record_run(tmp_path, settings(policy), pair(draft={"faults": {ChainId(2, 3): Fault("error", "generate", first=1)}}))
    events = pd.read_parquet(tmp_path / "events.parquet")
    types = {name: str(kind) for name, kind in events.dtypes.items()}
    assert types.items() >= (TRACE_COLUMNS | OUR_COLUMNS).items()
    assert {"kind", "question", "engine"} <= types.keys()
    records = records_in(tmp_path)
    assert len(events) == sum(len(record.calls) for record in records)
    for record in records:
        rows = events[events["sample"] == record.question * 4 + record.index]
        assert rows["seq"].tolist() == list(range(len(record.calls)))
        assert rows["problem"].tolist() == [record.question] * len(rows)
        assert rows["question"].tolist() == [record.question_id] * len(rows)
        names = {"draft": "draft", "score": "score", "target": "takeover", "grade": "grade"}
        assert [names[kind] for kind in rows["kind"]] == [call.kind for call in record.calls]
        assert rows["tokens_new"].tolist() == [call.tokens_new for call in record.calls]
        taken = [None if flag is pd.NA else bool(flag) for flag in rows["taken_over"]]
        assert taken == [call.taken_over for call in record.calls]
    assert events["flops"].isna().all()
    stands = events["outcome"].dropna() == "stands"
    assert (events["accepted"].dropna() == stands).all()
    assert (events["taken_over"].dropna() == (events["outcome"].dropna() == "takeover")).all()


def test_a_call_that_reached_no_engine_has_no_start_in_the_events(tmp_path: Path) -> None:
    record_run(
        tmp_path,
        settings("draft-only", questions=1, chains=1),
        pair(draft={"faults": {ChainId(0, 0): Fault("error", "generate")}}),
    )
    (row,) = pd.read_parquet(tmp_path / "events.parquet").to_dict("records")
    assert row["t_start_s"] is pd.NA or pd.isna(row["t_start_s"])
    assert row["t_end_s"] >= row["t_queued_s"]
    assert json.loads((tmp_path / "summary.json").read_text())["takeover_rate"] is None


def test_samples_have_a_row_a_chain(tmp_path: Path) -> None:
    record_run(tmp_path, settings("async-marginal"))
    samples = pd.read_parquet(tmp_path / "samples.parquet")
    records = records_in(tmp_path)
    assert samples["final_answer"].tolist() == [record.answer for record in records]
    assert samples["correct"].tolist() == [record.correct for record in records]
    assert samples["sample"].tolist() == list(range(12))
    assert (samples["duration_s"] > 0).all()


def test_rows_are_in_the_order_of_chains_and_so_are_votes_that_tie(tmp_path: Path) -> None:
    config = settings("draft-only", questions=1, chains=2, turns=1)
    (question,) = task_of(config).questions
    answers = [question.answer, "no"]
    writes = {(ChainId(0, i), 0): (f"\\boxed{{{answer}}}", True) for i, answer in enumerate(answers)}
    for order in range(6):
        summary = record_run(tmp_path / str(order), config, pair(order, draft={"writes": writes}))
        assert summary["accuracy"]["majority"] == 1.0
        samples = pd.read_parquet(tmp_path / str(order) / "samples.parquet")
        assert samples["final_answer"].tolist() == answers
        assert pd.read_parquet(tmp_path / str(order) / "events.parquet")["sample"].tolist() == [0, 1]


def test_tokens_of_the_summary_are_those_of_the_events(tmp_path: Path) -> None:
    summary = record_run(tmp_path, settings("async-marginal"))
    by_kind = pd.read_parquet(tmp_path / "events.parquet").groupby("kind")["tokens_new"].sum()
    tokens = summary["tokens"]
    assert (tokens["draft"], tokens["scored"], tokens["takeover"]) == tuple(by_kind[["draft", "score", "target"]])


def test_a_finished_chain_is_on_disk_at_once(tmp_path: Path) -> None:
    run_dir = open_run(tmp_path, settings("barrier"))
    record = ChainRecord(0, 1, "q", reason="failed", detail="why")
    run_dir.add(record)
    assert records_in(tmp_path) == [record]
    run_dir.close()


def test_a_record_with_a_nan_is_never_written(tmp_path: Path) -> None:
    run_dir = open_run(tmp_path, settings("barrier"))
    with pytest.raises(ValueError, match="JSON"):
        run_dir.add(ChainRecord(0, 1, "q", t_end_s=float("nan")))
    run_dir.close()
    assert (tmp_path / "chains.jsonl").read_bytes() == b""
    assert run_dir.finished == []


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    record_run(tmp_path, settings("target-only"))
    before = (tmp_path / "chains.jsonl").read_bytes()
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        open_run(tmp_path, settings("target-only"))
    assert (tmp_path / "chains.jsonl").read_bytes() == before


def test_a_folder_below_a_file_or_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match=r"cannot write the run directory .*; choose another --out"):
            RunDir.check_free(path)


def test_chains_that_are_left_of_another_run_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    record_run(tmp_path, settings("draft-only"))
    (tmp_path / "manifest.json").unlink()
    kept = (tmp_path / "chains.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"chains\.jsonl is left of another run; remove it or choose another --out"):
        open_run(tmp_path, settings("draft-only"))
    assert (tmp_path / "chains.jsonl").read_bytes() == kept


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_run_takes_one_session_at_a_time(tmp_path: Path) -> None:
    config = settings("draft-only")
    first = open_run(tmp_path, config)
    again = "import sys; from pathlib import Path; from atts_runtime.rundir import RunDir; "
    again += "RunDir.resume(Path(sys.argv[1]), sys.argv[2]).close()"
    other = [sys.executable, "-c", again, str(tmp_path), config.fingerprint(task_of(config).fingerprint)]
    refused = subprocess.run(other, capture_output=True, text=True, check=False)
    assert refused.stderr.endswith(f"InputError: another session writes {tmp_path}; wait for its end\n")
    first.close()
    subprocess.run(other, check=True)
    resumed = open_run(tmp_path, config, resume=True)
    assert subprocess.run(other, capture_output=True, text=True, check=False).returncode
    resumed.close()


def test_a_slow_disk_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains are written in their order, at once, while the disk is at its first."""
    run = open_run(tmp_path / "run", settings("draft-only"))
    free = threading.Event()

    def slow(descriptor: int) -> None:
        assert free.wait(10)

    monkeypatch.setattr("atts_runtime.rundir.os.fsync", slow)
    for index in range(3):
        run.add(ChainRecord(0, index, "made/0", "answered"))
    lines = (tmp_path / "run" / "chains.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]
    free.set()
    run.close()


def test_a_chain_that_cannot_be_synced_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(tmp_path / "run", settings("draft-only"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("atts_runtime.rundir.os.fsync", full)
    run.add(ChainRecord(0, 0, "made/0", "answered"))
    with pytest.raises(OSError, match="No space left"):
        run.close()


def test_a_record_s_line_has_every_field_of_all_its_parts() -> None:
    calls = [CallRecord(0, "draft", "draft", answer="é\u2028", ell=0.25), CallRecord(0, "score", "target", flops=3)]
    record = ChainRecord(
        1, 2, "q", calls=calls, holds_s=[HoldRecord("bank", 0.5, 1.5)], alarms=[AlarmRecord(0, "drift", "up", 7)]
    )
    assert json.loads(record.to_line()) == asdict(record)
    assert ChainRecord.from_line(record.to_line()) == record
    with pytest.raises(TypeError, match="holds a set, which is not JSON"):
        replace(record, answer={1}).to_line()
