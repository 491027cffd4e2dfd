"""What is asked of an SGLang server and how its answers read: `/generate` with ids.

Log-probabilities of a prompt from position p on have no value for the token at p itself, so to score a segment that
starts at C they are asked for from C - 1; the prefix cache serves what lies before. `sampling_seed` is obeyed by
servers that were started with ``--enable-deterministic-inference``; elsewhere a chain's text depends on the others'.

Log-probabilities of what is drawn are of the distribution at the temperature it was drawn at (unless the server's
SGLANG_RETURN_ORIGINAL_LOGPROB is set, which nobody can see), and greedy ones the model's own. So they are asked for
where the two are the same: at a temperature of 0 or 1.
"""

from __future__ import annotations

from typing import Any

from atts_runtime.engines.base import GenerateCall
from atts_runtime.engines.http_dialect import Ask, Figures, Rows, Written, logprobs
from atts_runtime.engines.http_errors import Unanswered
from atts_runtime.engines.vllm_scoring import Plan

_PLAIN = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_SEED_BITS = 0x7FFFFFFF
_PLAIN_TEMPERATURES = (0.0, 1.0)


class Sglang:
    """`/generate` of SGLang."""

    reuses_prefix = True

    def generate(self, ids: list[int], call: GenerateCall, figures: Figures) -> Ask:
        sampling = {
            **_PLAIN,
            "max_new_tokens": figures.max_tokens,
            "temperature": call.temperature,
            "sampling_seed": figures.seed & _SEED_BITS,
            "stop": [] if call.stop is None else [call.stop],
            "stop_token_ids": sorted(figures.eos_ids),
            "no_stop_trim": True,
        }
        more = {"return_logprob": True} if figures.logprobs and call.temperature in _PLAIN_TEMPERATURES else {}
        return _ask(ids, figures.salt, sampling, more)

    def written(self, answer: Any) -> Written:
        told = answer["meta_info"].get("output_token_logprobs")
        nll = None if told is None else logprobs([row[0] for row in told])
        return Written(answer["output_ids"], nll, _cached(answer))

    def score(self, plan: Plan, salt: str, *, cached: bool) -> Ask:
        start = plan.first - 1 if cached else 0
        return _ask(plan.fed, salt, _GREEDY, {"return_logprob": True, "logprob_start_len": start})

    def scored(self, plan: Plan, answer: Any) -> Rows:
        last = answer["meta_info"]["input_token_logprobs"][-len(plan.tokens) :]
        if [row[1] for row in last] != plan.tokens:
            raise Unanswered("the log-probabilities are those of other tokens than were sent", "request")
        return Rows(logprobs([row[0] for row in last]), _cached(answer))

    def next_token(self, plan: Plan, salt: str) -> Ask:
        """How likely each of `plan.next_ids` is after what is fed."""
        return _ask(plan.fed, salt, _GREEDY, {"return_logprob": True, "token_ids_logprob": list(plan.next_ids)})

    def read_next(self, plan: Plan, answer: Any) -> Rows:
        told = {row[1]: row[0] for row in answer["meta_info"]["output_token_ids_logprobs"][0]}
        return Rows(logprobs([told[token] for token in plan.next_ids]), _cached(answer))


_GREEDY = {"max_new_tokens": 1, "temperature": 0.0}


def _ask(ids: list[int], salt: str, sampling: dict[str, Any], more: dict[str, Any]) -> Ask:
    return Ask("/generate", {"input_ids": ids, "sampling_params": sampling, "extra_key": salt, **more})


def _cached(answer: Any) -> int | None:
    cached: int | None = answer["meta_info"].get("cached_tokens")
    return cached
