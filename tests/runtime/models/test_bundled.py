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
from atts_runtime.models.evaluate import Step, auroc, decode_flops, draft_steps, repair_rate
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


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """Steps of questions that neither training nor the choice of a recipe has seen, each on a right prefix."""

    async def sample() -> list[Step]:
        async with engines_for(RunConfig(), {"draft", "target"}) as engines:
            return await draft_steps(engines, n_questions=20, chains=4, seed=901, temperature=0.8)

    return asyncio.run(sample())


def test_the_target_tells_wrong_draft_steps_apart(steps: list[Step]) -> None:
    wrong = [step.ell for step in steps if not step.right]
    assert len(wrong) >= 30
    assert auroc(wrong, [step.ell for step in steps if step.right]) >= 0.9


def test_the_continuing_target_mends_wrong_draft_steps(steps: list[Step]) -> None:
    """The card's rates, over hundreds of steps, are 0.86 and 0.80; these few leave room for chance."""
    wrong = [step for step in steps if not step.right]
    assert repair_rate(wrong)["rate"] >= 0.75
    assert repair_rate([step for step in wrong if not step.repeats])["rate"] >= 0.7


def test_a_step_that_only_repeats_is_told_from_one_with_a_wrong_value(steps: list[Step]) -> None:
    wrong = [step for step in steps if not step.right]
    assert 0 < sum(step.repeats for step in wrong) < len(wrong)
    assert all(step.repaired is None for step in steps if step.right)


def test_repair_of_nothing_is_unknown() -> None:
    assert repair_rate([]) == {"of": 0, "rate": None, "ci95": None}


async def study(folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Summaries of three policies on the same questions and engines."""
    config = RunConfig(**options)
    task = load_task(config.task, config.questions, config.seed)
    summaries = {}
    async with engines_for(config, {"draft", "target"}) as engines:
        for policy in ("draft-only", "target-only", "async-marginal"):
            run = config.with_options({"policy": policy})
            run_dir = RunDir.create(folder / policy, run, "")
            summaries[policy] = await run_once(run, task, engines, run_dir, lambda progress: None)
    return summaries


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 11, 12])
def test_resampling_keeps_the_targets_accuracy_for_less_than_half_its_tokens(tmp_path: Path, seed: int) -> None:
    found = asyncio.run(study(tmp_path, seed=seed, questions=40))
    accuracy = {policy: summary["accuracy"]["mean_chain"] for policy, summary in found.items()}
    assert accuracy["draft-only"] < 0.75
    assert accuracy["target-only"] >= 0.95
    assert accuracy["async-marginal"] >= accuracy["target-only"] - 0.02
    written = {policy: summary["tokens"]["takeover"] for policy, summary in found.items()}
    assert written["async-marginal"] <= written["target-only"] / 2
    assert found["async-marginal"]["tokens"]["score_prefix_recomputed"] == 0


@pytest.mark.slow
def test_continuing_wins_most_of_what_the_draft_loses(tmp_path: Path) -> None:
    found = asyncio.run(study(tmp_path, seed=11, questions=40, takeover="continue"))
    accuracy = {policy: summary["accuracy"]["mean_chain"] for policy, summary in found.items()}
    gap = accuracy["target-only"] - accuracy["draft-only"]
    assert accuracy["async-marginal"] >= accuracy["draft-only"] + 0.6 * gap
