"""Step times of an engine that nobody has profiled, from the logs of the runs that it served.

For engines that compute what is asked and no padding, as vLLM does. The form is the profiles' own
(`profiler.steptime`), fitted to passes during which no other engine of the run was in one; where they are not enough to
all, less what the other engine makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atts_runtime.errors import InputError
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.stepfit import fit_costs
from atts_runtime.profiler.steptime import RAGGED, PhaseCosts, StepModel, StepShape
from atts_sim.cost import Phase
from atts_sim.measured import Floats, StepLog, shape_of

_ENOUGH = 100  # passes by themselves; where a phase has fewer, all of its passes count
FEWEST = 10
"""Passes of a phase, below which nothing is fitted to it."""
_CONTENTION = np.linspace(0.0, 2.0, 11)


def model_of_logs(spec: ModelSpec, peak: tuple[float, float], logs: Sequence[StepLog]) -> StepModel:
    """A model of the engine's passes; `peak`: FLOP/s and bytes/s of its device. A phase of too few passes is taken to
    cost what the other costs. Raises InputError where both have too few."""
    known = {phase: _costs(phase, spec, peak, logs) for phase in ("append", "decode")}
    append, decode = known["append"] or known["decode"], known["decode"] or known["append"]
    if append is None or decode is None:
        raise InputError(f"the runs have too few steps of {spec.name} to tell what they cost; fit on longer ones")
    return StepModel(spec, *peak, append, decode, RAGGED)


def _costs(phase: Phase, spec: ModelSpec, peak: tuple[float, float], logs: Sequence[StepLog]) -> PhaseCosts | None:
    of = passes(phase, logs)
    if len(of.shapes) < FEWEST:
        return None
    return _fit(phase, spec, peak, of, contention(phase, spec, peak, of))


@dataclass(frozen=True, slots=True)
class Passes:
    """Of a phase: shapes, seconds, and the share of their time in which another engine of the run was in one."""

    shapes: list[StepShape]
    seconds: Floats
    shared: Floats

    def alone(self, contention: float) -> Floats:
        """Seconds, without what the other engines made of them."""
        return self.seconds / (1 + contention * self.shared)


def passes(phase: Phase, logs: Sequence[StepLog], like: Passes | None = None) -> Passes:
    """Those by themselves where they are enough, else all of a phase; `like`: as those were chosen."""
    shapes, seconds, shared = (
        np.concatenate([values[log.of(phase)] for log, values in zip(logs, of_logs, strict=True)])
        for of_logs in ([log.shapes for log in logs], [log.period_s for log in logs], [log.shared for log in logs])
    )
    alone = shared == 0
    enough = alone.sum() >= _ENOUGH if like is None else not like.shared.any()
    chosen = alone if enough else np.ones(len(alone), bool)
    return Passes([shape_of(shape) for shape in shapes[chosen]], seconds[chosen], shared[chosen])


def contention(phase: Phase, spec: ModelSpec, peak: tuple[float, float], of: Passes) -> float:
    """By how much passes are slower beside another engine; 0 where all are by themselves."""
    if not of.shared.any():
        return 0.0

    def loss(slower: float) -> float:
        costs = _fit(phase, spec, peak, of, slower)
        return float(errors(phase, StepModel(spec, *peak, costs, costs, RAGGED), of, slower).mean())

    return float(min(_CONTENTION, key=loss))


def errors(phase: Phase, model: StepModel, of: Passes, contention: float) -> Floats:
    """Absolute relative errors of what the passes would have taken by themselves."""
    predicted = np.array([model.cost(phase, shape).seconds for shape in of.shapes])
    found: Floats = np.abs(predicted / of.alone(contention) - 1)
    return found


def _fit(phase: Phase, spec: ModelSpec, peak: tuple[float, float], of: Passes, contention: float) -> PhaseCosts:
    return fit_costs(phase, of.shapes, of.alone(contention), spec, peak, RAGGED)
