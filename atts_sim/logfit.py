"""Step times of an engine that nobody has profiled, from the logs of the runs that it served.

For engines that compute what is asked and no padding, as vLLM does. The form is the profiles' own
(`profiler.steptime`), fitted to passes during which no other engine of the run was in one, as far as there are enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atts_runtime.errors import InputError
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.stepfit import fit_costs
from atts_runtime.profiler.steptime import RAGGED, PhaseCosts, StepModel, StepShape
from atts_sim.cost import Phase
from atts_sim.measured import StepLog

_ENOUGH = 100  # passes by themselves; where a phase has fewer, all of its passes count
_FEWEST = 10


def model_of_logs(spec: ModelSpec, peak: tuple[float, float], logs: Sequence[StepLog]) -> StepModel:
    """A model of the engine's passes; `peak`: FLOP/s and bytes/s of its device. A phase of too few passes is taken to
    cost what the other costs. Raises InputError where both have too few."""
    known = {phase: _costs(phase, spec, peak, logs) for phase in ("append", "decode")}
    append, decode = known["append"] or known["decode"], known["decode"] or known["append"]
    if append is None or decode is None:
        raise InputError(f"the runs have too few steps of {spec.name} to tell what they cost; fit on longer ones")
    return StepModel(spec, *peak, append, decode, RAGGED)


def _costs(phase: Phase, spec: ModelSpec, peak: tuple[float, float], logs: Sequence[StepLog]) -> PhaseCosts | None:
    shapes, seconds, shared = (
        np.concatenate([values[log.of(phase)] for log, values in zip(logs, of_logs, strict=True)])
        for of_logs in ([log.shapes for log in logs], [log.period_s for log in logs], [log.shared for log in logs])
    )
    alone = shared == 0
    chosen = alone if alone.sum() >= _ENOUGH else np.ones(len(alone), bool)
    if chosen.sum() < _FEWEST:
        return None
    steps = [StepShape(*map(int, shape)) for shape in shapes[chosen]]
    return fit_costs(phase, steps, seconds[chosen], spec, peak, RAGGED)
