"""Scoring a segment with vLLM without computing its prefix again.

Row i of a prompt's log-probabilities is that of token i given those before it, computed from position i - 1: of a segment
after C tokens the rows C and on are wanted, so the cache may serve at most C - 1 of them. Asking for
log-probabilities makes vLLM skip its prefix cache altogether, unless told not to.

v2   model runner V2 (`prompt_logprob_token_ids`): the segment's rows alone. None where the cache served too much.
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


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request is scored: `fed` ids; rows of `segment` from `context` on; the probabilities of `next_ids`, summed,
    as one more."""

    fed: list[int]
    context: int
    segment: list[int]
    next_ids: tuple[int, ...]


def plan(request: Request, eos_ids: frozenset[int], max_context_tokens: int) -> Plan | None:
    """None where the end of text lies beyond the context."""
    segment = request.segment
    if len(request.full) < max_context_tokens:
        return Plan(request.full, request.context, segment, tuple(sorted(eos_ids)) if request.eos else ())
    return None if request.eos else Plan(request.full[:-1], request.context, segment[:-1], (segment[-1],))


def params(plan: Plan, runner: Runner, *, cached: bool) -> Any:
    """`SamplingParams` for a plan; `cached` false: compute the prefix anew."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    options: dict[str, Any] = {}
    if plan.segment and runner == "v2":
        options |= {
            "prompt_logprob_token_ids": [[token] for token in plan.segment],
            "prompt_logprob_start": plan.context - 1,
        }
    elif plan.segment:
        options |= {"prompt_logprobs": 0, "flat_logprobs": True}
    if plan.next_ids:
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
    """Negative log-likelihoods of the segment's tokens and of what comes next; None where the cache served too much."""
    nll: list[float] = []
    if plan.segment and runner == "v2":
        rows = output.prompt_token_id_logprobs
        if rows is None:
            return None
        nll = [-float(row[0]) for row in rows]
    elif plan.segment:
        if output.prompt_logprobs is None or (output.num_cached_tokens or 0) > plan.context - 1:
            return None
        rows = output.prompt_logprobs[plan.context :]
        nll = [-row[token].logprob for row, token in zip(rows, plan.segment, strict=True)]
    if plan.next_ids:
        drawn = output.outputs[0].logprobs[0]
        most = max(drawn[token].logprob for token in plan.next_ids)
        total = math.fsum(math.exp(drawn[token].logprob - most) for token in plan.next_ids) if most > -math.inf else 1.0
        nll.append(-(most + math.log(total)))
    return nll
