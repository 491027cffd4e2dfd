"""``atts-runtime run --engine http`` against servers on real sockets: mistakes, outages, what is kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atts_runtime.cli import main
from atts_runtime.engines import http_pool
from atts_runtime.engines.vllm_model import vocabulary_of
from atts_runtime.engines.vocabulary import Vocabulary
from tests.runtime.engines.http_stub import Fault, Stub, stubs

Capture = pytest.CaptureFixture[str]
KEY = "sk-very-secret"
STUDY = ("--engine", "http", "--questions", "2", "--chains", "3", "--turns", "3", "--profiler", "off")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and waits in hundredths of seconds."""
    monkeypatch.setattr(http_pool, "_LOOK_S", 0.02)
    monkeypatch.setattr(http_pool, "_BACKOFF_S", 0.01)


@pytest.fixture(scope="session")
def vocabulary(tiny_target: Path) -> Vocabulary:
    return vocabulary_of(str(tiny_target))


@pytest.fixture
def served(vocabulary: Vocabulary) -> Iterator[tuple[Stub, Stub]]:
    """Draft and target."""
    with stubs(Stub(vocabulary, delay_s=0.01), Stub(vocabulary, delay_s=0.01)) as made:
        yield made


@pytest.fixture
def options(tiny_target: Path, served: tuple[Stub, Stub], tmp_path: Path) -> list[str]:
    """A run on both."""
    draft, target = served
    models = ["--draft", str(tiny_target), "--target", str(tiny_target), "--draft-name", "m", "--target-name", "m"]
    return [
        "run",
        *STUDY,
        *models,
        "--draft-url",
        draft.url,
        "--target-url",
        target.url,
        "--out",
        str(tmp_path / "run"),
    ]


def goes_wrong(stub: Stub, fault: Fault) -> None:
    """Every answer of the server, from its eighth call on."""

    def later() -> None:
        while len(stub.seen) < 8:
            time.sleep(0.001)
        stub.always = fault

    threading.Thread(target=later, daemon=True).start()


def test_a_run_keeps_no_key(
    options: list[str], served: tuple[Stub, Stub], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)
    draft, target = served
    target._key = KEY
    assert main([*options, "--target-key-env", "THEIR_KEY", "--json", "--debug"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["failed_chains"], summary["chains"]) == (0, 6)
    assert summary["engines"]["target"]["outages"] == []
    assert summary["engines"]["target"]["steps"] is None  # it tells no metrics
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").iterdir())
    assert KEY.encode() not in written
    assert KEY not in out + err
    assert 'target_key_env = "THEIR_KEY"' in (tmp_path / "run" / "config.toml").read_text()
    assert {seen.authorization for seen in draft.seen} == {None}  # another's key stays away


def test_a_failed_score_fails_its_chain_with_the_reason(
    options: list[str], served: tuple[Stub, Stub], tmp_path: Path, capsys: Capture
) -> None:
    goes_wrong(served[1], Fault(nan="NaN"))
    assert main([*options, "--policy", "barrier", "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (tmp_path / "run" / "chains.jsonl").read_text().splitlines()]
    failed = [line for line in lines if line["reason"] == "failed"]
    assert len(failed) == summary["failed_chains"] >= 1
    assert all("nan for a log-probability" in line["detail"] for line in failed)
    assert all(call["ell"] is None for line in failed for call in line["calls"][-1:])


def test_a_call_that_failed_is_on_record_with_its_attempts(
    options: list[str], served: tuple[Stub, Stub], tmp_path: Path, capsys: Capture
) -> None:
    goes_wrong(served[1], Fault(status=500))
    assert main([*options, "--retries", "3", "--json"]) == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "chains.jsonl").read_text().splitlines()]
    last = [line["calls"][-1] for line in lines if line["reason"] == "failed"]
    assert len(last) == json.loads(capsys.readouterr().out)["failed_chains"] >= 1
    assert {call["attempts"] for call in last} <= {4, 5}  # one more where a score was asked by the cache first


def test_an_outage_beyond_patience_ends_the_run_to_be_resumed(
    options: list[str], served: tuple[Stub, Stub], tmp_path: Path, capsys: Capture
) -> None:
    _, target = served

    def outage() -> None:
        while len(target.seen) < 12:
            time.sleep(0.001)
        target.down()

    killer = threading.Thread(target=outage)
    killer.start()
    assert main([*options, "--patience-s", "0.5"]) == 1
    killer.join()
    err = capsys.readouterr().err
    assert f"no endpoint of the target answered within 0.5 s: {target.url}: " in err
    assert "Traceback" not in err
    assert "go on with --resume" in err
    target.up()
    assert main(["run", "--resume", "--out", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chains"] == 6
    lines = [json.loads(line) for line in (tmp_path / "run" / "chains.jsonl").read_text().splitlines()]
    assert len({(line["question"], line["index"]) for line in lines}) == len(lines) == 6


def test_an_outage_is_in_the_summary_and_the_report(
    options: list[str],
    served: tuple[Stub, Stub],
    tmp_path: Path,
    capsys: Capture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, target = served

    def outage() -> None:
        while len(target.seen) < 12:
            time.sleep(0.001)
        target.down()
        time.sleep(0.6)
        target.up()

    killer = threading.Thread(target=outage)
    killer.start()
    assert main([*options, "--json"]) == 0
    killer.join()
    summary = json.loads(capsys.readouterr().out)
    (seen,) = summary["engines"]["target"]["outages"]
    assert seen["endpoint"] == target.url
    assert seen["t_end_s"] - seen["t_start_s"] > 0.4
    assert 0 <= seen["t_start_s"] < seen["t_end_s"] <= summary["wall_s"]
    assert summary["engines"]["draft"]["outages"] == []
    assert f"target: {target.url} is down" in caplog.text
    assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"endpoint {target.url} was down for" in page.replace("\xa0", " ")
