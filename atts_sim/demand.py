"""FLOPs and bytes that a simulation's requests demand, and the seconds that they take at the devices' peaks.

As `atts_runtime.profiler.intensity` counts them in a run: each request's own tokens, attention over the full
rectangle, the weights once a step, a question's prompt once an engine; no padding.
"""

from __future__ import annotations

from collections.abc import Mapping

from atts_runtime.profiler.counts import Rates
from atts_sim.driver import Request, Role, SimRun


def demanded(
    run: SimRun, rates: Mapping[Role, Rates], peaks: Mapping[Role, tuple[float, float]]
) -> tuple[float, float]:
    """T_c and T_m in seconds, over all engines. By role, of those that the run used: what a token costs, and FLOP/s
    and bytes/s of all the engine's devices together."""
    compute_s = memory_s = 0.0
    flops, moved = dict.fromkeys(run.totals, 0), dict.fromkeys(run.totals, 0.0)
    engine = {role: id(totals) for role, totals in run.totals.items()}
    seen = set()
    for request in run.requests:
        role = request.role
        own_flops, own_bytes = request_demand(request, rates[role])
        flops[role] += own_flops
        moved[role] += own_bytes
        prompt = (engine[role], request.prompt)
        if prompt not in seen:
            seen.add(prompt)
            tokens = request.prompt_tokens
            if request.tokens_prefilled >= tokens:
                continue  # a paged engine feeds it with the first call that needs it
            flops[role] += rates[role].flops(tokens, tokens * tokens, 1)
            moved[role] += 2 * tokens * rates[role].kv_bytes
    counted = set()
    for role, totals in run.totals.items():
        if engine[role] not in counted:
            counted.add(engine[role])
            moved[role] += totals.steps * rates[role].weight_bytes(1, 1)
        compute_s += flops[role] / peaks[role][0]
        memory_s += moved[role] / peaks[role][1]
    return compute_s, memory_s


def request_demand(request: Request, rates: Rates) -> tuple[int, float]:
    """FLOPs, and bytes but for the weights: of the context that had to be fed, then of the request's own tokens."""
    context, fed, new = request.context_tokens, request.tokens_prefilled, request.new_tokens
    flops = rates.flops(fed, fed * context, 1 if fed else 0)
    kv_tokens = context + fed if fed else 0  # read, and written
    if request.kind == "score":
        flops += rates.flops(new, new * (context + new), new)
        kv_tokens += context + 2 * new
    else:
        steps = new - 1  # the last token is drawn and not fed
        pairs = steps * context + steps * (steps + 1) // 2
        flops += rates.flops(steps, pairs, steps)
        kv_tokens += pairs + steps
    return flops, rates.kv_bytes * kv_tokens
