"""FLOPs and bytes that a simulation's requests demand, and the seconds that they take at the devices' peaks.

As `atts_runtime.profiler.intensity` counts them in a run: each request's own tokens, attention over the full
rectangle, the weights once a step, a question's prompt once an engine; no padding.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from atts_runtime.profiler.counts import Rates
from atts_sim.desk import Request, Role
from atts_sim.simrun import SimRun

Needs = tuple[int, int, int, int]
"""Tokens fed, query-key pairs, rows of logits, and tokens whose keys and values are read or written."""


def demanded(
    run: SimRun, rates: Mapping[Role, Rates], peaks: Mapping[Role, tuple[float, float]]
) -> tuple[float, float]:
    """T_c and T_m in seconds, over all engines. By role, of those that the run used: what a token costs, and FLOP/s
    and bytes/s of all the engine's devices together."""
    engine = {role: id(totals) for role, totals in run.totals.items()}
    needs_of: dict[Role, list[Needs]] = {role: [] for role in run.totals}
    seen_of: dict[int, set[Hashable]] = {of: set() for of in engine.values()}
    by_role = {role: (needs_of[role], seen_of[engine[role]]) for role in run.totals}
    for request in run.requests:
        if request.remembered:
            continue
        mine, seen = by_role[request.role]
        mine.append(needs(request))
        if request.prompt not in seen:
            seen.add(request.prompt)
            tokens = request.prompt_tokens
            if request.tokens_prefilled < tokens:  # a paged engine feeds it with the first call that needs it
                mine.append((tokens, tokens * tokens, 1, 2 * tokens))
    compute_s = memory_s = 0.0
    counted: set[int] = set()
    for role, totals in run.totals.items():
        flops, moved = 0, 0.0
        if needs_of[role]:
            *fed, kv_tokens = map(sum, zip(*needs_of[role], strict=True))
            flops, moved = rates[role].flops(*fed), rates[role].kv_bytes * kv_tokens
        if engine[role] not in counted:
            counted.add(engine[role])
            moved += totals.steps * rates[role].weight_bytes(1, 1)
        compute_s += flops / peaks[role][0]
        memory_s += moved / peaks[role][1]
    return compute_s, memory_s


def needs(request: Request) -> Needs:
    """Of the context that had to be fed, and of the request's own tokens."""
    context, fed, new = request.context_tokens, request.tokens_prefilled, request.new_tokens
    if request.kind == "score":
        tokens = logit_rows = new
        pairs, kv_tokens = new * (context + new), context + 2 * new
    else:
        tokens = logit_rows = new - 1  # the last token is drawn and not fed
        pairs = tokens * context + tokens * new // 2
        kv_tokens = pairs + tokens
    if fed:  # read, and written
        return tokens + fed, pairs + fed * context, logit_rows + 1, kv_tokens + context + fed
    return tokens, pairs, logit_rows, kv_tokens
