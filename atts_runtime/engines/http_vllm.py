"""What is asked of a vLLM server and how its answers read.

`VllmTokens` speaks `/inference/v1/generate` (``vllm serve --enable-scale-out``): ids in and out, sampling parameters as
in process, so that a score reuses the prefix cache. `VllmCompletions` speaks `/v1/completions`, which every vLLM server
has: asking for log-probabilities of the prompt there makes the server compute all of it again.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from atts_runtime.engines.base import GenerateCall
from atts_runtime.engines.http_dialect import Ask, Figures, Rows, Written, logprobs
from atts_runtime.engines.vllm_scoring import Plan, Runner

_PLAIN = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Said outright: what is left out, a server takes from the model's generation_config.json."""


class VllmCompletions:
    """`/v1/completions` of vLLM for the model that it serves as `name`."""

    reuses_prefix = False

    def __init__(self, name: str) -> None:
        self._name = name

    def generate(self, ids: list[int], call: GenerateCall, figures: Figures) -> Ask:
        return self._completion(ids, figures.salt, _drawing(call, figures) | {"return_token_ids": True})

    def written(self, answer: Any) -> Written:
        choice = answer["choices"][0]
        told = choice.get("logprobs")
        nll = None if told is None else logprobs(told["token_logprobs"])
        return Written(choice["token_ids"], nll, _cached(answer))

    def score(self, plan: Plan, salt: str, *, cached: bool) -> Ask:
        return self._completion(plan.fed, salt, {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0})

    def scored(self, plan: Plan, answer: Any) -> Rows:
        return _rows(plan, answer["choices"][0], cached_tokens=0)

    def next_token(self, plan: Plan, salt: str) -> Ask:
        """How likely each of `plan.next_ids` is after what is fed; the prefix cache serves this one."""
        extra = {"logprobs": 0, "logprob_token_ids": list(plan.next_ids), "return_tokens_as_token_ids": True}
        return self._completion(plan.fed, salt, {"max_tokens": 1, "temperature": 0.0, **extra})

    def read_next(self, plan: Plan, answer: Any) -> Rows:
        top = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        return Rows(logprobs([top[f"token_id:{token}"] for token in plan.next_ids]), _cached(answer))

    def _completion(self, ids: list[int], salt: str, more: dict[str, Any]) -> Ask:
        return Ask("/v1/completions", {"model": self._name, "prompt": ids, "cache_salt": salt, **more})


class VllmTokens(VllmCompletions):
    """`/inference/v1/generate` of vLLM. `runner`: the server's model runner, which decides how scores are asked for.

    Without ``--enable-prompt-tokens-details`` a server does not say how much its cache served, and of runner v1 no
    score can then be told from what memory held: `reuses_prefix` is false.
    """

    def __init__(self, name: str, runner: Runner, *, tells_cached: bool) -> None:
        super().__init__(name)
        self._runner = runner
        self.reuses_prefix = tells_cached or runner == "v2"

    def generate(self, ids: list[int], call: GenerateCall, figures: Figures) -> Ask:
        return self._tokens(ids, figures.salt, _drawing(call, figures) | {"detokenize": call.stop is not None})

    def written(self, answer: Any) -> Written:
        choice = answer["choices"][0]
        told = choice.get("logprobs")
        nll = None if told is None else logprobs([token["logprob"] for token in told["content"]])
        return Written(choice["token_ids"], nll, _cached(answer))

    def score(self, plan: Plan, salt: str, *, cached: bool) -> Ask:
        cached = cached and self.reuses_prefix
        wanted: dict[str, Any] = {"prompt_logprobs": 0}
        if self._runner == "v2":
            wanted = {
                "prompt_logprob_token_ids": [[token] for token in plan.tokens],
                "prompt_logprob_start": plan.first - 1,
            }
        common = {"max_tokens": 1, "temperature": 0.0, "detokenize": False, "skip_reading_prefix_cache": not cached}
        return self._tokens(plan.fed, salt, common | wanted)

    def scored(self, plan: Plan, answer: Any) -> Rows:
        if self._runner == "v1":
            return _rows(plan, answer, _cached(answer) if self.reuses_prefix else 0)
        packed = answer["prompt_token_id_logprobs"]
        if packed is None:
            return Rows(None, _cached(answer))
        rows = np.load(io.BytesIO(base64.b64decode(packed)), allow_pickle=False)
        if len(rows) != len(plan.tokens):
            raise ValueError(f"{len(rows)} rows of log-probabilities of {len(plan.tokens)} tokens")
        return Rows(logprobs([float(row[0]) for row in rows]), _cached(answer))

    def _tokens(self, ids: list[int], salt: str, sampling: dict[str, Any]) -> Ask:
        body = {"model": self._name, "token_ids": ids, "cache_salt": salt, "sampling_params": sampling}
        return Ask("/inference/v1/generate", body)


def _drawing(call: GenerateCall, figures: Figures) -> dict[str, Any]:
    return {
        **_PLAIN,
        "max_tokens": figures.max_tokens,
        "temperature": call.temperature,
        "seed": figures.seed,
        "stop": [] if call.stop is None else [call.stop],
        "include_stop_str_in_output": call.stop is not None,
        "stop_token_ids": sorted(figures.eos_ids),
        "logprobs": 0 if figures.logprobs else None,
    }


def _rows(plan: Plan, holder: Any, cached_tokens: int | None) -> Rows:
    """Of all rows of a prompt, those of the plan; none where the cache served them, so that they hold no values."""
    told = holder["prompt_logprobs"]
    if told is None or cached_tokens is None or cached_tokens > plan.first - 1:
        return Rows(None, cached_tokens)
    rows = told[plan.first : plan.first + len(plan.tokens)]
    picked = [row[str(token)]["logprob"] for row, token in zip(rows, plan.tokens, strict=True)]
    return Rows(logprobs(picked), cached_tokens)


def _cached(answer: Any) -> int | None:
    details = (answer.get("usage") or {}).get("prompt_tokens_details")
    return None if details is None else details.get("cached_tokens") or 0
