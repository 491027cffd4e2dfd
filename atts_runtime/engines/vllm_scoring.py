"""Scoring a segment with vLLM without computing its prefix again.

Row i of a prompt's log-probabilities is that of token i given those before it, computed from position i - 1. Of a
prompt whose tokens from `first` on are wanted, the cache may therefore serve at most first - 1. Asking for
log-probabilities makes vLLM skip its prefix cache altogether, unless told not to.

v2   model runner V2 (`prompt_logprob_token_ids`): the wanted rows alone. None where the cache served too much.
v1   model runner V1 (`prompt_logprobs`): all rows, of which those that the cache served hold whatever memory held.

An end of text after the segment is scored as the token drawn next. vLLM keeps room for that token, so a segment that
fills the context is fed without its last token, which is scored in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from atts_runtime.engines.request import Request

Runner = Literal["v1", "v2"]

ALL = -1
"""Of tokens: vLLM's word for it, as `logprobs` and `max_logprobs`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request asks: of the ids `fed`, the scores of `tokens`, which stand at `first` and after; and those of
    `next_ids`, their probabilities summed, as the token after them."""

    fed: list[int]
    first: int
    tokens: list[int]
    next_ids: tuple[int, ...]


def plan(request: Request, known: int, eos_ids: frozenset[int], max_context_tokens: int) -> Plan | None:
    """The request for all of the segment but its first `known` tokens; None where it reaches beyond the context."""
    first = min(request.context + known, len(request.full))
    tokens = request.full[first:]
    if len(request.full) < max_context_tokens:
        return Plan(request.full, first, tokens, tuple(sorted(eos_ids)) if request.eos else ())
    return None if request.eos or not tokens else Plan(request.full[:-1], first, tokens[:-1], (tokens[-1],))


def params(plan: Plan, runner: Runner, *, cached: bool, speculates: bool = False) -> Any:
    """`SamplingParams` for a plan; `cached` false: compute everything anew. `speculates`: the engine guesses tokens.
    vLLM 0.32 then dies where one call of a step asks for log-probabilities of tokens that it names and another has
    guesses, so those of all tokens are asked for."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    options: dict[str, Any] = {}
    if plan.tokens and runner == "v2":
        options |= {
            "prompt_logprob_token_ids": [[token] for token in plan.tokens],
            "prompt_logprob_start": plan.first - 1,
        }
    elif plan.tokens:
        options |= {"prompt_logprobs": 0, "flat_logprobs": True}
    if plan.next_ids and speculates:
        options["logprobs"] = ALL
    elif plan.next_ids:
        options["logprob_token_ids"] = list(plan.next_ids)
    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        skip_reading_prefix_cache=not cached,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **options,
    )


def read(plan: Plan, runner: Runner, output: Any) -> list[float] | None:
    """Negative log-likelihoods that were asked for; None where the cache served too much."""
    nll: list[float] = []
    if plan.tokens and runner == "v2":
        scores = output.prompt_token_id_logprobs
        if scores is None:
            return None
        nll = [-float(row[0]) for row in scores]
    elif plan.tokens:
        if output.prompt_logprobs is None or (output.num_cached_tokens or 0) > plan.first - 1:
            return None
        rows = output.prompt_logprobs[plan.first :]
        nll = [-row[token].logprob for row, token in zip(rows, plan.tokens, strict=True)]
    if plan.next_ids:
        drawn = output.outputs[0].logprobs[0]
        nll.append(-log_sum([drawn[token].logprob for token in plan.next_ids]))
    return nll


def log_sum(log_p: list[float]) -> float:
    """Logarithm of the sum of probabilities that are given by their logarithms."""
    most = max(log_p)
    return most + math.log(math.fsum(math.exp(x - most) for x in log_p)) if math.isfinite(most) else most
