"""FLOPs and bytes that a simulation's requests demand, and the seconds that they take at the devices' peaks.

As `atts_runtime.profiler.intensity` counts them in a run: each request's own tokens, attention over the full
rectangle, the weights once a step; no padding.
"""

from __future__ import annotations

from collections.abc import Mapping

from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.steptime import StepModel
from atts_sim.driver import Request, Role, SimRun

Needs = tuple[int, int, int, int]
"""Tokens fed, query-key pairs, rows of logits, and tokens whose keys and values are read or written."""


def demanded(run: SimRun, steps: Mapping[Role, StepModel]) -> tuple[float, float]:
    """T_c and T_m in seconds, over all engines; `steps` by role, one object where roles share an engine."""
    compute_s = memory_s = 0.0
    needs_of: dict[Role, list[Needs]] = {role: [] for role in steps}
    for request in run.requests:
        needs_of[request.role].append(needs(request))
    counted: set[int] = set()
    for role, model in steps.items():
        rates, totals = Rates(model.spec), run.totals.get(role)
        flops, moved = 0, 0.0
        if needs_of[role]:
            *fed, kv_tokens = map(sum, zip(*needs_of[role], strict=True))
            flops, moved = rates.flops(*fed), rates.kv_bytes * kv_tokens
        if totals is not None and id(totals) not in counted:
            counted.add(id(totals))
            moved += totals.steps * rates.weight_bytes(1, 1)
        compute_s += flops / (model.tp * model.flops_per_s)
        memory_s += moved / (model.tp * model.bytes_per_s)
    return compute_s, memory_s


def needs(request: Request) -> Needs:
    """Of the context that had to be fed, and of the request's own tokens."""
    context, fed, new = request.context_tokens, request.tokens_prefilled, request.new_tokens
    if request.kind == "score":
        tokens, pairs, logit_rows, kv_tokens = new, new * (context + new), new, context + 2 * new
    else:
        tokens = logit_rows = new - 1  # the last token is drawn and not fed
        pairs = tokens * context + tokens * new // 2
        kv_tokens = pairs + tokens
    if fed:  # read, and written
        return tokens + fed, pairs + fed * context, logit_rows + 1, kv_tokens + context + fed
    return tokens, pairs, logit_rows, kv_tokens
