"""Fitting a step model to measured steps: bounded least squares on relative errors, judged on points held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from atts_runtime.errors import InputError
from atts_runtime.profiler.grid import CallKind, CallSample, Sample
from atts_runtime.profiler.hardware import Peak
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.steptime import Padding, Phase, PhaseCosts, Range, StepModel, StepShape

__all__ = ["CallCosts", "PhaseFit", "Residuals", "fit_calls", "fit_costs", "fit_phase"]

Floats = NDArray[np.float64]

_SIZES = 24  # of a cache, that are tried
_WORTH = 0.8  # of the loss without a cache, that one with two more constants must not exceed
_OUTLIER = 0.1  # relative errors beyond this weigh linearly: a point that a neighbour disturbed must not bend the rest

KV_COPIES: dict[Phase, int] = {"append": 4, "decode": 0}
"""Passes over held keys and values besides attention's: an append copies them into its batch and out again."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Absolute relative errors of a fit over so many points: median and 90th percentile."""

    points: int
    median: float
    p90: float

    @classmethod
    def of(cls, errors: Floats) -> Self:
        """Of absolute relative errors, at least one."""
        return cls(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))


@dataclass(frozen=True, slots=True)
class PhaseFit:
    """A phase's coefficients, how well they fit and predict, and the range they were measured in."""

    costs: PhaseCosts
    fitted: Residuals
    held_out: Residuals
    range: Range


@dataclass(frozen=True, slots=True)
class CallCosts:
    """Seconds that a call takes besides its steps, and more for each token that its chain holds.

    A generating call is taken in, its keys and values are copied into the batch and, at its end, out. A scoring call is
    taken in; its copies are part of its append.
    """

    call_s: float
    token_s: float

    def seconds(self, cached_tokens: int) -> float:
        return self.call_s + self.token_s * cached_tokens


def fit_phase(phase: Phase, samples: Sequence[Sample], spec: ModelSpec, peak: Peak, padding: Padding) -> PhaseFit:
    """The costs that fit a phase's samples best, but for those held out (`fit_costs`).

    Raises InputError where there are too few points to fit or to judge.
    """
    mine = [sample for sample in samples if sample.phase == phase]
    held_out = np.array([sample.held_out for sample in mine], bool)
    if (~held_out).sum() < 6 or held_out.sum() < 2:
        raise InputError(f"{len(mine)} {phase} steps are too few to fit; choose a model with a longer context")
    fitted = [sample for sample in mine if not sample.held_out]
    rates = (peak.flops_per_s, peak.bytes_per_s)
    costs = fit_costs(
        phase,
        [sample.shape for sample in fitted],
        np.array([sample.seconds for sample in fitted]),
        spec,
        rates,
        padding,
        kv_copies=KV_COPIES[phase],
        cached=True,
    )
    model = StepModel(spec, *rates, costs, costs, padding)
    predicted = np.array([model.cost(phase, sample.shape).seconds for sample in mine])
    errors = np.abs(predicted / np.array([sample.seconds for sample in mine]) - 1)
    shapes, kept = [sample.shape for sample in mine], padding.row_kept if phase == "decode" else padding.kept
    limits = Range(
        max(shape.rows for shape in shapes),
        max(shape.new_tokens for shape in shapes),
        max(shape.rows * kept(shape.longest_kept) for shape in shapes),
        kept(max(shape.longest_kept for shape in shapes)),
    )
    return PhaseFit(costs, Residuals.of(errors[~held_out]), Residuals.of(errors[held_out]), limits)


def fit_costs(
    phase: Phase,
    shapes: Sequence[StepShape],
    seconds: Floats,
    spec: ModelSpec,
    peak: tuple[float, float],
    padding: Padding,
    *,
    kv_copies: int = 0,
    cached: bool = False,
) -> PhaseCosts:
    """The costs that fit steps of these shapes best; kernels follow one another (`PhaseCosts.overlapped` is false).

    Attention has an MFU of its own in appends; when decoding it cannot be told from the reading of keys and values, and
    rows may be in several groups.
    `peak`: the device's FLOP/s and bytes/s; `cached`: look for a cache, and tell what does not fit into it apart, if
    that fits better by `_WORTH`.
    """
    own_attention = phase == "append"
    flops_per_s, bytes_per_s = peak
    ideal = PhaseCosts(1.0, 1.0, 0.0, kv_copies=kv_copies)
    model = StepModel(spec, flops_per_s, bytes_per_s, ideal, ideal, padding)
    work = np.array([model.work(phase, shape) for shape in shapes], float)
    linear, attention, memory = work.T / np.array([[flops_per_s], [flops_per_s], [bytes_per_s]])
    compute = [linear, attention] if own_attention else [linear + attention]
    rows = np.array([shape.rows for shape in shapes], float)
    # Reciprocals of MFU and eta are at least 1, overheads at least 0, and so is what bytes beyond a cache cost more.
    bounded = len(compute) + 1
    groups = np.array([shape.groups - 1 for shape in shapes], float)
    several = [groups] if groups.any() else []
    least = np.array([1.0] * bounded + [0.0, 0.0] + [0.0] * len(several))
    terms = np.column_stack([*compute, memory, np.ones(len(shapes)), rows, *several])
    loss, found = _bounded(terms, seconds, least)
    cache, beyond = None, 0.0
    tried = []
    for size in _sizes(memory) if cached else ():
        more = np.column_stack([terms, np.maximum(0.0, memory - size)])
        tried.append((size, *_bounded(more, seconds, np.append(least, 0.0))))
    if tried and (best := min(tried, key=lambda one: one[1]))[1] < _WORTH * loss:
        cache, found, beyond = best[0], best[2], best[2][-1]
    reading = found[bounded - 1]
    return PhaseCosts(
        mfu=float(1 / found[0]),
        eta=float(1 / reading),
        step_s=float(found[bounded]),
        row_s=float(found[bounded + 1]),
        mfu_attention=float(1 / found[1]) if own_attention else None,
        kv_copies=kv_copies,
        cache_bytes=None if cache is None else float(cache * bytes_per_s),
        eta_beyond=None if cache is None else float(1 / (reading + beyond)),
        group_s=float(found[bounded + 2]) if several else None,
    )


def _sizes(memory: Floats) -> Floats:
    """Sizes of a cache to try, in seconds of moving as much: so that two steps or more lie on either side."""
    least, *_, most = np.sort(memory)[2:-2]
    return np.geomspace(least, most, _SIZES) if least < most else np.zeros(0)


def fit_calls(kind: CallKind, samples: Sequence[CallSample]) -> CallCosts:
    """The line through what calls took by tokens held."""
    mine = [sample for sample in samples if sample.kind == kind]
    terms = np.array([[1.0, sample.cached] for sample in mine])
    _, found = _bounded(terms, np.array([sample.seconds for sample in mine]), np.zeros(2))
    return CallCosts(float(found[0]), float(found[1]))


def _bounded(terms: Floats, seconds: Floats, least: Floats) -> tuple[float, Floats]:
    """Loss and coefficients, each at least `least`, of the terms' sum with the smallest relative errors.

    The loss is convex, so it has one minimum; the terms are scaled to the seconds that they typically make up.
    """
    from scipy.optimize import least_squares

    scale = np.median(seconds) / np.maximum(terms.mean(axis=0), 1e-300)
    relative = terms * scale / seconds[:, None]
    low = least / scale
    found = least_squares(
        lambda x: relative @ x - 1,
        np.maximum(low, 1 / len(scale)) + 1e-6,
        jac=lambda x: relative,
        bounds=(low, np.inf),
        loss="soft_l1",
        f_scale=_OUTLIER,
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
    )
    coefficients: Floats = np.maximum(found.x * scale, least)
    return float(found.cost), coefficients
