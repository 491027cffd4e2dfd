"""The bundled draft under vLLM: the same files load, and score prompts as transformers does.

The target is held against transformers in `tests/runtime/engines/test_vllm.py`, the whole pair by its answers.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import atts_runtime.models
from atts_runtime.tasks.arithmetic import questions

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
vllm = pytest.importorskip("vllm", reason="vLLM is not installed (it wants an environment of its own)")
DRAFT = str(Path(atts_runtime.models.__file__).parent / "draft")


def test_vllm_scores_prompts_as_transformers_does() -> None:
    texts = [question.prompt + "".join(question.paragraphs) for question in islice(questions(6), 3)]
    engine = vllm.LLM(DRAFT, dtype="float32", max_model_len=1024, enforce_eager=True, kv_cache_memory_bytes=2**28)
    outputs = engine.generate(texts, vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0))
    tokenizer = AutoTokenizer.from_pretrained(DRAFT)
    model = AutoModelForCausalLM.from_pretrained(DRAFT, dtype=torch.float32).eval()
    for text, output in zip(texts, outputs, strict=True):
        ids = tokenizer.encode(text)
        assert output.prompt_token_ids == ids
        theirs = [row[i].logprob for row, i in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]
        with torch.inference_mode():
            log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1], dim=-1)
        ours = log_p.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert torch.allclose(torch.tensor(theirs), ours, atol=1e-3)
