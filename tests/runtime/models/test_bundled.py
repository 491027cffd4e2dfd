"""The bundled pair: what ships, and that it does what its card says."""

from __future__ import annotations

import asyncio
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import atts_runtime.models
from atts_runtime.config import RunConfig
from atts_runtime.models.evaluate import Step, auroc, decode_flops, draft_steps
from atts_runtime.rundir import RunDir
from atts_runtime.session import engines_for, run_once
from atts_runtime.tasks.arithmetic import questions
from atts_runtime.tasks.load import load_task

FOLDERS = {role: Path(atts_runtime.models.__file__).parent / role for role in ("draft", "target")}
VLLM_CPU_HEAD_DIMS = {32, 64, 96, 112, 128, 160, 192, 224, 256}


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_pair_takes_at_most_twenty_megabytes() -> None:
    assert sum(size_bytes(folder) for folder in FOLDERS.values()) <= 20_000_000


@pytest.mark.parametrize("role", FOLDERS)
def test_a_model_loads_from_its_folder_with_every_weight_present(role: str) -> None:
    model, report = AutoModelForCausalLM.from_pretrained(FOLDERS[role], dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.head_dim in VLLM_CPU_HEAD_DIMS
    assert (FOLDERS[role] / "tokenizer.json").is_file()
    assert getattr(AutoTokenizer.from_pretrained(FOLDERS[role]), "chat_template", None) is None


@pytest.mark.parametrize("role", FOLDERS)
def test_generation_stops_at_the_tokenizers_own_end_of_text(role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDERS[role])
    for name in ("config.json", "generation_config.json"):
        config = json.loads((FOLDERS[role] / name).read_text())
        assert config["eos_token_id"] == tokenizer.eos_token_id
        assert config["bos_token_id"] == tokenizer.bos_token_id
        assert config["pad_token_id"] == tokenizer.pad_token_id


@pytest.mark.parametrize("role", FOLDERS)
def test_the_tokenizer_gives_every_solution_back_unchanged(role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDERS[role])
    for question in islice(questions(5), 50):
        text = question.prompt + "".join(question.paragraphs)
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids


def test_a_target_token_costs_at_least_five_draft_tokens_in_flops() -> None:
    assert decode_flops(FOLDERS["target"]) >= 5 * decode_flops(FOLDERS["draft"])


def test_the_target_tells_wrong_draft_steps_apart() -> None:
    async def sample() -> list[Step]:
        async with engines_for(RunConfig(), {"draft", "target"}) as engines:
            return await draft_steps(engines, n_questions=12, chains=4, seed=901, temperature=0.8)

    steps = asyncio.run(sample())
    wrong = [step.ell for step in steps if not step.right]
    assert len(wrong) >= 10
    assert auroc(wrong, [step.ell for step in steps if step.right]) >= 0.9


@pytest.mark.slow
def test_resampling_keeps_the_targets_accuracy_for_less_than_half_its_tokens(tmp_path: Path) -> None:
    task = load_task("arithmetic", None, seed=0)

    async def study() -> dict[str, dict[str, Any]]:
        config = RunConfig()
        summaries = {}
        async with engines_for(config, {"draft", "target"}) as engines:
            for policy in ("draft-only", "target-only", "async-marginal"):
                run = config.with_options({"policy": policy})
                run_dir = RunDir.create(tmp_path / policy, run, "")
                summaries[policy] = await run_once(run, task, engines, run_dir, lambda progress: None)
        return summaries

    found = asyncio.run(study())
    accuracy = {policy: summary["accuracy"]["mean_chain"] for policy, summary in found.items()}
    assert accuracy["draft-only"] < 0.75
    assert accuracy["target-only"] >= 0.9
    assert accuracy["async-marginal"] >= accuracy["target-only"] - 0.05
    written = {policy: summary["tokens"]["takeover"] for policy, summary in found.items()}
    assert written["async-marginal"] <= written["target-only"] / 2
    assert found["async-marginal"]["tokens"]["score_prefix_recomputed"] == 0
