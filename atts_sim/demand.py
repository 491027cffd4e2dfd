"""FLOPs and bytes that a simulation's requests demand, and the seconds that they take at the devices' peaks.

As `atts_runtime.profiler.intensity` counts them in a run: each request's own tokens, attention over the full
rectangle, the weights once a step; no padding.
"""

from __future__ import annotations

from collections.abc import Mapping

from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.steptime import StepModel
from atts_sim.driver import Request, Role, SimRun


def demanded(run: SimRun, steps: Mapping[Role, StepModel]) -> tuple[float, float]:
    """T_c and T_m in seconds, over all engines; `steps` by role, one object where roles share an engine."""
    compute_s = memory_s = 0.0
    rates = {role: Rates(model.spec) for role, model in steps.items()}
    peaks = {role: (m.tp * m.flops_per_s, m.tp * m.bytes_per_s) for role, m in steps.items()}
    flops, moved = dict.fromkeys(rates, 0), dict.fromkeys(rates, 0.0)
    for request in run.requests:
        role = request.role
        own_flops, own_bytes = request_demand(request, rates[role])
        flops[role] += own_flops
        moved[role] += own_bytes
    counted: set[int] = set()
    for role in rates:
        if role in run.totals and id(run.totals[role]) not in counted:
            counted.add(id(run.totals[role]))
            moved[role] += run.totals[role].steps * rates[role].weight_bytes(1, 1)
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
