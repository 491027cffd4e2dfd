"""``atts-runtime run --engine http`` on the bundled pair under real vLLM servers: resumed, and through a kill."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.test_cli_vllm import DEADLINE_S, finish, lines, start
from tests.runtime.vllm_server import ROOT, VllmServer

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("vllm", reason="vLLM is not installed (it wants an environment of its own: make test-vllm)")

MODELS = ROOT / "atts_runtime" / "models"


def mistake(arguments: list[str], run: Path, **variables: str) -> str:
    """What the command says is wrong; it starts no run."""
    out, err = finish(start(*arguments, "--out", str(run), **variables), 2)
    assert out == ""
    assert "Traceback" not in err
    assert not (run / "manifest.json").exists()
    (wrong,) = [line for line in err.splitlines() if line.startswith("atts-runtime run: ")]
    return wrong


def test_a_server_that_wants_a_key_and_gives_no_log_probabilities(tmp_path: Path) -> None:
    """Two claims of one server, which is costly to start; done before the two of `served` run."""
    key = "sk-very-secret"
    server = VllmServer(MODELS / "target", "--logprobs-mode", "raw_logits", "--api-key", key)
    try:
        server.start()
        there, model = ["run", "--engine", "http"], str(MODELS / "target")
        for role in ("draft", "target"):
            there += [f"--{role}", model, f"--{role}-url", server.url]
        assert "wants an API key (401 Unauthorized): put one into" in mistake(there, tmp_path / "run")
        keys = ["--draft-key-env", "THEIR_KEY", "--target-key-env", "THEIR_KEY"]
        wrong = mistake([*there, *keys], tmp_path / "run", THEIR_KEY=key)
    finally:
        server.close()
    assert "gives no log-probabilities of a prompt" in wrong
    assert "it wants --logprobs-mode raw_logprobs" in wrong
    assert key not in wrong


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[VllmServer, VllmServer]]:
    """Draft and target, each started once."""
    pair = VllmServer(MODELS / "draft"), VllmServer(MODELS / "target")
    try:
        for server in pair:
            server.start(wait=False)
        for server in pair:
            server.ready()
        yield pair
    finally:
        for server in pair:
            server.close()


@pytest.fixture
def study(served: tuple[VllmServer, VllmServer]) -> list[str]:
    draft, target = served
    urls = ["--draft-url", draft.url, "--target-url", target.url]
    return ["run", "--engine", "http", *urls, "--questions", "8", "--chains", "8"]


def until_chains(run: Path, n: int, process: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while len(lines(run)) < n and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def check(summary: dict[str, Any], run: Path) -> None:
    """All chains are there, none twice, and as good as under any other engine."""
    chains = lines(run)
    assert len({(chain["question"], chain["index"]) for chain in chains}) == len(chains) == summary["chains"] == 64
    assert summary["failed_chains"] == 0
    assert summary["accuracy"]["mean_chain"] > 0.8  # 0.996 on 200 questions under the embedded engine
    calls = [call for chain in chains for call in chain["calls"] if call["kind"] == "score"]
    again, block = summary["tokens"]["score_prefix_recomputed"], 32
    assert again is not None
    assert again < block * len(calls) or summary["engines"]["target"]["outages"]
    assert summary["engines"]["target"]["prefix_hit_tokens"] > 0


def test_a_run_is_stopped_and_resumed(study: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(*study, "--out", str(run))
    until_chains(run, 5, first)
    first.send_signal(signal.SIGTERM)
    _, err = finish(first, 1)
    assert "Traceback" not in err
    before = lines(run)
    assert before
    out, _ = finish(start("run", "--resume", "--out", str(run), "--json"))
    summary = json.loads(out)
    check(summary, run)
    after = lines(run)  # in the order of the chains, no longer in that of their ends
    assert all(chain in after for chain in before)
    assert summary["engines"]["target"]["outages"] == []


def test_a_server_killed_and_restarted_loses_nothing(
    study: list[str], served: tuple[VllmServer, VllmServer], tmp_path: Path
) -> None:
    run, target = tmp_path / "run", served[1]
    process = start(*study, "--out", str(run), "--json")
    until_chains(run, 5, process)
    target.kill()
    time.sleep(1.0)
    target.start(wait=False)
    out, err = finish(process)
    summary = json.loads(out)
    check(summary, run)
    (outage,) = summary["engines"]["target"]["outages"]
    assert outage["endpoint"] == target.url
    assert outage["t_end_s"] > outage["t_start_s"] > 0
    assert "is down" in err
    assert "is back after" in err
    finish(start("report", str(run)))
    assert f"endpoint {target.url} was down for" in (run / "report.html").read_text().replace("\xa0", " ")


def test_bad_input_is_one_line(
    study: list[str], served: tuple[VllmServer, VllmServer], tiny_draft: Path, tmp_path: Path
) -> None:
    served_as = str(MODELS / "target")
    for more, said in (
        (["--target-name", "gone"], "serves no model 'gone', it has: "),
        (["--turns", "64"], "lower --turns, --draft-tokens or --takeover-tokens"),
        (["--target", str(tiny_draft), "--target-name", served_as], "encodes text unlike the tokenizer of"),
        (["--target-url", served[1].url.replace("http:", "https:")], "does it speak https at all?"),
    ):
        assert said in mistake([*study, *more], tmp_path / "run")
