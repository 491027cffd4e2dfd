"""From an engine's log to what its correction is fitted to: what the profile says of steps, and how new rows are."""

from __future__ import annotations

import numpy as np

from atts_runtime.profiler.steptime import StepModel
from atts_sim.correction import Growth, Recency, Samples
from atts_sim.cost import Phase, StepShape
from atts_sim.measured import Floats, StepLog, shape_of


def samples_of(log: StepLog, phase: Phase, model: StepModel, *, apart: bool) -> Samples:
    """An engine's steps of a phase in a run; `model`: what the profile says; `apart`: in a process of its own."""
    mine = log.of(phase)
    shapes = log.shapes[mine]
    # Steps of one shape cost the same, and a run has many of few shapes.
    distinct, inverse = np.unique(shapes, axis=0, return_inverse=True)
    known = np.array([model.cost(phase, _as_made(shape_of(shape), model)).seconds for shape in distinct])
    profile = known[inverse.ravel()] if len(distinct) else np.zeros(0)
    rows = shapes[:, 0].astype(np.float64)
    recent = rows_new(log)[mine] if phase == "decode" else np.zeros(len(rows))
    grown = np.zeros(len(rows))
    if phase == "append" and not apart:  # an engine that pages its KV has all of its memory from the start
        growth = Growth()
        grown = np.array([growth.of(int(step[0]), int(step[4])) for step in shapes], dtype=np.float64)
    # Of engines of one process a simulation knows whether the other is in a pass when one begins, and so does the fit.
    shared = log.shared if apart else log.beside.astype(np.float64)
    return Samples(log.period_s[mine], profile, rows, shared[mine], log.calls[mine], recent, grown)


def _as_made(shape: StepShape, model: StepModel) -> StepShape:
    """A logged step, whose rows all attended over as much as the longest where the log does not say otherwise."""
    if shape.attended is not None or not model.row_stops:
        return shape
    return shape._replace(attended=shape.rows * model.padding.kept(shape.longest_kept))


def rows_new(log: StepLog) -> Floats:
    """[passes] how new the rows of decode passes were: rows that the calls which ended before do not account for."""
    recency, found, stayed = Recency(), np.zeros(len(log.append)), 0
    for i, (append, rows, left) in enumerate(zip(log.append, log.shapes[:, 0], log.left, strict=True)):
        if not append:
            found[i] = recency.of(int(rows), max(0, int(rows) - stayed))
            stayed = int(rows)
        stayed = max(0, stayed - int(left))
    return found
