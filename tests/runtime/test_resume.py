"""Claims about going on with a run that was stopped: nothing finished is lost, run again or counted differently."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from atts_runtime import telemetry
from atts_runtime.config import RunConfig
from atts_runtime.control import POLICIES, ChainId
from atts_runtime.driver import Driver
from atts_runtime.engines.base import Engine
from atts_runtime.errors import InputError
from atts_runtime.records import ChainRecord
from atts_runtime.rundir import ended
from atts_runtime.session import roles, run_once
from tests.runtime.scripted import (
    Fault,
    drive,
    open_run,
    pair,
    record_run,
    scripted,
    settings,
    task_of,
    untimed,
)

ALL_CHAINS = 12
TOTALS = ("tokens", "accuracy", "takeover_rate", "takeover_rate_by_turn", "turns_mean", "chains", "failed_chains")


def stopped_run(
    path: Path, config: RunConfig, after: int, engines: dict[str, Engine] | None = None, *, resume: bool = False
) -> None:
    """A run that is cancelled once `after` chains are finished, earlier ones included."""

    async def run() -> None:
        run_dir = open_run(path, config, resume=resume)
        add = run_dir.add

        def counted(record: ChainRecord) -> None:
            add(record)
            if len(run_dir.finished) == after:
                running.cancel()

        run_dir.add = counted  # type: ignore[method-assign]
        work = run_once(config, task_of(config), engines or pair(), run_dir, lambda _: None)
        running = asyncio.create_task(work)
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(run())


def lines(path: Path) -> list[ChainRecord]:
    return [ChainRecord.from_line(line) for line in (path / "chains.jsonl").read_bytes().split(b"\n")[:-1]]


def tear_last_line(path: Path) -> None:
    """Cut the last line in its middle, as a crash does."""
    chains = path / "chains.jsonl"
    data = chains.read_bytes()
    start = data.rfind(b"\n", 0, len(data) - 1) + 1
    os.truncate(chains, (start + len(data)) // 2)


@pytest.mark.parametrize("after", [1, 5, 10])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_run_redoes_no_finished_chain_and_totals_what_an_unbroken_one_does(
    policy: str, after: int, tmp_path: Path
) -> None:
    config = settings(policy, takeover="resample" if after == 5 else "continue")
    unbroken = record_run(tmp_path / "unbroken", config)
    stopped_run(tmp_path / "stopped", config, after, pair(order=1))
    tear_last_line(tmp_path / "stopped")
    kept = lines(tmp_path / "stopped")
    assert after - 1 <= len(kept) < ALL_CHAINS
    engines = pair(order=2)
    resumed = record_run(tmp_path / "stopped", config, engines, resume=True)
    called = {chain for role in roles(settings(policy)).values() for chain in scripted(engines, role).calls}
    assert not called & {record.chain for record in kept}
    assert len(called) == ALL_CHAINS - len(kept)
    final = lines(tmp_path / "stopped")
    assert all(record in final for record in kept)
    if POLICIES[policy].order_free:
        assert {key: resumed[key] for key in TOTALS} == {key: unbroken[key] for key in TOTALS}
        assert [untimed(record) for record in final] == [untimed(record) for record in lines(tmp_path / "unbroken")]


@pytest.mark.parametrize("policy", ["barrier", "async-marginal"])
def test_a_run_may_be_stopped_again_and_again(policy: str, tmp_path: Path) -> None:
    config = settings(policy, questions_in_flight=1)
    unbroken = record_run(tmp_path / "unbroken", config)
    stopped_run(tmp_path / "run", config, 3)
    for _ in range(2):
        done = len(lines(tmp_path / "run"))
        stopped_run(tmp_path / "run", config, done + 2, resume=True)
        assert len(lines(tmp_path / "run")) >= done + 2
    resumed = record_run(tmp_path / "run", config, resume=True)
    assert {key: resumed[key] for key in TOTALS} == {key: unbroken[key] for key in TOTALS}
    assert len(json.loads((tmp_path / "run/manifest.json").read_text())["sessions"]) == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_finished_run_resumes_into_the_same_totals_without_a_call(policy: str, tmp_path: Path) -> None:
    config = settings(policy)
    whole = record_run(tmp_path, config)
    engines = pair()
    again = record_run(tmp_path, config, engines, resume=True)
    assert not any(scripted(engines, role).calls for role in engines)
    assert {key: again[key] for key in TOTALS} == {key: whole[key] for key in TOTALS}
    assert again["stall_s"] == whole["stall_s"]
    assert again["latency_s"] == whole["latency_s"]


STOPS: list[dict[str, Any]] = [{"early_stop": "majority"}, {"token_budget": 900}, {"vote": "confidence"}]


@pytest.mark.parametrize("parts", STOPS, ids=str)
@pytest.mark.parametrize("policy", ["draft-only", "async-marginal", "barrier", "fork", "async-adaptive"])
def test_a_finished_run_with_stopped_chains_resumes_without_a_call(
    policy: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    config = settings(policy, chains=8, **parts)
    whole = record_run(tmp_path, config)
    assert whole["stopped_chains"] or "vote" in parts or (parts.get("early_stop") and policy != "draft-only")
    engines = pair()
    again = record_run(tmp_path, config, engines, resume=True)
    assert not any(scripted(engines, role).calls for role in engines)
    for name in ("accuracy", "tokens", "stopped_chains", "outcomes", "turns_mean"):
        assert again[name] == whole[name]


@pytest.mark.parametrize("after", [1, 6, 15])
@pytest.mark.parametrize("policy", ["draft-only", "async-marginal", "barrier", "fork"])
def test_a_broken_run_with_stopped_chains_keeps_them_and_ends(policy: str, after: int, tmp_path: Path) -> None:
    config = settings(policy, chains=8, early_stop="majority")
    stopped_run(tmp_path, config, after)
    kept = lines(tmp_path)
    record_run(tmp_path, config, pair(order=3), resume=True)
    final = lines(tmp_path)
    assert len({record.chain for record in final}) == len(final) == 24
    assert all(record in final for record in kept)
    for record in final:
        assert (record.reason == "stopped") == (record.detail == "majority")


@pytest.mark.parametrize("parts", [{"schedule": "barrier"}, {"attempts": 1}], ids=str)
@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_broken_run_of_chains_that_copy_each_other_goes_on(after: int, parts: dict[str, Any], tmp_path: Path) -> None:
    config = settings("fork", **parts)
    stopped_run(tmp_path, config, after)
    kept = lines(tmp_path)
    record_run(tmp_path, config, pair(order=1), resume=True)
    final = lines(tmp_path)
    assert len({record.chain for record in final}) == len(final) == ALL_CHAINS
    assert all(record in final for record in kept)
    assert not any(record.reason == "failed" for record in final)


@pytest.mark.parametrize("method", ["generate", "score"])
@pytest.mark.parametrize("policy", ["barrier", "async-marginal", "async-conditional"])
def test_a_failed_chain_is_replayed_as_failed_and_not_tried_again(policy: str, method: Any, tmp_path: Path) -> None:
    config = settings(policy)
    faults = {ChainId(0, 1): Fault("error", method), ChainId(2, 0): Fault("error", method, first=1)}
    role = {"draft" if method == "generate" else "target": {"faults": faults}}
    whole = record_run(tmp_path / "whole", config, pair(**role))
    first = drive(config, pair(**role)).records
    run_dir = open_run(tmp_path / "run", config)
    for chain in (*faults, ChainId(1, 3)):
        run_dir.add(first[chain])
    run_dir.close()
    engines = pair(**role)
    resumed = record_run(tmp_path / "run", config, engines, resume=True)
    assert not any(scripted(engines, r).calls[chain] for r in engines for chain in faults)
    assert resumed["failed_chains"] == 2
    assert {key: resumed[key] for key in TOTALS} == {key: whole[key] for key in TOTALS}
    assert [untimed(r) for r in lines(tmp_path / "run")] == [untimed(r) for r in lines(tmp_path / "whole")]


def test_the_clock_of_a_resumed_run_goes_on_where_the_last_finished_chain_left_it(tmp_path: Path) -> None:
    config = settings("async-marginal")
    stopped_run(tmp_path, config, 4)
    kept = lines(tmp_path)
    resumed = record_run(tmp_path, config, resume=True)
    before = max(record.t_end_s for record in kept)
    later = [record for record in lines(tmp_path) if record.chain not in {r.chain for r in kept}]
    assert all(call.t_queued_s >= before for record in later for call in record.calls)
    assert resumed["wall_s"] >= max(record.t_end_s for record in later)


def test_progress_of_a_resumed_run_starts_from_what_was_kept(tmp_path: Path) -> None:
    config = settings("async-marginal")
    finished = list(drive(config).records.values())
    driver = Driver(config, task_of(config), pair(), finished=finished[:5], on_finish=lambda _: None)
    assert (driver.progress.chains, driver.progress.chains_done) == (ALL_CHAINS, 5)


# -- what cannot be resumed


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"alpha": 0.5}, {"chains": 5}, {"policy": "barrier"}, {"temperature": 0.0}, {"turns": 3}]
)
def test_another_configuration_is_refused_and_config_toml_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    config = settings("async-marginal")
    open_run(tmp_path, config).close()
    with pytest.raises(InputError, match=r"another configuration.*config\.toml"):
        open_run(tmp_path, config.with_options(change), resume=True)


def test_another_task_is_refused(tmp_path: Path) -> None:
    config = settings("async-marginal")
    open_run(tmp_path, config).close()
    with pytest.raises(InputError, match="another configuration"):
        open_run(tmp_path, config.with_options({"questions": 2}), resume=True)


def test_where_and_how_fast_may_change(tmp_path: Path) -> None:
    config = settings("async-marginal")
    stopped_run(tmp_path, config, 2)
    change = {"out": "else", "max_rows": 3, "device": "cpu", "threads": 1, "call_timeout_s": 99.0, "retries": 0}
    record_run(tmp_path, config.with_options(change), resume=True)
    assert len(lines(tmp_path)) == ALL_CHAINS


def test_an_empty_folder_holds_no_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run to resume"):
        open_run(tmp_path, settings("barrier"), resume=True)


def test_neither_does_a_folder_that_is_not_there_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(InputError, match="holds no run to resume"):
            open_run(path, settings("barrier"), resume=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "holds no JSON object"),
        ('{"sessions": 1}', ": 'sessions' must be a list"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_manifest_that_is_none_is_named(content: str, said: str, tmp_path: Path) -> None:
    open_run(tmp_path, settings("barrier")).close()
    manifest = tmp_path / "manifest.json"
    kept = {"fingerprint": json.loads(manifest.read_text())["fingerprint"]}
    manifest.write_text(json.dumps(json.loads(content) | kept) if "sessions" in content else content)
    with pytest.raises(InputError, match=rf"manifest\.json{said if said[0] == ':' else ' ' + said}"):
        open_run(tmp_path, settings("barrier"), resume=True)


@pytest.mark.parametrize("name", ["manifest.json", "summary.json"])
def test_a_run_is_over_only_if_its_files_say_so(name: str, tmp_path: Path) -> None:
    config = settings("barrier")
    fingerprint = config.fingerprint(task_of(config).fingerprint)
    summary = record_run(tmp_path, config)
    assert ended(tmp_path, fingerprint) == summary
    for content in ("[" * 100_000, "[]", "{}"):
        (tmp_path / name).write_text(content)
        assert ended(tmp_path, fingerprint) is None


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda line: line[: len(line) // 2],
    "empty": lambda line: b"",
    "not an object": lambda line: b"[1, 2]",
    "a key missing": lambda line: line.replace(b'"holds_s"', b'"held"'),
    "an unknown key": lambda line: line.replace(b'{"question"', b'{"mood": 1, "question"'),
    "not UTF-8": lambda line: line.replace(b"arithmetic", b"arithm\xfftic"),
}


@pytest.mark.parametrize("broken", BREAKS.values(), ids=BREAKS)
def test_a_broken_line_before_the_last_is_refused_by_its_number(
    broken: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    config = settings("target-only")
    stopped_run(tmp_path, config, 3)
    chains = tmp_path / "chains.jsonl"
    first, second, *rest = chains.read_bytes().split(b"\n")
    chains.write_bytes(b"\n".join([first, broken(second), *rest]))
    with pytest.raises(InputError, match=r"chains\.jsonl line 2: not a chain record"):
        open_run(tmp_path, config, resume=True)


def test_a_chain_told_twice_is_refused_by_its_lines(tmp_path: Path) -> None:
    config = settings("target-only")
    stopped_run(tmp_path, config, 3)
    chains = tmp_path / "chains.jsonl"
    first, second, *_ = chains.read_bytes().splitlines(keepends=True)
    chains.write_bytes(first + second + first)
    with pytest.raises(InputError, match=r"chains\.jsonl line 3: the chain of line 1 again; remove one of them"):
        open_run(tmp_path, config, resume=True)


def test_line_separators_and_other_odd_characters_in_a_text_survive(tmp_path: Path) -> None:
    config = settings("target-only")
    record = drive(config).records[ChainId(0, 0)]
    record.text = "a\u2028b\u0085c\x0bd\x1ce\rf\u00e9\U0001f600"
    run_dir = open_run(tmp_path, config)
    run_dir.add(record)
    run_dir.close()
    again = open_run(tmp_path, config, resume=True)
    again.close()
    assert again.finished == [record]


def test_a_line_torn_inside_a_character_is_dropped(tmp_path: Path) -> None:
    config = settings("target-only")
    records = list(drive(config).records.values())
    run_dir = open_run(tmp_path, config)
    for record in records[:2]:
        record.text = "\u00e9"
        run_dir.add(record)
    run_dir.close()
    chains = tmp_path / "chains.jsonl"
    os.truncate(chains, chains.read_bytes().rfind("\u00e9".encode()) + 1)
    again = open_run(tmp_path, config, resume=True)
    again.close()
    assert again.finished == records[:1]
    assert chains.read_bytes().count(b"\n") == 1


def test_telemetry_is_on_the_clock_of_the_run_which_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_TICK_S", 0.0)
    config = settings("barrier")
    stopped_run(tmp_path, config, 5)
    before_s = max(record.t_end_s for record in lines(tmp_path))
    record_run(tmp_path, config, resume=True)
    times = pd.read_parquet(tmp_path / "telemetry.parquet")["t_s"]
    assert len(times) > 0
    assert before_s <= times.min() <= times.max()
    assert times.is_monotonic_increasing
